"""Whether probabilities mean what they say, so that of samples given 0.8 four in five are right."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skdeepcluster.metrics._predictions import match_predictions

_STRATEGIES: tuple[str, ...] = ("uniform", "quantile")


def expected_calibration_error(
    labels_true: ArrayLike,
    probabilities: ArrayLike,
    /,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> float:
    r"""Mean gap between confidence and accuracy over bins of the confidence (ECE).

    The confidence of a sample is its largest probability; the sample is right if the most probable
    cluster is the one matched to its class. Clusters are matched to classes as in
    :func:`clustering_accuracy`. With bins :math:`B_1, \dots, B_M` of the confidence,

    .. math:: \sum_m \frac{|B_m|}{n} \, |\mathrm{accuracy}(B_m) - \mathrm{confidence}(B_m)|.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.
    n_bins : int, default=15
        Number of bins; 15 is the number most papers report. More bins see finer structure but need
        more samples: noise inside a bin counts as a gap.
    strategy : {"uniform", "quantile"}, default="uniform"
        "uniform" cuts [0, 1] into bins of equal width, the form in the literature. "quantile" puts
        equally many samples into each bin, which is steadier where most confidences are near 1.
        Samples of equal confidence always share a bin.

    Returns
    -------
    error : float
        Between 0 (confidence equals accuracy in every bin) and 1.

    Raises
    ------
    ValueError
        If the labels are empty, not one-dimensional or hold NaN; if `probabilities` is not an array
        of shape (n_samples, n_clusters) whose rows are finite, not negative and sum to 1 (within
        0.001); if the lengths differ; if `n_bins` is not a positive integer; if `strategy` is
        unknown.

    See Also
    --------
    maximum_calibration_error : The largest gap instead of the mean one.
    reliability_curve : Confidence and accuracy bin by bin.
    skdeepcluster.display.ReliabilityDisplay : The picture of it.

    Notes
    -----
    Bins are open on the left and closed on the right, as in Guo et al. A confidence on the edge of
    two bins thus counts in the lower one; implementations differ in this.

    Of equally probable clusters the first counts as the most probable, as in :func:`numpy.argmax`.
    Where several matchings make equally many samples right, all scores of probabilities use the one
    that gives the true classes most probability.

    References
    ----------
    M. P. Naeini, G. F. Cooper, M. Hauskrecht. "Obtaining well calibrated probabilities using
    Bayesian binning." AAAI 2015.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks."
    ICML 2017.

    Examples
    --------
    Three samples in four are right where 90 % is claimed:

    >>> from skdeepcluster.metrics import expected_calibration_error
    >>> probabilities = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]
    >>> round(expected_calibration_error(["cat", "cat", "dog", "dog"], probabilities), 6)
    0.15
    """
    confidence, accuracy, share = reliability_curve(
        labels_true, probabilities, n_bins=n_bins, strategy=strategy
    )
    return float(share @ np.abs(accuracy - confidence))


def maximum_calibration_error(
    labels_true: ArrayLike,
    probabilities: ArrayLike,
    /,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> float:
    """Largest gap between confidence and accuracy over bins of the confidence (MCE).

    Every bin with a sample counts the same, so a bin with few samples can decide the value; with
    ``strategy="quantile"`` no bin has few. Clusters are matched to classes as in
    :func:`clustering_accuracy`.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.
    n_bins : int, default=15
        Number of bins; 15 is the number most papers report.
    strategy : {"uniform", "quantile"}, default="uniform"
        "uniform" cuts [0, 1] into bins of equal width, the form in the literature; "quantile" puts
        equally many samples into each bin.

    Returns
    -------
    error : float
        Between 0 (confidence equals accuracy in every bin) and 1, and at least
        :func:`expected_calibration_error` on the same bins.

    Raises
    ------
    ValueError
        As in :func:`expected_calibration_error`.

    See Also
    --------
    expected_calibration_error : The mean gap, with every sample weighted equally.

    References
    ----------
    M. P. Naeini, G. F. Cooper, M. Hauskrecht. "Obtaining well calibrated probabilities using
    Bayesian binning." AAAI 2015.

    Examples
    --------
    The single sample at 0.6 is wrong, the three at 0.9 are right:

    >>> from skdeepcluster.metrics import maximum_calibration_error
    >>> probabilities = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]
    >>> round(maximum_calibration_error(["cat", "cat", "dog", "dog"], probabilities), 6)
    0.6
    """
    confidence, accuracy, _ = reliability_curve(
        labels_true, probabilities, n_bins=n_bins, strategy=strategy
    )
    return float(np.abs(accuracy - confidence).max())


def reliability_curve(
    labels_true: ArrayLike,
    probabilities: ArrayLike,
    /,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Confidence and accuracy in bins of the confidence, for a reliability diagram.

    Clusters are matched to classes as in :func:`clustering_accuracy`. Bins without samples are left
    out.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.
    n_bins : int, default=15
        Number of bins before empty ones are left out; 15 is the number most papers report.
    strategy : {"uniform", "quantile"}, default="uniform"
        "uniform" cuts [0, 1] into bins of equal width; "quantile" puts equally many samples into
        each bin.

    Returns
    -------
    confidence : ndarray of shape (n_filled_bins,)
        Mean over the samples of each bin of their largest probability, in increasing order.
    accuracy : ndarray of shape (n_filled_bins,)
        Share of the samples of each bin whose most probable cluster is matched to their class.
    share : ndarray of shape (n_filled_bins,)
        Share of all samples that is in each bin; sums to 1.

    Raises
    ------
    ValueError
        As in :func:`expected_calibration_error`.

    See Also
    --------
    skdeepcluster.display.ReliabilityDisplay : The picture of it.

    Examples
    --------
    >>> from skdeepcluster.metrics import reliability_curve
    >>> probabilities = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]
    >>> confidence, accuracy, share = reliability_curve([0, 0, 1, 1], probabilities, n_bins=10)
    >>> confidence.round(6), accuracy, share
    (array([0.6, 0.9]), array([0., 1.]), array([0.25, 0.75]))
    """
    if not isinstance(n_bins, (int, np.integer)) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer of at least 1; got {n_bins!r}.")
    if strategy not in _STRATEGIES:
        raise ValueError(f"strategy must be one of {_STRATEGIES}; got {strategy!r}.")
    matched = match_predictions(labels_true, probabilities)
    confidence, n_samples = matched.confidence, len(matched.confidence)

    # The upper edges of all bins but the last. Dividing last, not multiplying by a rounded width,
    # makes an edge such as 3/15 the very number that a confidence of 0.2 is.
    upper = np.arange(1, n_bins)
    if strategy == "uniform":
        edges = upper / n_bins
    else:
        ranks = np.ceil(upper * n_samples / n_bins).astype(np.intp)
        edges = np.sort(confidence)[ranks - 1]
    bins = np.searchsorted(edges, confidence, side="left")

    sizes = np.bincount(bins, minlength=n_bins)
    filled = sizes > 0
    mean_confidence = np.bincount(bins, confidence, n_bins)[filled] / sizes[filled]
    accuracy = np.bincount(bins, matched.correct, n_bins)[filled] / sizes[filled]
    return mean_confidence, accuracy, sizes[filled] / n_samples


def brier_score(labels_true: ArrayLike, probabilities: ArrayLike, /) -> float:
    """Mean squared distance between the probabilities and the truth (multi-class Brier score).

    Squared differences are summed over classes and averaged over samples, as Brier defined it for
    several classes. Clusters are matched to classes as in :func:`clustering_accuracy`; a class left
    without a cluster has probability 0, and a cluster left without a class is a further outcome
    that is never true.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.

    Returns
    -------
    score : float
        Between 0 (every true class has probability 1) and 2 (another one always has). Lower is
        better.

    Raises
    ------
    ValueError
        If the labels are empty, not one-dimensional or hold NaN; if `probabilities` is not an array
        of shape (n_samples, n_clusters) whose rows are finite, not negative and sum to 1 (within
        0.001); if the lengths differ.

    See Also
    --------
    negative_log_likelihood : Punishes confident mistakes harder.
    sklearn.metrics.brier_score_loss : The same for classes instead of clusters.

    Notes
    -----
    This is a proper score: it is best in expectation for the true probabilities, and judges
    calibration and accuracy together. For two clusters it is twice the usual binary value.

    References
    ----------
    G. W. Brier. "Verification of forecasts expressed in terms of probability." Monthly Weather
    Review 78, 1950.

    Examples
    --------
    >>> from skdeepcluster.metrics import brier_score
    >>> round(brier_score(["cat", "dog"], [[0.9, 0.1], [0.2, 0.8]]), 6)
    0.05
    """
    matched = match_predictions(labels_true, probabilities)
    has_cluster = matched.true_cluster >= 0
    difference = matched.probabilities.astype(np.float64)
    difference[has_cluster, matched.true_cluster[has_cluster]] -= 1
    # A class without a cluster has no column: its difference of 1 is added to the row's sum.
    squares = np.square(difference).sum(axis=1) + ~has_cluster
    return float(squares.mean())


def negative_log_likelihood(labels_true: ArrayLike, probabilities: ArrayLike, /) -> float:
    """Mean negative logarithm of the probability given to the true class, in nats.

    Clusters are matched to classes as in :func:`clustering_accuracy`; a class left without a
    cluster has probability 0.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1. They are raised
        to the machine epsilon of their precision so that the value stays finite: one sample costs
        at most 36.0 nats in float64 (also used for lists and integers), 15.9 in float32 and 6.9 in
        float16. Compare models in the same precision.

    Returns
    -------
    loss : float
        From 0 (every true class has probability 1) up to the bound above. Lower is better.

    Raises
    ------
    ValueError
        If the labels are empty, not one-dimensional or hold NaN; if `probabilities` is not an array
        of shape (n_samples, n_clusters) whose rows are finite, not negative and sum to 1 (within
        0.001); if the lengths differ.

    See Also
    --------
    brier_score : Bounded, and so less driven by a few confident mistakes.
    sklearn.metrics.log_loss : The same for classes instead of clusters.

    Notes
    -----
    This is a proper score: it is best in expectation for the true probabilities, and judges
    calibration and accuracy together.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks."
    ICML 2017.

    Examples
    --------
    >>> from skdeepcluster.metrics import negative_log_likelihood
    >>> round(negative_log_likelihood(["cat", "dog"], [[0.9, 0.1], [0.2, 0.8]]), 6)
    0.164252
    """
    matched = match_predictions(labels_true, probabilities)
    has_cluster = matched.true_cluster >= 0
    of_truth = np.zeros(len(has_cluster))
    of_truth[has_cluster] = matched.probabilities[has_cluster, matched.true_cluster[has_cluster]]
    # The upper end matters for rows that exceed 1 within the tolerance: no sample earns nats.
    of_truth = of_truth.clip(np.finfo(matched.probabilities.dtype).eps, 1)
    return float(np.log(1 / of_truth).mean())
