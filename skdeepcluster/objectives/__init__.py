"""Objectives: one file per method, pure loss functions and the heads and state they need."""

from skdeepcluster.objectives._calibrated import (
    CalibratedObjective,
    calibration_loss,
    candidates_per_cluster,
    region_targets,
    select_confident,
    size_divergence,
)
from skdeepcluster.objectives._contrastive import ContrastiveObjective, info_nce
from skdeepcluster.objectives._discrimination import (
    DiscriminationHead,
    DiscriminationObjective,
    RefinementObjective,
    center_loss,
    discriminate,
    encoder_loss,
    entropy_cost,
    raised_duals,
)
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
    "CalibratedObjective",
    "ContrastiveObjective",
    "DiscriminationHead",
    "DiscriminationObjective",
    "HeadFit",
    "MiniObjective",
    "RefinementObjective",
    "alignment_loss",
    "calibration_loss",
    "candidates_per_cluster",
    "center_loss",
    "class_weights",
    "discriminate",
    "encoder_loss",
    "entropy_cost",
    "info_nce",
    "marginal_loss",
    "pseudo_labels",
    "raised_duals",
    "region_targets",
    "select_confident",
    "self_training_loss",
    "size_divergence",
]
