"""How well ``outlier_score`` finds samples of classes that were not there in the fit.

    python benchmarks/outliers.py [--data DIR] [--seeds 3] [--first-seed 90000]
        [--families ...] [--max-rows 1000] [--output FILE]

Of each task of ``tasks.py`` with three classes or more, one class in five is held out whole, at
least one, and a third of the samples of the others. MiniClustering is fitted to the rest, and asked
for its scores on what was held out. AUROC says how often a sample of an unknown class has a higher
score than one of a known class. Beside it: one minus the largest probability, and the scores of
LocalOutlierFactor and IsolationForest of scikit-learn, fitted to the same rows.
``above .95`` is the share of held-out samples of known classes with such scores: it should be .05.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from features import append
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from tasks import Task, task_arguments, tasks_of

from skdeepcluster import MiniClustering

FIRST_SEED = 90_000
SCORES = ("outlier_score", "1 - largest probability", "LocalOutlierFactor", "IsolationForest")


def hold_out(task: Task, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the rows to fit, further ones of the same classes, and those of the other classes."""
    random = np.random.default_rng(seed)
    classes = np.unique(task.y)
    if len(classes) < 3:
        return None
    unknown = np.isin(task.y, random.choice(classes, max(1, len(classes) // 5), replace=False))
    known = random.permutation(np.flatnonzero(~unknown))
    n_train = 2 * len(known) // 3
    return known[:n_train], known[n_train:], np.flatnonzero(unknown)


def measure(task: Task, seed: int) -> Iterator[dict[str, Any]]:
    held_out = hold_out(task, seed)
    if held_out is None:
        return
    train, known, unknown = held_out
    X, n_clusters = task.X[train], len(np.unique(task.y[train]))
    asked = task.X[np.r_[known, unknown]]
    is_unknown = np.arange(len(asked)) >= len(known)
    model = MiniClustering(n_clusters, random_state=seed).fit(X)
    factor = LocalOutlierFactor(novelty=True).fit(X)
    forest = IsolationForest(random_state=seed).fit(X)
    found = (
        model.outlier_score(asked),
        1 - model.predict_proba(asked).max(axis=1),
        -factor.score_samples(asked),
        -forest.score_samples(asked),
    )
    for name, scores in zip(SCORES, found, strict=True):
        record = {
            "family": task.family,
            "task": task.name,
            "seed": seed,
            "score": name,
            "AUROC": float(roc_auc_score(is_unknown, scores)),
        }
        if name == SCORES[0]:
            record["above .95"] = float(np.mean(scores[~is_unknown] > 0.95))
        yield record


def report(records: list[dict[str, Any]]) -> None:
    """Print the mean of each family, and over all of them."""
    found = dict.fromkeys(record["family"] for record in records)
    table = {
        family: [
            np.mean([r["AUROC"] for r in records if (r["family"], r["score"]) == (family, score)])
            for score in SCORES
        ]
        for family in found
    }
    print(f"\n{'AUROC':24}" + "".join(f"{score:>26}" for score in SCORES))
    for family, means in table.items():
        print(f"{family:24}" + "".join(f"{mean:26.3f}" for mean in means))
    means = np.mean(list(table.values()), axis=0)
    print(f"{'mean of families':24}" + "".join(f"{mean:26.3f}" for mean in means))
    shares = [record["above .95"] for record in records if "above .95" in record]
    print(f"samples of known classes above .95: {np.mean(shares):.3f}")


def main() -> None:
    parser = task_arguments(__doc__.splitlines()[0], 3, FIRST_SEED)
    arguments = parser.parse_args()

    records = []
    for seed, task in tasks_of(arguments):
        for record in measure(task, seed):
            records.append(record)
            append(record, arguments.output)
    report(records)


if __name__ == "__main__":
    main()
