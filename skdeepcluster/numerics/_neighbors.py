"""Exact k-nearest neighbours in blocks."""

import torch
from torch import Tensor

from skdeepcluster.numerics._settings import full_digits

# A block of distances is at most 1024 x 16384 float32 (64 MiB): large enough that the matrix
# product dominates, small enough to fit beside any data set.
QUERY_BLOCK = 1024
DATABASE_BLOCK = 16384


@full_digits()
def nearest_neighbors(X: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
    """Find the nearest other rows of every row, by Euclidean distance.

    Works in blocks: memory is bounded whatever the number of rows, and the full distance matrix
    is never formed.

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
    # Distances do not change with the origin, and rounding is smallest around the mean.
    X = X - X.mean(dim=0)
    norms = X.square().sum(dim=1)
    distances, indices = [], []
    for start in range(0, n, QUERY_BLOCK):
        queries = slice(start, min(start + QUERY_BLOCK, n))
        best, where = _nearest_to_block(X, norms, queries, k)
        squared = (best + norms[queries, None]).clamp_(min=0)
        distances.append(squared.sqrt_())
        indices.append(where)
    return torch.cat(distances), torch.cat(indices)


def _nearest_to_block(X: Tensor, norms: Tensor, queries: slice, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest ``|x|^2 - 2 q.x`` over all rows x other than q, and their rows."""
    best = X.new_empty(queries.stop - queries.start, 0)
    where = torch.empty_like(best, dtype=torch.long)
    for start in range(0, len(X), DATABASE_BLOCK):
        stop = min(start + DATABASE_BLOCK, len(X))
        scores = torch.addmm(norms[start:stop], X[queries], X[start:stop].T, alpha=-2)
        _exclude_self(scores, queries.start - start)
        found = scores.topk(min(k, stop - start), dim=1, largest=False)
        best = torch.cat([best, found.values], dim=1)
        where = torch.cat([where, found.indices + start], dim=1)
        if best.shape[1] > k:
            best, order = best.topk(k, dim=1, largest=False)
            where = where.gather(1, order)
    return best, where


def _exclude_self(scores: Tensor, offset: int) -> None:
    """Set to infinity the entries where query ``i`` meets database row ``i + offset``."""
    rows = torch.arange(scores.shape[0], device=scores.device)
    columns = rows + offset
    inside = (columns >= 0) & (columns < scores.shape[1])
    scores[rows[inside], columns[inside]] = torch.inf
