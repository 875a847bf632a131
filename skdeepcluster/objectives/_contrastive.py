"""Contrastive pretraining: the two views of a sample find each other among all of the batch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Return the symmetric InfoNCE loss of two batches of unit embeddings.

    .. math:: -\frac{1}{2B} \sum_i \left[
              \log \frac{\exp(z_i \cdot z'_i / T)}{\sum_j \exp(z_i \cdot z'_j / T)} +
              \log \frac{\exp(z_i \cdot z'_i / T)}{\sum_j \exp(z_j \cdot z'_i / T)} \right]

    Negatives are the other samples' second views (and first views, in the second term).

    Parameters
    ----------
    first, second : Tensor of shape (batch, embedding_dim)
        Embeddings z and z'; row i of both are views of one sample.
    temperature : float
        The T of the formula.

    References
    ----------
    A. van den Oord, Y. Li, O. Vinyals. "Representation learning with contrastive predictive
    coding." 2018.
    """
    similarities = first @ second.T / temperature
    partners = torch.arange(len(first), device=first.device)
    return (cross_entropy(similarities, partners) + cross_entropy(similarities.T, partners)) / 2


class ContrastiveObjective(nn.Module):
    """InfoNCE on the embeddings of two views.

    Parameters
    ----------
    embedding : nn.Module
        Maps a view to unit embeddings.
    temperature : float
        The T of :func:`info_nce`.
    """

    def __init__(self, embedding: nn.Module, temperature: float) -> None:
        super().__init__()
        self.embedding = embedding
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of pairs of views; nothing else is recorded."""
        # One pass for both, so that batch normalisation sees them alike.
        z1, z2 = self.embedding(torch.cat([first, second])).chunk(2)
        return info_nce(z1, z2, self.temperature), {}
