"""Votes: what independent partitions of the same data say about each sample.

One partition cannot see its own mistakes: a class that it cuts in two looks like two good clusters
from inside. Another partition, of other samples in other coordinates, cuts elsewhere.
"""

import torch
from torch import Tensor

from skdeepcluster.numerics import (
    KMeansResult,
    best_separated,
    conductances,
    full_digits,
    kmeans,
    lloyd,
    merged_partitions,
    nearest_center,
    nearest_neighbors,
    numbered_alike,
)

# Votes are taken about so many samples at most: time and memory do not grow beyond that.
MOST_ROWS = 2**14
# Random directions onto which features are projected; so many keep distances to about a tenth.
PROJECTED_WIDTH = 64
# A voter sees half of the samples, but no more than this many, or this many for each cluster.
VOTER_ROWS = 2048
VOTER_ROWS_PER_CLUSTER = 20
KMEANS_ITERATIONS = 20
# Mini-clusters for each cluster, and how long they are refined from random samples: they only have
# to be small.
MINI_RATIO = 4
MINI_ITERATIONS = 5
# So many neighbours, among so many samples at most, tell whether a cluster stands apart and holds
# together. The conductance at which it does not was chosen on families of tasks and judged on
# others; that of a torn cluster only has to tell the thinnest ring from no link at all.
APART_EDGES = 15
APART_ROWS = 2**12
APART_CONDUCTANCE = 0.05
TORN_CONDUCTANCE = 0.005
TORN_RATIO = 3


def collect_votes(
    X: Tensor,
    labels: Tensor,
    n_clusters: int,
    n_voters: int,
    generator: torch.Generator,
    *,
    project: bool,
) -> Tensor:
    """Return the cluster that each of several partitions gives to each sample.

    Every voter partitions a random half of the samples by k-means or by merging mini-clusters,
    whichever separates them better, and labels the other half by the nearest centre. Its clusters
    are then matched one to one to the given ones. That is how accuracy is measured, too: where a
    class is split, at most one part agrees.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Data to partition.
    labels : Tensor of shape (n_samples,), int64
        The partition to vote about.
    n_clusters : int
        Labels are below it.
    n_voters : int
        Number of partitions.
    generator : torch.Generator
        Source of all randomness, on the CPU.
    project : bool
        Whether each voter sees the data in random directions of its own.

    Returns
    -------
    Tensor of shape (n_samples, n_voters), int64
        Numbers of the clusters in ``labels``.
    """
    votes = []
    for _ in range(n_voters):
        seen = _project(X, generator) if project else X
        votes.append(numbered_alike(_partition(seen, n_clusters, generator), labels, n_clusters))
    return torch.stack(votes, dim=1)


def overruled(
    votes: Tensor, X: Tensor, labels: Tensor, n_clusters: int, generator: torch.Generator
) -> Tensor:
    r"""Return votes of which some, where a cluster is one and stands apart, become its own label.

    K-means and means of mini-clusters do not see every shape. A cluster that hardly a neighbour
    leaves, and that no voter divides without parting neighbours, needs no such witness. A share

    .. math:: \exp\left(-(\phi_k / \phi_0)^2\right)
        \left(1 - \exp\left(-(\psi_k / (\psi_0 + 3 \phi_k))^2\right)\right)

    of its voters is overruled, with the conductance :math:`\phi_k` of the cluster in a graph of
    neighbours and the lowest :math:`\psi_k` at which a voter divides it, in the part of the graph
    that it takes up: zero where two clusters were made one, about :math:`\phi_k` where a ring was
    cut somewhere.

    Parameters
    ----------
    votes : Tensor of shape (n_samples, n_voters), int64
        See :func:`collect_votes`.
    X : Tensor of shape (n_samples, n_features)
        Samples in random order, as nobody has trained them to be.
    labels : Tensor of shape (n_samples,), int64
    n_clusters : int
        Labels are below it.
    generator : torch.Generator
        Decides which voters are overruled first; on the CPU.

    Returns
    -------
    Tensor of shape (n_samples, n_voters), int64
    """
    if len(X) < 2:
        return votes
    seen = labels[:APART_ROWS]
    _, graph = nearest_neighbors(X[:APART_ROWS], APART_EDGES)
    apart, used = conductances(seen, graph, n_clusters)
    # Neighbours outside of the cluster, replaced by the sample itself, say nothing on its unity.
    at_home = seen[graph] == seen[:, None]
    graph = torch.where(at_home, graph, torch.arange(len(graph), device=graph.device)[:, None])
    torn = torch.ones_like(apart)
    for vote in votes[:APART_ROWS].T:
        torn = torch.minimum(torn, _division(vote == seen, seen, graph, n_clusters))
    least = TORN_CONDUCTANCE + TORN_RATIO * apart
    is_one = 1 - torch.exp(-(torn / least).square())
    share = used * is_one * torch.exp(-(apart / APART_CONDUCTANCE).square())
    n_voters = votes.shape[1]
    numbers = torch.randperm(n_voters, generator=generator).to(votes.device)
    first = numbers < (n_voters * share).round()[labels, None]
    return torch.where(first, labels[:, None], votes)


def _division(stays: Tensor, labels: Tensor, graph: Tensor, n_clusters: int) -> Tensor:
    """Return the conductance at which each cluster is divided, 1 where all or none of it stays."""
    parts = 2 * labels + stays
    shares, used = conductances(parts, graph, 2 * n_clusters)
    divided = used.view(-1, 2).all(dim=1)
    return torch.where(divided, shares.view(-1, 2).amax(dim=1), 1.0)


@full_digits()
def _project(X: Tensor, generator: torch.Generator) -> Tensor:
    # Not orthogonal: with few features that would be a rotation, which changes no distance.
    directions = torch.randn(X.shape[1], PROJECTED_WIDTH, generator=generator)
    return X @ directions.to(X)


def _partition(X: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Partition a random part of the samples and extend that to all by the nearest centre."""
    n = len(X)
    most = max(VOTER_ROWS, VOTER_ROWS_PER_CLUSTER * n_clusters)
    n_rows = max(min(n // 2, most), min(n, 2 * n_clusters))
    rows = torch.randperm(n, generator=generator)[:n_rows].to(X.device)
    part = X[rows]
    run = kmeans(part, n_clusters, generator=generator, n_init=1, max_iter=KMEANS_ITERATIONS)
    candidates = {"kmeans": run.labels}
    mini = None
    n_mini = min(MINI_RATIO * n_clusters, n_rows // 5)
    if n_mini > n_clusters:
        chosen = torch.randperm(n_rows, generator=generator)[:n_mini].to(X.device)
        mini = lloyd(part, part[chosen], max_iter=MINI_ITERATIONS)
        n_neighbors = min(max(n_rows // (4 * n_clusters), 3), 10)
        _, neighbors = nearest_neighbors(part, n_neighbors)
        candidates |= merged_partitions(_centered(mini, part), n_clusters, neighbors)
    name = best_separated(candidates, part, n_clusters)
    if mini is None or name == "kmeans":
        return nearest_center(X, run.centers)[0]
    # Every mini-cluster lies in one cluster.
    cluster_of = torch.zeros(n_mini, dtype=torch.long, device=X.device)
    cluster_of[mini.labels] = candidates[name]
    return cluster_of[nearest_center(X, mini.centers)[0]]


def _centered(mini: KMeansResult, X: Tensor) -> KMeansResult:
    """Shift the origin to the mean, from which the cosines of centres are to be taken."""
    return KMeansResult(mini.centers - X.mean(dim=0), mini.labels, mini.inertia, mini.n_iter)
