"""Breathing k-means: centres move from where they are missed least to where errors are largest."""

from dataclasses import replace

import torch
from torch import Tensor

from skdeepcluster.numerics._contingency import label_counts
from skdeepcluster.numerics._kmeans import (
    BLOCK_ENTRIES,
    MOST_ITERATIONS,
    KMeansResult,
    cluster_sums,
    kmeans,
    lloyd,
    nearest_center,
)
from skdeepcluster.numerics._lengths import squared_lengths
from skdeepcluster.numerics._neighbors import nearest_neighbors
from skdeepcluster.numerics._settings import full_digits
from skdeepcluster.numerics._transfer import sent

# Centres are sought among so many rows for each cluster, and so many at least; all refine them.
ROWS_PER_CLUSTER = 50
FEWEST_ROWS = 4096
# Of the centres so many move at first, and a third as many where that does not help any more. All
# are refined so often before as many are taken away.
FIRST_MOVED = 1 / 4
GROWN_ITERATIONS = 10
# A new centre lies so many standard deviations of a cluster next to that cluster's own.
NEXT_TO = 0.01
# What has to go from the inertia for centres to move once more.
WORTHWHILE = 1e-4


@full_digits()
def breathing_kmeans(X: Tensor, n_clusters: int, *, generator: torch.Generator) -> KMeansResult:
    """Partition samples around the centres that minimise the squared distances, as a rule closely.

    k-means ends where no single step helps, often with two centres in one cluster and one in two
    others, and the more clusters there are, the less do many starts help. Here some centres are
    added where errors are largest, and as many taken away where they are missed least, as long as
    that lowers the inertia; then a third of them (B. Fritzke, "Breathing K-Means", 2020,
    arXiv:2006.15666). Of many rows a part finds the centres, and all refine them; then single
    centres move to the sample that is farthest from its own, since a part may hold none of a small
    cluster.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Floating-point data on any device.
    n_clusters : int
        Number of clusters, at most ``n_samples``.
    generator : torch.Generator
        Source of all randomness, from which one number is drawn. It lives on the CPU, so that a run
        draws the same numbers on every device.

    Returns
    -------
    KMeansResult
    """
    # How often centres move hangs on rounding; what comes after on the same generator should not.
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    mean = X.mean(dim=0)
    X = X - mean
    n_rows = max(ROWS_PER_CLUSTER * n_clusters, FEWEST_ROWS)
    if n_rows < len(X):
        part = torch.randperm(len(X), generator=own)[:n_rows].to(X.device)
        found = _breathe(X[part], n_clusters, own)
        run = _reach_out(X, lloyd(X, found.centers, max_iter=MOST_ITERATIONS))
    else:
        run = _breathe(X, n_clusters, own)
    return replace(run, centers=run.centers + mean)


def _breathe(X: Tensor, n_clusters: int, generator: torch.Generator) -> KMeansResult:
    """Start once, and move centres to where errors are largest: many at first, then fewer."""
    run = kmeans(X, n_clusters, generator=generator, n_init=1)
    n_moved = min(max(int(FIRST_MOVED * n_clusters), 1), len(X) - n_clusters)
    while n_moved and n_clusters > 1:
        moved = _move(X, run, _next_to_the_worst(X, run.centers, n_moved, generator))
        if moved.inertia < (1 - WORTHWHILE) * run.inertia:
            run = moved
        else:
            n_moved //= 3
    return run


def _reach_out(X: Tensor, run: KMeansResult) -> KMeansResult:
    """Move one centre after the other to the sample that is farthest from its own."""
    while len(run.centers) > 1:
        _, scores = nearest_center(X, run.centers)
        farthest = (scores + squared_lengths(X)).argmax(dim=0, keepdim=True)
        moved = _move(X, run, X[farthest])
        if moved.inertia >= (1 - WORTHWHILE) * run.inertia:
            break
        run = moved
    return run


def _move(X: Tensor, run: KMeansResult, added: Tensor) -> KMeansResult:
    """Add centres, take as many away, and refine the others."""
    more = lloyd(X, torch.cat([run.centers, added]), max_iter=GROWN_ITERATIONS)
    return lloyd(X, _with_fewer(X, more.centers, len(added)), max_iter=MOST_ITERATIONS)


def _next_to_the_worst(X: Tensor, centers: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return new centres next to those with the largest errors."""
    n_clusters = len(centers)
    labels, scores = nearest_center(X, centers)
    distances = (scores + squared_lengths(X)).clamp_(min=0)
    errors = cluster_sums(distances[:, None], labels, n_clusters)[:, 0]
    largest = errors.argsort(descending=True, stable=True)[:n]
    variance = errors / (label_counts(labels, n_clusters).clamp(min=1) * X.shape[1])
    deviation = variance[largest].sqrt().to(X.dtype)
    noise = sent(torch.randn(n, X.shape[1], generator=generator).to(X.dtype), X.device)
    return centers[largest] + NEXT_TO * deviation[:, None] * noise


def _with_fewer(X: Tensor, centers: Tensor, n_fewer: int) -> Tensor:
    """Return the centres without those that are missed least, which are half of them at most.

    Where one goes, the nearest other one has to stand in for it, and stays unless it has gone.
    """
    labels, gains = _gains(X, centers)
    missed = cluster_sums(gains[:, None], labels, len(centers))[:, 0]
    _, nearest = nearest_neighbors(centers, 1)
    known = torch.stack([missed.argsort(stable=True), nearest[:, 0]]).tolist()
    gone: list[int] = []
    staying: set[int] = set()
    for center in known[0]:
        if center not in staying:
            gone.append(center)
            staying.add(known[1][center])
    kept = torch.ones(len(centers), dtype=torch.bool)
    kept[gone[:n_fewer]] = False
    return centers[sent(kept.nonzero()[:, 0], X.device)]


def _gains(X: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's nearest centre, and how much farther the next is, both squared."""
    norms = centers.square().sum(dim=1)
    labels = torch.empty(len(X), dtype=torch.long, device=X.device)
    gains = torch.empty(len(X), dtype=X.dtype, device=X.device)
    block = max(BLOCK_ENTRIES // len(centers), 1)
    for start in range(0, len(X), block):
        rows = slice(start, start + block)
        scores = torch.addmm(norms, X[rows], centers.T, alpha=-2)
        nearest = scores.min(dim=1)
        labels[rows] = nearest.indices
        farther = scores.scatter_(1, nearest.indices[:, None], torch.inf).amin(dim=1)
        gains[rows] = farther - nearest.values
    return labels, gains
