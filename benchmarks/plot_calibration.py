"""The figure of the README: reliability and rejection of three methods on one array.

python benchmarks/plot_calibration.py --data DIR [--array tweet89] [--output FILE]
"""

import argparse
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from features import ARRAYS, load
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from skdeepcluster import CalibratedDeepClustering
from skdeepcluster.display import RejectionDisplay, ReliabilityDisplay

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--array", choices=ARRAYS, default="tweet89")
    parser.add_argument("--output", type=Path, default=Path("doc/images/reliability.png"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    X, y = load(arguments.array, arguments.data, 0)
    X = (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())
    k = len(np.unique(y))
    kmeans = KMeans(k, n_init=10, random_state=0).fit(X)
    mixture = GaussianMixture(k, covariance_type="diag", reg_covar=1e-3, random_state=0)
    found = {
        "KMeans, softmax(-d\N{SUPERSCRIPT TWO})": softmax(-(kmeans.transform(X) ** 2), axis=1),
        "GaussianMixture": mixture.fit(X.astype(np.float64)).predict_proba(X),
        "CalibratedDeepClustering": CalibratedDeepClustering(k, random_state=0)
        .fit(X)
        .predict_proba(X),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for place, (name, p) in enumerate(found.items()):
        ReliabilityDisplay.from_predictions(y, p, ax=left, name=name, diagonal=place == 0)
        RejectionDisplay.from_predictions(y, p, ax=right, name=name)
    figure.savefig(arguments.output, dpi=90)


if __name__ == "__main__":
    main()
