"""Hundreds of clustering tasks in families: what a rule or a constant has to be judged on.

    python benchmarks/tasks.py [--data DIR] [--seeds 3] [--families ...] [--methods MiniClustering]
        [--max-rows 3000] [--short] [--ablation] [--records FILE ...]

A few arrays are soon known by heart. Here each seed draws a new task of every family: shapes,
small tables, embeddings of texts and images. What is chosen by looking at some families (a rule, a
constant, a learned mapping) has to be judged on others, never on the same ones.

DIR holds ``stackoverflow.npz``, ``tweet89.npz``, ``clinc150.npz``, ``cifar10_effnet.npz`` (arrays
``X`` and ``y``) and ``tables.npz`` (``NAME_X`` and ``NAME_y``); families whose file is not there
are left out. All methods get the same array and the number of classes; labels are read only to
score. Prints a line per task (ARI of KMeans and of each method) and a summary, in which each family
counts the same however many tasks it has, and appends JSON records to ``--output`` as it goes.
``--short`` takes one seed and 1,000 rows at most: some minutes on one core.

``--ablation`` leaves out or changes one part of each method after the other, without calibration,
which changes no label, and prints what that changes: the mean over families and its standard error,
and the shares of tasks that are better and worse by more than .01. ``--records`` prints the summary
of records of whole runs.
"""

import argparse
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from features import ABLATIONS, METHODS, append, records_in
from sklearn import datasets
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import scale

from skdeepcluster import MiniClustering
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.metrics import (
    area_under_risk_coverage,
    clustering_accuracy,
    expected_calibration_error,
)

FIRST_SEED = 20_000
LEAST_ROWS_OF_A_CLASS = 3
BELOW = 0.01  # in ARI; smaller differences come and go with the seed of k-means
BASELINE = "KMeans"


class Task(NamedTuple):
    """An array to cluster, and the classes that should be found."""

    family: str
    name: str
    X: np.ndarray
    y: np.ndarray
    n_clusters: int


Drawn = tuple[str, np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator], Drawn]


# Shapes. Standard deviations are 1 where nothing else is said.


def centers(rng: np.random.Generator, n: int, n_features: int, apart: float = 6.0) -> np.ndarray:
    """Return points in a cube, any two of them at least so far apart."""
    half = 10.0
    while True:
        points = rng.uniform(-half, half, (n, n_features))
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        if distances[~np.eye(n, dtype=bool)].min() >= apart:
            return points
        half *= 1.02  # many points need a larger cube


def around(
    rng: np.random.Generator,
    points: np.ndarray,
    sizes: Sequence[int] | np.ndarray,
    spread: float | np.ndarray = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return so many normal samples around each of the points, and their numbers."""
    y = np.repeat(np.arange(len(points)), sizes)
    deviations = np.broadcast_to(spread, len(points))[y, None]
    return points[y] + deviations * rng.standard_normal((len(y), points.shape[1])), y


def equal_blobs(rng: np.random.Generator) -> Drawn:
    d, k = rng.choice([2, 3, 6, 10, 30, 100, 200]), rng.integers(2, 21)
    n = rng.integers(10, 150)
    return f"{k} x {n}, d={d}", *around(rng, centers(rng, k, d), [n] * k)


def close_blobs(rng: np.random.Generator) -> Drawn:
    d, k, apart = rng.choice([2, 5, 10]), rng.integers(3, 11), rng.uniform(2, 4)
    points = centers(rng, k, d, apart)
    nearest = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1].mean()
    return f"{k}, d={d}", *around(rng, points * apart / nearest, rng.integers(30, 300, k))


def unequal_blobs(rng: np.random.Generator) -> Drawn:
    choices = [(500, 100, 10), (1000, 50), (900, 90, 10), (700, 300, 100, 30, 10), (2000, 20)]
    sizes = choices[rng.integers(len(choices))]
    d = rng.choice([2, 3, 6, 10, 30, 100])
    name = "/".join(map(str, sizes))
    return f"{name}, d={d}", *around(rng, centers(rng, len(sizes), d), sizes)


def long_tailed_blobs(rng: np.random.Generator) -> Drawn:
    d, k, ratio = rng.choice([5, 20, 50]), rng.integers(5, 31), rng.choice([10, 30, 100])
    sizes = np.ceil(400 * ratio ** (-np.arange(k) / (k - 1))).astype(int)
    return f"{k}, ratio {ratio}, d={d}", *around(rng, centers(rng, k, d), sizes)


def one_feature(rng: np.random.Generator) -> Drawn:
    k = rng.integers(2, 7)
    points = np.cumsum(rng.uniform(6, 15, k))[:, None]
    return f"{k}", *around(rng, points, rng.integers(20, 400, k))


def many_blobs(rng: np.random.Generator) -> Drawn:
    d, k = rng.choice([5, 20, 60]), rng.integers(40, 101)
    return f"{k}, d={d}", *around(rng, centers(rng, k, d), rng.integers(10, 40, k))


def sheared_blobs(rng: np.random.Generator) -> Drawn:
    d, k = rng.choice([2, 2, 5]), rng.integers(3, 6)
    X, y = around(rng, centers(rng, k, d), rng.integers(100, 400, k))
    mixing, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return f"{k}, d={d}", X @ (mixing * np.geomspace(1, rng.uniform(3, 8), d)) @ mixing.T, y


def varied_spread(rng: np.random.Generator) -> Drawn:
    d, k = rng.choice([2, 5, 10]), rng.integers(3, 9)
    spread = rng.uniform(0.3, 3, k)
    return f"{k}, d={d}", *around(rng, centers(rng, k, d), rng.integers(50, 300, k), spread)


def grid(rng: np.random.Generator) -> Drawn:
    side, step, n = rng.integers(3, 8), rng.uniform(5, 8), rng.integers(20, 80)
    points = step * np.stack(np.meshgrid(range(side), range(side)), axis=-1).reshape(-1, 2)
    return f"{side} x {side}", *around(rng, points, [n] * side**2)


def ray(rng: np.random.Generator) -> Drawn:
    """Return blobs in a row, farther and farther from the origin, all in one direction."""
    d, k = rng.choice([2, 10, 50]), rng.integers(3, 8)
    direction = rng.standard_normal(d)
    steps = np.cumsum(rng.uniform(8, 12, k) * rng.choice([1.0, 1.3]) ** np.arange(k))
    points = steps[:, None] * direction / np.linalg.norm(direction)
    return f"{k}, d={d}", *around(rng, points, rng.integers(40, 300, k))


def outliers(rng: np.random.Generator) -> Drawn:
    """Return blobs, with some samples that have their class's centre and far more spread."""
    d, k = rng.choice([2, 5, 20]), rng.integers(3, 8)
    points, sizes = centers(rng, k, d), rng.integers(60, 250, k)
    X, y = around(rng, points, sizes)
    far = rng.random(len(X)) < rng.uniform(0.01, 0.05)
    X[far] = points[y[far]] + rng.uniform(4, 12) * (X[far] - points[y[far]])
    return f"{k}, d={d}, {far.sum()} outliers", X, y


def noise_columns(rng: np.random.Generator) -> Drawn:
    d, k, extra = rng.choice([2, 5, 10]), rng.integers(3, 9), rng.choice([10, 50, 100])
    X, y = around(rng, centers(rng, k, d), rng.integers(50, 250, k))
    noise = rng.uniform(1, 3) * rng.standard_normal((len(X), extra))
    return f"{k}, d={d} and {extra}", np.hstack([X, noise]), y


def informative_columns(rng: np.random.Generator) -> Drawn:
    k, informative, redundant = rng.integers(3, 9), rng.integers(4, 9), rng.integers(0, 10)
    X, y = datasets.make_classification(
        rng.integers(400, 2000),
        n_features=informative + redundant + 4,
        n_informative=informative,
        n_redundant=redundant,
        n_classes=k,
        n_clusters_per_class=1,
        class_sep=rng.uniform(1, 2.5),
        random_state=int(rng.integers(2**31)),
    )
    return f"{k}, d={X.shape[1]}", X, y


def moons(rng: np.random.Generator) -> Drawn:
    n, noise = int(rng.integers(200, 1500)), rng.uniform(0.02, 0.1)
    return f"noise {noise:.2f}", *datasets.make_moons(n, noise=noise, random_state=_number(rng))


def circles(rng: np.random.Generator) -> Drawn:
    n, noise = int(rng.integers(200, 1500)), rng.uniform(0.01, 0.06)
    X, y = datasets.make_circles(n, noise=noise, factor=0.5, random_state=_number(rng))
    return f"noise {noise:.2f}", X, y


def swiss_pieces(rng: np.random.Generator) -> Drawn:
    """Return pieces of a rolled-up sheet, with gaps between them."""
    k = int(rng.integers(3, 7))
    X, position = datasets.make_swiss_roll(2000, noise=0.2, random_state=_number(rng))
    place = k * (position - position.min()) / np.ptp(position) * (1 - 1e-9)
    kept = place % 1 > 0.2
    return f"{k}", X[kept], place[kept].astype(int)


def one_hot(rng: np.random.Generator) -> Drawn:
    """Return categorical columns, one-hot; each class has a category of its own in every one."""
    k, columns, levels = rng.integers(2, 8), rng.integers(6, 20), rng.integers(3, 7)
    sizes = rng.integers(40, 300, k)
    y = np.repeat(np.arange(k), sizes)
    usual = rng.integers(levels, size=(k, columns))
    is_usual = rng.random((len(y), columns)) < rng.uniform(0.5, 0.8)
    values = np.where(is_usual, usual[y], rng.integers(levels, size=is_usual.shape))
    return f"{k}, {columns} x {levels}", np.eye(levels)[values].reshape(len(y), -1), y


def counts(rng: np.random.Generator) -> Drawn:
    """Return Poisson counts, as of words in documents, of different lengths."""
    k, words = rng.integers(3, 11), rng.choice([30, 100, 300])
    y = np.repeat(np.arange(k), rng.integers(40, 200, k))
    rates = rng.dirichlet(np.full(words, 0.3), k)
    lengths = rng.gamma(4, rng.uniform(8, 20), len(y))
    return f"{k}, {words} words", rng.poisson(lengths[:, None] * rates[y]), y


# Data sets.


def table(
    name: str, load: Callable[[], tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> Drawn:
    """Return four fifths of a table or more, each column standardised."""
    X, y = load()
    rows = np.flatnonzero(rng.random(len(X)) < rng.uniform(0.8, 1))
    return name, scale(X[rows].astype(np.float64)), y[rows]


def classes(
    load: Callable[[], tuple[np.ndarray, np.ndarray]],
    least: int,
    long_tailed: bool,
    rng: np.random.Generator,
) -> Drawn:
    """Return some of the classes of a data set and some of the rows of these, maybe long-tailed."""
    X, y = load()
    labels = rng.permutation(np.unique(y))
    labels = labels[: rng.integers(least, len(labels) + 1)]
    rows = np.flatnonzero(np.isin(y, labels))
    X, y = X[rows], np.argsort(labels)[np.searchsorted(np.sort(labels), y[rows])]
    ratio = np.exp(rng.uniform(np.log(3), np.log(100))) if long_tailed else 1.0
    if long_tailed:
        X, y = make_long_tailed(X, y, imbalance_ratio=ratio, random_state=_number(rng))
    fewest = min(max(100, 8 * len(labels)), len(X))
    n = round(np.exp(rng.uniform(np.log(fewest), np.log(len(X)))))
    rows = rng.permutation(len(X))[:n]
    return f"{len(labels)} classes, ratio {ratio:.0f}", X[rows], y[rows]


def _number(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


@cache
def stored(path: Path, prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file[f"{prefix}X"].astype(np.float32), file[f"{prefix}y"]


SHAPES: dict[str, Draw] = {
    "equal blobs": equal_blobs,
    "close blobs": close_blobs,
    "unequal blobs": unequal_blobs,
    "long-tailed blobs": long_tailed_blobs,
    "one feature": one_feature,
    "many blobs": many_blobs,
    "sheared blobs": sheared_blobs,
    "varied spread": varied_spread,
    "grid": grid,
    "ray": ray,
    "outliers": outliers,
    "noise columns": noise_columns,
    "informative columns": informative_columns,
    "moons": moons,
    "circles": circles,
    "swiss roll": swiss_pieces,
    "one-hot": one_hot,
    "counts": counts,
}
TABLES: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
}
STORED_TABLES = ("ecoli", "wheat_seeds", "ionosphere", "sonar")
# The least number of classes to draw. The classes of tweet89 are long-tailed as they are.
EMBEDDINGS = {"stackoverflow": 5, "tweet89": 20, "clinc150": 10, "cifar10_effnet": 5}
LONG_TAILED = "tweet89"


def families(data: Path | None) -> dict[str, Draw]:
    """Return all families that can be drawn with what is in the folder."""
    found = dict(SHAPES)
    for name, load in TABLES.items():
        found[name] = partial(table, name, partial(load, return_X_y=True))
    digits = partial(datasets.load_digits, return_X_y=True)
    found["digits"] = partial(classes, digits, 5, False)
    found["digits LT"] = partial(classes, digits, 5, True)
    if data is not None and (data / "tables.npz").exists():
        for name in STORED_TABLES:
            found[name] = partial(table, name, partial(stored, data / "tables.npz", f"{name}_"))
    for name, least in EMBEDDINGS.items():
        if data is not None and (data / f"{name}.npz").exists():
            load = partial(stored, data / f"{name}.npz")
            found[name] = partial(classes, load, least, False)
            if name != LONG_TAILED:
                found[f"{name} LT"] = partial(classes, load, least, True)
    return found


def draw(family: str, seed: int, data: Path | None = None, max_rows: int = 20_000) -> Task:
    """Draw a task of a family; the same seed gives the same task."""
    rng = np.random.default_rng([seed, zlib.crc32(family.encode())])
    name, X, y = families(data)[family](rng)
    rows = rng.permutation(len(X))[:max_rows]
    X, y = X[rows], y[rows]
    kept = np.isin(y, np.flatnonzero(np.bincount(y) >= LEAST_ROWS_OF_A_CLASS))
    y = np.unique(y[kept], return_inverse=True)[1]
    return Task(family, name, X[kept].astype(np.float32), y, int(y.max()) + 1)


def tasks(
    seeds: Sequence[int],
    names: Sequence[str] | None = None,
    data: Path | None = None,
    max_rows: int = 20_000,
) -> Iterator[tuple[int, Task]]:
    """Yield a task of every family for every seed, with the seed."""
    available = families(data)
    for name in names or available:
        if name not in available:
            print(f"{name} is left out; with --data {data} there are: {', '.join(available)}")
            continue
        for seed in seeds:
            yield seed, draw(name, seed, data, max_rows)


def task_arguments(description: str, n_seeds: int, first_seed: int) -> argparse.ArgumentParser:
    """Return a parser of which tasks to draw, and where to keep what they show."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=n_seeds)
    parser.add_argument("--first-seed", type=int, default=first_seed)
    parser.add_argument("--families", nargs="+", help="all by default")
    parser.add_argument("--max-rows", type=int, default=1_000)
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    return parser


def tasks_of(arguments: argparse.Namespace) -> Iterator[tuple[int, Task]]:
    """Yield the tasks that :func:`task_arguments` describe."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    return tasks(seeds, arguments.families, arguments.data, arguments.max_rows)


def evaluate(task: Task, estimator: Any) -> dict[str, float]:
    """Fit once and return scores and seconds; those of confidences where there are any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lost clusters show in the scores
        started = time.perf_counter()
        labels = estimator.fit_predict(task.X)
        scores = {
            "ARI": float(adjusted_rand_score(task.y, labels)),
            "seconds": time.perf_counter() - started,
            "accuracy": clustering_accuracy(task.y, labels),
        }
        if hasattr(estimator, "predict_proba"):
            found = estimator.predict_proba(task.X)
            scores["ECE"] = expected_calibration_error(task.y, found)
            scores["AURC"] = area_under_risk_coverage(task.y, found)
            scores["confidence"] = float(found.max(axis=1).mean())
    return scores


def measure(task: Task, seed: int, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a record of KMeans, and two of each method: as it comes, and with its plain softmax."""
    estimators: dict[str, Any] = {
        BASELINE: KMeans(task.n_clusters, n_init=10, random_state=seed % 2**32)
    }
    for name in methods:
        estimators[name] = METHODS[name](task.n_clusters, random_state=seed)
        estimators[f"{name}, softmax"] = METHODS[name](
            task.n_clusters, random_state=seed, calibrate=False
        )
    for name, estimator in estimators.items():
        yield record_of(task, seed, name, estimator)


def ablate(task: Task, seed: int, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a record of KMeans, one of each method, and one of each change of a part of it."""
    kmeans = KMeans(task.n_clusters, n_init=10, random_state=seed % 2**32)
    yield record_of(task, seed, BASELINE, kmeans)
    for name in methods:
        for change, parameters in {name: {}, **ABLATIONS[METHODS[name]]}.items():
            estimator = METHODS[name](
                task.n_clusters, random_state=seed, calibrate=False, **parameters
            )
            yield record_of(task, seed, change, estimator)


def record_of(task: Task, seed: int, name: str, estimator: Any) -> dict[str, Any]:
    return {
        "family": task.family,
        "task": task.name,
        "seed": seed,
        "shape": list(task.X.shape),
        "n_clusters": task.n_clusters,
        "method": name,
        **evaluate(task, estimator),
    }


def by_family(records: list[dict[str, Any]], method: str, score: str) -> dict[str, np.ndarray]:
    """Return a score of a method on the tasks of each family, in the order of their seeds."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record["method"] == method and score in record:
            found.setdefault(record["family"], []).append(record[score])
    return {family: np.array(scores) for family, scores in found.items()}


def over_families(scores: dict[str, np.ndarray]) -> float:
    return float(np.mean([values.mean() for values in scores.values()])) if scores else np.nan


def report(records: list[dict[str, Any]]) -> None:
    """Print ARI by family, and what each method does over all families beside KMeans."""
    methods = list(dict.fromkeys(record["method"] for record in records))
    shown = [method for method in methods if not method.endswith(", softmax")]
    ari = {method: by_family(records, method, "ARI") for method in methods}
    print(f"\n{'mean ARI':24}" + "".join(f"{method:>34}" for method in shown))
    for family in ari[BASELINE]:
        means = "".join(f"{ari[method][family].mean():34.3f}" for method in shown)
        print(f"{family:24}{means}")

    best = {
        family: np.max([ari[method][family] for method in shown], axis=0)
        for family in ari[BASELINE]
    }
    print(
        f"\nOver {len(ari[BASELINE])} families; 'below' is the share of tasks more than {BELOW} "
        "below KMeans, 'worst' the family with the lowest median of the differences"
    )
    print(f"{'':44}{'ARI':>6}{'regret':>8}{'below':>7}{'ECE':>7}{'AURC':>7}{'seconds':>9}  worst")
    for method in methods:
        gains = {family: ari[method][family] - ari[BASELINE][family] for family in ari[BASELINE]}
        regret = over_families({family: best[family] - ari[method][family] for family in best})
        below = np.mean(np.concatenate(list(gains.values())) < -BELOW)
        worst = min(gains, key=lambda family: float(np.median(gains[family])))
        ece, aurc, seconds = (
            over_families(by_family(records, method, score)) for score in ("ECE", "AURC", "seconds")
        )
        print(
            f"{method:44}{over_families(ari[method]):6.3f}{regret:8.3f}{below:7.0%}{ece:7.3f}"
            f"{aurc:7.3f}{seconds:9.2f}  {worst} ({np.median(gains[worst]):+.3f})"
        )


def report_ablation(records: list[dict[str, Any]], methods: Sequence[str]) -> None:
    """Print, as Markdown, what each change of a part does to the ARI of the whole method."""
    baseline = by_family(records, BASELINE, "ARI")
    for method in methods:
        whole = by_family(records, method, "ARI")
        n_tasks = sum(len(values) for values in whole.values())
        print(f"\n## {method}\n\n{n_tasks} tasks of {len(whole)} families;", end=" ")
        print(f"KMeans has {over_families(baseline):.3f}.\n")
        print("| | ARI | change | its standard error | better / worse |")
        print("| --- | --- | --- | --- | --- |")
        print(f"| **{method}** | {over_families(whole):.3f} | | | |")
        for name, parameters in ABLATIONS[METHODS[method]].items():
            ari = by_family(records, name, "ARI")
            changes = {family: ari[family] - whole[family] for family in whole}
            means = np.array([values.mean() for values in changes.values()])
            every = np.concatenate(list(changes.values()))
            error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
            arguments = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
            print(
                f"| {name.split(': ')[-1]} (`{arguments}`) | {over_families(ari):.3f} "
                f"| {means.mean():+.3f} | {error:.3f} "
                f"| {np.mean(every > BELOW) * 100:.0f} % / {np.mean(every < -BELOW) * 100:.0f} % |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=["MiniClustering"])
    parser.add_argument("--max-rows", type=int, default=20_000)
    parser.add_argument("--short", action="store_true", help="one seed, 1,000 rows at most")
    parser.add_argument("--ablation", action="store_true", help="without one part after the other")
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    parser.add_argument("--records", type=Path, nargs="+", help="report on these alone")
    arguments = parser.parse_args()
    ablation = partial(report_ablation, methods=arguments.methods)
    summarize = ablation if arguments.ablation else report
    if arguments.records:
        summarize(records_in(arguments.records))
        return

    n_seeds = 1 if arguments.short else arguments.seeds
    max_rows = min(arguments.max_rows, 1_000) if arguments.short else arguments.max_rows
    seeds = range(arguments.first_seed, arguments.first_seed + n_seeds)
    missing = {*STORED_TABLES, *EMBEDDINGS} - families(arguments.data).keys()
    if missing and not arguments.families:
        print("Left out, as --data does not hold them:", ", ".join(sorted(missing)))
    # The first fit imports the training engine; that is not the fit's time.
    MiniClustering(2, random_state=0).fit(np.eye(8, dtype=np.float32))
    records = []
    for seed, task in tasks(seeds, arguments.families, arguments.data, max_rows):
        print(f"{task.family:20}{task.name:28}{task.X.shape!s:>14}", end="", flush=True)
        run = ablate if arguments.ablation else measure
        of_task = []
        for found in run(task, seed, arguments.methods):
            of_task.append(found)
            if not found["method"].endswith(", softmax"):
                print(f"  {found['ARI']:.3f}", end="", flush=True)
        print()
        # Kept once all are there, so that the records of a run that was stopped can be compared.
        for found in of_task:
            append(found, arguments.output)
        records += of_task
    summarize(records)


if __name__ == "__main__":
    main()
