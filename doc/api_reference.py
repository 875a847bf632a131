"""What the API reference shows: the public names, section by section.

A test compares it with what the package exports.
"""

API_REFERENCE: dict[str, tuple[str, list[str]]] = {
    "Clusterers": (
        "skdeepcluster",
        [
            "MiniClustering",
            "CalibratedDeepClustering",
            "StableClusterDiscrimination",
            "ProximityDeepClustering",
            "GenerativeCalibrationClustering",
        ],
    ),
    "Pretraining": ("skdeepcluster.pretraining", ["BYOL", "MoCo", "SimCLR"]),
    "Saved models": ("skdeepcluster", ["save", "load", "to_onnx"]),
    "Calibration of other clusterers": ("skdeepcluster.calibration", ["RegionCalibrator"]),
    "Scores": (
        "skdeepcluster.metrics",
        [
            "clustering_accuracy",
            "class_averaged_accuracy",
            "expected_calibration_error",
            "maximum_calibration_error",
            "brier_score",
            "negative_log_likelihood",
            "reliability_curve",
            "failure_auroc",
            "false_positive_rate_at_95_recall",
            "area_under_risk_coverage",
            "rejection_curve",
        ],
    ),
    "Reports": ("skdeepcluster.report", ["cluster_report", "ClusterReport"]),
    "Pictures": (
        "skdeepcluster.display",
        ["ClusterMapDisplay", "ImageGridDisplay", "ReliabilityDisplay", "RejectionDisplay"],
    ),
    "Data sets": ("skdeepcluster.datasets", ["ImageFiles", "make_long_tailed"]),
    "Callbacks": ("skdeepcluster.callbacks", ["EmbeddingMonitor"]),
    "Errors": ("skdeepcluster.exceptions", ["DivergenceError"]),
    "For new methods": ("skdeepcluster", ["DeepClusterer"]),
}


def as_restructured_text() -> str:
    """Return the page of the API reference."""
    lines = ["API reference", "=============", ""]
    for section, (module, names) in API_REFERENCE.items():
        lines += [section, "-" * len(section), ""]
        lines += [f".. currentmodule:: {module}", ""]
        lines += [".. autosummary::", "   :toctree: generated/", ""]
        lines += [f"   {name}" for name in names]
        lines.append("")
    return "\n".join(lines)
