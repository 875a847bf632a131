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


def test_two_processes_give_the_same_labels():
    program = (
        "import numpy as np; from sklearn.datasets import make_blobs;"
        "import skdeepcluster;"
        "X, _ = make_blobs(n_samples=90, centers=3, n_features=5, random_state=0);"
    )
    for name in ("default", "one stage"):
        program += (
            f"m = skdeepcluster.{METHODS[name]!r}.fit(X.astype(np.float32));"
            "print(m.labels_.tolist(), m.transform(X.astype(np.float32))[0].tolist());"
        )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1
