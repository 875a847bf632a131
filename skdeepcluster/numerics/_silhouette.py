"""How well clusters are separated, without labels."""

import torch
from torch import Tensor

from skdeepcluster.numerics._kmeans import cluster_means


def centroid_silhouette(X: Tensor, labels: Tensor, n_clusters: int) -> float:
    r"""Return the mean simplified silhouette of a partition.

    .. math:: \frac{1}{n} \sum_i \frac{b_i - a_i}{\max(a_i, b_i)}

    where :math:`a_i` is the distance of sample i to the mean of its own cluster and :math:`b_i`
    the distance to the nearest other mean: linear in n, where the silhouette is quadratic.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Data in which the distances are measured.
    labels : Tensor of shape (n_samples,), int64
        The partition; clusters without a sample are left out.
    n_clusters : int
        Labels are below it.

    Returns
    -------
    float
        In [-1, 1], higher is better; 0 if there is only one cluster.
    """
    means, counts = cluster_means(X, labels, n_clusters)
    used, labels = labels.unique(return_inverse=True)
    if len(used) < 2:
        return 0.0
    distances = torch.cdist(X, means[used])
    own = labels[:, None]
    a = distances.gather(1, own)[:, 0]
    b = distances.scatter(1, own, torch.inf).min(dim=1).values
    return float(((b - a) / torch.maximum(a, b).clamp(min=1e-12)).mean())
