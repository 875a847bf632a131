"""Confidences from the votes of independent partitions, for any clusterer."""

from skdeepcluster.calibration._accuracy import accuracy_interval
from skdeepcluster.calibration._calibrator import RegionCalibrator
from skdeepcluster.calibration._confidence import (
    ConfidenceHead,
    confident_in,
    fit_confidence,
    n_epochs,
    vote_loss,
)
from skdeepcluster.calibration._votes import MOST_ROWS, collect_votes, overruled

__all__ = [
    "MOST_ROWS",
    "ConfidenceHead",
    "RegionCalibrator",
    "accuracy_interval",
    "collect_votes",
    "confident_in",
    "fit_confidence",
    "n_epochs",
    "overruled",
    "vote_loss",
]


def __dir__() -> list[str]:
    return ["RegionCalibrator"]  # the other names are for the rooms of this package
