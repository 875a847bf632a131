"""A fit leaves everything around it as it was, and nothing behind."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from torch import nn

from skdeepcluster import MiniClustering
from tests.instances import ESTIMATORS
from tests.samples import X


def test_global_state_is_left_alone(estimator):
    np.random.seed(3)  # noqa: NPY002 - the legacy global state is what is tested
    torch.manual_seed(3)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - as above
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    dtype = torch.get_default_dtype()
    estimator.fit(X).predict(X)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 - as above
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == dtype


def test_the_environment_is_left_alone():
    program = (
        "import os; before = dict(os.environ);"
        "import numpy as np; from skdeepcluster import MiniClustering;"
        "MiniClustering(2).fit(np.eye(8)); assert dict(os.environ) == before, "
        "set(os.environ.items()) ^ set(before.items())"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["fine-tuned", "one stage"])
def test_parameters_are_left_alone(name):
    backbone = nn.Linear(5, 4)
    before = [p.clone() for p in backbone.parameters()]
    model = clone(ESTIMATORS[name]).set_params(backbone=backbone)
    parameters = model.get_params()
    model.fit(X)
    assert model.get_params() == parameters
    assert model.backbone is backbone
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))


def test_no_thread_and_no_process_outlives_a_fit(tmp_path):
    X, _ = make_blobs(200, centers=3, random_state=0)
    MiniClustering(3, random_state=0).fit(X)
    before = set(threading.enumerate())
    np.save(tmp_path / "X.npy", X)
    model = MiniClustering(3, random_state=0).fit(np.load(tmp_path / "X.npy", mmap_mode="r"))
    model.predict(X)
    assert set(threading.enumerate()) <= before
