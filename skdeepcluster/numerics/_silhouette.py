"""How well clusters are separated, without labels."""

from collections.abc import Callable

import torch
from torch import Tensor

from skdeepcluster.numerics._kmeans import BLOCK_ENTRIES, cluster_means
from skdeepcluster.numerics._settings import full_digits

FEWEST_ROWS = 512


@full_digits()
def centroid_silhouette(
    X: Tensor, labels: Tensor, n_clusters: int, average: Callable[[Tensor], Tensor] = torch.median
) -> float:
    r"""Return the median simplified silhouette of a partition.

    .. math:: \operatorname{median}_i \frac{b_i - a_i}{\max(a_i, b_i)}

    where :math:`a_i` is the distance of sample i to the mean of its own cluster and :math:`b_i`
    the distance to the nearest other mean: linear in n, where the silhouette is quadratic. The
    median, unlike the mean, is not swayed by samples between or far from all clusters.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        Data in which the distances are measured.
    labels : Tensor of shape (n_samples,), int64
        The partition; clusters without a sample are left out.
    n_clusters : int
        Labels are below it.
    average : callable
        Makes one number of those of all samples.

    Returns
    -------
    float
        In [-1, 1], higher is better; 0 if there is only one cluster.
    """
    # Distances do not change with the origin, and rounding is smallest around the mean.
    X = X - X.mean(dim=0)
    means, counts = cluster_means(X, labels, n_clusters)
    if int((counts > 0).sum()) < 2:
        return 0.0
    # Distances are formed by a product, for which the rows are copied.
    block = max(BLOCK_ENTRIES // max(n_clusters, X.shape[1]), FEWEST_ROWS)
    values = X.new_zeros(len(X))
    for start in range(0, len(X), block):
        own = labels[start : start + block, None]
        distances = torch.cdist(X[start : start + block], means)
        distances[:, counts == 0] = torch.inf
        a = distances.gather(1, own)[:, 0]
        b = distances.scatter(1, own, torch.inf).min(dim=1).values
        values[start : start + block] = (b - a) / torch.maximum(a, b).clamp(min=1e-12)
    return float(average(values))
