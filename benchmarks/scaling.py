"""Time and memory for 10,000 to 1,000,000 rows, against MiniBatchKMeans and KMeans.

    python benchmarks/scaling.py [--rows 10000 100000 1000000] [--methods MiniClustering ...]
        [--folder DIR] [--output FILE]

The rows are 384 float16 features on the unit sphere, like sentence embeddings: 20 clusters, each
with 24 directions of its own in which its members differ more than most clusters do. They lie in a
file that is mapped into memory. Ours read it as it is; scikit-learn's need single precision in
memory, which counts. Every fit runs in a process of its own; its memory is the largest anonymous
resident memory above that before the fit, so pages of the file that the system keeps do not count.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from features import METHODS, append, memory_status
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score

N_CLUSTERS = 20
N_FEATURES = 384
N_OWN_DIRECTIONS = 24
SPREAD, NOISE = 0.35, 0.035
CHUNK = 10_000
PEERS: dict[str, Callable[[], Any]] = {
    "MiniBatchKMeans": lambda: MiniBatchKMeans(N_CLUSTERS, n_init=10, random_state=0),
    "KMeans": lambda: KMeans(N_CLUSTERS, n_init=10, random_state=0),
}


def make_file(path: Path, n_rows: int) -> np.ndarray:
    """Write the rows in chunks, and return their classes."""
    generator = np.random.default_rng(0)
    centers = generator.standard_normal((N_CLUSTERS, N_FEATURES), np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    shape = (N_CLUSTERS, N_OWN_DIRECTIONS, N_FEATURES)
    directions = generator.standard_normal(shape, np.float32) / np.sqrt(N_FEATURES)
    y = generator.integers(N_CLUSTERS, size=n_rows)
    X = np.lib.format.open_memmap(path, "w+", np.float16, (n_rows, N_FEATURES))
    for start in range(0, n_rows, CHUNK):
        which = y[start : start + CHUNK]
        rows = centers[which]
        for cluster in range(N_CLUSTERS):
            members = which == cluster
            size = (members.sum(), N_OWN_DIRECTIONS)
            spread = SPREAD * generator.standard_normal(size, np.float32)
            rows[members] += spread @ directions[cluster]
        rows += NOISE * generator.standard_normal(rows.shape, np.float32)
        X[start : start + CHUNK] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    X.flush()
    return y


class PeakMemory:
    """The largest anonymous memory while a block runs, above that before it."""

    def __enter__(self) -> "PeakMemory":
        self.before = self.peak = memory_status("RssAnon")
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def watch(self) -> None:
        """Look again and again."""
        while not self.over.wait(0.02):
            self.peak = max(self.peak, memory_status("RssAnon"))

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.watcher.join()

    @property
    def mebibytes(self) -> float:
        """How much came on top."""
        return self.peak - self.before


def measure(method: str, path: Path, y: np.ndarray) -> dict[str, Any]:
    """Fit, then predict all rows; runs in a process of its own."""
    warnings.simplefilter("ignore")
    X = np.load(path, mmap_mode="r")
    ours = method in METHODS
    estimator = METHODS[method](N_CLUSTERS, random_state=0) if ours else PEERS[method]()
    estimator.fit(np.array(X[:200], np.float32))  # imports are not the fit's time
    record: dict[str, Any] = {"method": method, "shape": list(X.shape)}
    with PeakMemory() as memory:
        started = time.perf_counter()
        data = X if ours else X.astype(np.float32)
        estimator.fit(data)
        fitted = time.perf_counter()
        labels = estimator.predict(data)
        record["fit seconds"] = fitted - started
        record["predict seconds"] = time.perf_counter() - fitted
    return {**record, "MiB": memory.mebibytes, "ARI": float(adjusted_rand_score(y, labels))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    methods = [*METHODS, *PEERS]
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--folder", type=Path, help="for the files; default: a temporary one")
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()
    print(f"{'rows':>9} {'method':30}{'fit s':>8}{'predict s':>11}{'MiB':>8}{'ARI':>7}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for n_rows in arguments.rows:
            path = Path(folder) / f"{n_rows}.npy"
            y = make_file(path, n_rows)
            for method in arguments.methods:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    record = pool.apply(measure, (method, path, y))
                print(
                    f"{n_rows:>9} {method:30}{record['fit seconds']:8.1f}"
                    f"{record['predict seconds']:11.1f}{record['MiB']:8.0f}{record['ARI']:7.3f}",
                    flush=True,
                )
                append(record, arguments.output)


if __name__ == "__main__":
    main()
