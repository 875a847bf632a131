"""Average linkage: of many small clusters into fewer large ones, or until all are one."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from skdeepcluster.numerics._contingency import contingency_table
from skdeepcluster.numerics._settings import full_digits


def average_linkage(affinity: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    r"""Merge parts until a number of clusters is left, always the two most alike on average.

    The likeness of two clusters A and B is :math:`\frac{1}{|A||B|} \sum_{a \in A, b \in B} s_{ab}`.
    Sums add up when clusters merge, so a merge costs one row of the table.

    Parameters
    ----------
    affinity : Tensor of shape (n_parts, n_parts)
        Entry (a, b) is the sum of :math:`s` over all pairs of a sample of part a and one of part b;
        symmetric. The diagonal is not used.
    sizes : Tensor of shape (n_parts,)
        Number of samples of each part.
    n_clusters : int
        How many to leave, at most ``n_parts``.

    Returns
    -------
    Tensor of shape (n_parts,), int64
        For each part the number of its cluster in ``[0, n_clusters)``, on the CPU.
    """
    owner = np.arange(len(sizes))
    for kept, absorbed, _ in islice(_mergers(affinity, sizes), len(sizes) - n_clusters):
        owner[owner == absorbed] = kept
    numbers: NDArray[np.int64] = np.unique(owner, return_inverse=True)[1]
    return torch.from_numpy(numbers)


def average_tree(affinity: Tensor, sizes: Tensor) -> NDArray[np.float64]:
    """Return the tree in which parts become one, by :func:`average_linkage`.

    Parameters
    ----------
    affinity : Tensor of shape (n_parts, n_parts)
        See :func:`average_linkage`.
    sizes : Tensor of shape (n_parts,)
        Number of samples of each part.

    Returns
    -------
    ndarray of shape (n_parts - 1, 4)
        As SciPy's linkage, with likeness, which never rises, in the place of distance: the two that
        merge, parts by their numbers and mergers by those that follow, their likeness, and of how
        many parts they are.
    """
    n = len(sizes)
    tree = np.empty((n - 1, 4))
    node, counts = np.arange(n), np.ones(n)
    for step, (kept, absorbed, likeness) in enumerate(_mergers(affinity, sizes)):
        counts[kept] += counts[absorbed]
        tree[step] = *sorted((node[kept], node[absorbed])), likeness, counts[kept]
        node[kept] = n + step
    tree[:, 2] = np.minimum.accumulate(tree[:, 2])  # but for rounding it is
    return tree


def _mergers(affinity: Tensor, sizes: Tensor) -> Iterator[tuple[int, int, float]]:
    """Yield who takes in whom, and how much they were alike, until there is one cluster."""
    total = affinity.cpu().double().numpy().copy()
    # An empty part is like nothing: its likeness to all others is zero.
    size = sizes.cpu().double().clamp(min=1e-9).numpy()
    n_parts = len(size)
    alive = np.ones(n_parts, dtype=bool)
    likeness = total / np.outer(size, size)
    np.fill_diagonal(likeness, -np.inf)
    # The best partner of each row is remembered: looking for it anew costs the whole table.
    partner, best = likeness.argmax(axis=1), likeness.max(axis=1)
    for _ in range(n_parts - 1):
        kept = int(best.argmax())
        absorbed = int(partner[kept])
        yield kept, absorbed, float(best[kept])
        alive[absorbed] = False
        size[kept] += size[absorbed]
        total[kept] += total[absorbed]
        total[:, kept] = total[kept]
        row = np.where(alive, total[kept] / (size[kept] * size), -np.inf)
        row[kept] = -np.inf
        likeness[kept] = likeness[:, kept] = row
        likeness[absorbed] = likeness[:, absorbed] = best[absorbed] = -np.inf

        closer = row > best
        partner[closer], best[closer] = kept, row[closer]
        # Whoever had one of the two as partner has to look around again.
        stale = alive & ~closer & ((partner == kept) | (partner == absorbed))
        partner[stale] = likeness[stale].argmax(axis=1)
        best[stale] = likeness[stale].max(axis=1)


@full_digits()
def cosine_affinity(centers: Tensor, sizes: Tensor) -> Tensor:
    """Return, for all pairs of clusters, the cosine of their centres times both sizes.

    Parameters
    ----------
    centers : Tensor of shape (n_parts, n_features)
    sizes : Tensor of shape (n_parts,)

    Returns
    -------
    Tensor of shape (n_parts, n_parts)
        What :func:`average_linkage` adds up to the average cosine.
    """
    summed = normalize(centers, dim=1) * sizes[:, None]
    return summed @ summed.T


def neighbor_affinity(neighbors: Tensor, labels: Tensor, n_parts: int) -> Tensor:
    """Return, for all pairs of clusters, how many neighbour relations there are between them.

    Parameters
    ----------
    neighbors : Tensor of shape (n_samples, n_neighbors), int64
        Nearest neighbours of each sample.
    labels : Tensor of shape (n_samples,), int64
        Cluster of each sample.
    n_parts : int
        Labels are below it.

    Returns
    -------
    Tensor of shape (n_parts, n_parts)
        What :func:`average_linkage` adds up to the density of the neighbour graph between clusters.
    """
    ours = labels[:, None].expand_as(neighbors).flatten()
    theirs = labels[neighbors].flatten()
    edges = contingency_table(ours, theirs, n_parts, n_parts)
    return (edges + edges.T).float()


def cut_tree(tree: NDArray[np.float64], n_clusters: int) -> NDArray[np.int64]:
    """Return to which of so many clusters each leaf of a tree belongs.

    Parameters
    ----------
    tree : ndarray of shape (n_leaves - 1, 4)
        See :func:`average_tree`.
    n_clusters : int
        From 1 to ``n_leaves``.

    Returns
    -------
    ndarray of shape (n_leaves,), int64
        Numbers in the order in which leaves come.
    """
    return next(islice(cuts(tree), len(tree) + 1 - n_clusters, None))


def cuts(tree: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Yield :func:`cut_tree` for each number of clusters, from the leaves down to a single one."""
    n = len(tree) + 1
    node = np.arange(n)
    yield node.copy()
    for step, pair in enumerate(tree[:, :2]):
        node[np.isin(node, pair)] = n + step
        yield in_order_of_leaves(node)


def in_order_of_leaves(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same groups, numbered from zero in the order in which they first occur."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    numbers: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
    return numbers
