"""Odd input that can be clustered gets an answer."""

import decimal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone

from tests.base.container_helpers import Listed
from tests.base.input_helpers import GOOD, PICTURES, QUICK, with_entry
from tests.instances import METHODS

ODD = {
    "two rows": (GOOD[:2], 2),
    "one column": (GOOD[:, :1], 3),
    "constant": (np.ones((24, 3)), 3),
    "zeros": (np.zeros((24, 3)), 3),
    "duplicates": (GOOD[:3].repeat(8, axis=0), 3),
    "a constant column": (np.c_[GOOD, np.ones(24)], 3),
    "far from zero": (GOOD + 1e6, 3),
    "tiny": (GOOD * 1e-30, 3),
    "huge": (GOOD * 1e30, 3),
    "one outlier": (with_entry(1e6), 3),
    "at both limits": (np.where(GOOD > 1, 3.4e38, -3.4e38).astype(np.float32), 3),
    "few at a limit": (np.where(np.eye(24, 3) > 0, 3.4e38, -3.4e38), 3),
    "next to zero": (np.where(np.eye(24, 3) > 0, 1e-45, 0).astype(np.float32), 3),
    "integers": (GOOD.round().astype(int), 3),
    "unsigned bytes": ((10 * GOOD + 50).astype(np.uint8), 3),
    "booleans": (GOOD > 1, 3),
    "half precision": (GOOD.astype(np.float16), 3),
    "long double": (GOOD.astype(np.longdouble), 3),
    "big-endian": (GOOD.astype(">f8"), 3),
    "columns first": (np.asfortranarray(GOOD), 3),
    "every other row": (np.repeat(GOOD, 2, axis=0)[::2], 3),
    "rows backwards": (GOOD[::-1], 3),
    "a list": (GOOD.tolist(), 3),
    "numbers as objects": (GOOD.astype(object), 3),
    "dates": (np.arange(24).astype("datetime64[D]")[:, None], 3),
    "decimals": (np.array([[decimal.Decimal(str(v)) for v in row] for row in GOOD]), 3),
    "masked nothing": (np.ma.masked_greater(GOOD, 1e9), 3),
    "a frame": (pd.DataFrame(GOOD, columns=list("abc")), 3),
    "nullable columns": (pd.DataFrame(GOOD).astype("Float64"), 3),
    "a tensor with a gradient": (torch.tensor(GOOD, requires_grad=True), 3),
    "a bfloat16 tensor": (torch.tensor(GOOD).bfloat16(), 3),
    "an integer tensor": (torch.tensor(GOOD).round().long(), 3),
    "a list of tensors": (list(torch.tensor(GOOD)), 3),
    "a list of images": ([Image.fromarray(picture.T) for picture in PICTURES], 3),
    "a Dataset of pictures": (Listed([Image.fromarray(picture.T) for picture in PICTURES]), 3),
    "a Dataset": (Listed(torch.tensor(GOOD)), 3),
    "a Dataset with labels": (Listed([(row, 7) for row in torch.tensor(GOOD)]), 3),
    "a Dataset of arrays": (Listed(GOOD), 3),
    "one cluster": (GOOD, 1),
    "as many clusters as rows": (GOOD, 24),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Feature 1 has a standard deviation:UserWarning")
def test_odd_input_gets_an_answer(kind):
    data, k = ODD[kind]
    model = clone(QUICK).set_params(n_clusters=k).fit(data)
    n = len(data)
    assert model.labels_.shape == (n,)
    assert model.cluster_sizes_.sum() == n
    used = np.unique(model.labels_)
    np.testing.assert_array_equal(used, np.arange(len(used)))
    probabilities = model.predict_proba(data)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.isfinite(model.transform(data)).all()
    if kind in ("far from zero", "tiny", "huge", "half precision", "rows backwards"):
        expected = clone(QUICK).fit(GOOD).labels_
        expected = expected[::-1] if kind == "rows backwards" else expected
        same = (model.labels_[:, None] == model.labels_) == (expected[:, None] == expected)
        assert same.all()


@pytest.mark.parametrize("name", METHODS)
@settings(deadline=None, max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 6),
    k=st.integers(1, 5),
    kind=st.sampled_from(["normal", "constant", "duplicates", "zero column", "far", "tiny"]),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_any_small_array_is_clustered(name, n, d, k, kind):
    k = min(k, n)
    rng = np.random.default_rng(n * 100 + d)
    data = rng.normal(size=(n, d))
    if kind == "constant":
        data[:] = 3.0
    elif kind == "duplicates":
        data = data[rng.integers(2, size=n)]
    elif kind == "zero column":
        data[:, 0] = 0
    elif kind == "far":
        data += 1e6
    elif kind == "tiny":
        data *= 1e-20
    model = clone(METHODS[name]).set_params(n_clusters=k).fit(data)
    assert model.labels_.min() == 0
    np.testing.assert_array_equal(np.unique(model.labels_), np.arange(model.labels_.max() + 1))
    assert model.labels_.max() < k
    np.testing.assert_array_equal(model.predict(data), model.labels_)
    assert np.isfinite(model.predict_proba(data)).all()
    assert np.isfinite(model.transform(data)).all()
    assert np.isfinite(model.score(data))
