"""MiniClustering beside KMeans and others, on arrays that anybody can make: doc/comparison.md.

    python benchmarks/comparison.py [--seeds 3] [--first-seed 15000] [--output FILE]

Four arrays: the digits of scikit-learn; a long-tailed draw of them; rows that are made up to look
like sentence embeddings (20 topics in 7 fields, 50 to 500 rows each, 384 dimensions, the recipe of
the gallery's example on embeddings); and plain, compact blobs. Nothing is set but the number of
clusters, which HDBSCAN, "auto" and EVoC, where it is installed, find by themselves; labels are read
only to score. HDBSCAN and EVoC leave rows out: "labelled" is the share that has a label, and ARI
counts the rest as one more cluster. All but the digits are drawn anew for each seed. Prints
medians, appends a JSON record per run to ``--output``.
"""

import argparse
import contextlib
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import append
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from skdeepcluster import MiniClustering
from skdeepcluster.datasets import make_long_tailed


def made_up_sentences(seed: int, n_topics: int = 20, n_fields: int = 7, n_dims: int = 384) -> Any:
    rng = np.random.default_rng(seed)
    spread = (np.arange(n_dims) + 10) ** -0.5
    spread /= np.linalg.norm(spread)

    def draw(*shape: int) -> Any:
        return rng.normal(size=(*shape, n_dims)) * spread

    y = np.repeat(np.arange(n_topics), np.geomspace(500, 50, n_topics).astype(int))
    topics = (draw(n_fields)[np.arange(n_topics) % n_fields] + draw(n_topics)) / np.sqrt(2)
    aspects = draw(n_topics, 5)
    mixture = rng.normal(size=(len(y), 1, 5)) / np.sqrt(5)
    within = np.sqrt(0.3) * (mixture @ aspects[y])[:, 0] + np.sqrt(0.7) * draw(len(y))
    X = np.sqrt(0.06) * draw(1) + np.sqrt(0.2) * topics[y] + np.sqrt(0.74) * within
    return normalize(X).astype(np.float32), y


def arrays(seed: int) -> dict[str, Any]:
    digits = load_digits(return_X_y=True)
    blobs = make_blobs(2000, centers=8, n_features=16, cluster_std=2, random_state=seed)
    return {
        "digits": digits,
        "digits LT": make_long_tailed(*digits, imbalance_ratio=10, random_state=seed),
        "made-up sentences": made_up_sentences(seed),
        "blobs": blobs,
    }


def methods(n_clusters: int, seed: int) -> Iterator[tuple[str, Any]]:
    yield "KMeans", KMeans(n_clusters, n_init=10, random_state=seed)
    yield "HDBSCAN", HDBSCAN(copy=True)
    with contextlib.suppress(ImportError):
        from evoc import EVoC

        yield f"EVoC {version('evoc')}", EVoC(random_state=seed)
    yield "MiniClustering", MiniClustering(n_clusters, random_state=seed)
    yield "MiniClustering, auto", MiniClustering("auto", random_state=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=15000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    MiniClustering(2, random_state=0).fit(load_digits().data[:20])  # loads what every fit needs
    records: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for array, (X, y) in arrays(seed).items():
            n_clusters = len(np.unique(y))
            for name, method in methods(n_clusters, seed):
                started = time.perf_counter()
                labels = method.fit_predict(X)
                record = {
                    "array": array,
                    "shape": X.shape,
                    "method": name,
                    "seed": seed,
                    "ARI": float(adjusted_rand_score(y, labels)),
                    "clusters": int(labels.max() + 1),
                    "labelled": float(np.mean(labels >= 0)),
                    "seconds": time.perf_counter() - started,
                }
                records.append(record)
                append(record, arguments.output)
    for array, method in dict.fromkeys((record["array"], record["method"]) for record in records):
        rows = [r for r in records if (r["array"], r["method"]) == (array, method)]
        shown = [f"{key} {np.median([row[key] for row in rows]):.2f}" for key in SHOWN]
        span = [row["ARI"] for row in rows]
        print(f"{array:18} {method:21}", *shown, f"ARI {min(span):.2f} to {max(span):.2f}")


SHOWN = ("ARI", "clusters", "labelled", "seconds")

if __name__ == "__main__":
    main()
