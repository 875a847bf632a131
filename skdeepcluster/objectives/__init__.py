"""Objectives: one file per method, pure loss functions and the heads and state they need."""

from skdeepcluster.objectives._contrastive import ContrastiveObjective, info_nce
from skdeepcluster.objectives._mini import (
    HeadFit,
    MiniObjective,
    alignment_loss,
    class_weights,
    marginal_loss,
    pseudo_labels,
    self_training_loss,
)

__all__ = [
    "ContrastiveObjective",
    "HeadFit",
    "MiniObjective",
    "alignment_loss",
    "class_weights",
    "info_nce",
    "marginal_loss",
    "pseudo_labels",
    "self_training_loss",
]
