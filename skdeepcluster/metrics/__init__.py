"""How well found clusters match known classes, and how far their probabilities can be trusted.

Cluster numbers mean nothing by themselves, so every score first gives each cluster at most one
class and each class at most one cluster, in the way that makes most samples right. The scores
complement scikit-learn's own :func:`~sklearn.metrics.normalized_mutual_info_score` and
:func:`~sklearn.metrics.adjusted_rand_score`. They need labels, so training never sees them.
"""

from skdeepcluster.metrics._calibration import (
    brier_score,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)
from skdeepcluster.metrics._matching import class_averaged_accuracy, clustering_accuracy
from skdeepcluster.metrics._rejection import (
    area_under_risk_coverage,
    failure_auroc,
    false_positive_rate_at_95_recall,
    rejection_curve,
)

__all__ = [
    "area_under_risk_coverage",
    "brier_score",
    "class_averaged_accuracy",
    "clustering_accuracy",
    "expected_calibration_error",
    "failure_auroc",
    "false_positive_rate_at_95_recall",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "rejection_curve",
    "reliability_curve",
]


def __dir__() -> list[str]:
    return __all__
