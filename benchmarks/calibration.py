"""How far confidences can be trusted: ours against mixtures, soft k-means and a naive head.

    python benchmarks/calibration.py --data DIR [--seeds 3] [--arrays digits ...]

DIR as for ``features.py``, with whose arrays this shares the loader. All methods get the array
centred and divided by one global scale, and the number of clusters; labels are read only to score.
Prints medians over the seeds (and the range of ECE), and appends JSON records to ``--output``.

KMeans has no probabilities of its own; two common makeshifts stand in: the softmax of minus the
squared distances to the centres, and of minus the distances. They depend on the scale of the data.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from features import ARRAYS, FURTHER_ARRAYS, environment, load
from scipy.special import softmax
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from skdeepcluster import CalibratedDeepClustering, MiniClustering
from skdeepcluster.calibration import RegionCalibrator
from skdeepcluster.metrics import (
    area_under_risk_coverage,
    clustering_accuracy,
    expected_calibration_error,
    failure_auroc,
    false_positive_rate_at_95_recall,
)

FIRST_SEED = 3000
ABLATION: dict[str, dict[str, Any]] = {
    "balanced": {"selection": "balanced"},
    "fixed threshold": {"confidence_threshold": 0.9},
    "single head": {"calibration_head": False},
    "no prototypes": {"init": "random"},
    "init=kmeans": {"init": "kmeans"},
    "start alone": {"max_epochs": 0},
}


def probabilities(
    X: np.ndarray, n_clusters: int, seed: int, ablation: list[str]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield the name, the probabilities and the seconds of every method."""
    started = time.perf_counter()

    def lap() -> float:
        nonlocal started
        seconds, started = time.perf_counter() - started, time.perf_counter()
        return seconds

    kmeans = KMeans(n_clusters, n_init=10, random_state=seed).fit(X)
    distances = kmeans.transform(X)
    yield "KMeans, softmax(-d^2)", softmax(-np.square(distances), axis=1), lap()
    yield "KMeans, softmax(-d)", softmax(-distances, axis=1), lap()
    calibrated = RegionCalibrator(clone(kmeans), random_state=seed).fit(X)
    yield "KMeans, calibrated", calibrated.predict_proba(X), lap()
    mixture = GaussianMixture(
        n_clusters, covariance_type="diag", reg_covar=1e-3, random_state=seed
    ).fit(X.astype(np.float64))
    yield "GaussianMixture (diag)", mixture.predict_proba(X), lap()
    for method in (MiniClustering, CalibratedDeepClustering):
        name = method.__name__
        lap()
        plain = method(n_clusters, random_state=seed, calibrate=False).fit(X)
        yield f"{name}, uncalibrated", plain.predict_proba(X), lap()
        model = method(n_clusters, random_state=seed).fit(X)
        yield name, model.predict_proba(X), lap()
    head = LogisticRegression(C=100, max_iter=300).fit(8 * model.transform(X), model.labels_)
    yield "  naive softmax head", _all_columns(head, model, X, n_clusters), lap()
    for name in ablation:
        model = CalibratedDeepClustering(
            n_clusters, random_state=seed, calibrate=False, **ABLATION[name]
        ).fit(X)
        yield f"  {name}, uncalibrated", model.predict_proba(X), lap()


def _all_columns(head: LogisticRegression, model: Any, X: np.ndarray, k: int) -> np.ndarray:
    result = np.zeros((len(X), k))
    result[:, head.classes_] = head.predict_proba(8 * model.transform(X))
    return result


def score(y: np.ndarray, found: np.ndarray) -> dict[str, float]:
    labels = found.argmax(axis=1)
    return {
        "ECE": expected_calibration_error(y, found),
        "AURC": area_under_risk_coverage(y, found),
        "AUROC": failure_auroc(y, found),
        "FPR95": false_positive_rate_at_95_recall(y, found),
        "ACC": clustering_accuracy(y, labels),
        "ARI": float(adjusted_rand_score(y, labels)),
        "confidence": float(found.max(axis=1).mean()),
        "clusters": float(len(np.unique(labels))),
    }


def report(records: list[dict[str, Any]]) -> None:
    """Print medians over the seeds, array by array."""
    columns = ("AURC", "AUROC", "FPR95", "ACC", "ARI", "confidence", "clusters", "seconds")
    for array in dict.fromkeys(record["array"] for record in records):
        rows = [record for record in records if record["array"] == array]
        print(f"\n{array} {tuple(rows[0]['shape'])}, {len({r['seed'] for r in rows})} seeds")
        print(f"{'':40}{'ECE':>6}{'(range)':>14}" + "".join(f"{c:>11}" for c in columns))
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method]
            ece = [row["ECE"] for row in own]
            medians = "".join(f"{np.median([row[c] for row in own]):11.3f}" for c in columns)
            print(f"{method:40}{np.median(ece):6.3f} ({min(ece):.3f}-{max(ece):.3f}){medians}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--arrays", nargs="+", choices=ARRAYS + FURTHER_ARRAYS)
    parser.add_argument("--ablation", nargs="*", choices=tuple(ABLATION))
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()

    ablation = [] if arguments.ablation is None else arguments.ablation or list(ABLATION)
    arrays = arguments.arrays or (ARRAYS if arguments.data else ARRAYS[:2])
    # The first fit imports the training engine; that is not the fit's time.
    MiniClustering(2, random_state=0).fit(np.eye(8, dtype=np.float32))
    records = []
    for array in arrays:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            X, y = load(array, arguments.data, seed)
            X = (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # lost clusters are in the record
                for method, found, seconds in probabilities(X, len(np.unique(y)), seed, ablation):
                    record = {"array": array, "shape": list(X.shape), "method": method}
                    records.append({**record, "seed": seed, **score(y, found), "seconds": seconds})
    report(records)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with arguments.output.open("a") as file:
            for record in records:
                file.write(json.dumps({**record, **environment()}) + "\n")


if __name__ == "__main__":
    main()
