"""Which label-free rule picks the best start? Tasks of all families, several rules.

    python benchmarks/starts.py [--data DIR] [--seeds 2] [--first-seed 30000] [--max-rows 1500]

For each task of ``tasks.py`` the encoder is pretrained once, and the candidate starts of
MiniClustering are made. Labels are read only to score. Prints for each rule the mean ARI over
families, its gain over KMeans(n_init=10), the regret against the best candidate, the share of tasks
more than .01 below KMeans, and the family with the lowest median.
"""

import argparse
import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from tasks import BELOW, Task, over_families, tasks
from torch import Tensor

from skdeepcluster import MiniClustering
from skdeepcluster.base import _start
from skdeepcluster.numerics import centroid_silhouette

Labels = dict[str, Tensor]


# The finer merger by all neighbours that views are drawn from, as it was before.
EARLIER = "fine, more neighbours"


class Candidates(Exception):
    """Carries the candidate starts, and what they are judged by, out of a fit."""


class Case(NamedTuple):
    """A task with its candidates, their ARI and that of KMeans."""

    task: Task
    arguments: tuple[Any, ...]
    ari: dict[str, float]
    kmeans: float


def stop_at_the_choice(*arguments: Any) -> str:
    """Stand in for the rule that chooses the start."""
    raise Candidates(*arguments)


def both_mergers(
    embedding: Tensor, n_parts: int, neighbors: Tensor, n_clusters: int, generator: torch.Generator
) -> Labels:
    """Stand in for the finer merger: that one, and the earlier one of the same parts."""
    state = generator.get_state()
    arguments = (embedding, n_parts, neighbors, n_clusters, generator)
    found = _start.finer_merger(*arguments)
    generator.set_state(state)
    with patch.object(_start, "FINE_NEIGHBORS", neighbors.shape[1]):
        earlier = _start.finer_merger(*arguments)
    return found | ({EARLIER: earlier["fine"]} if earlier else {})


def prepare(task: Task, seed: int) -> Case:
    k = task.n_clusters
    kmeans = KMeans(k, n_init=10, random_state=seed).fit_predict(task.X)
    try:
        with (
            patch("skdeepcluster.base._two_stage.choose_partition", stop_at_the_choice),
            patch("skdeepcluster.base._two_stage.finer_merger", both_mergers),
        ):
            MiniClustering(k, random_state=seed).fit(task.X)
    except Candidates as stopped:
        arguments = stopped.args
    ari = {name: adjusted_rand_score(task.y, y.numpy()) for name, y in arguments[0].items()}
    return Case(task, arguments, ari, adjusted_rand_score(task.y, kmeans))


def ours(case: Case, weight: float = 6.0, margin: float = 0.1, without: str = EARLIER) -> str:
    candidates, *others = case.arguments
    candidates = {name: y for name, y in candidates.items() if name != without}
    with patch.object(_start, "SILHOUETTE_WEIGHT", weight):
        return _start.choose_partition(candidates, *others, margin=margin)


def own(case: Case) -> Labels:
    """Return the candidates that a fit has."""
    return {name: y for name, y in case.arguments[0].items() if name != EARLIER}


def by_score(case: Case, score: Callable[[Case, Tensor], float], names: tuple[str, ...]) -> str:
    candidates = {name: y for name, y in own(case).items() if not names or name in names}
    return max(candidates, key=lambda name: score(case, candidates[name]))


def silhouette_of_features(case: Case, labels: Tensor) -> float:
    return centroid_silhouette(case.arguments[1], labels, case.task.n_clusters)


def inner_edges(case: Case, labels: Tensor) -> float:
    graph = case.arguments[3]
    return float((labels[graph] == labels[:, None]).float().mean())


RULES: dict[str, Callable[[Case], str]] = {
    "always k-means on the features": lambda case: "plain",
    "always k-means on the embedding": lambda case: "kmeans",
    "silhouette on the features, of the embedding's": partial(
        by_score, score=silhouette_of_features, names=("kmeans", "centers", "neighbors")
    ),
    "silhouette on the features, of all": partial(by_score, score=silhouette_of_features, names=()),
    "inner edges, of all": partial(by_score, score=inner_edges, names=()),
    "ours": ours,
    "ours, finer merger by more neighbours": partial(ours, without="fine"),
    "ours, no margin": partial(ours, margin=-math.inf),
    "ours, margin .3": partial(ours, margin=0.3),
    "ours, silhouette half": partial(ours, weight=3.0),
    "ours, silhouette twice": partial(ours, weight=12.0),
    "ours, no silhouette": partial(ours, weight=0.0),
    "the best candidate": lambda case: max(own(case), key=lambda name: case.ari[name]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=30_000)
    parser.add_argument("--max-rows", type=int, default=1_500)
    parser.add_argument("--families", nargs="+")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    cases = []
    for seed, task in tasks(seeds, arguments.families, arguments.data, arguments.max_rows):
        cases.append(prepare(task, seed))
        found = {name: round(value, 2) for name, value in cases[-1].ari.items()}
        print(f"{task.family:20}{task.name:28}KMeans {cases[-1].kmeans:.2f}  {found}", flush=True)

    print(f"\n{'rule':48}{'ARI':>6}{'gain':>7}{'regret':>8}{'below':>7}  worst family")
    for rule, pick in RULES.items():
        scores, gains, regrets = {}, {}, {}
        for case in cases:
            ari = case.ari[pick(case)]
            for table, value in (
                (scores, ari),
                (gains, ari - case.kmeans),
                (regrets, max(case.ari[name] for name in own(case)) - ari),
            ):
                table.setdefault(case.task.family, []).append(value)
        gains = {family: np.array(values) for family, values in gains.items()}
        below = np.mean(np.concatenate(list(gains.values())) < -BELOW)
        worst = min(gains, key=lambda family: float(np.median(gains[family])))
        means = [
            over_families({family: np.array(values) for family, values in table.items()})
            for table in (scores, gains, regrets)
        ]
        print(
            f"{rule:48}{means[0]:6.3f}{means[1]:+7.3f}{means[2]:8.3f}{below:7.0%}  "
            f"{worst} ({np.median(gains[worst]):+.3f})"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main()
