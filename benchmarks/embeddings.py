"""What mends an embedding that tears a large cluster? Variants of the contrast, on tasks.

    python benchmarks/embeddings.py [--data DIR] [--seeds 3] [--first-seed 70000]
        [--max-rows 1500] [--families ...] [--variants ...] [--output FILE]

For each task of ``tasks.py`` an encoder is pretrained with each variant of the loss, everything
else being the same: what differs is the temperature, and how much each other sample of the batch
counts as a negative. Labels are read only to score. Prints for each variant, as means over
families, the ARI of k-means on the embedding, of the two mergers, of the start that is chosen among
these and k-means on the features, and of the best candidate; and how wide the largest and the
smallest cluster lie in the embedding: the mean squared distance of two samples of a class, where 2
is that of two samples anywhere on the sphere. Appends a JSON record per task and variant.
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
from features import append
from starts import prepare
from tasks import BELOW, Task, over_families, tasks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from skdeepcluster.base import _start
from skdeepcluster.data import NeighborViews
from skdeepcluster.networks import EmbeddingNetwork
from skdeepcluster.numerics import kmeans, merged_partitions
from skdeepcluster.pretraining import SimCLR

FIRST_SEED = 70_000
UNEQUAL = ("unequal blobs", "long-tailed blobs")  # where the widths of classes are compared


class Surroundings(NamedTuple):
    """What a variant may look at: neighbours, and parts of the features as they came."""

    graph: Tensor  # (n_samples, 15)
    mini: Tensor  # mini-clusters of the features, four for each cluster
    merged: Tensor  # clusters: the mini-clusters, merged by the neighbours they share
    n_clusters: int


# How much sample j of the batch counts as a negative of sample i: (index, surroundings) -> (B, B).
Weights = Callable[[Tensor, Surroundings], Tensor]


def all_alike(index: Tensor, around: Surroundings) -> Tensor:
    return torch.ones(len(index), len(index))


def not_alike(index: Tensor, around: Surroundings, parts: str, left: float = 0.0) -> Tensor:
    """Count samples of the same part less, or not at all."""
    part = getattr(around, parts)[index]
    return torch.where(part[:, None] == part, left, 1.0)


def no_neighbors_of_neighbors(index: Tensor, around: Surroundings, n_neighbors: int = 10) -> Tensor:
    """Leave out samples that are two steps away in the graph of neighbours, or one."""
    graph = around.graph[:, :n_neighbors]
    near = torch.zeros(len(index), len(graph))
    ours = graph[index]
    rows = torch.arange(len(index))[:, None]
    near[rows, ours] = 1
    near[rows, graph[ours].flatten(1)] = 1
    return 1 - near[:, index]


def by_size(index: Tensor, around: Surroundings, power: float) -> Tensor:
    """Count each sample of a large cluster less."""
    size = torch.bincount(around.merged).float()[around.merged[index]]
    weight = size.pow(-power)
    return (weight / weight.mean()).expand(len(index), -1)


class Contrast(nn.Module):
    """InfoNCE with negatives of different weight, and maybe a temperature for each sample."""

    def __init__(
        self,
        embedding: EmbeddingNetwork,
        around: Surroundings,
        weights: Weights,
        temperature: float,
        balance: float,
        loss: str,
    ) -> None:
        super().__init__()
        self.embedding, self.around, self.weights = embedding, around, weights
        self.temperature, self.balance, self.loss = temperature, balance, loss

    @property
    def result(self) -> EmbeddingNetwork:
        """The network worth keeping."""
        return self.embedding

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def forward(
        self, index: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss of a batch of pairs of views; nothing else is recorded."""
        z1, z2 = self.embedding(torch.cat([first, second])).chunk(2)
        similarities = z1 @ z2.T
        if self.loss == "spectral":
            others = ~torch.eye(len(index), dtype=torch.bool)
            repulsion = similarities[others].square().mean()
            return -2 * similarities.diagonal().mean() + self.temperature * repulsion, {}
        weights = self.weights(index, self.around).clone().fill_diagonal_(1)
        temperature = torch.full((len(index), 1), self.temperature)
        if self.balance:
            share = torch.bincount(self.around.merged).float() / len(self.around.merged)
            relative = share[self.around.merged[index]] * self.around.n_clusters
            temperature *= relative[:, None].pow(self.balance).clamp(0.25, 4)
        partners = torch.arange(len(index))
        there = cross_entropy(similarities / temperature + weights.log(), partners)
        back = cross_entropy(similarities.T / temperature + weights.log(), partners)
        return (there + back) / 2, {}


class Variant(NamedTuple):
    """A loss; by default the one of the package."""

    weights: Weights = all_alike
    temperature: float = 1.0
    balance: float = 0.0  # power of the cluster's size that the temperature grows with
    loss: str = "InfoNCE"


VARIANTS = {
    "as it is": Variant(),
    "temperature .3": Variant(temperature=0.3),
    "temperature .5": Variant(temperature=0.5),
    "temperature 2": Variant(temperature=2.0),
    "temperature 4": Variant(temperature=4.0),
    "temperature by size, root": Variant(balance=0.5),
    "temperature by size, inverse": Variant(balance=-0.5),
    "no neighbours' neighbours": Variant(no_neighbors_of_neighbors),
    "no neighbours' neighbours, of 5": Variant(partial(no_neighbors_of_neighbors, n_neighbors=5)),
    "own mini-cluster half": Variant(partial(not_alike, parts="mini", left=0.5)),
    "own mini-cluster not": Variant(partial(not_alike, parts="mini")),
    "own cluster half": Variant(partial(not_alike, parts="merged", left=0.5)),
    "own cluster not": Variant(partial(not_alike, parts="merged")),
    "large clusters less, root": Variant(partial(by_size, power=0.5)),
    "large clusters less": Variant(partial(by_size, power=1.0)),
    "spectral, 4": Variant(loss="spectral", temperature=4.0),
    "spectral, 16": Variant(loss="spectral", temperature=16.0),
}


class NumberedViews(NeighborViews):
    """The same views, with the numbers of the samples."""

    def __init__(self, views: NeighborViews) -> None:
        vars(self).update(vars(views))

    def __call__(self, index: Tensor, generator: torch.Generator) -> Any:
        """Return the numbers of some nodes, their vectors and those of one neighbour each."""
        return index, *super().__call__(index, generator)


def look_around(views: NeighborViews, n_clusters: int) -> Surroundings:
    generator = torch.Generator().manual_seed(0)
    features = views.prepare(views.source.rows(views.rows))
    n_parts = max(min(4 * n_clusters, len(views) // 5), n_clusters)
    mini = kmeans(features, n_parts, generator=generator, n_init=1)
    merged = merged_partitions(mini, n_clusters, views.neighbors)["neighbors"]
    return Surroundings(views.graph, mini.labels, merged, n_clusters)


def pretrain_with(variant: Variant, n_clusters: int) -> Any:
    """Return a patch under which SimCLR is this variant."""
    pretrain = SimCLR._pretrain
    around: list[Surroundings] = []

    def numbered(self: SimCLR, embedding: Any, views: Any, *rest: Any) -> None:
        around.append(look_around(views, n_clusters))
        pretrain(self, embedding, NumberedViews(views), *rest)

    def make_objective(self: SimCLR, embedding: EmbeddingNetwork, *rest: Any) -> Contrast:
        return Contrast(embedding, around[-1], *variant)

    return patch.multiple(SimCLR, _pretrain=numbered, _make_objective=make_objective)


def width(embedding: Tensor, y: np.ndarray, label: int) -> float:
    """Return the mean squared distance of two samples of a class."""
    rows = embedding[torch.from_numpy(y == label)]
    n = len(rows)
    return float(2 * (n - rows.sum(dim=0).square().sum() / n) / (n - 1))


def measure(task: Task, seed: int, name: str) -> dict[str, Any]:
    with pretrain_with(VARIANTS[name], task.n_clusters):
        case = prepare(task, seed)
    candidates, _, embedding, _, _ = case.arguments
    sizes = np.bincount(task.y)
    return {
        "family": task.family,
        "task": task.name,
        "seed": seed,
        "variant": name,
        "KMeans": case.kmeans,
        "chosen": case.ari[_start.choose_partition(*case.arguments)],
        "best": max(case.ari.values()),
        **{name: case.ari.get(name, math.nan) for name in ("kmeans", "centers", "neighbors")},
        "largest": width(embedding, task.y, int(sizes.argmax())),
        "smallest": width(embedding, task.y, int(sizes.argmin())),
        "n_candidates": len(candidates),
    }


def mean(records: list[dict[str, Any]], field: str) -> float:
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(record["family"], []).append(record[field])
    return over_families({family: np.array(values) for family, values in found.items()})


def report(records: list[dict[str, Any]]) -> None:
    print(
        f"\n{'variant':34}{'k-means':>8}{'centers':>8}{'neighb.':>8}{'chosen':>8}{'best':>7}"
        f"{'below':>7}{'worst change':>14}{'largest':>9}{'smallest':>9}"
    )
    usual = [record for record in records if record["variant"] == "as it is"]
    for name in VARIANTS:
        ours = [record for record in records if record["variant"] == name]
        if not ours:
            continue
        changes: dict[str, list[float]] = {}
        before = {(r["family"], r["seed"]): r["chosen"] for r in usual}
        for record in ours:
            change = record["chosen"] - before.get((record["family"], record["seed"]), math.nan)
            changes.setdefault(record["family"], []).append(change)
        worst = min(changes, key=lambda family: float(np.mean(changes[family])))
        below = np.mean([r["chosen"] - r["KMeans"] < -BELOW for r in ours])
        unequal = [r for r in ours if r["family"] in UNEQUAL]
        values = [mean(ours, f) for f in ("kmeans", "centers", "neighbors", "chosen", "best")]
        widths = [np.mean([r[f] for r in unequal]) for f in ("largest", "smallest")]
        print(
            f"{name:34}{values[0]:8.3f}{values[1]:8.3f}{values[2]:8.3f}{values[3]:8.3f}"
            f"{values[4]:7.3f}{below:7.0%}{np.mean(changes[worst]):+7.2f} {worst[:14]:14}"
            f"{widths[0]:6.2f}{widths[1]:9.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--max-rows", type=int, default=1_500)
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--output", type=Path, default=Path("embeddings.jsonl"))
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    records = []
    for seed, task in tasks(seeds, arguments.families, arguments.data, arguments.max_rows):
        for name in arguments.variants:
            records.append(measure(task, seed, name))
            append(records[-1], arguments.output)
        line = {r["variant"]: round(r["chosen"], 2) for r in records[-len(arguments.variants) :]}
        print(f"{task.family:20}{task.name:28}{records[-1]['KMeans']:.2f} {line}", flush=True)
    report(records)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main()
