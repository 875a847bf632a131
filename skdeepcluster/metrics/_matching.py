"""Which class each cluster stands for, and the share of samples that are then right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_array, check_consistent_length, column_or_1d


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


def match_clusters(table: NDArray[np.int64], tie_break: NDArray[np.float64]) -> NDArray[np.intp]:
    """Cluster given to each class by the one-to-one matching that makes most samples right.

    Parameters
    ----------
    table : ndarray of shape (n_classes, n_clusters)
        Number of samples of each class in each cluster.
    tie_break : ndarray of shape (n_classes, n_clusters)
        What to maximise among the matchings with most right samples. It must sum to less than 1
        over any matching, so that it never trades a sample away.

    Returns
    -------
    cluster_of_class : ndarray of shape (n_classes,)
        Column of `table` for every row, -1 for a class left without a cluster.
    """
    rows, columns = linear_sum_assignment(table + tie_break, maximize=True)
    cluster_of_class = np.full(len(table), -1)
    cluster_of_class[rows] = columns
    return cluster_of_class


def _matched_hits(
    labels_true: ArrayLike, labels_pred: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right samples per class under the best matching, and the size of each class."""
    classes = check_labels(labels_true, "labels_true")
    clusters = check_labels(labels_pred, "labels_pred")
    check_consistent_length(classes, clusters)

    table = contingency_matrix(classes, clusters)
    class_sizes = table.sum(axis=1)
    # Recalls sum to at most the number of classes, so over any matching this sums to at most 1/2.
    recall = table / class_sizes[:, None] / (2 * len(class_sizes))
    cluster_of_class = match_clusters(table, recall)

    hits = table[np.arange(len(table)), cluster_of_class]
    hits[cluster_of_class < 0] = 0
    return hits, class_sizes


def check_labels(labels: ArrayLike, name: str) -> NDArray[np.generic]:
    """Labels as a one-dimensional array without NaN; `name` is the argument, for the error."""
    array = check_array(labels, ensure_2d=False, dtype=None, input_name=name)
    try:
        labels_1d: NDArray[np.generic] = column_or_1d(array)
    except ValueError as error:
        raise ValueError(
            f"{name} must be one-dimensional, one label per sample; got shape {array.shape}."
        ) from error
    return labels_1d
