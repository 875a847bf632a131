"""Heads that turn embeddings into cluster logits."""

import torch
from torch import Tensor, nn


class PrototypeHead(nn.Linear):
    """A linear layer whose rows start as cluster centres.

    Parameters
    ----------
    embedding_dim : int
        Number of embedding dimensions.
    n_clusters : int
        Number of outputs.
    """

    def __init__(self, embedding_dim: int, n_clusters: int) -> None:
        super().__init__(embedding_dim, n_clusters)

    @torch.no_grad()
    def start_from(self, centers: Tensor, scale: float) -> None:
        """Set the weights to ``scale`` times the unit centres and the biases to zero.

        On unit embeddings the logits are then ``scale`` times the cosine to each centre, so the
        head starts as the nearest-centre rule with a confidence that grows with ``scale``.

        Parameters
        ----------
        centers : Tensor of shape (n_clusters, embedding_dim)
            One centre per output.
        scale : float
            Length of the weight vectors, the inverse of the softmax temperature.
        """
        self.weight.copy_(scale * nn.functional.normalize(centers, dim=1))
        self.bias.zero_()
