"""How close k-means comes to the lowest inertia: many starts beside moving centres.

    python benchmarks/kmeans.py [--data DIR] [--seeds 2] [--first-seed 87000] [--max-rows 20000]
        [--families ...] [--output FILE]

On the tasks of ``tasks.py``: scikit-learn's KMeans with ten starts, ours with as many starts as
fits have for few clusters (3 to 30, by rows and clusters), and breathing k-means, which they have
for many. Prints by how much each inertia exceeds the lowest of the three, the ARI, and the seconds
beside scikit-learn's: of each task, and over those of few and of many clusters. Labels are read
only to score. One thread.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from features import append
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from tasks import tasks
from threadpoolctl import threadpool_limits

from skdeepcluster.base._start import FEW_CLUSTERS, n_runs
from skdeepcluster.numerics import breathing_kmeans, kmeans

Fit = Callable[[np.ndarray, int, int], tuple[float, np.ndarray]]


def scikit_learns(X: np.ndarray, n_clusters: int, seed: int) -> tuple[float, np.ndarray]:
    model = KMeans(n_clusters, n_init=10, random_state=seed % 2**32).fit(X)
    return model.inertia_, model.labels_


def with_starts(X: np.ndarray, n_clusters: int, seed: int) -> tuple[float, np.ndarray]:
    n_init = n_runs(len(X), n_clusters)
    generator = torch.Generator().manual_seed(seed)
    run = kmeans(torch.from_numpy(X), n_clusters, generator=generator, n_init=n_init)
    return run.inertia, run.labels.numpy()


def breathing(X: np.ndarray, n_clusters: int, seed: int) -> tuple[float, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    run = breathing_kmeans(torch.from_numpy(X), n_clusters, generator=generator)
    return run.inertia, run.labels.numpy()


FITS: dict[str, Fit] = {
    "scikit-learn, 10 starts": scikit_learns,
    "3 to 30 starts": with_starts,
    "breathing": breathing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=87_000)
    parser.add_argument("--max-rows", type=int, default=20_000)
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    found: dict[bool, dict[str, list[tuple[float, ...]]]] = {False: {}, True: {}}
    print(f"{'excess / ARI / times as long':54}" + "".join(f"{name:>26}" for name in FITS))
    for seed, task in tasks(seeds, arguments.families, arguments.data, arguments.max_rows):
        X = np.ascontiguousarray(task.X, dtype=np.float32)
        measured = {}
        for name, fit in FITS.items():
            started = time.perf_counter()
            inertia, labels = fit(X, task.n_clusters, seed)
            seconds = time.perf_counter() - started
            measured[name] = [inertia, adjusted_rand_score(task.y, labels), seconds]
        lowest = min(inertia for inertia, _, _ in measured.values())
        theirs = measured["scikit-learn, 10 starts"][2]
        print(f"{task.family:20}{task.name:22}{task.n_clusters:4}{task.X.shape!s:>13}", end="")
        for name, (inertia, ari, seconds) in measured.items():
            values = (inertia / lowest - 1 if lowest > 0 else 0.0, ari, seconds / theirs)
            found[task.n_clusters > FEW_CLUSTERS].setdefault(name, []).append(values)
            print(f"{values[0]:10.4f}  {ari:5.3f}  {values[2]:7.2f}", end="", flush=True)
            record = {"family": task.family, "task": task.name, "seed": seed, "method": name}
            record |= {"shape": list(X.shape), "n_clusters": task.n_clusters, "inertia": inertia}
            append(record | {"ARI": ari, "seconds": seconds}, arguments.output)
        print()
    for many, of_fits in found.items():
        print(f"\n{'more than' if many else 'up to'} {FEW_CLUSTERS} clusters")
        print(f"{'':26}{'tasks':>6}{'excess':>9}{'ARI':>8}{'times as long (median)':>25}")
        for name, values in of_fits.items():
            excess, ari, longer = np.array(values).T
            print(
                f"{name:26}{len(ari):6}{excess.mean():9.4f}{ari.mean():8.3f}"
                f"{np.median(longer):25.2f}"
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
