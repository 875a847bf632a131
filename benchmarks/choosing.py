"""How close clusters come to the classes when nobody says how many there are.

    python benchmarks/choosing.py [--data DIR] [--seeds 1] [--first-seed 130000] [--weights]
        [--methods MiniClustering ...] [--families ...] [--max-rows 1000] [--output FILE]
    python benchmarks/choosing.py --records FILE ...

On each task of ``tasks.py`` with at most 20 classes a method is fitted with ``n_clusters="auto"``,
that is, with 30 clusters that are cut to the number with the highest of ``cut_scores``. Beside it:
KMeans with each number from 2 to 30, and the one with the highest silhouette; KMeans and the method
with the right number. Prints ARI, and how often the number is right or next to it. With
``--weights`` also: the cut to the right number, and the ARI for other weights of the modularity,
the best of which is chosen leaving out one family after the other.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from features import append, records_in
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from tasks import METHODS, Task, by_family, over_families, task_arguments, tasks_of

from skdeepcluster.base import _merging
from skdeepcluster.base._clusterer import MOST_CLUSTERS as MOST

FIRST_SEED = 130_000
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 2.0)
KMEANS, BY_SILHOUETTE = "KMeans, right number", "KMeans, by silhouette"


def by_silhouette(task: Task, seed: int) -> dict[str, Any]:
    scores, labels = {}, {}
    for k in range(2, MOST + 1):
        labels[k] = KMeans(k, n_init=10, random_state=seed).fit_predict(task.X)
        size = min(1000, len(task.X))
        scores[k] = silhouette_score(task.X, labels[k], sample_size=size, random_state=seed)
    best = max(scores, key=scores.__getitem__)
    return {"chosen": best, "ARI": adjusted_rand_score(task.y, labels[best])}


def measure(task: Task, seed: int, methods: list[str], weights: bool) -> Iterator[dict[str, Any]]:
    k = task.n_clusters
    if 3 * k > 2 * MOST or len(task.X) < 4 * MOST:
        return
    right = KMeans(k, n_init=10, random_state=seed).fit_predict(task.X)
    yield {"method": KMEANS, "ARI": adjusted_rand_score(task.y, right)}
    yield {"method": BY_SILHOUETTE, **by_silhouette(task, seed)}
    for method in methods:
        for name, number in {"right number": k, "auto": "auto"}.items():
            model = METHODS[method](number, random_state=seed, calibrate=False).fit(task.X)
            ari = adjusted_rand_score(task.y, model.labels_)
            found = {"method": f"{method}, {name}", "ARI": ari}
            yield found if number == k else found | {"chosen": model.n_clusters_}
        if not weights:
            continue
        fine = METHODS[method](MOST, random_state=seed, calibrate=False).fit(task.X)
        cuts = {n: adjusted_rand_score(task.y, fine.cut(n).labels_) for n in range(2, MOST + 1)}
        yield {"method": f"{method}, cut to the right number", "ARI": cuts[k]}
        for weight in WEIGHTS:
            with patch.object(_merging, "MODULARITY_WEIGHT", weight):
                scores = fine.cut_scores(task.X)
            best = max(scores, key=scores.__getitem__)
            yield {"method": f"{method}, weight {weight}", "chosen": best, "ARI": cuts[best]}


def report(records: list[dict[str, Any]]) -> None:
    """Print means over families, and what a weight chosen on all others does on each family."""
    methods = list(dict.fromkeys(record["method"] for record in records))
    n_tasks = sum(record["method"] == KMEANS for record in records)
    ari = {method: by_family(records, method, "ARI") for method in methods}
    print(f"\n{n_tasks} tasks of {len(ari[KMEANS])} families")
    print(f"{'':48}{'ARI':>7}{'right':>7}{'+-1':>6}{'|log|':>7}")
    for method in methods:
        chosen = [
            (record["chosen"], record["n_clusters"])
            for record in records
            if record["method"] == method and "chosen" in record
        ]
        line = f"{method:48}{over_families(ari[method]):7.3f}"
        if chosen:
            found, true = np.array(chosen).T
            off = np.abs(np.log(found / true)).mean()
            line += f"{np.mean(found == true):7.0%}{np.mean(abs(found - true) <= 1):6.0%}{off:7.2f}"
        print(line)
    for method in dict.fromkeys(name.split(", weight")[0] for name in methods if "weight" in name):
        weighted = [name for name in methods if name.startswith(f"{method}, weight")]
        left_out = {}
        for family in ari[KMEANS]:
            others = [
                over_families({f: v for f, v in ari[name].items() if f != family})
                for name in weighted
            ]
            left_out[family] = ari[weighted[int(np.argmax(others))]][family]
        print(f"{method}, weight chosen on other families: {over_families(left_out):.3f}")
    shown = [name for name in methods if "weight" not in name]
    print(f"\n{'ARI':24}" + "".join(f"{name[-28:]:>30}" for name in shown))
    for family in ari[KMEANS]:
        means = "".join(f"{ari[name][family].mean():30.3f}" for name in shown)
        print(f"{family:24}{means}")


def main() -> None:
    parser = task_arguments(__doc__.splitlines()[0], 1, FIRST_SEED)
    parser.add_argument("--weights", action="store_true", help="try others of the modularity")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["MiniClustering"])
    parser.add_argument("--records", type=Path, nargs="+", help="report on these alone")
    arguments = parser.parse_args()

    if arguments.records:
        report(records_in(arguments.records))
        return
    records = []
    warnings.simplefilter("ignore")  # lost clusters show in the scores
    for seed, task in tasks_of(arguments):
        about = {"family": task.family, "task": task.name, "seed": seed, "most": MOST}
        about |= {"shape": list(task.X.shape), "n_clusters": task.n_clusters}
        for found in measure(task, seed, arguments.methods, arguments.weights):
            records.append(about | found)
            append(records[-1], arguments.output)
    report(records)


if __name__ == "__main__":
    main()
