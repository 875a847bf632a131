"""Our methods against KMeans and others on feature arrays, with ablations of their parts.

    python benchmarks/features.py --data DIR [--seeds 3] [--arrays digits ...]
        [--methods MiniClustering ...] [--peers] [--ablation ...]

DIR holds ``stackoverflow.npz`` and ``tweet89.npz`` (arrays ``X`` and ``y``); without it only the
digits of scikit-learn are used. All methods get the same array, and nothing but the number of
clusters (HDBSCAN and EVoC find their own); labels are read only to score. Long-tailed versions are
drawn anew for each seed: which samples a draw keeps moves KMeans's ARI by .1. Prints medians over
the seeds (and the range of ARI) with seconds and peak memory, and appends a JSON record per run to
``--output`` as it goes.

``--peers`` adds clusterers of scikit-learn, each with its defaults, and EVoC's and ClustPy's where
they are installed. Those that compare all samples with each other get arrays of up to 10,000 rows,
ClustPy's autoencoders up to 3,000.
"""

import argparse
import contextlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.cluster import HDBSCAN, Birch, KMeans, MiniBatchKMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.metrics import class_averaged_accuracy, clustering_accuracy

ARRAYS = ("digits", "digits LT", "tweet89", "stackoverflow", "stackoverflow LT")
FURTHER_ARRAYS = ("clinc150", "clinc150 LT", "digits LT100", "stackoverflow LT100")
METHODS = {
    method.__name__: method
    for method in (
        MiniClustering,
        CalibratedDeepClustering,
        StableClusterDiscrimination,
        ProximityDeepClustering,
        GenerativeCalibrationClustering,
    )
}
MOST_ROWS_FOR_ALL_PAIRS = 10_000
# One fit of ClustPy's takes some ten minutes for 10,000 rows.
MOST_ROWS_FOR_CLUSTPY = 3_000
FIRST_SEED = 1000
IMAGE_BACKBONE = "test_resnet"  # timm's smallest ResNet: made for trying things out on a CPU

ABLATION: dict[str, dict[str, Any]] = {  # of MiniClustering
    "start alone": {"max_epochs": 0},
    "init=kmeans": {"init": "kmeans"},
    "init=merged": {"init": "merged"},
    "no reweighting": {"reweight": False},
    "no mini head": {"mini_weight": 0.0},
    "with alignment": {"alignment_weight": 0.2},
    "no marginal term": {"marginal_weight": 0.0},
    "paper's objective": {"alignment_weight": 0.2, "marginal_weight": 0.0},
    "no threshold": {"confidence_threshold": 0.0},
    "fine-tuned encoder": {"fine_tune": True, "learning_rate": 1e-4},
    "no pretraining": {"pretraining": None},
}
CALIBRATED_ABLATION: dict[str, dict[str, Any]] = {  # of CalibratedDeepClustering
    "calibrated: start alone": {"max_epochs": 0},
    "calibrated: init=kmeans": {"init": "kmeans"},
    "calibrated: init=random": {"init": "random"},
    "calibrated: equal sizes": {"selection": "balanced"},
    "calibrated: fixed threshold": {"confidence_threshold": 0.9},
    "calibrated: no entropy": {"entropy_weight": 0.0},
    "calibrated: a single head": {"calibration_head": False},
    "calibrated: fine-tuned encoder": {"fine_tune": True},
    "calibrated: gradient to the encoder": {"fine_tune": True, "stop_gradient": False},
}
STABLE_ABLATION: dict[str, dict[str, Any]] = {  # of StableClusterDiscrimination
    "stable: entropy": {"constraint": "entropy"},
    "stable: entropy, weak": {"constraint": "entropy", "entropy_weight": 0.012},
    "stable: no constraint": {"constraint": None},
    "stable: lower bound .9": {"lower_bound": 0.9},
    "stable: start alone": {"max_epochs": 0},
    "stable: init=kmeans": {"init": "kmeans"},
    "stable: init=random": {"init": "random"},
    "stable: no neighbours": {"neighbor_weight": 0.0},
    "stable: neighbours alone": {"neighbor_weight": 1000.0},
    "stable: pretrained": {"pretraining": "auto"},
    "stable: refined": {"refine": True},
}
PROXIMITY_ABLATION: dict[str, dict[str, Any]] = {  # of ProximityDeepClustering
    "proximity: first phase alone": {"max_epochs": 0},
    "proximity: second phase alone": {"pretraining_epochs": 0},
    "proximity: no filter": {"filters": None},
    "proximity: edge filter": {"filters": "edge"},
    "proximity: medoids": {"centroid": "medoid"},
    "proximity: hard switch": {"schedule": "hard"},
    "proximity: no interpolation": {"interpolation_weight": 0.0},
    "proximity: no code target": {"code_weight": 0.0},
    "proximity: k = 3": {"n_neighbors": 3},
    "proximity: k = 11": {"n_neighbors": 11},
}
GENERATIVE_ABLATION: dict[str, dict[str, Any]] = {  # of GenerativeCalibrationClustering
    "generative: start alone": {"max_epochs": 0, "generated_ratio": 0.0},
    "generative: none generated": {"generated_ratio": 0.0},
    "generative: twice as many": {"generated_ratio": 2.0},
    "generative: generated not learned": {"generated_weight": 0.0},
    "generative: with discrepancy": {"discrepancy_weight": 1.0},
    "generative: no mean matching": {"matching_weight": 0.0},
    "generative: no metric learning": {"metric_weight": 0.0},
    "generative: all reliable": {"reliability_weighting": False},
    "generative: one round": {"n_rounds": 1},
    "generative: brief generation": {"generation_epochs": 24},
}
ABLATIONS: dict[Any, dict[str, dict[str, Any]]] = {
    MiniClustering: ABLATION,
    CalibratedDeepClustering: CALIBRATED_ABLATION,
    StableClusterDiscrimination: STABLE_ABLATION,
    ProximityDeepClustering: PROXIMITY_ABLATION,
    GenerativeCalibrationClustering: GENERATIVE_ABLATION,
}


def load(name: str, data: Path | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y of an array; LT means drawn long-tailed, with ratio 10 if none is named."""
    base, _, ratio = name.partition(" LT")
    if base == "digits":
        X, y = load_digits(return_X_y=True)
    else:
        if data is None:
            raise SystemExit(f"The array {base!r} needs --data, a folder with {base}.npz.")
        with np.load(data / f"{base}.npz") as file:
            X, y = file["X"], file["y"]
    X = X.astype(np.float32)
    if base != name:
        X, y = make_long_tailed(X, y, imbalance_ratio=float(ratio or 10), random_state=seed)
    return X, y


def methods(
    n_clusters: int, seed: int, ours: list[str], ablation: list[str]
) -> Iterator[tuple[str, Any]]:
    yield "KMeans", KMeans(n_clusters, n_init=10, random_state=seed)
    for name in ours:
        yield name, METHODS[name](n_clusters, random_state=seed)
    for method, changes in ABLATIONS.items():
        for name in ablation:
            if name in changes:
                yield f"  {name}", method(n_clusters, random_state=seed, **changes[name])


def peers(n_clusters: int, seed: int, n_rows: int) -> Iterator[tuple[str, Any]]:
    yield "MiniBatchKMeans", MiniBatchKMeans(n_clusters, n_init=10, random_state=seed)
    yield (
        "GaussianMixture (diag)",
        GaussianMixture(n_clusters, covariance_type="diag", reg_covar=1e-3, random_state=seed),
    )
    if n_rows <= MOST_ROWS_FOR_ALL_PAIRS:
        yield "Birch", Birch(n_clusters=n_clusters)
        yield "HDBSCAN", HDBSCAN(copy=True)
    with contextlib.suppress(ImportError):
        from evoc import EVoC

        yield "EVoC", EVoC(random_state=seed)
    with contextlib.suppress(ImportError):
        from clustpy.deep import DCN, DEC

        if n_rows <= MOST_ROWS_FOR_CLUSTPY:
            yield "ClustPy DEC", DEC(n_clusters, random_state=seed)
            yield "ClustPy DCN", DCN(n_clusters, random_state=seed)


def measure(fit: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return the labels, the seconds and the peak memory in MiB above what there was before."""
    before = _reset_peak_memory()
    started = time.perf_counter()
    labels = fit()
    seconds = time.perf_counter() - started
    return labels, seconds, memory_status("VmHWM") - before


def _reset_peak_memory() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return memory_status("VmRSS")


def memory_status(field: str) -> float:
    """Return a memory field of this process's status in MiB, 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 2**10


def score(y: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "ARI": float(adjusted_rand_score(y, labels)),
        "NMI": float(normalized_mutual_info_score(y, labels)),
        "ACC": clustering_accuracy(y, labels),
        "CAA": class_averaged_accuracy(y, labels),
        "clusters": float(len(np.unique(labels))),
    }


def run(
    array: str, method: str, estimator: Any, X: np.ndarray, y: np.ndarray, seed: int
) -> dict[str, Any]:
    """Fit once and return the record of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lost clusters are in the record
        labels, seconds, memory = measure(lambda: estimator.fit_predict(X))
    return {
        "array": array,
        "shape": list(X.shape),
        "method": method,
        "seed": seed,
        **score(y, labels),
        "seconds": seconds,
        "MiB": memory,
    }


def report(records: list[dict[str, Any]]) -> None:
    """Print medians over the seeds, array by array."""
    for array in dict.fromkeys(record["array"] for record in records):
        rows = [record for record in records if record["array"] == array]
        print(f"\n{array} {tuple(rows[0]['shape'])}, {len({r['seed'] for r in rows})} seeds")
        print(
            f"{'':36}{'ARI':>6}{'(range)':>14}{'NMI':>7}{'ACC':>7}{'CAA':>7}{'clusters':>10}"
            f"{'seconds':>9}{'x KMeans':>10}{'MiB':>7}"
        )
        baseline = _median(rows, "KMeans", "seconds")
        for method in dict.fromkeys(row["method"] for row in rows):
            ari = [row["ARI"] for row in rows if row["method"] == method]
            median = {key: _median(rows, method, key) for key in rows[0] if key in NUMBERS}
            print(
                f"{method:36}{median['ARI']:6.3f} ({min(ari):.3f}-{max(ari):.3f})"
                f"{median['NMI']:7.3f}{median['ACC']:7.3f}{median['CAA']:7.3f}"
                f"{median['clusters']:10.0f}{median['seconds']:9.1f}"
                f"{median['seconds'] / baseline:10.1f}{median['MiB']:7.0f}"
            )


NUMBERS = ("ARI", "NMI", "ACC", "CAA", "clusters", "seconds", "MiB")


def _median(rows: list[dict[str, Any]], method: str, key: str) -> float:
    return float(np.median([row[key] for row in rows if row["method"] == method]))


def environment() -> dict[str, Any]:
    return {
        "skdeepcluster": skdeepcluster.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def append(record: dict[str, Any], output: Path | None) -> None:
    """Write a record, with where it was made, to the file of records, if there is to be one."""
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a") as file:
        file.write(json.dumps({**record, **environment()}) + "\n")


def records_in(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what ``append`` has written, one file after the other."""
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = [name for changes in ABLATIONS.values() for name in changes]
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--arrays", nargs="+", choices=ARRAYS + FURTHER_ARRAYS)
    parser.add_argument(
        "--methods", nargs="*", choices=METHODS, default=list(METHODS), help="of ours; default: all"
    )
    parser.add_argument(
        "--ablation",
        nargs="*",
        choices=everything,
        help="parts to leave out or change, all if none is named",
    )
    parser.add_argument("--peers", action="store_true", help="other clusterers, too")
    parser.add_argument("--images", action="store_true", help="digits as 8x8 images, too")
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()

    ablation = [] if arguments.ablation is None else arguments.ablation or everything
    arrays = arguments.arrays or (ARRAYS if arguments.data else ARRAYS[:2])
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    # The first fit imports the training engine; that is not the fit's time.
    MiniClustering(2, random_state=0).fit(np.eye(8, dtype=np.float32))
    records = []
    for array in arrays:
        for seed in seeds:
            X, y = load(array, arguments.data, seed)
            n_clusters = len(np.unique(y))
            candidates = list(methods(n_clusters, seed, arguments.methods, ablation))
            if arguments.peers:
                candidates += peers(n_clusters, seed, len(X))
            for name, estimator in candidates:
                records.append(run(array, name, estimator, X, y, seed))
                append(records[-1], arguments.output)
            if arguments.images and array.startswith("digits"):
                for name in arguments.methods:
                    images = METHODS[name](n_clusters, backbone=IMAGE_BACKBONE, random_state=seed)
                    samples = X.reshape(-1, 1, 8, 8) / 16
                    records.append(run(array, f"  {name}, images", images, samples, y, seed))
                    append(records[-1], arguments.output)
    report(records)


if __name__ == "__main__":
    main()
