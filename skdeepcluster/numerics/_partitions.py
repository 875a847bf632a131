"""Several partitions of the same data, and the best separated of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from skdeepcluster.numerics._contingency import label_counts
from skdeepcluster.numerics._kmeans import KMeansResult
from skdeepcluster.numerics._linkage import average_linkage, cosine_affinity, neighbor_affinity
from skdeepcluster.numerics._silhouette import centroid_silhouette

# The share by which another partition has to be better separated than k-means to be preferred:
# k-means is the safer one.
KMEANS_MARGIN = 0.02


def merged_partitions(
    mini: KMeansResult,
    n_clusters: int,
    neighbors: Tensor | None = None,
) -> dict[str, Tensor]:
    """Merge mini-clusters by average linkage, of their centres and of the neighbours they share.

    Parameters
    ----------
    mini : KMeansResult
        Mini-clusters of the data.
    n_clusters : int
        How many clusters to leave.
    neighbors : Tensor of shape (n_samples, n_neighbors), int64, optional
        Nearest neighbours of each sample; without them only centres are compared.

    Returns
    -------
    dict of str to Tensor of shape (n_samples,), int64
        Partitions named "centers" and, given the graph, "neighbors".
    """
    n_mini = len(mini.centers)
    labels = mini.labels.cpu()
    sizes = label_counts(labels, n_mini)
    affinities = {"centers": cosine_affinity(mini.centers, sizes.to(mini.centers.device))}
    if neighbors is not None:
        affinities["neighbors"] = neighbor_affinity(neighbors.cpu(), labels, n_mini)
    return {
        name: average_linkage(affinity, sizes, n_clusters).to(mini.labels)[mini.labels]
        for name, affinity in affinities.items()
    }


def best_separated(
    candidates: dict[str, Tensor],
    X: Tensor,
    n_clusters: int,
    average: Callable[[Tensor], Tensor] = torch.median,
    margin: float = KMEANS_MARGIN,
) -> str:
    """Return the name of the partition with the best centroid silhouette, the first of equals.

    Parameters
    ----------
    candidates : dict of str to Tensor of shape (n_samples,), int64
        Partitions; one named "kmeans" is preferred unless another is clearly better.
    X : Tensor of shape (n_samples, n_features)
        Data in which separation is measured.
    n_clusters : int
        Labels are below it.
    average : callable
        See :func:`centroid_silhouette`.
    margin : float
        The share by which another has to be better than the one named "kmeans".
    """
    scores = {
        name: centroid_silhouette(X, labels, n_clusters, average)
        for name, labels in candidates.items()
    }
    if "kmeans" in scores:
        scores["kmeans"] += margin * abs(scores["kmeans"])
    return max(scores, key=lambda name: scores[name])
