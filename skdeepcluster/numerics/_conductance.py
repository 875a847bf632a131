"""How many edges of a graph of neighbours leave the clusters of a partition."""

import torch
from torch import Tensor

from skdeepcluster.numerics._contingency import label_counts


def conductances(labels: Tensor, neighbors: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
    r"""Return for each cluster the share of its edges that leave it.

    .. math:: \frac{\operatorname{cut}_k}{\min(\operatorname{vol}_k,
        \operatorname{vol} - \operatorname{vol}_k)}

    An edge joins a sample and one of its nearest neighbours, as many of them as there are other
    samples in its cluster: a small cluster has no more to stay with. The volume of a cluster is the
    sum of its samples' edges, those of others to them included. Of one that holds most samples
    counts what divides the others from it.

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
    conductances : Tensor of shape (n_clusters,)
        In [0, 1], lower is better; 0 where there is no sample.
    used : bool Tensor of shape (n_clusters,)
        Which clusters have a sample.
    """
    n, n_neighbors = neighbors.shape
    others = label_counts(labels, n_clusters)[labels] - 1
    n_edges = others.clamp(1, n_neighbors)
    is_edge = torch.arange(n_neighbors, device=labels.device) < n_edges[:, None]
    edges = n_edges + label_counts(neighbors[is_edge], n)
    volumes = torch.zeros(n_clusters, dtype=torch.int64, device=labels.device)
    volumes.index_add_(0, labels, edges)
    own, theirs = labels[:, None].expand(n, n_neighbors), labels[neighbors]
    cut = is_edge & (own != theirs)
    leaving = label_counts(torch.cat([own[cut], theirs[cut]]), n_clusters)
    smaller = torch.minimum(volumes, volumes.sum() - volumes).clamp(min=1)
    return leaving / smaller, volumes > 0


def mean_conductance(labels: Tensor, neighbors: Tensor, n_clusters: int) -> float:
    """Return the mean of the :func:`conductances`; each cluster counts the same, however small."""
    shares, used = conductances(labels, neighbors, n_clusters)
    return float(shares[used].mean())
