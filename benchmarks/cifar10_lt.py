"""Long-tailed CIFAR-10, the published protocol of MiniClustering, end to end.

    python benchmarks/cifar10_lt.py --data DIR --imbalance 10 --epochs E
        [--method MiniClustering] [--pretraining BYOL] [--clustering-epochs 200]
        [--subset 0.1] [--backbone resnet18] [--seed 0] [--checkpoint-dir DIR] [--output FILE]

DIR holds the ``cifar-10-batches-py`` of the data set's site, or ``cifar10_jpeg.npz`` with the
images as JPEG files (``bytes``, ``offsets``, ``y``, ``test``), which lose a little against the
original pixels. The training images are used, drawn long-tailed; labels serve to draw and to score,
no more.

Stages: the pretraining with k-means on its embedding; the start of the heads; the clustering. The
method and the pretraining are the package's, with their defaults except for the epochs named here
(paper: 1000 of BYOL, 200 of clustering). StableClusterDiscrimination has one stage, of
``--epochs``. The same call with the same ``--checkpoint-dir`` resumes where it was stopped. Prints,
and appends to ``--output``, one JSON record per run.

Published (ACC / CAA / NMI / ARI in %, imbalance 10): BYOL + k-means 51.9 / 55.2 / 56.3 / 41.7,
MiniClustering 64.6 / 61.4 / 63.9 / 56.7.
"""

import argparse
import io
import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
from features import environment
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.metrics import (
    class_averaged_accuracy,
    clustering_accuracy,
    expected_calibration_error,
)
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR

METHODS = {
    method.__name__: method
    for method in (
        MiniClustering,
        CalibratedDeepClustering,
        StableClusterDiscrimination,
        ProximityDeepClustering,
        GenerativeCalibrationClustering,
    )
}
PRETRAINING = {method.__name__: method for method in (BYOL, MoCo, SimCLR)}
N_CLUSTERS = 10
# What the papers did to images, whatever "auto" would choose for these.
PUBLISHED = {"views": ["crop", "mirror", "light", "colour", "grey"], "fine_tune": True}


def load(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the training images, (n, 3, 32, 32) uint8, and their classes."""
    packed = data / "cifar10_jpeg.npz"
    if packed.is_file():
        with np.load(packed) as file:
            content, offsets, y = file["bytes"], file["offsets"], file["y"]
            wanted = np.flatnonzero(~file["test"])
        images = [
            np.asarray(Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]].tobytes())))
            for i in wanted
        ]
        return np.stack(images).transpose(0, 3, 1, 2).copy(), y[wanted].astype(np.int64)
    folder = data / "cifar-10-batches-py"
    if not folder.is_dir():
        raise SystemExit(f"--data {data} holds neither {folder.name} nor {packed.name}.")
    batches = [
        pickle.loads((folder / f"data_batch_{k}").read_bytes(), encoding="bytes")
        for k in range(1, 6)
    ]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([batch[b"labels"] for batch in batches])


def score(
    y: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None = None
) -> dict[str, float]:
    scores = {
        "ACC": clustering_accuracy(y, labels),
        "CAA": class_averaged_accuracy(y, labels),
        "NMI": float(normalized_mutual_info_score(y, labels)),
        "ARI": float(adjusted_rand_score(y, labels)),
    }
    if probabilities is not None:
        scores["ECE"] = expected_calibration_error(y, probabilities)
    return scores


def run(arguments: argparse.Namespace, X: np.ndarray, y: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the scores after each stage, and its seconds."""
    stages: dict[str, dict[str, float]] = {}
    parameters: dict[str, Any] = {
        "backbone": arguments.backbone,
        "random_state": arguments.seed,
        "verbose": 1,
    }
    method = METHODS[arguments.method]
    known = method().get_params()
    parameters |= {name: value for name, value in PUBLISHED.items() if name in known}

    def folder(stage: str) -> Path | None:
        return arguments.checkpoint_dir and arguments.checkpoint_dir / stage

    def fit(stage: str, model: Any) -> None:
        started = time.perf_counter()
        model.set_params(checkpoint_dir=folder(stage)).fit(X)
        seconds = time.perf_counter() - started
        stages[stage] = {**score(y, model.labels_, model.predict_proba(X)), "seconds": seconds}

    if method is StableClusterDiscrimination:
        fit("clustering", method(N_CLUSTERS, max_epochs=arguments.epochs, **parameters))
        return stages
    if method is ProximityDeepClustering:
        lengths = {"pretraining_epochs": arguments.epochs}
        lengths["max_epochs"] = arguments.clustering_epochs
        fit("clustering", method(N_CLUSTERS, **lengths, **parameters))
        return stages
    pretraining = PRETRAINING[arguments.pretraining](max_epochs=arguments.epochs)
    model = method(N_CLUSTERS, pretraining=pretraining, max_epochs=0, calibrate=False, **parameters)
    fit("start", model)
    kmeans = KMeans(N_CLUSTERS, n_init=10, random_state=arguments.seed)
    stages = {
        f"{arguments.pretraining} + k-means": score(y, kmeans.fit_predict(model.transform(X))),
        **stages,
    }
    model.set_params(max_epochs=arguments.clustering_epochs, warm_start=True, calibrate=True)
    fit("clustering", model)
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--imbalance", type=float, default=10.0)
    parser.add_argument("--epochs", type=int, required=True, help="of the pretraining")
    parser.add_argument("--clustering-epochs", type=int, default=200)
    parser.add_argument("--method", choices=METHODS, default="MiniClustering")
    parser.add_argument("--pretraining", choices=PRETRAINING, default="BYOL")
    parser.add_argument("--backbone", default="resnet18", help="name of a timm model")
    parser.add_argument("--subset", type=float, default=1.0, help="share of the training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--output", type=Path, help="append the JSON record to this file")
    arguments = parser.parse_args()

    X, y = load(arguments.data)
    if arguments.subset < 1:
        kept = np.random.default_rng(arguments.seed).permutation(len(X))
        kept = kept[: round(arguments.subset * len(X))]
        X, y = X[kept], y[kept]
    X, y = make_long_tailed(X, y, imbalance_ratio=arguments.imbalance, random_state=arguments.seed)
    started = time.perf_counter()
    stages = run(arguments, X, y)
    options = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("data", "checkpoint_dir", "output")
    }
    record = {
        **options,
        "images": len(X),
        "stages": stages,
        "seconds": time.perf_counter() - started,
        **environment(),
    }
    for stage, scores in stages.items():
        print(f"{stage:20}" + "".join(f"{name} {value:8.3f}  " for name, value in scores.items()))
    if arguments.output:
        with arguments.output.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
