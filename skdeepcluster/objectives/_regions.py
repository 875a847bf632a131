"""Regions of the embedding: what class weights are estimated from where nothing else divides it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skdeepcluster.numerics import nearest_center
from skdeepcluster.objectives._mini import occupancy_weights


class Regions(nn.Module):
    """A finer partition of the embedding than the clusters, by its nearest centres.

    Parameters
    ----------
    n_regions : int
        Number of regions.
    embedding_dim : int
        Number of embedding dimensions.
    """

    # As MiniClustering's delta: the share of a region that a cluster holds to occupy it.
    OCCUPANCY_THRESHOLD = 0.3
    centers: Tensor

    def __init__(self, n_regions: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(n_regions, embedding_dim))

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.centers)

    @torch.no_grad()
    def place(self, centers: Tensor) -> None:
        """Set the centres; of fewer than there is room for, the first takes the places left."""
        self.centers.copy_(centers[0])
        self.centers[: len(centers)] = centers

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
        """Return class weights as MiniClustering's, with the regions as mini-clusters."""
        regions, _ = nearest_center(embedding.to(self.centers.device), self.centers)
        shape = (n_clusters, len(self))
        return occupancy_weights(labels, regions, shape, self.OCCUPANCY_THRESHOLD)
