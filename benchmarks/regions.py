"""What regions cost: k-means anew for every batch, or the regions of the data set at hand.

    python benchmarks/regions.py [--data DIR] [--seeds 3]

CDC's paper divides every batch into regions by ten runs of k-means. Ours assigns the batch to the
regions of the data set, found once; where the encoder is trained, their centres follow it. Prints
the time of a training step, the ECE of the calibration head and the ARI, as medians over the seeds.
"""

import argparse
import contextlib
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from features import load
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from skdeepcluster import CalibratedDeepClustering
from skdeepcluster.metrics import expected_calibration_error
from skdeepcluster.numerics import kmeans
from skdeepcluster.objectives import CalibratedObjective


def regions_from_scratch(n_init: int) -> Any:
    """Return a replacement of the way in which the objective finds regions."""

    def find(objective: CalibratedObjective, z: Tensor) -> Tensor:
        n_regions = min(objective.n_parts, len(z))
        generator = torch.Generator().manual_seed(0)
        return kmeans(z, n_regions, generator=generator, n_init=n_init).labels

    return patch.object(CalibratedObjective, "_find_regions", find)


VARIANTS = {
    "ten runs per batch": lambda: regions_from_scratch(10),
    "one run per batch": lambda: regions_from_scratch(1),
    "regions of the data set": contextlib.nullcontext,
}
TRAINING = {
    "frozen encoder": {},
    "trained encoder": {"fine_tune": True, "learning_rate": 1e-4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'':18}{'':18}{'':26}{'ms/step':>9}{'ECE':>7}{'ARI':>7}")
    for array in ("digits", "stackoverflow LT") if arguments.data else ("digits",):
        for training, parameters in TRAINING.items():
            for name, replace in VARIANTS.items():
                results = []
                for seed in range(arguments.seeds):
                    X, y = load(array, arguments.data, seed)
                    model = CalibratedDeepClustering(
                        len(np.unique(y)), random_state=seed, calibrate=False, **parameters
                    )
                    with replace():
                        model.fit(X)
                    epochs = [r for r in model.history_ if r["phase"] == "clustering"]
                    seconds = np.median([r["seconds"] for r in epochs]) / (len(X) // 256)
                    error = expected_calibration_error(y, model.predict_proba(X))
                    results.append((1e3 * seconds, error, adjusted_rand_score(y, model.labels_)))
                step, error, ari = np.median(results, axis=0)
                print(f"{array:18}{training:18}{name:26}{step:9.1f}{error:7.3f}{ari:7.3f}")


if __name__ == "__main__":
    main()
