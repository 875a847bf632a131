"""Exact k-nearest neighbours in blocks."""

import torch
from torch import Tensor

from skdeepcluster.numerics._lengths import squared_lengths
from skdeepcluster.numerics._settings import full_digits

# A block of distances is at most 2048 x 2048 float32 (16 MiB): large enough that the matrix product
# dominates, small enough to stay near the processor and to fit beside any data set.
BLOCK = 2048


@full_digits()
def nearest_neighbors(X: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
    """Find the nearest other rows of every row, by Euclidean distance.

    Works in blocks: memory is bounded whatever the number of rows, and the full distance matrix
    is never formed. Two blocks of rows meet once, for both.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Floating-point data on any device.
    n_neighbors : int
        Neighbours per row, the row itself not counted. Clipped to ``n_samples - 1``.

    Returns
    -------
    distances : Tensor of shape (n_samples, k)
        Euclidean distances in increasing order.
    indices : Tensor of shape (n_samples, k), int64
        Row numbers of the neighbours.
    """
    n = len(X)
    k = min(n_neighbors, n - 1)
    # Distances do not change with the origin, and rounding is smallest around the mean. Blocks are
    # centred whenever they meet, which is little beside their product: no copy of all rows is held.
    blocks, mean = torch.split(X, BLOCK), X.mean(dim=0)
    norms = torch.cat([squared_lengths(block - mean) for block in blocks])
    # Of row x the smallest |y|^2 - 2 x.y over the rows y seen so far, and these rows.
    best = X.new_full((n, k), torch.inf)
    where = torch.zeros_like(best, dtype=torch.long)
    for start in range(0, n, BLOCK):
        ours = slice(start, start + BLOCK)
        centered = X[ours] - mean
        scores = torch.addmm(norms[ours], centered, centered.T, alpha=-2).fill_diagonal_(torch.inf)
        _keep_nearest(best[ours], where[ours], scores, start)
        for other in range(start + BLOCK, n, BLOCK):
            theirs = slice(other, other + BLOCK)
            products = centered @ (X[theirs] - mean).T
            scores = torch.sub(norms[theirs], products, alpha=2)
            _keep_nearest(best[ours], where[ours], scores, other)
            scores = torch.sub(norms[ours], products.T.contiguous(), alpha=2)
            _keep_nearest(best[theirs], where[theirs], scores, start)
    return (best + norms[:, None]).clamp_(min=0).sqrt_(), where


def _keep_nearest(best: Tensor, where: Tensor, scores: Tensor, offset: int) -> None:
    """Let the smallest scores of some rows, from a number on, take the places of larger ones."""
    k = best.shape[1]
    found = scores.topk(min(k, scores.shape[1]), dim=1, largest=False)
    nearest = torch.cat([best, found.values], dim=1).topk(k, dim=1, largest=False)
    rows = torch.cat([where, found.indices + offset], dim=1)
    best.copy_(nearest.values)
    where.copy_(rows.gather(1, nearest.indices))
