"""Smooth a partition along a neighbour graph."""

import torch
from torch import Tensor

from skdeepcluster.numerics._contingency import label_counts

MAX_ROUNDS = 10
# A sample's own label outvotes a single neighbour, but not two that agree.
OWN_VOTE = 1.5


def propagate_labels(labels: Tensor, neighbors: Tensor, n_clusters: int) -> Tensor:
    """Let each sample take the label that most of its neighbours have.

    Repeats up to ten times, until nothing changes, or until the next round would empty a cluster.

    Parameters
    ----------
    labels : Tensor of shape (n_samples,), int64
        The partition.
    neighbors : Tensor of shape (n_samples, n_neighbors), int64
        Nearest neighbours of each sample.
    n_clusters : int
        Labels are below it.

    Returns
    -------
    Tensor of shape (n_samples,), int64
        A new partition; clusters that had samples still have some.
    """
    used = label_counts(labels, n_clusters) > 0
    for _ in range(MAX_ROUNDS):
        votes = torch.zeros(len(labels), n_clusters, device=labels.device)
        votes.scatter_(1, labels[:, None], OWN_VOTE)
        ballots = labels[neighbors]
        votes.scatter_add_(1, ballots, torch.ones_like(ballots, dtype=votes.dtype))
        elected = votes.argmax(dim=1)
        emptied = used & (label_counts(elected, n_clusters) == 0)
        if torch.equal(elected, labels) or bool(emptied.any()):
            break
        labels = elected
    return labels
