"""Estimators: parameters, validation and fitted attributes. They hold no loop and no loss."""

from skdeepcluster.estimators._base import DeepClusterer
from skdeepcluster.estimators._calibrated import CalibratedDeepClustering
from skdeepcluster.estimators._discrimination import StableClusterDiscrimination
from skdeepcluster.estimators._mini import MiniClustering

__all__ = [
    "CalibratedDeepClustering",
    "DeepClusterer",
    "MiniClustering",
    "StableClusterDiscrimination",
]
