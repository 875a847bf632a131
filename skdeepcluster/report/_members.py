"""Who is in a cluster, who is typical of it, and which other cluster is near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


def members_of(labels: NDArray[np.int64], n_clusters: int) -> list[Rows]:
    """Return the rows of each cluster in increasing order, none for an empty cluster."""
    ends = np.cumsum(np.bincount(labels, minlength=n_clusters))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def means_of(embedding: NDArray[Any], members: Sequence[Rows]) -> NDArray[np.float64]:
    """Return the mean embedding of each cluster, zeros for an empty one."""
    means = np.zeros((len(members), embedding.shape[1]))
    for cluster, rows in enumerate(members):
        if len(rows):
            means[cluster] = embedding[rows].mean(axis=0, dtype=np.float64)
    return means


def nearest_to_mean(embedding: NDArray[Any], rows: Rows, n_rows: int) -> Rows:
    """Return the members of one cluster that are nearest to its mean, the nearest first.

    The first of them stands for the medoid: the member with the smallest sum of squared distances
    to all others, which is the same, but takes no table of n x n distances.
    """
    if not len(rows):
        return rows
    own = embedding[rows].astype(np.float64)
    distances = np.linalg.norm(own - own.mean(axis=0), axis=1)
    return rows[np.argsort(distances, kind="stable")[:n_rows]]


def least_certain(confidence: NDArray[np.float64], rows: Rows, n_rows: int) -> Rows:
    """Return the members of one cluster of which the model is least sure, the least sure first."""
    return rows[np.argsort(confidence[rows], kind="stable")[:n_rows]]


def nearest_others(means: NDArray[np.floating[Any]], sizes: NDArray[np.int64]) -> list[int | None]:
    """Return for each cluster the other one whose mean is nearest; an empty one is near to none."""
    return [_nearest_other(cluster, means, sizes > 0) for cluster in range(len(means))]


def _nearest_other(
    cluster: int, means: NDArray[np.floating[Any]], is_filled: NDArray[np.bool_]
) -> int | None:
    others = np.flatnonzero(is_filled & (np.arange(len(means)) != cluster))
    if not (is_filled[cluster] and len(others)):
        return None
    distances = np.linalg.norm(means[others] - means[cluster], axis=1)
    return int(others[distances.argmin()])
