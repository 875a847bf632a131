"""Confidences from the votes of independent partitions, for any clusterer."""

from skdeepcluster.calibration._accuracy import accuracy_interval
from skdeepcluster.calibration._calibrator import RegionCalibrator
from skdeepcluster.calibration._confidence import (
    ConfidenceHead,
    confident_in,
    fit_confidence,
    mean_confidence,
    n_epochs,
    vote_loss,
)
from skdeepcluster.calibration._outliers import (
    FAMILIAR_ROWS,
    NearestMean,
    learn_familiar,
    outlier_ranks,
)
from skdeepcluster.calibration._votes import MOST_ROWS, collect_votes, overruled

__all__ = [
    "FAMILIAR_ROWS",
    "MOST_ROWS",
    "ConfidenceHead",
    "NearestMean",
    "RegionCalibrator",
    "accuracy_interval",
    "collect_votes",
    "confident_in",
    "fit_confidence",
    "learn_familiar",
    "mean_confidence",
    "n_epochs",
    "outlier_ranks",
    "overruled",
    "vote_loss",
]


def __dir__() -> list[str]:
    return ["RegionCalibrator"]  # the other names are for the rooms of this package
