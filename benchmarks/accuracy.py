"""How wide the accuracy of a partition may be around its mean confidence.

    python benchmarks/accuracy.py FILE [FILE ...] [--share .9] [--splits 500]

FILE holds records of ``tasks.py``. Standardised differences of accuracy and mean confidence,

    (accuracy - c) / sqrt(c (1 - c) + FLOOR),

have a range that holds a share of them. It is read off half of the families, drawn at random, and
judged on the other half; then the range that the package uses is judged on all families. Each
family counts the same.
"""

import argparse
from pathlib import Path

import numpy as np
from features import records_in

from skdeepcluster.calibration import accuracy_interval
from skdeepcluster.calibration._accuracy import FLOOR


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: list[float]) -> np.ndarray:
    """Return the values below which these shares of the weights lie."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(reached, shares).clip(max=len(values) - 1)
    return values[order][places]


def judge(records: list[dict[str, object]], share: float, n_splits: int) -> None:
    """Print errors, ranges of families and their coverage of other families."""
    family = np.array([record["family"] for record in records])
    families, number, counts = np.unique(family, return_inverse=True, return_counts=True)
    weights = 1 / counts[number]
    expected, accuracy = (
        np.array([record[name] for record in records], dtype=float)
        for name in ("confidence", "accuracy")
    )
    deviation = np.sqrt(expected * (1 - expected) + FLOOR)
    differences = (accuracy - expected) / deviation

    def average(values: np.ndarray, rows: np.ndarray) -> float:
        return float(np.average(values[rows], weights=weights[rows]))

    every = np.full(len(records), True)
    error = accuracy - expected
    print(f"{len(records)} tasks of {len(families)} families")
    print(
        f"accuracy - mean confidence: mean {average(error, every):+.3f}, mean absolute "
        f"{average(abs(error), every):.3f}, correlation {np.corrcoef(accuracy, expected)[0, 1]:.2f}"
    )
    shares = [(1 - share) / 2, (1 + share) / 2]
    low, high = weighted_quantiles(differences, weights, shares)
    print(f"range of {share:.0%} on all families: {low:.2f} to {high:.2f}")
    rng = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(n_splits):
        chosen = np.isin(number, rng.permutation(len(families))[: len(families) // 2])
        low, high = weighted_quantiles(differences[chosen], weights[chosen], shares)
        bounds = np.stack([expected + low * deviation, expected + high * deviation]).clip(0, 1)
        holds = (bounds[0] <= accuracy) & (accuracy <= bounds[1])
        covered.append(average(holds, ~chosen))
        widths.append(average(bounds[1] - bounds[0], ~chosen))
    print(
        f"read off half of the families: holds {np.mean(covered):.1%} of the others "
        f"({np.std(covered):.1%} between halves), width {np.mean(widths):.3f}"
    )
    bounds = np.array([accuracy_interval(value) for value in expected]).T
    holds = (bounds[0] <= accuracy) & (accuracy <= bounds[1])
    print(
        f"accuracy_interval: holds {average(holds, every):.1%}, width "
        f"{average(bounds[1] - bounds[0], every):.3f}; not in",
        ", ".join(
            sorted({f"{name} ({(~holds)[family == name].sum()})" for name in family[~holds]})
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--splits", type=int, default=500)
    arguments = parser.parse_args()

    records = records_in(arguments.files)
    records = [record for record in records if "confidence" in record]
    for method in dict.fromkeys(record["method"] for record in records):
        print(f"\n{method}")
        judge([r for r in records if r["method"] == method], arguments.share, arguments.splits)


if __name__ == "__main__":
    main()
