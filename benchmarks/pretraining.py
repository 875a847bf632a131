"""What pretraining does for k-means: SimCLR, MoCo and BYOL on feature arrays and on small images.

    python benchmarks/pretraining.py [--data DIR] [--seeds 3] [--arrays digits ...] [--images]
        [--epochs E ...] [--clusterer]

For each array: ARI of KMeans (10 starts) on the samples as they come and on the embeddings, the
share of samples whose five nearest neighbours vote for their class, and seconds; medians over the
seeds. ``--images`` takes the digits as 8x8 images through timm's smallest ResNet, for each number
of epochs. ``--clusterer`` adds MiniClustering with each pretraining.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import ARRAYS, FURTHER_ARRAYS, IMAGE_BACKBONE, load
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skdeepcluster import MiniClustering
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR

METHODS = (SimCLR, MoCo, BYOL)
FIRST_SEED = 10_000
IMAGE_EPOCHS = (40,)
Scores = tuple[float, float, float]


def judge(Z: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the ARI of k-means and the accuracy of the nearest neighbours."""
    labels = KMeans(len(np.unique(y)), n_init=10, random_state=seed).fit_predict(Z)
    accuracy = cross_val_score(KNeighborsClassifier(), Z, y, cv=5).mean()
    return adjusted_rand_score(y, labels), float(accuracy)


def methods(
    seed: int, images: bool, epochs: tuple[int, ...], clusterer: bool, n_clusters: int
) -> Iterator[tuple[str, Any]]:
    options: dict[str, Any] = {"random_state": seed}
    if images:
        options["backbone"] = IMAGE_BACKBONE
    for n_epochs in epochs if images else ("auto",):
        for method in METHODS:
            name = method.__name__ + (f", {n_epochs} epochs" if images else "")
            yield name, method(max_epochs=n_epochs, **options)
            if clusterer:
                pretraining = method(max_epochs=n_epochs)
                yield (
                    f"  {name}, MiniClustering",
                    MiniClustering(n_clusters, pretraining=pretraining, **options),
                )


def run(name: str, estimator: Any, X: np.ndarray, y: np.ndarray, seed: int) -> Scores:
    started = time.perf_counter()
    estimator.fit(X)
    seconds = time.perf_counter() - started
    ari, accuracy = judge(estimator.transform(X), y, seed)
    if hasattr(estimator, "labels_"):
        ari = adjusted_rand_score(y, estimator.labels_)
    return ari, accuracy, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arrays", nargs="*", choices=ARRAYS + FURTHER_ARRAYS)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--epochs", nargs="+", type=int, default=IMAGE_EPOCHS)
    parser.add_argument("--clusterer", action="store_true")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    arrays = arguments.arrays
    if arrays is None:
        arrays = ARRAYS if arguments.data else ARRAYS[:2]
    tasks = [(array, False) for array in arrays] + arguments.images * [("digits", True)]
    for array, images in tasks:
        print(f"\n{array}{' as 8x8 images' if images else ''}")
        print(f"{'':36}{'ARI':>6}{'(range)':>15}{'5-NN':>7}{'seconds':>9}")
        found: dict[str, list[Scores]] = {}
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            X, y = load(array, arguments.data, seed)
            found.setdefault("as it comes", []).append((*judge(X, y, seed), 0.0))
            samples = X.reshape(-1, 1, 8, 8) / 16 if images else X
            candidates = methods(
                seed, images, tuple(arguments.epochs), arguments.clusterer, len(np.unique(y))
            )
            for name, estimator in candidates:
                found.setdefault(name, []).append(run(name, estimator, samples, y, seed))
        for name, scores in found.items():
            ari, accuracy, seconds = np.median(scores, axis=0)
            low, high = min(s[0] for s in scores), max(s[0] for s in scores)
            print(
                f"{name:36}{ari:6.3f}  ({low:.3f}-{high:.3f}){accuracy:7.3f}{seconds:9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
