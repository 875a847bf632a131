"""Regions of the embedding: finer than clusters, for class weights and for what neighbours say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skdeepcluster.numerics import cluster_means, nearest_center
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

    # Share of a centre that the samples of a batch replace where the encoder moves.
    FOLLOWING_RATE = 0.5
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
    def find(self, embedding: Tensor) -> Tensor:
        """Return the region of each sample: that of the nearest centre."""
        regions, _ = nearest_center(embedding, self.centers)
        return regions

    @torch.no_grad()
    def follow(self, embedding: Tensor, regions: Tensor) -> None:
        """Move the centres towards the samples of a batch, given with their regions.

        The regions of the last batch are a good start for this one, so one pass of k-means does.
        """
        means, counts = cluster_means(embedding, regions, len(self))
        rate = self.FOLLOWING_RATE * (counts > 0).to(embedding.dtype)
        self.centers.lerp_(means, rate[:, None])

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
        """Return class weights as MiniClustering's, with the regions as mini-clusters."""
        regions = self.find(embedding.to(self.centers.device))
        return occupancy_weights(labels, regions, (n_clusters, len(self)))
