"""Nothing is lost to kill -9 or a full disk, and nothing is left behind by many fits."""

import random
import subprocess
import sys
import textwrap
import threading

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV

from skdeepcluster import MiniClustering

# Long enough to be killed in: some seconds.
FIT = """
    import sys
    import numpy as np
    from sklearn.datasets import make_blobs
    from skdeepcluster import {method}

    X, _ = make_blobs(2000, centers=5, n_features=20, cluster_std=4, random_state=0)
    model = {method}(5, random_state=0, checkpoint_dir={folder!r}, max_epochs=60)
    print("ready", flush=True)
    np.save({result!r}, model.fit(X).predict_proba(X))
"""


def start(method, folder, result):
    program = textwrap.dedent(FIT.format(method=method, folder=str(folder), result=str(result)))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE
    )
    with process.stdout:
        process.stdout.readline()
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "MiniClustering",
        "CalibratedDeepClustering",
        "StableClusterDiscrimination",
        "ProximityDeepClustering",
        "GenerativeCalibrationClustering",
    ],
)
def test_a_fit_killed_again_and_again_ends_as_if_it_had_not_been(method, tmp_path):
    assert start(method, tmp_path / "whole", tmp_path / "whole.npy").wait() == 0
    moments = random.Random(0)
    n_killed = 0
    for _ in range(8):
        process = start(method, tmp_path / "killed", tmp_path / "killed.npy")
        try:
            assert process.wait(timeout=moments.uniform(0.5, 4)) == 0
            break  # it was over before its time
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            n_killed += 1
    assert n_killed > 0
    assert start(method, tmp_path / "killed", tmp_path / "killed.npy").wait() == 0
    np.testing.assert_array_equal(np.load(tmp_path / "killed.npy"), np.load(tmp_path / "whole.npy"))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_full_disk_is_named_and_the_last_checkpoint_left(tmp_path):
    program = f"""
        import resource
        from skdeepcluster import MiniClustering

        X = [[float(i), float(i % 2)] for i in range(40)]
        model = MiniClustering(2, random_state=0, checkpoint_dir={str(tmp_path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            model.fit(X)
        except OSError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
    )
    assert "could not be written to checkpoint_dir=" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_thread_and_no_process_outlives_a_fit(tmp_path):
    X, _ = make_blobs(200, centers=3, random_state=0)
    MiniClustering(3, random_state=0).fit(X)
    before = set(threading.enumerate())
    np.save(tmp_path / "X.npy", X)
    model = MiniClustering(3, random_state=0).fit(np.load(tmp_path / "X.npy", mmap_mode="r"))
    model.predict(X)
    assert set(threading.enumerate()) <= before


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


def test_loky_workers_fit_and_predict():
    X, _ = make_blobs(90, centers=3, random_state=0)
    models = joblib.Parallel(n_jobs=2)(
        joblib.delayed(MiniClustering(3, random_state=seed).fit)(X) for seed in range(2)
    )
    expected = MiniClustering(3, random_state=1).fit(X)
    np.testing.assert_array_equal(models[1].labels_, expected.labels_)
    np.testing.assert_array_equal(models[1].predict(X), models[1].labels_)
