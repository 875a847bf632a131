"""Deep clustering with the scikit-learn interface."""

from skdeepcluster.estimators import (
    CalibratedDeepClustering,
    DeepClusterer,
    MiniClustering,
    StableClusterDiscrimination,
    load,
)

__version__ = "0.1.0.dev0"
__all__ = [
    "CalibratedDeepClustering",
    "DeepClusterer",
    "MiniClustering",
    "StableClusterDiscrimination",
    "__version__",
    "load",
]
