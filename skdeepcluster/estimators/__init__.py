"""Estimators: parameters, validation and fitted attributes. They hold no loop and no loss."""

from skdeepcluster.estimators._base import DeepClusterer
from skdeepcluster.estimators._byol import BYOL
from skdeepcluster.estimators._calibrated import CalibratedDeepClustering
from skdeepcluster.estimators._discrimination import StableClusterDiscrimination
from skdeepcluster.estimators._generative import GenerativeCalibrationClustering
from skdeepcluster.estimators._mini import MiniClustering
from skdeepcluster.estimators._moco import MoCo
from skdeepcluster.estimators._proximity import ProximityDeepClustering
from skdeepcluster.estimators._saving import load
from skdeepcluster.estimators._simclr import SimCLR

__all__ = [
    "BYOL",
    "CalibratedDeepClustering",
    "DeepClusterer",
    "GenerativeCalibrationClustering",
    "MiniClustering",
    "MoCo",
    "ProximityDeepClustering",
    "SimCLR",
    "StableClusterDiscrimination",
    "load",
]
