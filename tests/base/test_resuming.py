"""Fits that are killed resume from their checkpoints to the same bits."""

import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn.base import clone
from torch import nn

from skdeepcluster.data import _sources
from tests.callback_helpers import KillAfter, Killed
from tests.instances import CLUSTERERS, ESTIMATORS, LOST_CLUSTERS, METHODS, fitted
from tests.samples import X

# A start is not resumable, so one of those that follow a pretraining tells nothing new.
PHASES = [
    pytest.param(name, phase, marks=() if name in METHODS else pytest.mark.slow)
    for name, estimator in ESTIMATORS.items()
    for phase in estimator._phases()
    if phase != "start" or not estimator._pretrainer()
]


@LOST_CLUSTERS
@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_fit_killed_in_any_phase_resumes_to_the_same_bits(name, phase, tmp_path):
    estimator = clone(ESTIMATORS[name])
    whole = fitted(estimator)
    estimator.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(estimator).set_callbacks(KillAfter(phase, 5)).fit(X)
    resumed = clone(estimator).fit(X)
    np.testing.assert_array_equal(resumed.transform(X), whole.transform(X))
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    assert len(resumed.history_) == len(whole.history_)
    # A finished fit is loaded, not done again.
    np.testing.assert_array_equal(clone(estimator).fit(X).transform(X), whole.transform(X))


def test_a_checkpoint_with_another_module_as_backbone_is_refused(method, tmp_path):
    method.set_params(checkpoint_dir=tmp_path, backbone=nn.Linear(5, 4)).fit(X)
    method.fit(X)  # with the same one
    with pytest.raises(ValueError, match=r"backbone: Linear.* with weights"):
        method.set_params(backbone=nn.Linear(5, 4)).fit(X)


def test_a_checkpoint_of_another_fit_is_refused(method, tmp_path, monkeypatch):
    method.set_params(checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match="n_clusters: 3 in the checkpoint, 2 now"):
        clone(method).set_params(n_clusters=2).fit(X)
    with pytest.raises(ValueError, match="content of X"):
        clone(method).fit(X + 1)
    monkeypatch.setattr(_sources, "BLOCK_BYTES", 100)  # a few samples
    clone(method).fit(X)


# --- kill -9 and full disks ----------------------------------------------------------------------

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
@pytest.mark.parametrize("method", [method.__name__ for method in CLUSTERERS])
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
