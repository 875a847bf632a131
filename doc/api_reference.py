"""What the API reference shows: the public names, section by section.

A test compares it with what the package exports.
"""

from pathlib import Path

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
    "Calibration": ("skdeepcluster.calibration", ["RegionCalibrator"]),
    "Metrics": (
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
    "Displays": (
        "skdeepcluster.display",
        [
            "ClusterMapDisplay",
            "ImageGridDisplay",
            "MergeTreeDisplay",
            "ChoiceDisplay",
            "ReliabilityDisplay",
            "RejectionDisplay",
        ],
    ),
    "Reports": ("skdeepcluster.report", ["cluster_report", "ClusterReport"]),
    "Data sets": (
        "skdeepcluster.datasets",
        ["ImageFiles", "make_long_tailed"],
    ),
    "Saving": ("skdeepcluster", ["save", "load", "to_onnx"]),
    "Callbacks": ("skdeepcluster.callbacks", ["EmbeddingMonitor"]),
    "Errors": ("skdeepcluster.exceptions", ["DivergenceError"]),
    "For new methods": ("skdeepcluster", ["DeepClusterer"]),
}

# What a section is about, in a sentence, and the pages that say more.
ABOUT: dict[str, tuple[str, list[str]]] = {
    "Clusterers": (
        "Estimators with ``fit``, ``predict`` and ``predict_proba``. Two of them are "
        "reconstructions: their papers' equations were not available.",
        ["guide/choosing_a_method", "methods/index"],
    ),
    "Pretraining": (
        "Transformers that learn an embedding without labels, alone or as the first phase of a "
        "clusterer.",
        ["methods/pretraining", "guide/features_or_images"],
    ),
    "Calibration": (
        "Probabilities for any clusterer of scikit-learn.",
        ["guide/confidences", "methods/calibration"],
    ),
    "Metrics": (
        "Scores of labels and of probabilities, where the true classes are known.",
        ["guide/confidences", "guide/long_tails"],
    ),
    "Displays": (
        "Pictures of clusters and of confidences. They need matplotlib.",
        [
            "guide/reading_the_clusters",
            "guide/number_of_clusters",
            "guide/confidences",
        ],
    ),
    "Reports": (
        "A table of what is in each cluster.",
        ["guide/reading_the_clusters"],
    ),
    "Data sets": (
        "Files of images as a data set, and long-tailed versions of data with known classes.",
        ["guide/photographs", "guide/features_or_images", "guide/long_tails"],
    ),
    "Saving": (
        "Models in files that hold no code, and as ONNX.",
        ["guide/saving", "guide/serving"],
    ),
    "Callbacks": ("What watches a fit.", ["guide/reproducibility"]),
    "Errors": ("What a fit may raise.", ["guide/troubleshooting"]),
    "For new methods": (
        "The base class of the clusterers.",
        ["adding_a_method"],
    ),
}

# Pages about a single name, besides those of its section.
PAGES = {
    "MiniClustering": ["methods/mini_clustering", "guide/long_tails"],
    "CalibratedDeepClustering": ["methods/calibrated_deep_clustering"],
    "StableClusterDiscrimination": [
        "methods/stable_cluster_discrimination",
        "guide/number_of_clusters",
    ],
    "ProximityDeepClustering": ["methods/proximity_deep_clustering"],
    "GenerativeCalibrationClustering": [
        "methods/generative_calibration_clustering"
    ],
}


def file_name(section: str) -> str:
    """Return the name of the page of a section, without its ending."""
    return section.lower().replace(" ", "_")


def guides() -> dict[str, list[str]]:
    """Return the pages that each public name is explained on, the nearest first."""
    return {
        f"{module}.{name}": [
            f"/{page}" for page in [*PAGES.get(name, []), *ABOUT[section][1]]
        ]
        for section, (module, names) in API_REFERENCE.items()
        for name in names
    }


def table(section: str, folder: str) -> list[str]:
    """Return the lines of the table of a section; the pages of its names are in ``folder``."""
    module, names = API_REFERENCE[section]
    about, pages = ABOUT[section]
    more = ", ".join(f":doc:`/{page}`" for page in pages)
    lines = [
        f"{about} See {more}.",
        "",
        f".. currentmodule:: {module}",
        "",
        ".. autosummary::",
    ]
    if folder:
        lines.append(f"   :toctree: {folder}")
    lines.append("   :nosignatures:")
    return [*lines, "", *(f"   {name}" for name in names), ""]


def write_pages(folder: Path) -> None:
    """Write the page of the API reference, and one page for each section of it."""
    pages = folder / "api"
    pages.mkdir(exist_ok=True)
    lines = [
        "API reference",
        "=============",
        "",
        ".. toctree::",
        "   :hidden:",
        "",
    ]
    lines += [f"   api/{file_name(section)}" for section in API_REFERENCE]
    for section in API_REFERENCE:
        title = [section, "-" * len(section), ""]
        lines += ["", *title, *table(section, "")]
        text = "\n".join(
            [section, "=" * len(section), "", *table(section, "../generated/")]
        )
        (pages / f"{file_name(section)}.rst").write_text(text)
    (folder / "api.rst").write_text("\n".join(lines))
