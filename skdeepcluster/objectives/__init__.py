"""Objectives: one file per method, pure loss functions and the heads and state they need."""

from skdeepcluster.objectives._byol import BYOLObjective, regression_loss
from skdeepcluster.objectives._calibrated import (
    CalibratedObjective,
    calibration_loss,
    candidates_per_cluster,
    region_targets,
    select_confident,
    size_divergence,
)
from skdeepcluster.objectives._contrastive import (
    ContrastiveObjective,
    MoCoObjective,
    info_nce,
    nt_xent,
    queue_loss,
)
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
    "BYOLObjective",
    "CalibratedObjective",
    "ContrastiveObjective",
    "DiscriminationHead",
    "DiscriminationObjective",
    "HeadFit",
    "MiniObjective",
    "MoCoObjective",
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
    "nt_xent",
    "pseudo_labels",
    "queue_loss",
    "raised_duals",
    "region_targets",
    "regression_loss",
    "select_confident",
    "self_training_loss",
    "size_divergence",
]
