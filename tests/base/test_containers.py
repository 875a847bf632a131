"""Samples in whatever people hold them: the same clusters as of a plain array."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.cluster import KMeans

from skdeepcluster import MiniClustering
from skdeepcluster.calibration import RegionCalibrator
from tests.base.container_helpers import (
    COUNTS,
    GREY,
    GREY_FIRST,
    KIND,
    PIXELS,
    RGB,
    RGB_FIRST,
    Column,
    E,
    Listed,
    Table,
    boxed,
    check_same,
    pictures,
    pixelwise,
    short,
)
from tests.instances import EVERYONE, LOST_CLUSTERS, fitted
from tests.samples import X

# --- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.astype(np.float64),
        lambda a: np.asfortranarray(a),
        lambda a: np.flip(np.flip(a, 1).copy(), 1),
        lambda a: a.tolist(),
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).double(),
        lambda a: torch.utils.data.TensorDataset(torch.from_numpy(a), torch.zeros(len(a))),
    ],
    ids=["float64", "Fortran", "negative strides", "list", "tensor", "double tensor", "Dataset"],
)
def test_the_same_numbers_give_the_same_labels(method, convert):
    labels = fitted(method).labels_
    converted = convert(X.copy())
    np.testing.assert_array_equal(method.fit(converted).labels_, labels)
    np.testing.assert_array_equal(method.predict(converted), labels)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, bool])
def test_other_number_types_are_features(dtype):
    values = (X.mean() < X) if dtype is bool else np.clip(X * 10 + 100, 0, 255)
    expected = MiniClustering(3, random_state=0).fit(values.astype(dtype).astype(np.float32))
    model = MiniClustering(3, random_state=0).fit(values.astype(dtype))
    np.testing.assert_array_equal(model.labels_, expected.labels_)


def test_a_read_only_memory_map_is_left_alone(tmp_path, method):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(method.fit(mapped).labels_, fitted(method).labels_)
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), X)


def test_data_that_do_not_fit_are_streamed_with_the_same_result(estimator, monkeypatch):
    labels = fitted(estimator).labels_
    monkeypatch.setattr("skdeepcluster.data._sources.free_memory", lambda device: 0)
    wide = X.astype(np.float64)  # single precision would be used where it lies
    np.testing.assert_array_equal(estimator.fit(wide).labels_, labels)
    np.testing.assert_array_equal(estimator.predict(wide), labels)


# --- vectors -------------------------------------------------------------------------------------

VECTORS = {
    "a series of arrays": pd.Series(list(E)),
    "a series of lists": pd.Series(E.tolist()),
    "a series of tensors": pd.Series(list(torch.from_numpy(E))),
    "a series that another index names": pd.Series(list(E), index=[f"row {i}" for i in range(24)]),
    "a frame with one column of arrays": pd.DataFrame({"embedding": list(E)}),
    "a frame with one column of lists": pd.DataFrame({"embedding": E.tolist()}),
    "an arrow-backed series": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(E.tolist()))),
    "a polars series of arrays": pl.Series(E),
    "a polars series of lists": pl.Series(E.tolist()),
    "a polars frame with one column": pl.DataFrame({"embedding": E.tolist()}),
    "an arrow array of lists": pa.array(E.tolist()),
    "a chunked arrow array": pa.chunked_array([E[:10].tolist(), E[10:].tolist()]),
    "an object array of arrays": boxed(E),
    "an object array of lists": boxed(E.tolist()),
    "a list of arrays": list(E),
    "a tuple of arrays": tuple(E),
    "a list of tensors": list(torch.from_numpy(E)),
    "a list of arrays and tensors": [*E[:12], *torch.from_numpy(E[12:])],
    "a list of pairs with labels": [(row, 7) for row in E],
    "a column of lists": Column(E.tolist()),
    "a column of arrays": Column(E),
    "a column of tensors": Column(torch.from_numpy(E)),
    "a column of a table": Table(e=E.tolist(), label=KIND)["e"],
    "a Dataset of lists": Listed(E.tolist()),
    "a Dataset of lists with labels": Listed([(row, 7) for row in torch.from_numpy(E)]),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_are_read_from(kind):
    model = check_same(short(MiniClustering), VECTORS[kind], E)
    assert model.n_features_in_ == 4
    assert not hasattr(model, "image_shape_")
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize(
    "kind", ["a tensor elsewhere", "a list of tensors", "a Dataset", "an array"]
)
def test_names_of_an_earlier_table_are_forgotten(kind, monkeypatch):
    model = short(MiniClustering).fit(pd.DataFrame(E, columns=list("abcd")))
    assert list(model.feature_names_in_) == list("abcd")
    if kind == "a tensor elsewhere":
        monkeypatch.setattr("skdeepcluster.base._validation._share_memory", torch.Tensor.detach)
    rows = torch.from_numpy(E)
    again = {"a list of tensors": list(rows), "a Dataset": Listed(rows), "an array": E}
    model.fit(again.get(kind, rows)).predict(E)
    assert not hasattr(model, "feature_names_in_")


@EVERYONE
@pytest.mark.parametrize("kind", ["a series of arrays", "a column of lists"])
def test_vectors_are_read_by_everyone_from(estimator, kind):
    check_same(short(estimator), VECTORS[kind], E)


@pytest.mark.parametrize("kind", ["a series of arrays", "a column of lists", "a list of tensors"])
def test_the_calibrator_reads_vectors_from(kind):
    X = VECTORS[kind]
    model = RegionCalibrator(KMeans(2, random_state=0), n_voters=2, random_state=0)
    ours, theirs = clone(model).fit(X), clone(model).fit(E)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(E))
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(E))


# --- images --------------------------------------------------------------------------------------

IMAGES = {
    "a list of pictures": (pictures(RGB), RGB_FIRST),
    "a tuple of pictures": (tuple(pictures(RGB)), RGB_FIRST),
    "a list of grey pictures": (pictures(GREY), GREY_FIRST),
    "a list of pictures with an alpha channel": (
        pictures(RGB, "RGBA"),
        np.concatenate([RGB_FIRST, np.full_like(GREY_FIRST, 255)], axis=1),
    ),
    "a list of grey and coloured pictures": (
        pictures(GREY[:5]) + pictures(RGB[5:]),
        np.concatenate([GREY_FIRST[:5].repeat(3, axis=1), RGB_FIRST[5:]]),
    ),
    "a list of 16-bit pictures": ([Image.fromarray(x) for x in COUNTS], COUNTS[:, None]),
    "a list of pictures with labels": ([(x, "cat") for x in pictures(RGB)], RGB_FIRST),
    "a series of pictures": (pd.Series(pictures(RGB)), RGB_FIRST),
    "a frame with one column of pictures": (pd.DataFrame({"image": pictures(RGB)}), RGB_FIRST),
    "a column of pictures": (Column(pictures(RGB)), RGB_FIRST),
    "a column of grey pictures": (Column(pictures(GREY)), GREY_FIRST),
    "a column of arrays with channels last": (Column(RGB), RGB_FIRST),
    "a column of tensors with channels first": (Column(torch.tensor(RGB_FIRST)), RGB_FIRST),
    "a column of nested lists": (Column(RGB.tolist()), RGB_FIRST.astype(np.float32)),
    "a series of arrays with channels last": (pd.Series(list(RGB)), RGB_FIRST),
    "an object array of images": (boxed(RGB_FIRST), RGB_FIRST),
    "a Dataset of pictures": (Listed(pictures(RGB)), RGB_FIRST),
    "a Dataset of arrays with channels last": (Listed(RGB), RGB_FIRST),
    "an array of grey images with channels last": (GREY[..., None], GREY_FIRST),
    **{
        f"{holder} of {n} bands, last": (
            hold(PIXELS[..., :n]),
            PIXELS[..., :n].transpose(0, 3, 1, 2),
        )
        for n in (2, 5, 7)
        for holder, hold in {
            "an array": np.asarray,
            "a tensor": torch.tensor,
            "a Dataset": Listed,
            "a list": list,
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_read_from(kind):
    X, expected = IMAGES[kind]
    model = check_same(pixelwise(), X, expected)
    assert model.image_shape_ == expected.shape[1:]


@LOST_CLUSTERS  # by fits as short as these
@EVERYONE
def test_images_are_read_by_everyone(estimator):
    X, expected = IMAGES["a list of 5 bands, last"]
    check_same(short(estimator, channels=expected.shape[1]), X, expected)
