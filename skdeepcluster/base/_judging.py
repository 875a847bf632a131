"""Which heads separate the samples best: the label-free score of StableClusterDiscrimination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skdeepcluster.numerics import centroid_silhouette, evenly_spaced
from skdeepcluster.objectives import DiscriminationHead

JUDGED_ROWS = 2**14


class Judgement(NamedTuple):
    """The median centroid silhouette times the share of living clusters, and their number."""

    score: float
    n_alive: int


def judged_rows(n_samples: int) -> Tensor:
    """Return the rows by which partitions are compared: all, or some spread evenly."""
    return evenly_spaced(n_samples, JUDGED_ROWS)


@torch.no_grad()
def judge_heads(
    heads: Sequence[DiscriminationHead], embedding: Tensor, X: Tensor
) -> list[Judgement]:
    """Return how well the clusters of each head are separated.

    Parameters
    ----------
    heads : sequence of DiscriminationHead
    embedding : Tensor of shape (n_samples, embedding_dim)
        Of the samples to judge by: a cluster is alive if one of them is in it.
    X : Tensor of shape (n_samples, n_features)
        The same samples, where separation is measured.
    """
    judgements = []
    for head in heads:
        k = head.n_clusters
        labels = head.head(embedding).argmax(dim=1)
        n_alive = len(labels.unique())
        silhouette = centroid_silhouette(X, labels, k)
        judgements.append(Judgement(silhouette * n_alive / k, n_alive))
    return judgements


def is_better(after: Sequence[Judgement], before: Sequence[Judgement]) -> bool:
    """Whether the best head has a better score than the best before, and no fewer clusters."""
    best, best_before = max(after), max(before)
    return best.score > best_before.score and best.n_alive >= best_before.n_alive
