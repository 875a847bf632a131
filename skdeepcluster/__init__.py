"""Deep clustering with the scikit-learn interface."""

from skdeepcluster.estimators import (
    CalibratedDeepClustering,
    DeepClusterer,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
    load,
)

__version__ = "0.1.0.dev0"
__all__ = [
    "CalibratedDeepClustering",
    "DeepClusterer",
    "GenerativeCalibrationClustering",
    "MiniClustering",
    "ProximityDeepClustering",
    "StableClusterDiscrimination",
    "__version__",
    "load",
]
