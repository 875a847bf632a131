"""The digits of scikit-learn, clustered as features, as images and as a long-tailed set.

Prints a table against KMeans and saves one figure. A row appears when its fit begins, with the time
it is likely to take, and is completed when the fit is done.
"""

import argparse
import time
import warnings
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.metrics import class_averaged_accuracy

matplotlib.use("Agg")


def compare(name, X, y, model, expected):
    """Fit KMeans and a model on the same samples; print a row for each.

    ``expected`` is roughly how many seconds the fit of the model takes.
    """
    n_clusters = len(np.unique(y))
    baseline = KMeans(n_clusters, n_init=10, random_state=0)
    for label, estimator, data, about in (
        ("KMeans", baseline, X.reshape(len(X), -1), 0.1),
        ("MiniClustering", model, X, expected),
    ):
        print(f"{name:22}{label:16}{about:9}", end="", flush=True)
        started = time.perf_counter()
        labels = estimator.fit_predict(data)
        seconds = time.perf_counter() - started
        print(
            f"{seconds:9.1f}{adjusted_rand_score(y, labels):7.2f}"
            f"{class_averaged_accuracy(y, labels):7.2f}",
            flush=True,
        )


def draw(model, X, path):
    """Show the surest samples of each cluster, the clusters ordered by size, with their weights."""
    surest = model.predict_proba(X)
    order = np.argsort(model.cluster_sizes_)[::-1]
    n_shown = 7
    figure, axes = plt.subplots(len(order), n_shown, figsize=(5.6, 6.2))
    for row, cluster in zip(axes, order, strict=True):
        members = np.flatnonzero(model.labels_ == cluster)
        certain_first = np.argsort(-surest[members, cluster], kind="stable")
        for axis in row:
            axis.set_axis_off()
        for axis, sample in zip(row, members[certain_first], strict=False):
            axis.imshow(X[sample].reshape(8, 8), cmap="gray_r")
        size = model.cluster_sizes_[cluster]
        weight = model.class_weights_[cluster]
        for place, number in ((-2.0, f"{size}"), (-0.4, f"{weight:.1f}")):
            row[0].text(
                place,
                0.5,
                number,
                transform=row[0].transAxes,
                ha="right",
                va="center",
                fontsize=14,
            )
    for place, title in ((-2.0, "size"), (-0.4, "weight")):
        axes[0, 0].text(
            place,
            1.25,
            title,
            transform=axes[0, 0].transAxes,
            ha="right",
            fontsize=14,
        )
    figure.subplots_adjust(
        left=0.27, right=0.99, top=0.92, bottom=0.01, wspace=0.05, hspace=0.12
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    print(f"\nThe clusters of the long-tailed digits are drawn in {path}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output"))
    output = parser.parse_args().output

    X, y = load_digits(return_X_y=True)
    X_lt, y_lt = make_long_tailed(X, y, imbalance_ratio=10, random_state=0)
    images = (X / 16).reshape(-1, 1, 8, 8).astype(np.float32)

    print(f"{'':38}{'about':>9}{'seconds':>9}{'ARI':>7}{'CAA':>7}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_features = MiniClustering(10, random_state=0)
        compare("digits, 64 features", X, y, by_features, expected=3)
        long_tailed = MiniClustering(10, random_state=0)
        compare("the same, long tail", X_lt, y_lt, long_tailed, expected=3)
        by_image = MiniClustering(10, random_state=0)
        compare("digits, 8x8 images", images, y, by_image, expected=30)
    print(
        "about: roughly how many seconds; on busy cores several times as many."
    )
    print("ARI: adjusted Rand index; CAA: accuracy averaged over the classes.")
    draw(long_tailed, X_lt, output / "digits.png")


if __name__ == "__main__":
    main()
