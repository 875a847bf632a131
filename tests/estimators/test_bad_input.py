"""Input that cannot be clustered is refused with its name; odd input that can be gets an answer.

After a refusal the estimator is as usable as before.
"""

import decimal
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import clone
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
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
    ProximityDeepClustering(3, random_state=0, pretraining_epochs=0, max_epochs=0, calibrate=False),
    GenerativeCalibrationClustering(
        3, random_state=0, pretraining=None, generation_epochs=1, max_epochs=0, calibrate=False
    ),
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


class Unlisted:
    """Items, and nobody knows how many."""

    __getitem__ = Listed.__getitem__


def pattern(message):
    """Return the regular expression of a message in which dots stand for anything."""
    return "(?s:.*)".join(map(re.escape, message.split("...")))


# What an error adds where the rest of it does not say that it is about X.
ACCEPTED = "...X has to be numbers of shape (n_samples, n_features), images of"
COMPLEX = f"Complex data not supported{ACCEPTED}"
EMPTY = "X has samples of shape {}, which hold no numbers. Check how X was made."
INFINITE = "Input X contains infinity or a value too large for dtype('float"
LARGE = "Input X contains a value too large for dtype('float32'), in which networks compute: sample"
ITEMS = "X is a Dataset; its items have to be tensors or arrays of real numbers ... item 0 is {}"
NAN = "Input X contains NaN."
ONE_AXIS = "Expected 2D array, got 1D array instead:\narray=[{}"
RAGGED = f"setting an array element with a sequence. ... inhomogeneous shape{ACCEPTED}"
SPARSE = "Sparse data was passed for X, but dense data is required. Use '.toarray()'"
TOO_FEW = "Found array with {} (shape={}) while a minimum of {} is required by "
TYPE = f"X is of type {{}}. {ACCEPTED}"
WORD = f"could not convert string to float: ...{{!r}}{ACCEPTED}"

REFUSED = {
    # not finite
    "NaN": (with_entry(np.nan), NAN),
    "nothing but NaN": (np.full((24, 3), np.nan), NAN),
    "infinity": (with_entry(np.inf), INFINITE),
    "minus infinity": (with_entry(-np.inf), INFINITE),
    "NaN in half precision": (with_entry(np.nan, np.float16), NAN),
    "infinity in half precision": (with_entry(np.inf, np.float16), INFINITE),
    "NaN in a tensor": (torch.tensor(with_entry(np.nan)), NAN),
    "NaN in a frame": (pd.DataFrame(with_entry(np.nan)), NAN),
    "NA in a frame": (pd.DataFrame({"a": [1.0, None, 3.0] * 8, "b": [1.0] * 24}), NAN),
    "None among numbers": ([[1.0, None]] * 24, NAN),
    "too large for single precision": (with_entry(1e300), LARGE),
    "too small for single precision": (with_entry(-1e300), LARGE),
    # other types
    "complex": (GOOD + 1j, COMPLEX),
    "a complex tensor": (torch.tensor(GOOD + 1j), COMPLEX),
    "strings": (np.array([["a", "b", "c"]] * 24), WORD.format("a")),
    "strings among objects": (np.array([["a", 1.0]] * 24, dtype=object), WORD.format("a")),
    "bytes as entries": (np.array([[b"a", b"b"]] * 24), WORD.format(b"a")),
    "words in a frame": (pd.DataFrame({"a": ["x", "y"] * 12}), WORD.format("x")),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x", "y"] * 12)}), WORD.format("x")),
    "a structured array": (
        np.zeros(24, dtype=[("a", float), ("b", int)]),
        f"Cannot cast array data from dtype([('a', '<f8'), ('b', '<i8')]) to dtype{ACCEPTED}",
    ),
    "a list of dictionaries": ([{"a": 1}] * 24, f"must be ... number, not 'dict'{ACCEPTED}"),
    "sparse rows": (sparse.csr_matrix(GOOD), SPARSE),
    "a sparse array": (sparse.coo_array(GOOD), SPARSE),
    "a sparse tensor": (
        torch.tensor(GOOD).to_sparse(),
        "can't convert Sparse layout tensor to numpy. Use Tensor.to_dense() first.",
    ),
    "masked entries": (
        np.ma.masked_greater(GOOD, 4.0),
        "X has masked entries, which networks cannot take. Fill or drop them.",
    ),
    "None": (None, TYPE.format("NoneType")),
    "a number": (3.0, "Expected 2D array, got scalar array instead:\narray=3.0."),
    "a string": ("no such folder", "source folder does not exist: 'no such folder'."),
    "an empty string": ("", "source='' names no folder; for the current one pass '.'."),
    "bytes": (b"folder", TYPE.format("bytes")),
    "a dictionary": ({"a": [1, 2], "b": [3, 4]}, TYPE.format("dict")),
    "a set": ({1.0, 2.0}, TYPE.format("set")),
    "a generator": ((row for row in GOOD), TYPE.format("generator")),
    "a loader of batches": (torch.utils.data.DataLoader(Listed(*GOOD)), TYPE.format("DataLoader")),
    "a Dataset without a length": (Unlisted(), TYPE.format("Unlisted")),
    # other shapes
    "no rows": (np.zeros((0, 3)), TOO_FEW.format("0 sample(s)", (0, 3), 2)),
    "no columns": (np.zeros((24, 0)), TOO_FEW.format("0 feature(s)", (24, 0), 1)),
    "one row": (GOOD[:1], TOO_FEW.format("1 sample(s)", (1, 3), 2)),
    "one axis": (GOOD[:, 0], ONE_AXIS.format(" 4.12")),
    "a tensor of one axis": (torch.tensor(GOOD[:, 0]), ONE_AXIS.format(" 4.12")),
    "an empty list": ([], ONE_AXIS.format("]") + ACCEPTED),
    "three axes": (
        np.zeros((24, 3, 2)),
        f"dim 3 (shape=(24, 3, 2)). {ACCEPTED} ... Reshape it; grey images have one channel.",
    ),
    "five axes": (np.zeros((24, 3, 8, 8, 1)), f"dim 5 (shape=(24, 3, 8, 8, 1)). {ACCEPTED}"),
    "ragged lists": ([[1.0, 2.0], [3.0]] * 12, RAGGED),
    "a list of tensors and a number": (
        [torch.zeros(3), 4],
        "X[1] is a int, but X[0] has shape (3,",
    ),
    "images of two sizes": (
        [np.zeros((3, 8, 8)), np.zeros((3, 8, 9))] * 12,
        "X[1] has shape (3, 8, 9), but X[0] has shape (3, 8, 8). All samples need one shape",
    ),
    "fewer rows than clusters": (
        GOOD[:2],
        "n_samples=2 should be >= n_clusters=3. Lower n_clusters.",
    ),
    "images without rows": (np.zeros((24, 3, 0, 8), np.uint8), EMPTY.format((3, 0, 8))),
    "images without columns": (np.zeros((24, 3, 8, 0)), EMPTY.format((3, 8, 0))),
    "images without channels": (np.zeros((24, 0, 8, 8), np.float32), EMPTY.format((0, 8, 8))),
    "a tensor without pixels": (torch.zeros(24, 3, 0, 0), EMPTY.format((3, 0, 0))),
    "no images": (np.zeros((0, 3, 8, 8)), TOO_FEW.format("0 sample(s)", (0, 3, 8, 8), 2)),
    "images with NaN": (np.full((12, 3, 8, 8), np.nan), NAN),
    # datasets
    "an empty Dataset": (Listed(), "X is a Dataset with 0 item(s), but needs at least 2."),
    "a Dataset of one": (
        Listed(torch.zeros(3)),
        "X is a Dataset with 1 item(s), but needs at least 2.",
    ),
    "a Dataset of words": (Listed(*["word"] * 24), ITEMS.format("a str. Let the Dataset return")),
    "a Dataset of numbers": (Listed(*[1.0] * 24), ITEMS.format("a float. Let the Dataset return")),
    "a Dataset of nothing": (Listed(*[()] * 24), ITEMS.format("a tuple. Let the Dataset return")),
    "a complex Dataset": (Listed(*GOOD + 1j), ITEMS.format("complex (complex128). Put real and")),
    "a sparse Dataset": (
        Listed(*[torch.ones(3).to_sparse()] * 24),
        ITEMS.format("a tensor of layout torch.sparse_coo. Use Tensor.to_dense() first."),
    ),
    "a Dataset of tables": (
        Listed(*[torch.zeros(3, 2)] * 24),
        "X is a Dataset; its items have to be feature vectors (1-D) or images (3-D, channels "
        "first), but item 0 has shape (3, 2).",
    ),
    "a Dataset of two lengths": (
        Listed(*[torch.zeros(3), torch.zeros(4)] * 12),
        "X is a Dataset; item 1 has shape (4,), but item 0 has (3,). ... resize or pad them.",
    ),
    "a Dataset without features": (Listed(*[torch.zeros(0)] * 24), EMPTY.format((0,))),
    "a Dataset without pixels": (Listed(*[torch.zeros(3, 0, 8)] * 24), EMPTY.format((3, 0, 8))),
    "a Dataset with NaN": (
        Listed(*[torch.full((3,), torch.nan)] * 24),
        "X is a Dataset; item 0 contains NaN or infinity.",
    ),
    "a Dataset that fails": (Listed(*[torch.zeros(3)] * 5, KeyError("row 5")), "'row 5'"),
}


def refuse(model, data, message):
    """Check that a fit fails as it should, and that the next one works."""
    with pytest.raises((ValueError, TypeError, KeyError, OSError), match=pattern(message)):
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


def folder_of(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


def test_files_are_refused_by_name(tmp_path):
    nothing = "source folder '...{}' and its sub-folders hold no file ending in .bmp, .gif"
    unreadable = "2 image file(s) could not be read:...also.png ...broken.png ...Repair or remove"
    for data, message in (
        (tmp_path / "missing", "source folder does not exist: '...missing'."),
        (folder_of(tmp_path / "empty"), nothing.format("empty")),
        (folder_of(tmp_path / "texts", notes_txt=b"text"), nothing.format("texts")),
        (
            [tmp_path / "missing.png", tmp_path / "other.png"],
            "2 of 2 files in source do not exist: '...missing.png', '...other.png'.",
        ),
        (folder_of(tmp_path / "bad", broken_png=b"no picture", also_png=b"neither"), unreadable),
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
    "a Dataset of pictures": (Listed(*[Image.fromarray(picture.T) for picture in PICTURES]), 3),
    "a Dataset": (Listed(*torch.tensor(GOOD)), 3),
    "a Dataset with labels": (Listed(*[(row, 7) for row in torch.tensor(GOOD)]), 3),
    "a Dataset of arrays": (Listed(*GOOD), 3),
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


# Parameters

PARAMETERS = {
    "n_clusters": [0, -1, 1.5, "8", None],
    "max_epochs": [-1, 1.5, "many"],
    "batch_size": [0, 1, -5, 2.5, "large"],
    "learning_rate": [0, -1.0, float("nan"), "fast"],
    "device": ["gpu", "cuda:77", 3],
    "precision": ["8", 32, "64-true", None],
    "backbone": [3, "no_such_network", "resnet18"],
    "pretrained": [3, None],
    "pretraining": ["BYOL", 3, BYOL],
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


# Of the right type, but with something wrong inside.
INSIDE = [
    ("backbone", nn.Linear(4, 2), "The backbone cannot take samples of shape (3,): ...2x3 and 4x2"),
    ("pretraining", BYOL(max_epochs=-1), "The 'max_epochs' parameter of BYOL ... Got -1 instead."),
    (
        "pretraining",
        BYOL(backbone="resnet18"),
        "pretraining has backbone='resnet18', but ... backbone='auto'. Set it there.",
    ),
]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [(name, value, None) for name, values in PARAMETERS.items() for value in values] + INSIDE,
    ids=lambda value: str(value)[:30],
)
def test_parameters_out_of_range_are_named(name, value, message):
    model = clone(QUICK).set_params(**{name: value})
    theirs = f"The '{name}' parameter of MiniClustering must be ... Got {value!r} instead."
    ours = f"{name}={value!r} "
    expected = pattern(message) if message else f"^({pattern(theirs)}|{pattern(ours)})"
    with pytest.raises((ValueError, TypeError), match=expected):
        model.fit(GOOD)
    model.set_params(**{name: getattr(QUICK, name)}).fit(GOOD)
    assert len(model.labels_) == len(GOOD)


def test_the_table_of_parameters_is_complete():
    # "deep" parameters are those of the pretraining.
    assert PARAMETERS.keys() == QUICK.get_params(deep=False).keys()
