"""BYOL: predict how a slow copy of the network embeds the other view. No negatives."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from skdeepcluster.networks import EMATeacher, EmbeddingNetwork, multilayer_perceptron


def regression_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    r"""Return the mean squared distance of predictions, scaled to unit length, to their targets.

    .. math:: \frac{1}{B} \sum_i \left\| \frac{q_i}{\|q_i\|} - z'_i \right\|^2
              = 2 - \frac{2}{B} \sum_i \frac{q_i \cdot z'_i}{\|q_i\|}

    Parameters
    ----------
    predictions : Tensor of shape (batch, embedding_dim)
        The q of the formula, of any length.
    targets : Tensor of shape (batch, embedding_dim)
        Unit embeddings z' by the teacher; no gradient flows through them.
    """
    cosines = (normalize(predictions.float(), dim=1) * targets.detach()).sum(dim=1)
    return 2 - 2 * cosines.mean()


class BYOLObjective(nn.Module):
    """Bootstrap your own latent: each view predicts the teacher's embedding of the other.

    Parameters
    ----------
    embedding : EmbeddingNetwork
        Maps a view to unit embeddings.
    hidden_dim : int
        Hidden units of the predictor.
    momentum : float
        Of the teacher, in the first epoch (tau); it rises to one along a half cosine.
    """

    # The predictor has to keep up with a moving teacher.
    PREDICTOR_RATE = 10.0

    def __init__(self, embedding: EmbeddingNetwork, *, hidden_dim: int, momentum: float) -> None:
        super().__init__()
        width = embedding.embedding_dim
        self.embedding = embedding
        self.predictor = multilayer_perceptron([width, hidden_dim, width])
        self.teacher = EMATeacher(embedding, momentum)
        self.momentum = momentum

    @property
    def result(self) -> EmbeddingNetwork:
        """The network worth keeping: the teacher, the average over many steps."""
        return cast(EmbeddingNetwork, self.teacher.network)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        return [
            {"params": list(self.embedding.parameters()), "lr": learning_rate},
            {
                "params": list(self.predictor.parameters()),
                "lr": self.PREDICTOR_RATE * learning_rate,
            },
        ]

    def begin_epoch(self, progress: float) -> None:
        """Let the teacher slow down."""
        moving = (1 - self.momentum) * (1 + math.cos(math.pi * progress)) / 2
        self.teacher.momentum = 1 - moving

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of pairs of views, each predicting the other."""
        # The last step's changes, before this one needs them.
        self.teacher.update(self.embedding)
        both = torch.cat([first, second])
        with torch.no_grad():
            targets = self.teacher(both).roll(len(first), dims=0)
        return regression_loss(self.predictor(self.embedding(both)), targets), {}
