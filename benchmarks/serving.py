"""How long one row takes a fitted model, and a batch of rows: predict, probabilities, ONNX.

    python benchmarks/serving.py [--calls 300] [--models digits ...] [--output FILE]

A MiniClustering on the digits (64 features, 10 clusters), one on an array that is made up (384
features, 20 clusters, 5,000 rows), and one on made-up photographs of 128 pixels, seen by an
EfficientNet-Lite0 whose weights nobody has trained. Each is saved and loaded, exported to ONNX, and
asked again and again for one row, and for 256; for photographs a tenth as often. Prints the median
and the 95th percentile in milliseconds; appends a JSON record per line to ``--output``. torch and
onnxruntime have one thread each.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sklearn
import timm
import torch
from sklearn.datasets import load_digits, make_blobs

import skdeepcluster
from skdeepcluster import MiniClustering


def milliseconds(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    for _ in range(10):
        call()
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.median(taken)), float(np.quantile(taken, 0.95))


def calls(model: Any, session: Any, X: Any) -> dict[str, Callable[[], Any]]:
    return {
        "predict": lambda: model.predict(X),
        "predict_proba": lambda: model.predict_proba(X),
        "onnx": lambda: session.run(["labels", "probabilities"], {"X": X}),
    }


Model = tuple[np.ndarray, dict[str, Any]]  # X, and what MiniClustering is given


def digits() -> Model:
    return load_digits(return_X_y=True)[0], {"n_clusters": 10}


def made_up() -> Model:
    X, _ = make_blobs(5000, centers=20, n_features=384, random_state=0)
    return X, {"n_clusters": 20}


def photographs() -> Model:
    X = np.random.default_rng(0).integers(0, 256, (256, 3, 128, 128)) / 255
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    return X, {"n_clusters": 5, "backbone": network, "fine_tune": False}


MODELS: dict[str, Callable[[], Model]] = {
    "digits": digits,
    "made up": made_up,
    "photographs": photographs,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=MODELS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    for array in arguments.models:
        X, parameters = MODELS[array]()
        X = X.astype(np.float32)
        n_calls = arguments.calls if X.ndim == 2 else max(arguments.calls // 10, 1)
        with tempfile.TemporaryDirectory() as folder:
            fitted = MiniClustering(**parameters, random_state=0, device="cpu").fit(X)
            skdeepcluster.save(fitted, Path(folder) / "model")
            started = time.perf_counter()
            model = skdeepcluster.load(Path(folder) / "model", backbone=parameters.get("backbone"))
            loading = 1000 * (time.perf_counter() - started)
            skdeepcluster.to_onnx(model, Path(folder) / "model.onnx")
            session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", options)
        for rows in (1, 256):
            for name, call in calls(model, session, X[:rows]).items():
                median, high = milliseconds(call, n_calls)
                print(f"{array:11} {rows:4} rows  {name:14} {median:7.2f} ms  95 %: {high:7.2f} ms")
                record = {
                    "array": array,
                    "shape": X.shape,
                    "n_clusters": parameters["n_clusters"],
                    "rows": rows,
                    "call": name,
                    "median_ms": median,
                    "p95_ms": high,
                    "load_ms": loading,
                    "calls": n_calls,
                    "threads": 1,
                    "torch": torch.__version__,
                    "scikit-learn": sklearn.__version__,
                    "onnxruntime": onnxruntime.__version__,
                    "python": platform.python_version(),
                    "machine": platform.machine(),
                }
                if arguments.output:
                    with open(arguments.output, "a") as file:
                        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
