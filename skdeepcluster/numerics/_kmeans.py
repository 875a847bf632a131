"""k-means on torch tensors: k-means++ seeding, Lloyd iterations, empty-cluster repair."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skdeepcluster.numerics._contingency import label_counts
from skdeepcluster.numerics._lengths import squared_lengths
from skdeepcluster.numerics._settings import full_digits
from skdeepcluster.numerics._widest import widest_dtype

# Distances are formed in blocks of at most this many entries (4 MiB of float32): they stay near
# the processor's cache and never grow with the number of samples.
BLOCK_ENTRIES = 2**20
# Sums are taken over this many rows at a time and then added up in float64: a float32 sum over
# millions of similar rows would lose the digits in which they differ.
BLOCK_ROWS = 2**13
MOST_ITERATIONS = 300
# Runs whose inertias differ by less than this share are equally good.
ALIKE = 1e-5


@dataclass(frozen=True)
class KMeansResult:
    """Clusters of k-means.

    Attributes
    ----------
    centers : Tensor of shape (n_clusters, n_features)
        Mean of the samples of each cluster.
    labels : Tensor of shape (n_samples,), int64
        Nearest centre of every sample.
    inertia : float
        Sum of squared distances to the nearest centre.
    n_iter : int
        Lloyd iterations of the last refinement of what was kept.
    """

    centers: Tensor
    labels: Tensor
    inertia: float
    n_iter: int


@full_digits()
def kmeans(
    X: Tensor,
    n_clusters: int,
    *,
    generator: torch.Generator,
    n_init: int = 10,
    max_iter: int = MOST_ITERATIONS,
    tol: float = 1e-4,
) -> KMeansResult:
    """Partition samples around the centres that minimise the squared distances.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Floating-point data on any device.
    n_clusters : int
        Number of clusters, at most ``n_samples``.
    generator : torch.Generator
        Source of all randomness; it lives on the CPU, so that a run draws the same numbers on
        every device.
    n_init : int, default=10
        Runs from different seeds; the one with the lowest inertia is returned, the first of those
        that differ by a hundred thousandth at most.
    max_iter : int, default=300
        Lloyd iterations per run at most.
    tol : float, default=1e-4
        A run stops when the centres move by less than ``tol`` times the mean variance of the
        features (squared norm), as in scikit-learn.

    Returns
    -------
    KMeansResult
    """
    mean = X.mean(dim=0)
    X = X - mean
    threshold = tol * X.var(dim=0, correction=0).mean().item()
    runs = (
        _lloyd(X, _plus_plus(X, n_clusters, generator), max_iter, threshold) for _ in range(n_init)
    )
    best = next(runs)
    for run in runs:
        # Runs often end alike but for the numbers of the clusters. Rounding is not to choose.
        if run.inertia < (1 - ALIKE) * best.inertia:
            best = run
    return KMeansResult(best.centers + mean, best.labels, best.inertia, best.n_iter)


@full_digits()
def lloyd(X: Tensor, centers: Tensor, *, max_iter: int, tol: float = 1e-4) -> KMeansResult:
    """Refine given centres by Lloyd's iterations.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Floating-point data on any device.
    centers : Tensor of shape (n_clusters, n_features)
        Where to start.
    max_iter : int
        Iterations at most.
    tol : float, default=1e-4
        See :func:`kmeans`.

    Returns
    -------
    KMeansResult
    """
    mean = X.mean(dim=0)
    X = X - mean
    threshold = tol * X.var(dim=0, correction=0).mean().item()
    run = _lloyd(X, centers - mean, max_iter, threshold)
    return KMeansResult(run.centers + mean, run.labels, run.inertia, run.n_iter)


@full_digits()
def nearest_center(X: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's nearest centre and its ``|c|^2 - 2 x.c``, in blocks.

    The second value is the squared distance less ``|x|^2``, which no comparison needs.
    """
    norms = centers.square().sum(dim=1)
    block = max(BLOCK_ENTRIES // len(centers), 1)
    labels = torch.empty(len(X), dtype=torch.long, device=X.device)
    distances = torch.empty(len(X), dtype=X.dtype, device=X.device)
    for start in range(0, len(X), block):
        rows = slice(start, start + block)
        scores = torch.addmm(norms, X[rows], centers.T, alpha=-2)
        nearest = scores.min(dim=1)
        labels[rows] = nearest.indices
        distances[rows] = nearest.values
    return labels, distances


@full_digits()
def cluster_means(X: Tensor, labels: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Return the mean (zero where there is none) and the number of samples of each cluster."""
    sums, counts = cluster_sums(X, labels, n_clusters), label_counts(labels, n_clusters)
    return _means(sums, counts, X.dtype), counts


def _means(sums: Tensor, counts: Tensor, dtype: torch.dtype) -> Tensor:
    return (sums / counts.clamp(min=1)[:, None]).to(dtype)


def cluster_sums(X: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    # index_add_ adds in random order on accelerators; a product does not.
    sum_rows = _sums_by_index if X.device.type == "cpu" else _sums_by_product
    return sum_rows(X, labels, n_clusters)


def _sums_by_index(X: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    sums = torch.zeros(n_clusters, X.shape[1], dtype=torch.float64)
    block = max(min(BLOCK_ENTRIES // X.shape[1], BLOCK_ROWS), 1)
    for start in range(0, len(X), block):
        rows = slice(start, start + block)
        sums.index_add_(0, labels[rows], X[rows].double())
    return sums


def _sums_by_product(X: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    sums = X.new_zeros(n_clusters, X.shape[1], dtype=widest_dtype(X.device))
    block = min(max(BLOCK_ENTRIES // n_clusters, 1), BLOCK_ROWS)
    for start in range(0, len(X), block):
        rows = slice(start, start + block)
        members = torch.nn.functional.one_hot(labels[rows], n_clusters).to(X.dtype)
        sums += members.T @ X[rows]
    return sums


def _plus_plus(X: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Choose starting centres far from each other (greedy k-means++)."""
    n_trials = 2 + int(math.log(n_clusters))
    norms = squared_lengths(X)
    chosen = torch.empty(n_clusters, dtype=torch.long, device=X.device)
    chosen[0] = torch.randint(len(X), (1,), generator=generator).item()
    closest = _squared_distances(X, norms, chosen[:1])[:, 0]
    draws = torch.rand(n_clusters, n_trials, generator=generator, dtype=torch.float64)
    draws = draws.to(X.device, widest_dtype(X.device))
    for j in range(1, n_clusters):
        cumulated = closest.cumsum(dim=0, dtype=draws.dtype)
        # The first sum above the draw: never a row that was chosen before, its share is empty.
        candidates = torch.searchsorted(cumulated, draws[j] * cumulated[-1], right=True)
        candidates = candidates.clamp_(max=len(X) - 1)
        distances = _squared_distances(X, norms, candidates)
        distances = torch.minimum(distances, closest[:, None], out=distances)
        # Indices with an axis: one without makes the host wait for an accelerator.
        best = distances.sum(dim=0).argmin(dim=0, keepdim=True)
        chosen[j : j + 1] = candidates[best]
        closest = distances[:, best][:, 0]
    return X[chosen]


def _squared_distances(X: Tensor, norms: Tensor, rows: Tensor) -> Tensor:
    return torch.addmm(norms[:, None] + norms[rows], X, X[rows].T, alpha=-2).clamp_(min=0)


def _lloyd(X: Tensor, centers: Tensor, max_iter: int, threshold: float) -> KMeansResult:
    n_clusters = len(centers)
    norms = squared_lengths(X)
    labels, distances = nearest_center(X, centers)
    counts = label_counts(labels, n_clusters)
    sums = cluster_sums(X, labels, n_clusters)
    smallest, n_iter = counts.min().item(), 0
    for _ in range(max_iter):
        n_iter += 1
        means = _means(sums, counts, X.dtype)
        if smallest == 0:
            _repair_empty(X, means, counts, distances, norms)
        shift = (means - centers).square().sum()
        centers, previous = means, labels
        labels, distances = nearest_center(X, centers)
        counts, moved = label_counts(labels, n_clusters), labels != previous
        # All that the host has to know, at once: it waits for an accelerator each time.
        known = torch.stack([shift, moved.count_nonzero(), counts.min()])
        length, n_moved, smallest = known.tolist()
        if length <= threshold or not n_moved:
            break
        # Which samples have moved, an accelerator would have to be waited for.
        if X.device.type == "cpu" and 2 * n_moved < len(X):
            sums = _sums_after(moved, X, sums, previous, labels)
        else:
            sums = cluster_sums(X, labels, n_clusters)
    inertia = (distances + norms).clamp_(min=0).sum(dtype=widest_dtype(X.device)).item()
    return KMeansResult(centers, labels, inertia, n_iter)


def _sums_after(moved: Tensor, X: Tensor, sums: Tensor, previous: Tensor, labels: Tensor) -> Tensor:
    """Return the sums of the clusters after some samples have moved; most stay where they are."""
    n_clusters, moved = len(sums), moved.nonzero()[:, 0]
    rows = X[moved]
    gained = cluster_sums(rows, labels[moved], n_clusters)
    return sums + gained - cluster_sums(rows, previous[moved], n_clusters)


def _repair_empty(
    X: Tensor, means: Tensor, counts: Tensor, distances: Tensor, norms: Tensor
) -> None:
    """Move the centres of empty clusters onto the samples farthest from their own centre."""
    empty = (counts == 0).nonzero()[:, 0]
    farthest = (distances + norms).topk(len(empty)).indices
    means[empty] = X[farthest]
