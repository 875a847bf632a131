"""How well found clusters match known classes.

Cluster numbers mean nothing by themselves, so both scores first give every cluster at most one
class and every class at most one cluster, in the way that makes most samples right. They complement
scikit-learn's own :func:`~sklearn.metrics.normalized_mutual_info_score` and
:func:`~sklearn.metrics.adjusted_rand_score`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_array, check_consistent_length, column_or_1d

__all__ = ["class_averaged_accuracy", "clustering_accuracy"]


def clustering_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike, /) -> float:
    """Share of samples that are right under the best matching of clusters to classes.

    The matching is one to one. Where there are more clusters than classes, the samples of the
    clusters left without a class count as wrong; where there are fewer, so do the samples of the
    classes left without a cluster.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    labels_pred : array-like of shape (n_samples,)
        Found clusters. Only which samples share a label matters, not the labels themselves.

    Returns
    -------
    accuracy : float
        Between 0 (exclusive) and 1 (the partitions are equal).

    Raises
    ------
    ValueError
        If a label array is empty, not one-dimensional, holds NaN, or the lengths differ.

    See Also
    --------
    class_averaged_accuracy : The same with every class weighted equally.

    References
    ----------
    H. W. Kuhn. "The Hungarian method for the assignment problem." Naval Research Logistics
    Quarterly 2, 1955.

    Examples
    --------
    >>> from skdeepcluster.metrics import clustering_accuracy
    >>> clustering_accuracy(["cat", "cat", "dog", "dog"], [1, 1, 0, 1])
    0.75
    """
    hits, class_sizes = _matched_hits(labels_true, labels_pred)
    return float(hits.sum() / class_sizes.sum())


def class_averaged_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike, /) -> float:
    """Mean over the classes of the share of each that is right under the best matching.

    On long-tailed data plain accuracy is decided by the few largest classes; here every class
    weighs the same. The matching is the one of :func:`clustering_accuracy`, which maximises the
    number of right samples; of several such matchings the one with the highest class average is
    used, so that the score does not depend on how the clusters are numbered. A class left without a
    cluster counts 0.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes; integers, strings or anything else that can be sorted.
    labels_pred : array-like of shape (n_samples,)
        Found clusters. Only which samples share a label matters, not the labels themselves.

    Returns
    -------
    accuracy : float
        Between 0 (exclusive) and 1 (the partitions are equal).

    Raises
    ------
    ValueError
        If a label array is empty, not one-dimensional, holds NaN, or the lengths differ.

    See Also
    --------
    clustering_accuracy : The same with every sample weighted equally.

    Examples
    --------
    Nine samples in ten are right, but only half of the rare class:

    >>> from skdeepcluster.metrics import class_averaged_accuracy
    >>> class_averaged_accuracy(["cat"] * 8 + ["dog"] * 2, [0] * 8 + [0, 1])
    0.75
    """
    hits, class_sizes = _matched_hits(labels_true, labels_pred)
    return float(np.mean(hits / class_sizes))


def _matched_hits(
    labels_true: ArrayLike, labels_pred: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right samples per class under the best matching, and the size of each class."""
    classes = _check_labels(labels_true, "labels_true")
    clusters = _check_labels(labels_pred, "labels_pred")
    check_consistent_length(classes, clusters)

    table = contingency_matrix(classes, clusters)
    class_sizes = table.sum(axis=1)
    # Recalls sum to at most the number of classes, so this addition stays under one sample: it
    # chooses among the matchings with most right samples and never trades a sample away.
    tie_break = table / class_sizes[:, None] / (2 * len(class_sizes))
    rows, columns = linear_sum_assignment(table + tie_break, maximize=True)

    hits = np.zeros_like(class_sizes)
    hits[rows] = table[rows, columns]
    return hits, class_sizes


def _check_labels(labels: ArrayLike, name: str) -> NDArray[np.generic]:
    """Labels as a one-dimensional array without NaN; `name` is the argument, for the error."""
    array = check_array(labels, ensure_2d=False, dtype=None, input_name=name)
    try:
        labels_1d: NDArray[np.generic] = column_or_1d(array)
    except ValueError as error:
        raise ValueError(
            f"{name} must be one-dimensional, one label per sample; got shape {array.shape}."
        ) from error
    return labels_1d
