"""The clusterers, one file each: parameters, recipes, and which objective is trained."""

from skdeepcluster.estimators._calibrated import CalibratedDeepClustering
from skdeepcluster.estimators._discrimination import StableClusterDiscrimination
from skdeepcluster.estimators._generative import GenerativeCalibrationClustering
from skdeepcluster.estimators._mini import MiniClustering
from skdeepcluster.estimators._proximity import ProximityDeepClustering

__all__ = [
    "CalibratedDeepClustering",
    "GenerativeCalibrationClustering",
    "MiniClustering",
    "ProximityDeepClustering",
    "StableClusterDiscrimination",
]
