"""Which label-free rule picks the best start? Many tasks, several rules, mean regret in ARI.

    python benchmarks/starts.py --data DIR [--seed 7] [--rounds 2]

A task is a subset of the classes of digits, stackoverflow, clinc150 (imbalance 1 to 30, up to 6,000
rows) or all of tweet89. For each the encoder is pretrained once and the three candidate starts of
MiniClustering are made. Labels are read only to score. The regret of a rule is the ARI of the best
candidate less that of the candidate that the rule picks.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from skdeepcluster import MiniClustering
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.numerics import cluster_means

# (array, number of classes, imbalance ratio)
TASKS = (
    ("digits", 10, 1),
    ("digits", 10, 10),
    ("digits", 7, 3),
    ("digits", 10, 30),
    ("stackoverflow", 20, 10),
    ("stackoverflow", 10, 1),
    ("stackoverflow", 15, 30),
    ("clinc150", 30, 1),
    ("clinc150", 40, 10),
    ("clinc150", 80, 5),
    ("clinc150", 75, 1),
    ("tweet89", 89, None),
)
MAX_ROWS = 6000
MARGINS = (0.0, 0.01, 0.02, 0.05, 0.08, 0.12)


class Candidates(Exception):
    """Carries the candidate starts out of a fit."""


def stop_at_the_choice(
    candidates: dict[str, Tensor], source: Any, model: Any, n_clusters: int
) -> str:
    """Stand in for the rule that chooses the start."""
    raise Candidates(candidates, model.prepare(source.rows(torch.arange(len(source)))))


def silhouettes(X: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    means, counts = cluster_means(X, labels, n_clusters)
    distances = torch.cdist(X, means)
    distances[:, counts == 0] = torch.inf
    own = distances.gather(1, labels[:, None])[:, 0]
    other = distances.scatter(1, labels[:, None], torch.inf).min(dim=1).values
    return (other - own) / torch.maximum(own, other).clamp(min=1e-12)


def draw(
    arrays: dict[str, tuple[np.ndarray, np.ndarray]],
    task: tuple[str, int, int | None],
    rng: np.random.RandomState,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y of a task: random classes in random order, long-tailed."""
    name, n_classes, ratio = task
    X, y = arrays[name]
    if ratio is None:
        return X, y
    classes = rng.permutation(np.unique(y))[:n_classes]
    rank = {label: i for i, label in enumerate(classes)}
    rows = rng.permutation(np.flatnonzero(np.isin(y, classes)))[:MAX_ROWS]
    ranked = np.array([rank[label] for label in y[rows]])
    return make_long_tailed(X[rows], ranked, imbalance_ratio=ratio, random_state=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()

    arrays = {"digits": load_digits(return_X_y=True)}
    for name in ("stackoverflow", "clinc150", "tweet89"):
        with np.load(arguments.data / f"{name}.npz") as file:
            arrays[name] = file["X"].astype(np.float32), file["y"]
    rng = np.random.RandomState(arguments.seed)
    results = []
    for number, task in enumerate(TASKS * arguments.rounds):
        seed = 1000 * arguments.seed + number
        X, y = draw(arrays, task, rng, seed)
        n_clusters = len(np.unique(y))
        try:
            with patch("skdeepcluster.base._two_stage.choose_partition", stop_at_the_choice):
                MiniClustering(n_clusters, random_state=seed).fit(X)
        except Candidates as stopped:
            candidates, features = stopped.args
        ari = {k: adjusted_rand_score(y, labels.numpy()) for k, labels in candidates.items()}
        values = {k: silhouettes(features, labels, n_clusters) for k, labels in candidates.items()}
        results.append((ari, values))
        print(task, {k: round(float(v), 3) for k, v in ari.items()}, flush=True)

    def regret(pick: Any) -> str:
        lost = [max(ari.values()) - ari[pick(values)] for ari, values in results]
        return f"mean {np.mean(lost):.4f}, largest {np.max(lost):.3f}"

    print(f"\nRegret in ARI over {len(results)} tasks")
    for name in ("kmeans", "centers", "neighbors"):
        print(f"always {name:30}{regret(lambda values, name=name: name)}")
    for summary in (torch.mean, torch.median):
        for margin in MARGINS:

            def pick(values: dict[str, Tensor], summary: Any = summary, m: float = margin) -> str:
                scores = {k: float(summary(v)) for k, v in values.items()}
                scores["kmeans"] += m * abs(scores["kmeans"])
                return max(scores, key=lambda k: scores[k])

            print(f"{summary.__name__} silhouette, margin {margin:<12}{regret(pick)}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
