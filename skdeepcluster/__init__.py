"""Deep clustering with the scikit-learn interface.

Everything is imported when it is first asked for: ``import skdeepcluster`` takes no time, and what
needs no torch, as the metrics, does not wait for it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the names as type checkers and editors look them up
    from skdeepcluster import calibration as calibration
    from skdeepcluster import callbacks as callbacks
    from skdeepcluster import datasets as datasets
    from skdeepcluster import display as display
    from skdeepcluster import exceptions as exceptions
    from skdeepcluster import metrics as metrics
    from skdeepcluster import pretraining as pretraining
    from skdeepcluster import report as report
    from skdeepcluster.base import DeepClusterer
    from skdeepcluster.estimators import (
        CalibratedDeepClustering,
        GenerativeCalibrationClustering,
        MiniClustering,
        ProximityDeepClustering,
        StableClusterDiscrimination,
    )
    from skdeepcluster.persistence import load, save, to_onnx

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
    "save",
    "to_onnx",
]
_PUBLIC_MODULES = [
    "calibration",
    "callbacks",
    "datasets",
    "display",
    "exceptions",
    "metrics",
    "pretraining",
    "report",
]

# Where the names are that no clusterer has.
_ROOMS = {"DeepClusterer": "base"} | dict.fromkeys(["load", "save", "to_onnx"], "persistence")

if not TYPE_CHECKING:  # or a checker would take any name for one of ours

    def __getattr__(name):
        from importlib import import_module

        if name in _PUBLIC_MODULES:
            return import_module(f"{__name__}.{name}")
        if name in __all__:
            # Whichever is asked for: load has to know all that may have been saved.
            estimators = import_module(f"{__name__}.estimators")
            room = _ROOMS.get(name)
            return getattr(import_module(f"{__name__}.{room}") if room else estimators, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_PUBLIC_MODULES]
