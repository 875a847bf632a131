"""Contrast: the two views of a sample find each other among many (InfoNCE, SimCLR, MoCo)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from skdeepcluster.networks import EMATeacher, EmbeddingNetwork, full_precision


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


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Return SimCLR's loss, in which the other views of both kinds are negatives.

    .. math:: -\frac{1}{2B} \sum_{i=1}^{2B}
              \log \frac{\exp(z_i \cdot z_{p(i)} / T)}{\sum_{j \ne i} \exp(z_i \cdot z_j / T)}

    Parameters
    ----------
    first, second : Tensor of shape (batch, embedding_dim)
        The halves of the 2B unit embeddings z; p(i) is the row of the other half with the same
        number.
    temperature : float
        The T of the formula.
    """
    both = torch.cat([first, second])
    similarities = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return cross_entropy(similarities, partners)


def queue_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    r"""Return MoCo's loss, in which keys of earlier batches are the negatives.

    .. math:: -\frac{1}{B} \sum_i \log \frac{\exp(q_i \cdot k_i / T)}
              {\exp(q_i \cdot k_i / T) + \sum_j \exp(q_i \cdot u_j / T)}

    Parameters
    ----------
    queries, keys : Tensor of shape (batch, embedding_dim)
        Unit embeddings q and k of the two views; the gradient flows through q alone.
    queue : Tensor of shape (n_negatives, embedding_dim)
        Unit embeddings u.
    temperature : float
        The T of the formula.
    """
    keys, queue = keys.detach(), queue.detach()
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.T], dim=1) / temperature
    return cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))


class ContrastiveObjective(nn.Module):
    """SimCLR: the embeddings of two views attract each other and repel all others.

    Parameters
    ----------
    embedding : EmbeddingNetwork
        Maps a view to unit embeddings.
    temperature : float
        The T of the loss.
    both_kinds : bool
        Whether views of the same kind are negatives too: :func:`nt_xent`, else :func:`info_nce`.
    """

    def __init__(
        self, embedding: EmbeddingNetwork, temperature: float, *, both_kinds: bool
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.temperature = temperature
        self.loss = nt_xent if both_kinds else info_nce

    @property
    def result(self) -> EmbeddingNetwork:
        """The network worth keeping."""
        return self.embedding

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of pairs of views; nothing else is recorded."""
        # One pass for both, so that batch normalisation sees them alike.
        z1, z2 = self.embedding(torch.cat([first, second])).chunk(2)
        with full_precision(z1.device):
            return self.loss(z1, z2, self.temperature), {}


class MoCoObjective(nn.Module):
    """MoCo: one view finds the other, embedded by a slow teacher, among keys of earlier batches.

    Parameters
    ----------
    embedding : EmbeddingNetwork
        Maps a view to unit embeddings.
    queue_size : int
        Number of negatives.
    temperature : float
        The T of :func:`queue_loss`.
    momentum, final_momentum : float
        Of the teacher, in the first epoch and towards the end; it grows in a line between them.
    """

    queue: Tensor
    position: Tensor

    def __init__(
        self,
        embedding: EmbeddingNetwork,
        *,
        queue_size: int,
        temperature: float,
        momentum: float,
        final_momentum: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.teacher = EMATeacher(embedding, momentum)
        self.temperature = temperature
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.register_buffer(
            "queue", normalize(torch.randn(queue_size, embedding.embedding_dim), dim=1)
        )
        # Where the next keys go. A tensor, because reading it would make an accelerator wait.
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @property
    def result(self) -> EmbeddingNetwork:
        """The network worth keeping."""
        return self.embedding

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        return [{"params": list(self.embedding.parameters()), "lr": learning_rate}]

    def begin_epoch(self, progress: float) -> None:
        """Let the teacher slow down."""
        self.teacher.momentum = self.momentum + progress * (self.final_momentum - self.momentum)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of pairs of views, and put the keys into the queue."""
        # The last step's changes, before this one needs them.
        self.teacher.update(self.embedding)
        queries = self.embedding(first)
        with torch.no_grad():
            keys = self.teacher(second)
        with full_precision(queries.device):
            loss = queue_loss(queries, keys, self.queue.clone(), self.temperature)
        self._enqueue(keys)
        return loss, {}

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Let keys take the places of the oldest ones."""
        size = len(self.queue)
        keys = keys[-size:]
        places = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.queue.index_copy_(0, places, keys)
        self.position.add_(len(keys)).remainder_(size)
