"""The same seed gives the same bits, in this process and in the next."""

import subprocess
import sys

import numpy as np
from sklearn.base import clone

from tests.instances import METHODS, fitted
from tests.samples import X


def test_same_seed_same_bits_and_another_seed_other_bits(estimator):
    first = fitted(estimator).transform(X)
    np.testing.assert_array_equal(first, clone(estimator).fit(X).transform(X))
    if estimator._projector() is not None:
        assert not np.array_equal(
            first, clone(estimator).set_params(random_state=1).fit_transform(X)
        )


def test_another_process_gives_the_same_bits(tmp_path):
    program = "import numpy as np, skdeepcluster; X = np.load('X.npy');"
    np.save(tmp_path / "X.npy", X)
    names = ("default", "one stage")
    methods = {name: clone(METHODS[name]).set_params(device="cpu") for name in names}
    for name, method in methods.items():
        program += f"np.save('{name}', skdeepcluster.{method!r}.fit_transform(X));"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    for name, method in methods.items():
        there = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(there, method.fit_transform(X))
