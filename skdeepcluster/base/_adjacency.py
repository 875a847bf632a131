"""Which clusters lie side by side: pairs of neighbours between them, and the tree that follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdeepcluster.numerics import (
    average_tree,
    contingency_table,
    label_counts,
    nearest_neighbors,
)

# Neighbours of a sample that tell which clusters lie side by side.
N_NEIGHBORS = 10
# Samples that are asked for them, at most: so many, or this many for each cluster up to a limit.
ASKED_ROWS = 2**11
ASKED_OF_CLUSTER = 16
MOST_ASKED = 2**14


def neighbor_counts(X: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """Return how many pairs of a sample and a nearest neighbour there are between which clusters.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Some thousands, drawn at random.
    labels : Tensor of shape (n_samples,), int64
    sizes : Tensor of shape (n_clusters,), int64
        How many samples of each cluster there are, drawn or not.

    Returns
    -------
    Tensor of shape (n_rows, 3), int64, on the CPU
        The lower number of two clusters, the higher, or the same again, and how many pairs.
    """
    _, neighbors = nearest_neighbors(X, N_NEIGHBORS)
    n_clusters = len(sizes)
    # Where of a cluster only some were drawn, these have fewer neighbours in it than they should,
    # and others in their place. As many elsewhere count as if all had been drawn.
    drawn = label_counts(labels, n_clusters)
    elsewhere = (N_NEIGHBORS + 1 - sizes).clamp(min=0)
    places = torch.arange(neighbors.shape[1], device=X.device)
    counted = places < (drawn - 1 + elsewhere)[labels][:, None]
    ours, theirs = labels[:, None].expand_as(neighbors)[counted], labels[neighbors][counted]
    one_way = contingency_table(ours, theirs, n_clusters, n_clusters)
    pairs_of = one_way.triu() + one_way.tril(diagonal=-1).T
    pairs = pairs_of.nonzero()
    return torch.column_stack([pairs, pairs_of[pairs[:, 0], pairs[:, 1]].long()]).cpu()


def check_neighbor_counts(counts: NDArray[np.int64], n_clusters: int) -> None:
    """Raise ValueError if these cannot be :func:`neighbor_counts` of so many clusters."""
    right = counts.dtype == np.int64 and counts.ndim == 2 and counts.shape[1] == 3
    if right:
        low, high, n = counts.T
        right = bool(((low >= 0) & (low <= high) & (high < n_clusters) & (n > 0)).all())
        right = right and len(np.unique(counts[:, :2], axis=0)) == len(counts)
    if not right:
        raise ValueError(f"_neighbor_counts are not all between the {n_clusters} clusters")


def n_asked(n_clusters: int) -> int:
    """Return of how many samples at most neighbours are counted."""
    return max(ASKED_ROWS, min(ASKED_OF_CLUSTER * n_clusters, MOST_ASKED))


def merge_tree(known: dict[str, Any], members: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``merge_tree_`` of some of the clusters of which this is known."""
    first, second, counts = known["_neighbor_counts"].T
    shares = known["cluster_sizes_"] / known["cluster_sizes_"].sum()
    n_pairs = max(counts.sum(), 1)
    affinity = np.zeros((len(shares), len(shares)))
    affinity[first, second] = affinity[second, first] = counts / (2 * n_pairs)
    # Clusters without any neighbours in common are told apart by the embedding: by the mean of
    # (1 + cosine) / 2, which here weighs less than a single pair.
    sums = known["cluster_centers_"] * shares[:, None]
    affinity += (np.outer(shares, shares) + sums @ sums.T) / (2 * n_pairs)
    affinity, shares = affinity[np.ix_(members, members)], shares[members]
    # Clusters without samples go first. They come last, so that the first has some.
    affinity[0, shares == 0] = affinity[shares == 0, 0] = 1.0
    tree = average_tree(torch.from_numpy(affinity), torch.from_numpy(shares))
    tree[:, 2] = 1 / (1 + tree[:, 2])
    return tree


def merged_counts(rows: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return :func:`neighbor_counts` between groups of clusters."""
    pairs, where = np.unique(np.sort(groups[rows[:, :2]], axis=1), axis=0, return_inverse=True)
    return np.column_stack([pairs, np.bincount(where.ravel(), rows[:, 2], len(pairs)).astype(int)])


def modularity(counts: NDArray[np.int64]) -> float:
    """Return the modularity of :func:`neighbor_counts`: 0 as at random, towards 1 where apart."""
    first, second, n = counts.T
    total = max(n.sum(), 1)
    inside = n[first == second].sum() / total
    ends = np.bincount(np.concatenate([first, second]), np.concatenate([n, n])) / (2 * total)
    return float(inside - np.square(ends).sum())
