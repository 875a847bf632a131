"""To which side small images are to be enlarged for a network with published weights.

    python benchmarks/enlarging.py --data DIR [--seeds 3] [--first-seed 600] [--images 800]
        [--sides 32 64 96 128 160 224] [--output FILE]

Test images of CIFAR-10, 32 pixels wide, are given as they are to MiniClustering on
EfficientNet-Lite0 with its ImageNet weights (DIR holds ``cifar10_jpeg.npz`` and
``tf_efficientnet_lite0.pth``), which sees them enlarged to each side. Labels are read only to
score. Prints medians over the seeds, each of which draws other images, and appends a JSON record
per run to ``--output``.
"""

import argparse
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from features import append
from images import BACKBONE, cifar
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.networks import _backbones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=600)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 96, 128, 160, 224])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    records: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        X, y = cifar(arguments.data, seed, arguments.images, 32)
        for side in arguments.sides:
            model = MiniClustering(
                10,
                backbone=BACKBONE,
                pretrained=arguments.data / f"{BACKBONE}.pth",
                fine_tune=False,
                calibrate=False,
                random_state=seed,
            )
            began = time.perf_counter()
            with patch.object(_backbones, "PUBLISHED_SIDE", side):
                labels = model.fit_predict(X)
            record = {"seed": seed, "images": len(X), "side": side}
            record |= {"ARI": adjusted_rand_score(y, labels)}
            records.append(record | {"seconds": time.perf_counter() - began})
            append(records[-1], arguments.output)
    for side in arguments.sides:
        rows = [record for record in records if record["side"] == side]
        ari, seconds = ([row[key] for row in rows] for key in ("ARI", "seconds"))
        print(
            f"{side:5}  ARI {np.median(ari):.3f} ({min(ari):.3f}-{max(ari):.3f})"
            f"  {np.median(seconds):6.1f} s"
        )


if __name__ == "__main__":
    main()
