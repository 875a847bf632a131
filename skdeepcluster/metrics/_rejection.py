"""Whether confidence tells right samples from wrong ones, so that doubtful ones can be set aside.

Unlike calibration this looks at the order of the confidences alone: any increasing function of them
gives the same scores.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from skdeepcluster.metrics._predictions import match_predictions


def failure_auroc(labels_true: ArrayLike, probabilities: ArrayLike, /) -> float:
    """Chance that a right sample has more confidence than a wrong one (failure AUROC).

    The confidence of a sample is its largest probability; the sample is right if the most probable
    cluster is the one matched to its class. Clusters are matched to classes as in
    :func:`clustering_accuracy`. Pairs of equal confidence count one half.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.

    Returns
    -------
    area : float
        0.5 for confidences that tell nothing, 1 if every right sample is above every wrong one. NaN
        if all samples are right or all are wrong.

    Raises
    ------
    ValueError
        If the labels are empty, not one-dimensional or hold NaN; if `probabilities` is not an array
        of shape (n_samples, n_clusters) whose rows are finite, not negative and sum to 1 (within
        0.001); if the lengths differ.

    Warns
    -----
    UndefinedMetricWarning
        If all samples are right or all are wrong, as :func:`sklearn.metrics.roc_auc_score` does.

    See Also
    --------
    area_under_risk_coverage : Also counts how many samples are wrong, and is always defined.
    false_positive_rate_at_95_recall : The same comparison at one threshold.

    References
    ----------
    D. Hendrycks, K. Gimpel. "A baseline for detecting misclassified and out-of-distribution
    examples in neural networks." ICLR 2017.

    Examples
    --------
    The wrong sample has less confidence than two of the three right ones:

    >>> from skdeepcluster.metrics import failure_auroc
    >>> probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]
    >>> round(failure_auroc(["cat", "cat", "dog", "dog"], probabilities), 6)
    0.666667
    """
    matched = match_predictions(labels_true, probabilities)
    if _is_one_sided(matched.correct, "failure_auroc"):
        return float("nan")
    return float(roc_auc_score(matched.correct, matched.confidence))


def false_positive_rate_at_95_recall(labels_true: ArrayLike, probabilities: ArrayLike, /) -> float:
    """Share of the wrong samples that is accepted when 95 % of the right ones are (FPR95).

    A sample is accepted if its confidence, the largest of its probabilities, reaches a threshold:
    the highest one that accepts at least 95 % of the right samples. Samples of equal confidence are
    accepted together. Clusters are matched to classes as in :func:`clustering_accuracy`.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.

    Returns
    -------
    rate : float
        Between 0 (the threshold stops every wrong sample) and 1 (it stops none). NaN if all samples
        are right or all are wrong.

    Raises
    ------
    ValueError
        As in :func:`failure_auroc`.

    Warns
    -----
    UndefinedMetricWarning
        If all samples are right or all are wrong.

    See Also
    --------
    failure_auroc : The same comparison over all thresholds.

    References
    ----------
    S. Liang, Y. Li, R. Srikant. "Enhancing the reliability of out-of-distribution image detection
    in neural networks." ICLR 2018.

    Examples
    --------
    Of the two wrong samples the one at 0.7 is above the least confident right sample:

    >>> from skdeepcluster.metrics import false_positive_rate_at_95_recall
    >>> probabilities = [[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55]]
    >>> false_positive_rate_at_95_recall(["a", "a", "b", "b", "b", "a"], probabilities)
    0.5
    """
    matched = match_predictions(labels_true, probabilities)
    if _is_one_sided(matched.correct, "false_positive_rate_at_95_recall"):
        return float("nan")
    right = np.sort(matched.confidence[matched.correct])
    # At most 5 % of the right samples may fall below the threshold; in whole numbers, because
    # 0.05 is not one in binary.
    threshold = right[len(right) * 5 // 100]
    return float(np.mean(matched.confidence[~matched.correct] >= threshold))


def area_under_risk_coverage(labels_true: ArrayLike, probabilities: ArrayLike, /) -> float:
    r"""Mean error of the kept samples over all shares kept, most confident first (AURC).

    With the samples in order of falling confidence (the largest of their probabilities) and
    :math:`e_j = 1` where the j-th is wrong,

    .. math:: \frac{1}{n} \sum_{i=1}^{n} \frac{1}{i} \sum_{j=1}^{i} e_j.

    Samples of equal confidence have no order; the value is the expected one over all their orders,
    and so does not depend on the order of the rows. Clusters are matched to classes as in
    :func:`clustering_accuracy`.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.

    Returns
    -------
    area : float
        Between 0 (no sample is wrong) and 1 (all are). The share of wrong samples if confidence
        tells nothing. Lower is better.

    Raises
    ------
    ValueError
        As in :func:`failure_auroc`.

    See Also
    --------
    rejection_curve : The accuracies this is made of.
    failure_auroc : Judges the order alone, whatever the number of wrong samples.
    skdeepcluster.display.RejectionDisplay : The picture of it.

    References
    ----------
    Y. Geifman, R. El-Yaniv. "Selective classification for deep neural networks." NeurIPS 2017.

    Y. Geifman, G. Uziel, R. El-Yaniv. "Bias-reduced uncertainty estimation for deep neural
    classifiers." ICLR 2019.

    Examples
    --------
    The wrong sample is the third in confidence: errors 0, 0, 1/3 and 1/4.

    >>> from skdeepcluster.metrics import area_under_risk_coverage
    >>> probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]
    >>> round(area_under_risk_coverage(["cat", "cat", "dog", "dog"], probabilities), 6)
    0.145833
    """
    _, accuracy = rejection_curve(labels_true, probabilities)
    return float(1 - accuracy.mean())


def rejection_curve(
    labels_true: ArrayLike, probabilities: ArrayLike, /
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy of the kept samples for every number kept, most confident first.

    Clusters are matched to classes once, on all samples, as in :func:`clustering_accuracy`. Among
    samples of equal confidence the accuracy is the expected one over their orders.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    probabilities : array-like of shape (n_samples, n_clusters)
        Cluster probabilities as `predict_proba` returns them; every row sums to 1.

    Returns
    -------
    coverage : ndarray of shape (n_samples,)
        Share of samples kept: 1/n_samples, 2/n_samples, ..., 1.
    accuracy : ndarray of shape (n_samples,)
        Share of the kept samples that is right; the last is :func:`clustering_accuracy`.

    Raises
    ------
    ValueError
        As in :func:`failure_auroc`.

    See Also
    --------
    area_under_risk_coverage : One number for the curve.
    skdeepcluster.display.RejectionDisplay : The picture of it.

    Examples
    --------
    >>> from skdeepcluster.metrics import rejection_curve
    >>> probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]
    >>> rejection_curve(["cat", "cat", "dog", "dog"], probabilities)
    (array([0.25, 0.5 , 0.75, 1.  ]), array([1.        , 1.        , 0.66666667, 0.75      ]))
    """
    matched = match_predictions(labels_true, probabilities)
    order = np.argsort(-matched.confidence)
    confidence, correct = matched.confidence[order], matched.correct[order]
    kept = np.arange(1, len(order) + 1)
    # In a random order the expected number of right samples grows linearly through a group of
    # equal confidence, so the counts at the ends of the groups say everything.
    ends = np.append(np.flatnonzero(np.diff(confidence)), len(order) - 1)
    n_right = np.interp(kept, np.append(0, kept[ends]), np.append(0, np.cumsum(correct)[ends]))
    return kept / len(order), n_right / kept


def _is_one_sided(correct: NDArray[np.bool_], metric: str) -> bool:
    """Whether there is no right or no wrong sample to compare with; warns if so."""
    if correct.any() and not correct.all():
        return False
    warnings.warn(
        f"{metric} compares right samples with wrong ones, but all {len(correct)} samples are "
        f"{'right' if correct[0] else 'wrong'}: the score is undefined and set to NaN.",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return True
