"""How many clusters survive: centres that learn from their own cluster alone, or from all samples.

    python benchmarks/stability.py --data DIR [--seeds 3] [--arrays digits ...]

The stable loss of StableClusterDiscrimination stops the gradient of the logits of other clusters;
the naive loss, which is nowhere in the package, is the ordinary cross-entropy of the same logits.
Both with and without the size constraint, with our recipe (from k-means), and as in the paper from
random directions, without neighbours drawn together and with the fast centres of its recipe. Prints
the clusters that have samples and ARI, medians over the seeds (range of the clusters).
"""

import argparse
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import ARRAYS, load
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from skdeepcluster import StableClusterDiscrimination
from skdeepcluster.objectives import _discrimination, center_loss

FIRST_SEED = 6000
RECIPES: dict[str, dict[str, Any]] = {
    "ours": {"init": "kmeans"},
    "as in the paper": {"init": "random", "neighbor_weight": 0.0, "center_learning_rate": 0.05},
}


def naive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each head, in which the logits of all clusters learn."""
    return torch.stack([cross_entropy(*head) for head in zip(logits, labels, strict=True)])


LOSSES = {"stable": center_loss, "naive": naive_loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arrays", nargs="+", choices=ARRAYS, default=ARRAYS[:2])
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # lost clusters are what is counted
    print(f"{'':16}{'recipe':18}{'constraint':12}{'loss':>8}{'clusters':>18}{'ARI':>8}")
    for array, recipe, constraint, name in product(
        arguments.arrays, RECIPES, (None, "size"), LOSSES
    ):
        _discrimination.center_loss = LOSSES[name]
        alive, ari = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            X, y = load(array, arguments.data, seed)
            n_clusters = len(np.unique(y))
            model = StableClusterDiscrimination(
                n_clusters,
                constraint=constraint,
                calibrate=False,
                random_state=seed,
                **RECIPES[recipe],
            ).fit(X)
            alive.append(np.count_nonzero(model.cluster_sizes_))
            ari.append(adjusted_rand_score(y, model.labels_))
        clusters = f"{np.median(alive):.0f} ({min(alive)}-{max(alive)})/{n_clusters}"
        print(
            f"{array:16}{recipe:18}{constraint or 'none':12}{name:>8}{clusters:>18}"
            f"{np.median(ari):8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
