"""What a fit costs beside KMeans(n_init=10), and what its time is spent on.

    python benchmarks/price.py [--data DIR] [--seeds 3] [--threads 1]

With DIR, a folder with ``stackoverflow.npz``, on its 20,000 rows; then, always, on 200 rows of
three blobs. Prints seconds of both for each seed, and of one further fit the seconds in its parts,
measured by a profiler, which takes some time itself; parts can lie inside each other.
"""

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import numpy as np
import torch
from features import load
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from threadpoolctl import threadpool_limits

from skdeepcluster import MiniClustering

PARTS = {
    "nearest_neighbors": "exact neighbours",
    "_pretrain": "pretraining",
    "plain_partition": "k-means on the features",
    "kmeans": "k-means, all of it",
    "choose_partition": "judging the candidates",
    "_calibrate": "calibration",
}


def seconds_of(model: KMeans | MiniClustering, X: np.ndarray) -> float:
    started = time.perf_counter()
    model.fit(X)
    return time.perf_counter() - started


def compare(X: np.ndarray, n_clusters: int, n_seeds: int) -> None:
    print(f"\n{X.shape}, {n_clusters} clusters, {torch.get_num_threads()} thread(s)")
    for seed in range(n_seeds):
        theirs = seconds_of(KMeans(n_clusters, n_init=10, random_state=seed), X)
        ours = seconds_of(MiniClustering(n_clusters, random_state=seed), X)
        print(f"KMeans {theirs:6.2f} s   MiniClustering {ours:6.2f} s   {ours / theirs:5.2f} times")
    with cProfile.Profile() as profile:
        ours = seconds_of(MiniClustering(n_clusters, random_state=0), X)
    print(f"of {ours:.2f} s:")
    functions = pstats.Stats(profile).get_stats_profile().func_profiles
    for name, part in PARTS.items():
        print(f"{functions[name].cumtime:8.2f}  {part}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # The first fit imports the training engine; that is not the fit's time.
    MiniClustering(2, random_state=0).fit(np.eye(8, dtype=np.float32))
    with threadpool_limits(arguments.threads):
        if arguments.data is not None:
            compare(load("stackoverflow", arguments.data, 0)[0], 20, arguments.seeds)
        compare(make_blobs(200, centers=3, n_features=6, random_state=0)[0], 3, arguments.seeds)


if __name__ == "__main__":
    main()
