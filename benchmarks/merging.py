"""How good clusters are that a cut leaves of more than there are classes.

    python benchmarks/merging.py [--data DIR] [--seeds 1] [--first-seed 120000] [--times 2]
        [--methods MiniClustering ...] [--families ...] [--max-rows 1000] [--output FILE]

On each task of ``tasks.py`` a method is fitted with ``times`` as many clusters as there are
classes, and ``cut`` to as many as classes. Beside it: the same method fitted with the right number,
KMeans(n_init=10) with the right number, and KMeans with ``times`` as many whose centres Ward's rule
merges, by their sizes. Scores are ARI, and ECE where there are probabilities.
"""

import math
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from features import append
from scipy.cluster.hierarchy import cut_tree, ward
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from tasks import METHODS, Task, by_family, over_families, task_arguments, tasks_of

from skdeepcluster.metrics import expected_calibration_error

FIRST_SEED = 120_000
KMEANS, WARD = "KMeans", "KMeans, merged by Ward's rule"
# Of each cluster there should be some samples.
LEAST_ROWS = 4


def merged_by_ward(X: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return what Ward's rule makes of a partition, for which each sample lies at its mean."""
    means = np.array([X[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    return np.ravel(cut_tree(ward(means[labels]), n_clusters=n_clusters))


def measure(task: Task, seed: int, methods: list[str], times: float) -> Iterator[dict[str, Any]]:
    k, n_more = task.n_clusters, math.ceil(times * task.n_clusters)
    if n_more * LEAST_ROWS > len(task.X):
        return
    kmeans = KMeans(k, n_init=10, random_state=seed).fit_predict(task.X)
    more = KMeans(n_more, n_init=10, random_state=seed).fit_predict(task.X)
    yield {"method": KMEANS, "ARI": adjusted_rand_score(task.y, kmeans)}
    yield {"method": WARD, "ARI": adjusted_rand_score(task.y, merged_by_ward(task.X, more, k))}
    for method in methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lost clusters show in the scores
            model = METHODS[method](k, random_state=seed).fit(task.X)
            fine = METHODS[method](n_more, random_state=seed).fit(task.X)
        started = time.perf_counter()
        cut = fine.cut(k)
        seconds = time.perf_counter() - started
        for name, one in ((method, model), (f"{method}, cut", cut)):
            yield {
                "method": name,
                "ARI": adjusted_rand_score(task.y, one.labels_),
                "ECE": expected_calibration_error(task.y, one.predict_proba(task.X)),
                "seconds of the cut": seconds,
            }


def report(records: list[dict[str, Any]]) -> None:
    """Print means over families, and how often a cut is below KMeans."""
    methods = list(dict.fromkeys(record["method"] for record in records))
    ari = {method: by_family(records, method, "ARI") for method in methods}
    n_tasks = sum(record["method"] == KMEANS for record in records)
    print(f"\n{n_tasks} tasks of {len(ari[KMEANS])} families")
    print(f"{'':40}{'ARI':>7}{'below KMeans':>14}{'ECE':>7}")
    for method in methods:
        gains = [ari[method][family] - ari[KMEANS][family] for family in ari[KMEANS]]
        below = np.mean(np.concatenate(gains) < -0.01)
        errors = by_family(records, method, "ECE")
        ece = f"{over_families(errors):7.3f}" if errors else ""
        print(f"{method:40}{over_families(ari[method]):7.3f}{below:14.0%}{ece}")
    print(f"\n{'ARI':24}" + "".join(f"{method[:30]:>32}" for method in methods))
    for family in ari[KMEANS]:
        means = "".join(f"{ari[method][family].mean():32.3f}" for method in methods)
        print(f"{family:24}{means}")


def main() -> None:
    parser = task_arguments(__doc__.splitlines()[0], 1, FIRST_SEED)
    parser.add_argument("--times", type=float, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["MiniClustering"])
    arguments = parser.parse_args()

    records = []
    for seed, task in tasks_of(arguments):
        about = {"family": task.family, "task": task.name, "seed": seed, "times": arguments.times}
        about |= {"shape": list(task.X.shape), "n_clusters": task.n_clusters}
        for found in measure(task, seed, arguments.methods, arguments.times):
            records.append(about | found)
            append(records[-1], arguments.output)
    report(records)


if __name__ == "__main__":
    main()
