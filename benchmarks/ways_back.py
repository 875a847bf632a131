"""What StableClusterDiscrimination and ProximityDeepClustering could answer instead.

    python benchmarks/ways_back.py [--data DIR] [--seeds 1] [--first-seed 97000] [--families ...]
        [--max-rows 1500] [--methods ...] [--output FILE]

Where training comes to nothing better than another partition, that one takes its place: k-means on
the features, a merger of them, or what the embedding that training has made is divided into without
heads. Each task of ``tasks.py`` is fitted once, and all partitions between which the fit has to
choose are scored with its labels. Prints, over families, the mean ARI of rules that know some of
the partitions, and the share of tasks more than .01 below k-means on the features. Appends a JSON
record per task to ``--output``.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from features import METHODS, append
from sklearn.metrics import adjusted_rand_score
from tasks import BELOW, by_family, over_families, tasks
from torch import Tensor

from skdeepcluster.base import _start

FIRST_SEED = 97_000
BOTH = ("StableClusterDiscrimination", "ProximityDeepClustering")
EMBEDDED = "of the embedding"


def partitions_of(
    estimator: Any, X: np.ndarray, y: np.ndarray, rules: dict[str, Callable[[str], bool]]
) -> dict[str, float]:
    """Return the ARI of each partition, of each rule's choice, and of the best one."""
    found: dict[str, float] = {}

    def choose(candidates: dict[str, Tensor], *arguments: Any) -> str:
        found.update(
            {name: adjusted_rand_score(y, labels.cpu()) for name, labels in candidates.items()}
        )
        best = max(found.values())
        for rule, knows in rules.items():
            known = {name: labels for name, labels in candidates.items() if knows(name)}
            found[rule] = found[_start.choose_partition(known, *arguments)]
        found["best"] = best
        return "trained"  # which nobody has to learn

    with patch("skdeepcluster.base._protection.choose_partition", choose):
        estimator.fit(X)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--methods", nargs="+", choices=BOTH, default=BOTH)
    parser.add_argument("--max-rows", type=int, default=1_500)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rules: dict[str, Callable[[str], bool]] = {
        "rule, none of the embedding": lambda name: EMBEDDED not in name,
        "rule, all": lambda name: True,
    }
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    records: list[dict[str, Any]] = []
    for seed, task in tasks(seeds, arguments.families, arguments.data, arguments.max_rows):
        for method in arguments.methods:
            estimator = METHODS[method](task.n_clusters, random_state=seed, calibrate=False)
            found = partitions_of(estimator, task.X, task.y, rules)
            task_of = {"family": task.family, "task": task.name, "seed": seed}
            shape = {"shape": list(task.X.shape), "n_clusters": task.n_clusters}
            append({**task_of, **shape, "method": method, "ARI": found}, arguments.output)
            records += [
                {"family": task.family, "method": (method, name), "ARI": ari}
                for name, ari in found.items()
            ]
            shown = "  ".join(f"{name} {ari:.3f}" for name, ari in found.items())
            print(f"{task.family:20}{task.name:28}{method:29}{shown}", flush=True)
    for method in arguments.methods:
        plain = by_family(records, (method, "plain"), "ARI")
        print(f"\n{method}, {len(plain)} families{'':9}{'ARI':>6}{'below':>7}")
        for name in ("plain", "trained", *rules, "best"):
            ari = by_family(records, (method, name), "ARI")
            gains = np.concatenate([ari[family] - plain[family] for family in plain])
            print(f"{name:48}{over_families(ari):6.3f}{np.mean(gains < -BELOW):7.0%}")


if __name__ == "__main__":
    main()
