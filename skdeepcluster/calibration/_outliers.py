"""How unlike all training samples a sample is: how far from the nearest of many small clusters.

Clusters divide all of space among them, and whatever lies in it gets a label, often a sure one from
far away. To tell what is far away a model keeps means of training samples, and no sample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skdeepcluster.numerics import evenly_spaced, full_digits, label_counts, lloyd, nearest_center

# So many samples at most are learned from.
FAMILIAR_ROWS = 2**12
# The means: at least so many, or this many for each cluster, of so many samples each.
FEWEST_MEANS = 64
MEANS_PER_CLUSTER = 4
ROWS_PER_MEAN = 5
ITERATIONS = 10
# So many distances are kept: ranks are told to a tenth of a percent.
KEPT_DISTANCES = 1000


class Familiar(NamedTuple):
    """What is kept of training samples to tell what is like none of them."""

    means: NDArray[np.float32]
    """(n_means, n_features): of the members of small clusters."""

    distances: NDArray[np.float32]
    """(n_distances,), sorted: of training samples, each from means without itself."""


class NearestMean(nn.Module):
    """The distance of a sample to the nearest of some means; an opinion on its first description.

    Parameters
    ----------
    means : Tensor of shape (n_means, n_features)
    """

    means: Tensor

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)

    def forward(self, *views: Tensor) -> Tensor:
        """Return the distances, shape (n_samples, 1)."""
        view = views[0].float()
        _, distances = nearest_center(view, self.means)
        squares = distances + view.square().sum(dim=1)
        return squares.clamp(min=0).sqrt()[:, None]


def learn_familiar(X: Tensor, n_clusters: int, generator: torch.Generator) -> Familiar:
    """Return what is kept of some samples.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        At most :data:`FAMILIAR_ROWS` of them suffice.
    n_clusters : int
        Of the clustering; there are more means where it has many.
    generator : torch.Generator
        Source of all randomness, on the CPU.
    """
    most = max(FEWEST_MEANS, MEANS_PER_CLUSTER * n_clusters)
    n_means = max(min(most, len(X) // ROWS_PER_MEAN), 1)
    # From random samples: k-means++ takes ten times as long, and begins with what is strange.
    chosen = torch.randperm(len(X), generator=generator)[:n_means].to(X.device)
    run = lloyd(X, X[chosen], max_iter=ITERATIONS)
    distances = distances_to_others(X, run.centers, run.labels).sort().values.cpu()
    kept = distances[evenly_spaced(len(distances), KEPT_DISTANCES)]
    return Familiar(run.centers.float().cpu().numpy(), kept.float().numpy())


@full_digits()
def distances_to_others(X: Tensor, means: Tensor, labels: Tensor) -> Tensor:
    r"""Return how far each sample is from the nearest mean, its own taken without it.

    Without one of its m members, a mean is farther from that member by the factor
    :math:`m / (m - 1)`. Of a single member nothing is left.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
    means : Tensor of shape (n_means, n_features)
    labels : Tensor of shape (n_samples,), int64
        Whose mean each sample is part of.
    """
    norms = means.square().sum(dim=1) + X.square().sum(dim=1, keepdim=True)
    distances = torch.addmm(norms, X, means.T, alpha=-2).clamp_(min=0).sqrt_()
    sizes = label_counts(labels, len(means))[labels]
    own = distances.gather(1, labels[:, None])[:, 0]
    without = torch.where(sizes > 1, own * sizes / (sizes - 1).clamp(min=1), torch.inf)
    others = distances.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    # The only sample that there is lies where it lies.
    return torch.minimum(without, others).nan_to_num(posinf=0.0)


def outlier_ranks(distances: NDArray[Any], known: NDArray[Any]) -> NDArray[np.float64]:
    """Return which share of the training samples is less far; beyond all of them, almost one.

    Parameters
    ----------
    distances : ndarray of shape (n_samples,)
    known : ndarray of shape (n_distances,)
        Those of training samples, sorted.

    Returns
    -------
    ndarray of shape (n_samples,)
        In [0, 1], in the order of the distances; those that equal many of the known ones are in
        their middle.
    """
    n, farthest = len(known), np.float64(known[-1])
    nearer = np.searchsorted(known, distances, side="left")
    not_farther = np.searchsorted(known, distances, side="right")
    inside = (nearer + not_farther) / 2
    ratio = np.divide(farthest, distances, out=np.ones(len(distances)), where=distances > farthest)
    return np.where(distances > farthest, n + 1 - ratio, inside) / (n + 1)
