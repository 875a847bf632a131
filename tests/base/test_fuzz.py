"""Whole fits on odd data with odd parameters: they end in a sound model or in a clear error."""

import tempfile
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions

from tests.base.container_helpers import Listed
from tests.base.soundness_helpers import fit, flat_backbone
from tests.instances import EVERYONE, PRETRAINERS

GOOD = (np.random.default_rng(0).normal(size=(24, 3)) + 4 * np.eye(3).repeat(8, axis=0)).astype("f")

# Parameters -------------------------------------------------------------------------------------

REALS = [0.0, 5e-324, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 0.99, 1 - 1e-12, 1.0, 3.0, 1e3, 1e6, 1e30, 1e300]
INTEGERS = [0, 1, 2, 3, 5, 9, 40]


def values_of(constraint):
    """Return values that satisfy one entry of ``_parameter_constraints``."""
    if constraint is None:
        return [None]
    if constraint == "boolean":
        return [False, True]
    if isinstance(constraint, StrOptions):
        return sorted(constraint.options)
    if isinstance(constraint, Interval):
        values = INTEGERS if constraint.type is Integral else REALS
        return [value for value in values if constraint.is_satisfied_by(value)]
    raise NotImplementedError(f"Say in OVERRIDES what to draw for {constraint!r}.")


# Values of a mere fraction of a second, and no services from outside.
OVERRIDES = {
    "n_clusters": [1, 2, 3, 5],
    "over_clusterings": ["auto", [1], [2, 3], np.array([4])],
    "n_mini_clusters": ["auto", 5, 12, 10**9],
    "n_regions": ["auto", 5, 12, 10**9],
    "max_epochs": [0, 1, 2],
    "pretraining_epochs": [0, 1, 2],
    "generation_epochs": [1, 2],
    "generated_ratio": [0.0, 1e-8, 0.5, 1.0, 3.0],
    "n_rounds": [1, 2, 10**9],
    "batch_size": ["auto", 2, 3, 7, 10**9],
    "queue_size": [1, 3, 10**9],
    "hidden_dim": [1, 8],
    "embedding_dim": ["auto", 1, 8],
    "pretraining": ["auto", None, *(pretrainer(max_epochs=1) for pretrainer in PRETRAINERS)],
    "random_state": [0, 1, 2**32 - 1],
    "backbone": ["auto"],
    "pretrained": [False],
    "device": ["auto", "cpu", torch.device("cpu")],
    "num_workers": [0, 2],
    "checkpoint_dir": [None],
    "verbose": [0],
}


@st.composite
def parameters_of(draw, estimator):
    """Draw valid parameters, about half of them defaults."""
    parameters = {}
    for name, constraints in sorted(estimator._parameter_constraints.items()):
        values = OVERRIDES.get(name) or [v for entry in constraints for v in values_of(entry)]
        if name in ("max_epochs", "generation_epochs") or draw(st.booleans()):
            parameters[name] = draw(st.sampled_from(values))
    return parameters


# Data -------------------------------------------------------------------------------------------


def two_rows(rng, shape):
    return rng.normal(size=shape)[rng.integers(0, 2, size=len(rng.normal(size=shape)))]


def one_hot(rng, shape):
    flat = np.zeros((shape[0], int(np.prod(shape[1:]))))
    flat[np.arange(shape[0]), rng.integers(0, flat.shape[1], size=shape[0])] = 1
    return flat.reshape(shape)


def with_outliers(rng, shape, size):
    X = rng.normal(size=shape)
    X.reshape(-1)[rng.integers(0, X.size, size=2)] *= size
    return X


CONTENTS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "zeros": lambda rng, shape: np.zeros(shape),
    "negative zeros": lambda rng, shape: np.where(rng.random(shape) < 0.5, -0.0, 0.0),
    "constant": lambda rng, shape: np.full(shape, 7.3),
    "huge constant": lambda rng, shape: np.full(shape, 3e38),
    "two rows": two_rows,
    "1e30": lambda rng, shape: rng.normal(size=shape) * 1e30,
    "1e37": lambda rng, shape: rng.normal(size=shape) * 1e37,
    "limits": lambda rng, shape: rng.choice([-3.4e38, 3.4e38], size=shape),
    "almost all at a limit": lambda rng, shape: np.where(rng.random(shape) < 0.1, 3.4e38, -3.4e38),
    "1e-40": lambda rng, shape: rng.normal(size=shape) * 1e-40,
    "smallest": lambda rng, shape: np.where(rng.random(shape) < 0.1, 1.4e-45, 0.0),
    "outliers": lambda rng, shape: with_outliers(rng, shape, 1e6),
    "far outliers": lambda rng, shape: with_outliers(rng, shape, 1e35),
    "far from zero": lambda rng, shape: rng.normal(size=shape) + 1e6,
    "one-hot": one_hot,
    "sorted": lambda rng, shape: np.sort(rng.normal(size=shape), axis=0),
    "mixed scales": lambda rng, shape: rng.normal(size=shape) * 10 ** rng.uniform(-30, 30, shape),
    "scales of columns": lambda rng, shape: (
        rng.normal(size=shape) * 10 ** rng.uniform(-30, 30, shape[1:])
    ),
    "counts": lambda rng, shape: rng.poisson(3, size=shape).astype(float),
    "bytes": lambda rng, shape: rng.integers(0, 256, size=shape).astype(float),
}
DTYPES = ["float32", "float64", "float16", "uint8", "int8", "int64", "bool", ">f4"]


def read_only(X, folder):
    X.flags.writeable = False
    return X


def memory_map(X, folder):
    path = Path(folder, "X.npy")
    np.save(path, X)
    return np.load(path, mmap_mode="r")


LAYOUTS = {
    "as it is": lambda X, folder: X,
    "Fortran order": lambda X, folder: np.asfortranarray(X),
    "rows backwards": lambda X, folder: X[::-1],
    "columns backwards": lambda X, folder: X[:, ::-1],
    "every other row": lambda X, folder: np.repeat(X, 2, axis=0)[::2],
    "read-only": read_only,
    "memory map": memory_map,
    "list": lambda X, folder: X.tolist(),
    "tensor": lambda X, folder: torch.tensor(X.astype(X.dtype.newbyteorder("="))),
    "strided tensor": lambda X, folder: torch.tensor(
        X.astype(X.dtype.newbyteorder("=")).T.copy()
    ).permute(*range(X.ndim)[::-1]),
    "frame": lambda X, folder: pd.DataFrame(X) if X.ndim == 2 else X,
    "Dataset": lambda X, folder: Listed(X),
    "channels last": lambda X, folder: np.moveaxis(X, 1, -1) if X.ndim == 4 else X,
}


@st.composite
def arrays(draw, images):
    """Draw an array, and how it is to lie in memory."""
    n = draw(st.sampled_from([2, 3, 5, 12, 40]))
    if images:
        side = st.sampled_from([4, 5, 12])
        shape = n, draw(st.sampled_from([1, 3])), draw(side), draw(side)
    else:
        shape = n, draw(st.sampled_from([1, 2, 6]))
    content = draw(st.sampled_from(list(CONTENTS)))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    X = CONTENTS[content](rng, shape)
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind in "iu":
        X = X.clip(np.iinfo(dtype).min // 2, np.iinfo(dtype).max // 2)
    elif dtype.kind == "f":
        X = X.clip(np.finfo(dtype).min, np.finfo(dtype).max)
    layout = draw(st.sampled_from(list(LAYOUTS)))
    note(f"X: {content}, {shape}, {dtype}, {layout}")
    return X.astype(dtype), layout


@st.composite
def fits(draw, estimator, images):
    """Draw an array, how it is to lie in memory, and parameters."""
    X, layout = draw(arrays(images))
    parameters = draw(parameters_of(estimator))
    if images:
        parameters["backbone"] = flat_backbone(X.shape[1])
    return X, layout, parameters


# What holds whatever comes ----------------------------------------------------------------------


def global_state():
    """Return what a fit must leave as it was."""
    return (
        np.random.get_state()[1].tobytes(),  # noqa: NPY002 - the legacy global state is tested
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def content_of(X):
    """Return the bytes of data of any kind."""
    return np.ascontiguousarray(X.items if isinstance(X, Listed) else X).tobytes()


def assert_same(one, other):
    """Check that two fits ended alike, be it with outputs or with an error."""
    if isinstance(one, Exception) or isinstance(other, Exception):
        assert str(one) == str(other)
        return
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def check_fit(estimator, X, layout, parameters):
    """Fit twice, then fit to good data: nothing is left of the fits before."""
    with tempfile.TemporaryDirectory() as folder:
        data = LAYOUTS[layout](X, folder)
        before, content = global_state(), content_of(data)
        model = estimator(**{"random_state": 0, **parameters})
        outcome = fit(model, data)
        assert global_state() == before
        assert content_of(data) == content
        assert_same(fit(clone(model), data), outcome)
    fresh = estimator(max_epochs=1, random_state=0)
    model.set_params(**fresh.get_params(deep=False))
    assert_same(fit(model, GOOD), fit(fresh, GOOD))


def fuzz(max_examples):
    return settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def for_all(test):
    """Run a test for every estimator, on feature arrays and on images."""
    test = pytest.mark.parametrize("images", [False, True], ids=["features", "images"])(test)
    return EVERYONE(test)


@for_all
@fuzz(2)
@given(data=st.data())
def test_some_fits(estimator, images, data):
    check_fit(estimator, *data.draw(fits(estimator, images)))


@pytest.mark.slow
@for_all
@fuzz(150)
@given(data=st.data())
def test_many_fits(estimator, images, data):
    check_fit(estimator, *data.draw(fits(estimator, images)))
