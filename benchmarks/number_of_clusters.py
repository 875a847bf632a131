"""How well the score of StableClusterDiscrimination finds the number of clusters, in one fit.

    python benchmarks/number_of_clusters.py [--data DIR] [--seeds 3]

Beside it the usual way: KMeans for each number, and the best silhouette (of 2,000 samples). Prints
what each chose, seed by seed, and the seconds.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from features import load
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from skdeepcluster import StableClusterDiscrimination

FIRST_SEED = 9000
SILHOUETTE_ROWS = 2_000
TASKS: dict[str, Sequence[int]] = {
    "3 blobs": range(2, 11),
    "5 blobs": range(2, 11),
    "8 blobs": range(2, 11),
    "3 kinds of digits": range(2, 8),
    "digits": range(6, 16),
    "stackoverflow": (10, 15, 20, 25, 30),
}


def samples(task: str, data: Path | None, seed: int) -> np.ndarray:
    if task.endswith("blobs"):
        X, _ = make_blobs(1_000, centers=int(task[0]), n_features=20, random_state=seed)
        return X.astype(np.float32)
    if task == "3 kinds of digits":
        X, y = load("digits", data, seed)
        return X[y < 3]
    return load(task, data, seed)[0]


def by_silhouette(X: np.ndarray, numbers: Sequence[int], seed: int) -> int:
    """Return the number whose KMeans has the best silhouette."""
    scores = {}
    for k in numbers:
        labels = KMeans(k, n_init=10, random_state=seed).fit_predict(X)
        size = min(SILHOUETTE_ROWS, len(X))
        scores[k] = silhouette_score(X, labels, sample_size=size, random_state=seed)
    return max(scores, key=scores.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # numbers that are too large lose clusters
    KMeans(2, n_init=1).fit(np.eye(64))  # starting its threads is not the first task's time
    StableClusterDiscrimination(2, random_state=0).fit(np.eye(8, dtype=np.float32))
    for task, numbers in TASKS.items():
        if task == "stackoverflow" and arguments.data is None:
            continue
        chosen, seconds = {"ours": [], "silhouette": []}, {"ours": [], "silhouette": []}
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            X = samples(task, arguments.data, seed)
            started = time.perf_counter()
            model = StableClusterDiscrimination(list(numbers), random_state=seed).fit(X)
            seconds["ours"].append(time.perf_counter() - started)
            chosen["ours"].append(model.n_clusters_)
            started = time.perf_counter()
            chosen["silhouette"].append(by_silhouette(X, numbers, seed))
            seconds["silhouette"].append(time.perf_counter() - started)
        print(f"{task:20} of {list(numbers)}")
        for name in chosen:
            print(f"    {name:12}{chosen[name]!s:20}{np.median(seconds[name]):8.1f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
