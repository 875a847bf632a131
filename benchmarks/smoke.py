"""Whether everything runs on this machine's device: every estimator, on features and images.

    python benchmarks/smoke.py [--only MiniClustering ...] [--output FILE]

Clusterers see images also by backbones that arrive trained, which the default fine-tunes on an
accelerator: one of convolutions, one of attention. Each is fitted, used, fitted again, pickled,
moved to the CPU, saved and loaded. Prints, and appends to ``--output``, one JSON record for each:
whether all that went well, whether the second fit gave the same bits, how far the answers on the
CPU agree (labels: the share that is the same; embeddings: the largest difference), and seconds.
Meant for the first minute on an accelerator.
"""

import argparse
import json
import pickle
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from features import environment
from sklearn.datasets import load_digits
from throughput import CLUSTERING, PRETRAINING

import skdeepcluster
from skdeepcluster.pretraining import SimCLR

METHODS: dict[str, Any] = {**CLUSTERING, **PRETRAINING}
ONE_STAGE = ("StableClusterDiscrimination", "ProximityDeepClustering")
BRIEF = {"max_epochs": 2, "batch_size": 32}


TRAINED = {"images, trained backbone": "test_resnet", "images, trained attention": "test_vit"}


def trained_backbone(kind: str) -> torch.nn.Module:
    """Return a module, which clusterers take to be trained; whether it is does not matter here."""
    torch.manual_seed(0)
    size = {"img_size": 32} if TRAINED[kind] == "test_vit" else {}
    network: torch.nn.Module = timm.create_model(TRAINED[kind], num_classes=0, **size)
    return network


def make(name: str, kind: str) -> Any:
    """Return an estimator; one for images that is done after seconds."""
    parameters: dict[str, Any] = {"random_state": 0}
    if name in CLUSTERING:
        parameters["n_clusters"] = 4
    if kind == "images":
        parameters |= {"backbone": "test_resnet", **BRIEF}
        if name in CLUSTERING and name not in ONE_STAGE:
            parameters["pretraining"] = SimCLR(**BRIEF)
    if kind in TRAINED:
        parameters["backbone"] = trained_backbone(kind)
        if name in ONE_STAGE:  # by "auto" they would train a module anew
            parameters["fine_tune"] = torch.cuda.is_available()
    return METHODS[name](**parameters)


def use(model: Any, X: np.ndarray) -> np.ndarray:
    """Return labels, or the embedding of a pretraining."""
    if not hasattr(model, "predict"):
        return np.asarray(model.transform(X))
    model.predict_proba(X)
    model.outlier_score(X)
    model.cut_scores(X)
    model.cut(1).predict_proba(X)
    model.predict_top(X, k=2)
    if hasattr(model, "sample"):
        model.sample(4)
    return np.asarray(model.predict(X))


def live(name: str, kind: str, X: np.ndarray) -> dict[str, Any]:
    """Lead an estimator through its life, and return what to tell of it."""
    model = make(name, kind).fit(X)
    answer = use(model, X)
    again = use(make(name, kind).fit(X), X)
    on_cpu = use(pickle.loads(pickle.dumps(model)).set_params(device="cpu"), X)
    with tempfile.TemporaryDirectory() as folder:
        skdeepcluster.save(model, Path(folder) / "model")
        backbone = {"backbone": trained_backbone(kind)} if kind in TRAINED else {}
        skdeepcluster.load(Path(folder) / "model", **backbone).transform(X)
    labels = name in CLUSTERING
    if labels and not np.array_equal(answer, model.labels_):
        raise AssertionError("predict differs from labels_")
    agreement = (answer == on_cpu).mean() if labels else np.abs(answer - on_cpu).max()
    return {
        "device": str(model.device_),
        "stage": getattr(model, "selected_stage_", None),
        "same bits again": bool(np.array_equal(answer, again)),
        "on the CPU": float(agreement),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[*METHODS], choices=METHODS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    features = load_digits().data[:600]
    images = np.random.default_rng(0).integers(0, 256, (96, 3, 32, 32), dtype=np.uint8)
    for name in arguments.only:
        kinds = [("features", features), ("images", images)]
        if name in CLUSTERING:
            kinds += [(kind, images) for kind in TRAINED]
        for kind, X in kinds:
            record: dict[str, Any] = {"estimator": name, "kind": kind}
            started = time.perf_counter()
            try:
                record |= {"ok": True, **live(name, kind, X)}
            except Exception:  # whatever it is, the others have their turn
                record |= {"ok": False, "error": traceback.format_exc().splitlines()[-8:]}
            record["seconds"] = round(time.perf_counter() - started, 1)
            print(record, flush=True)
            if arguments.output:
                with arguments.output.open("a") as file:
                    file.write(json.dumps({**record, **environment()}) + "\n")


if __name__ == "__main__":
    main()
