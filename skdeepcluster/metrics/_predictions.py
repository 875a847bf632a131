"""Cluster probabilities beside the known classes: checked, and matched once for every score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from skdeepcluster.metrics._matching import check_labels, match_clusters

# Far above what rounding does to a row, in half precision too, and far below what it takes to
# mistake scores, distances or logits for probabilities.
_SUM_TOLERANCE = 1e-3


class MatchedPredictions(NamedTuple):
    """What every score of probabilities is made of."""

    probabilities: NDArray[np.floating[Any]]
    """(n_samples, n_clusters), in the precision they came in."""

    confidence: NDArray[np.float64]
    """(n_samples,); the largest probability of each sample."""

    true_cluster: NDArray[np.intp]
    """(n_samples,); the cluster matched to the class of each sample, -1 where there is none."""

    correct: NDArray[np.bool_]
    """(n_samples,); whether the most probable cluster is the one matched to the class."""


def match_predictions(labels_true: ArrayLike, probabilities: ArrayLike) -> MatchedPredictions:
    """Match clusters to classes on the most probable cluster of each sample.

    The matching makes most samples right, as in :func:`clustering_accuracy`. Of several such
    matchings the one that gives the true classes most probability is used, so that scores do not
    depend on how the clusters are numbered; it also finds the class of a cluster that is nowhere
    the most probable.
    """
    classes = check_labels(labels_true, "labels_true")
    checked = _check_probabilities(probabilities, n_samples=len(classes))
    n_samples, n_clusters = checked.shape
    found = checked.argmax(axis=1)

    names, codes = np.unique(classes, return_inverse=True)
    table = np.zeros((len(names), n_clusters), dtype=np.int64)
    np.add.at(table, (codes, found), 1)
    mass = np.zeros((len(names), n_clusters))
    np.add.at(mass, codes, checked)
    # The mass of any matching is at most n_samples, but for the tolerance of the row sums.
    cluster_of_class = match_clusters(table, mass / (2 * n_samples))

    true_cluster = cluster_of_class[codes]
    return MatchedPredictions(
        probabilities=checked,
        confidence=checked.max(axis=1).astype(np.float64),
        true_cluster=true_cluster,
        correct=found == true_cluster,
    )


def _check_probabilities(probabilities: ArrayLike, n_samples: int) -> NDArray[np.floating[Any]]:
    """Probabilities as a finite floating point array with one distribution per row."""
    checked: NDArray[np.floating[Any]] = check_array(
        probabilities,
        dtype=[np.float64, np.float32, np.float16],
        ensure_2d=False,
        allow_nd=True,
        input_name="probabilities",
    )
    if checked.ndim != 2:
        raise ValueError(
            "probabilities must have shape (n_samples, n_clusters), one row per sample as "
            f"predict_proba returns them; got shape {checked.shape}."
        )
    if len(checked) != n_samples:
        raise ValueError(
            f"probabilities must have one row per label; got {len(checked)} rows for the "
            f"{n_samples} labels in labels_true."
        )
    if checked.min() < 0:
        raise ValueError(
            f"probabilities must not be negative; got {checked.min():.6g}. Pass the output of "
            "predict_proba; turn logits into probabilities with a softmax first."
        )
    sums = checked.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"Each row of probabilities must sum to 1 (within {_SUM_TOLERANCE:g}); row {worst} "
            f"sums to {sums[worst]:.6g}. Divide every row by its sum, or pass the output of "
            "predict_proba."
        )
    return checked
