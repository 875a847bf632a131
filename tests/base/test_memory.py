"""Big arrays under a real limit of the process, and memory that many fits give back."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV

from skdeepcluster import MiniClustering
from tests.instances import CLUSTERERS

N_ROWS, N_FEATURES = 175_000, 768
# Less than the numbers take in single precision, 513 MiB. Some 240 are used, most of them for the
# rows from which confidence is learned, as many however many there are, and for the embedding,
# 256 bytes for each row.
LIMIT_MIB = 400


@pytest.fixture
def big_file(tmp_path):
    """Return a file of float16 with four clusters."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(4, N_FEATURES)).astype(np.float32)
    path = tmp_path / "X.npy"
    mapped = np.lib.format.open_memmap(path, "w+", np.float16, (N_ROWS, N_FEATURES))
    for start in range(0, N_ROWS, 5000):
        which = generator.integers(4, size=5000)
        noise = generator.standard_normal((5000, N_FEATURES), np.float32)
        mapped[start : start + 5000] = centers[which] + noise
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(method.__name__, marks=() if method is MiniClustering else pytest.mark.slow)
        for method in CLUSTERERS
    ],
)
def test_a_file_is_fitted_in_less_memory_than_its_numbers_take(big_file, model, tmp_path):
    program = f"""
        import resource
        import numpy as np
        import torch
        from skdeepcluster import {model}
        from skdeepcluster.base import _building
        from skdeepcluster.estimators import _generative, _proximity
        from sklearn.datasets import make_blobs

        torch.set_num_threads(1)
        for module in (_building, _generative, _proximity):
            module.GRAPH_ROWS = 2**13  # a quarter: for less time
        model = {model}(4, random_state=0)
        model.fit(make_blobs(100, centers=4, random_state=0)[0])  # all modules are imported now

        X = np.load({str(big_file)!r}, mmap_mode="r")
        own = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
        limit = own + {LIMIT_MIB} * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            X.astype(np.float32)
        except MemoryError:
            print("limited")
        labels = model.fit(X).labels_
        out = np.lib.format.open_memmap("proba.npy", "w+", np.float16, ({N_ROWS}, 4))
        model.predict_proba(X, out=out)
        print((model.predict(X) == labels).all(), len(np.unique(labels)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        # What is freed goes back at once: holes of the allocator, 100 to 150 MiB, do not count.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["limited", "True", "4"], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_grid_search_leaves_memory_where_it_was():
    def used():
        with open("/proc/self/status") as lines:
            line = next(line for line in lines if line.startswith("RssAnon"))
        return int(line.split()[1]) / 2**10

    X, _ = make_blobs(3000, centers=3, n_features=50, random_state=0)
    grid = {"n_clusters": [2, 3]}
    GridSearchCV(MiniClustering(random_state=0), grid, cv=10).fit(X)
    before = used()
    GridSearchCV(MiniClustering(random_state=0), grid, cv=10).fit(X)
    assert used() - before < 20
