"""Input that cannot be clustered is refused with its name.

After a refusal the estimator is as usable as before.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.data import _sources
from skdeepcluster.pretraining import SimCLR
from tests.base.container_helpers import Listed
from tests.base.input_helpers import GOOD, QUICK, pattern, with_entry
from tests.instances import CLUSTERERS, brief, image_model
from tests.samples import IMAGES, X, Y

OTHERS = [
    *(
        brief(method, 0, generation_epochs=1, pretraining=None, calibrate=False)
        for method in CLUSTERERS
        if method is not MiniClustering
    ),
    SimCLR(random_state=0, max_epochs=1),
]


class Unlisted:
    """Items, and nobody knows how many."""

    __getitem__ = Listed.__getitem__


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
    "a loader of batches": (torch.utils.data.DataLoader(Listed(GOOD)), TYPE.format("DataLoader")),
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
    "an empty Dataset": (Listed([]), "X is a Dataset with 0 item(s), but needs at least 2."),
    "a Dataset of one": (
        Listed([torch.zeros(3)]),
        "X is a Dataset with 1 item(s), but needs at least 2.",
    ),
    "a Dataset of words": (Listed(["word"] * 24), ITEMS.format("a str. Let the Dataset return")),
    "a Dataset of numbers": (Listed([1.0] * 24), ITEMS.format("a float. Let the Dataset return")),
    "a Dataset of nothing": (Listed([()] * 24), ITEMS.format("a tuple. Let the Dataset return")),
    "a complex Dataset": (Listed(GOOD + 1j), ITEMS.format("complex (complex128). Put real and")),
    "a sparse Dataset": (
        Listed([torch.ones(3).to_sparse()] * 24),
        ITEMS.format("a tensor of layout torch.sparse_coo. Use Tensor.to_dense() first."),
    ),
    "a Dataset of tables": (
        Listed([torch.zeros(3, 2)] * 24),
        "X is a Dataset; its items have to be feature vectors (1-D) or images (3-D, channels "
        "first), but item 0 has shape (3, 2).",
    ),
    "a Dataset of two lengths": (
        Listed([torch.zeros(3), torch.zeros(4)] * 12),
        "X is a Dataset; item 1 has shape (4,), but item 0 has (3,). ... resize or pad them.",
    ),
    "a Dataset without features": (Listed([torch.zeros(0)] * 24), EMPTY.format((0,))),
    "a Dataset without pixels": (Listed([torch.zeros(3, 0, 8)] * 24), EMPTY.format((3, 0, 8))),
    "a Dataset with NaN": (
        Listed([torch.full((3,), torch.nan)] * 24),
        "X is a Dataset; item 0 contains NaN or infinity.",
    ),
    "a Dataset that fails": (Listed([*[torch.zeros(3)] * 5, KeyError("row 5")]), "'row 5'"),
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


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("kind", ["NaN", "strings", "sparse rows", "one row", "no columns"])
def test_refused_by_all(model, kind):
    refuse(clone(model), *REFUSED[kind])


# --- files ---------------------------------------------------------------------------------------


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


# --- a first look, and other samples than those of the fit ---------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((9, 2), np.nan), "NaN"),
        (np.full((9, 2), np.inf), "infinity"),
        (torch.full((9, 2), torch.nan), "NaN"),
        (np.zeros((0, 2)), "0 sample"),
        (np.zeros((9, 0)), "0 feature"),
        (np.zeros((1, 2)), "1 sample"),
        (np.zeros(9), "1D array"),
        (np.zeros((9, 2, 2)), "dim 3"),
        (np.zeros((9, 2), dtype=complex), "Complex"),
        (np.array([["a", "b"]] * 9), "could not convert string to float: .*'a'"),
        (np.zeros((2, 2)), "n_samples=2 should be >= n_clusters=3"),
        (
            np.zeros((9, 3, 0, 8), dtype=np.uint8),
            r"X has samples of shape \(3, 0, 8\), which hold no numbers",
        ),
        ([torch.zeros(3), 4], r"X\[1\] is a int, but X\[0\] has shape \(3,\)"),
    ],
)
def test_bad_input_is_refused(data, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MiniClustering(3).fit(data)


def test_numbers_beyond_single_precision_are_refused():
    with pytest.raises(ValueError, match="too large for dtype"):
        MiniClustering(3).fit(np.where(np.eye(9) > 0, 1e300, 0.0))


def test_samples_of_another_shape_are_refused():
    model = MiniClustering(3, random_state=0).fit(X)
    with pytest.raises(ValueError, match="4 features, but MiniClustering is expecting 5"):
        model.predict(X[:, :4])
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\).*expecting"):
        model.predict(IMAGES)
    with pytest.raises(ValueError, match="fitted on feature arrays"):
        model.predict(["image.png"])
    images = image_model().fit(IMAGES)
    with pytest.raises(ValueError, match=r"\(3, 4, 8\).*expecting.*\(3, 8, 8\)"):
        images.predict(IMAGES[:, :, :4])


def test_a_failed_fit_leaves_the_estimator_usable(sound_estimator):
    with pytest.raises(ValueError, match="NaN"):
        sound_estimator.fit(np.full((9, 2), np.nan))
    assert adjusted_rand_score(Y, sound_estimator.fit_predict(X)) > 0.95


# A tensor on an accelerator is never an array on the way: it has checks of its own.
ELSEWHERE = {
    "complex": (torch.tensor(GOOD) * 1j, "Complex data not supported"),
    "NaN": (torch.tensor(with_entry(np.nan)), "contains NaN or infinity"),
    "beyond single precision": (torch.tensor(with_entry(-1e300)), f"{LARGE} 5, feature 1"),
    "an image beyond it": (
        torch.full((24, 3, 8, 8), 1e300, dtype=torch.float64),
        f"{LARGE} 0. Rescale",
    ),
    "one axis": (torch.tensor(GOOD[:, 0]), "has to be a tensor of shape"),
}


@pytest.mark.parametrize("n_bytes", [_sources.BLOCK_BYTES, 1])
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_tensors_on_an_accelerator_are_refused_alike(kind, n_bytes, monkeypatch):
    data, message = ELSEWHERE[kind]
    monkeypatch.setattr(_sources, "BLOCK_BYTES", n_bytes)  # few are checked at a time
    monkeypatch.setattr("skdeepcluster.base._validation._share_memory", torch.Tensor.detach)
    model = clone(QUICK)
    with pytest.raises(ValueError, match=pattern(message)):
        model.fit(data)
    labels = model.fit(GOOD).labels_
    np.testing.assert_array_equal(model.fit(torch.tensor(GOOD)).labels_, labels)
