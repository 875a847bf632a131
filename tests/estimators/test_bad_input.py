"""Input that cannot be clustered is refused with its name; odd input that can be gets an answer.

After a refusal the estimator is as usable as before.
"""

import decimal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    MiniClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.pretraining import BYOL, SimCLR

GOOD = np.random.default_rng(0).normal(size=(24, 3)) + 4 * np.eye(3).repeat(8, axis=0)
PICTURES = np.random.default_rng(0).integers(0, 256, size=(12, 3, 8, 8), dtype=np.uint8)
QUICK = MiniClustering(3, random_state=0, pretraining=None, max_epochs=0, calibrate=False)
METHODS = [
    QUICK,
    CalibratedDeepClustering(3, random_state=0, pretraining=None, max_epochs=0, calibrate=False),
    StableClusterDiscrimination(3, random_state=0, max_epochs=0, calibrate=False),
    SimCLR(random_state=0, max_epochs=1),
]


class Listed(torch.utils.data.Dataset):
    """A map-style dataset of given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        item = self.items[number]
        if isinstance(item, Exception):
            raise item
        return item


def with_entry(value, dtype=float):
    array = GOOD.astype(dtype)
    array[5, 1] = value
    return array


REFUSED = {
    # not finite
    "NaN": (with_entry(np.nan), "NaN"),
    "nothing but NaN": (np.full((24, 3), np.nan), "NaN"),
    "infinity": (with_entry(np.inf), "infinity"),
    "minus infinity": (with_entry(-np.inf), "infinity"),
    "NaN in half precision": (with_entry(np.nan, np.float16), "NaN"),
    "infinity in half precision": (with_entry(np.inf, np.float16), "infinity"),
    "NaN in a tensor": (torch.tensor(with_entry(np.nan)), "NaN"),
    "NaN in a frame": (pd.DataFrame(with_entry(np.nan)), "NaN"),
    "NA in a frame": (pd.DataFrame({"a": [1.0, None, 3.0] * 8, "b": [1.0] * 24}), "NaN"),
    "None among numbers": ([[1.0, None]] * 24, "NaN"),
    "too large for single precision": (with_entry(1e300), "too large for dtype"),
    "too small for single precision": (with_entry(-1e300), "too large for dtype"),
    # other types
    "complex": (GOOD + 1j, "Complex"),
    "a complex tensor": (torch.tensor(GOOD + 1j), "Complex"),
    "strings": (np.array([["a", "b", "c"]] * 24), "convert|numeric"),
    "strings among objects": (np.array([["a", 1.0]] * 24, dtype=object), "convert|string"),
    "bytes": (np.array([[b"a", b"b"]] * 24), "convert|numeric|bytes"),
    "words in a frame": (pd.DataFrame({"a": ["x", "y"] * 12}), "convert|string"),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x", "y"] * 12)}), "convert|string"),
    "a structured array": (np.zeros(24, dtype=[("a", float), ("b", int)]), "Cannot cast"),
    "sparse rows": (sparse.csr_matrix(GOOD), "[Ss]parse"),
    "a sparse array": (sparse.coo_array(GOOD), "[Ss]parse"),
    "a sparse tensor": (torch.tensor(GOOD).to_sparse(), "[Ss]parse"),
    "masked entries": (np.ma.masked_greater(GOOD, 4.0), "mask"),
    "None": (None, "X|NoneType|array"),
    "a number": (3.0, "scalar|0D|array"),
    "a string": ("no such folder", "no such folder"),
    "a dictionary": ({"a": [1, 2], "b": [3, 4]}, "X|dict|array|convert"),
    "a set": ({1.0, 2.0}, "X|set|array|0D|convert|scalar"),
    "a generator": ((row for row in GOOD), "X|generator|0D|array|convert|scalar"),
    # other shapes
    "no rows": (np.zeros((0, 3)), "0 sample"),
    "no columns": (np.zeros((24, 0)), "0 feature"),
    "one row": (GOOD[:1], "1 sample"),
    "one axis": (GOOD[:, 0], "1D array"),
    "a tensor of one axis": (torch.tensor(GOOD[:, 0]), "1D array"),
    "three axes": (np.zeros((24, 3, 2)), "dim 3"),
    "five axes": (np.zeros((24, 3, 8, 8, 1)), "dim 5"),
    "an empty list": ([], "X|0 sample|1D|empty"),
    "ragged lists": ([[1.0, 2.0], [3.0]] * 12, "inhomogeneous|sequence|shape"),
    "fewer rows than clusters": (GOOD[:2], "n_samples=2 should be >= n_clusters=3|n_samples"),
    "images without pixels": (np.zeros((24, 3, 0, 8), np.uint8), "X|feature|pixel|size|sample"),
    "no images": (np.zeros((0, 3, 8, 8), np.uint8), "0 sample"),
    "images with NaN": (np.full((12, 3, 8, 8), np.nan), "NaN"),
    # datasets
    "an empty Dataset": (Listed(), "0 item|without items"),
    "a Dataset of one": (Listed(torch.zeros(3)), "1 item"),
    "a Dataset of words": (Listed(*["word"] * 24), "Dataset.*str"),
    "a Dataset of numbers": (Listed(*[1.0] * 24), "Dataset.*float"),
    "a Dataset of tables": (Listed(*[torch.zeros(3, 2)] * 24), "Dataset.*shape"),
    "a Dataset of two lengths": (Listed(*[torch.zeros(3), torch.zeros(4)] * 12), "shape"),
    "a Dataset with NaN": (Listed(*[torch.full((3,), torch.nan)] * 24), "NaN|finite"),
    "a Dataset that fails": (Listed(*[torch.zeros(3)] * 5, KeyError("row 5")), "row 5"),
    "a list of tensors and a number": ([torch.zeros(3), 4], "."),
}


def refuse(model, data, message):
    """Check that a fit fails as it should, and that the next one works."""
    with pytest.raises((ValueError, TypeError, KeyError, OSError), match=message):
        model.fit(data)
    model.fit(GOOD)
    assert len(model.transform(GOOD)) == len(GOOD)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    refuse(clone(QUICK), *REFUSED[kind])


@pytest.mark.parametrize("model", METHODS[1:], ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("kind", ["NaN", "strings", "sparse rows", "one row", "no columns"])
def test_refused_by_all(model, kind):
    refuse(clone(model), *REFUSED[kind])


# Files


def folder_of(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name.replace("_", ".")).write_bytes(content)
    return tmp_path


def test_files_are_refused_by_name(tmp_path):
    for data, message in (
        (tmp_path / "missing", "missing"),
        (folder_of(tmp_path), "image"),
        (folder_of(tmp_path, notes_txt=b"text"), "image"),
        ([tmp_path / "missing.png", tmp_path / "other.png"], "missing.png"),
        (folder_of(tmp_path, broken_png=b"no picture", also_png=b"neither"), "also.png"),
    ):
        refuse(clone(QUICK), data, message)


# Odd, but clear enough

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
    "a Dataset": (Listed(*torch.tensor(GOOD)), 3),
    "a Dataset with labels": (Listed(*[(row, 7) for row in torch.tensor(GOOD)]), 3),
    "a Dataset of arrays": (Listed(*GOOD), 3),
    "one cluster": (GOOD, 1),
    "as many clusters as rows": (GOOD, 24),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
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


# Parameters

BACKBONE = nn.Linear(4, 2)
PARAMETERS = {
    "n_clusters": [0, -1, 1.5, "8", None],
    "max_epochs": [-1, 1.5, "many"],
    "batch_size": [0, 1, -5, 2.5, "large"],
    "accumulate": [0, -1, 1.5],
    "learning_rate": [0, -1.0, float("nan"), "fast"],
    "device": ["gpu", "cuda:77", 3],
    "precision": ["8", 32, "64-true", None],
    "backbone": [3, "no_such_network", "resnet18", BACKBONE],
    "pretrained": [3, None],
    "pretraining": ["BYOL", 3, BYOL, BYOL(max_epochs=-1), BYOL(backbone="resnet18")],
    "num_workers": [-1, 1.5],
    "checkpoint_dir": [3],
    "random_state": [-1, "seed", 1.5],
    "verbose": ["yes", -1],
    "warm_start": ["yes", 1.5],
    "calibrate": ["yes", None],
    "init": ["random", None, 3],
    "n_mini_clusters": [0, 2, "many"],
    "confidence_threshold": [-0.1, 1.0, "high"],
    "occupancy_threshold": [-0.1, 1.0],
    "mini_weight": [-1],
    "alignment_weight": [-1, None],
    "marginal_weight": [-1, None],
    "reweight": ["yes"],
    "fine_tune": [None, 3],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in PARAMETERS.items() for value in values],
    ids=lambda value: str(value)[:30],
)
def test_parameters_out_of_range_are_named(name, value):
    model = clone(QUICK).set_params(**{name: value})
    inner = isinstance(value, BYOL) and value.max_epochs == -1
    with pytest.raises((ValueError, TypeError), match="max_epochs.*BYOL" if inner else name):
        model.fit(GOOD)
    model.set_params(**{name: getattr(QUICK, name)}).fit(GOOD)
    assert len(model.labels_) == len(GOOD)


def test_the_table_of_parameters_is_complete():
    # "deep" parameters are those of the pretraining.
    assert PARAMETERS.keys() == QUICK.get_params(deep=False).keys()
