"""Samples in whatever people hold them: the same clusters as of a plain array, or words that help.

Nothing here needs the package datasets: `Column` and `Table` behave as its classes do.
"""

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.model_selection import GridSearchCV
from torch import nn

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base import _validation
from skdeepcluster.calibration import RegionCalibrator
from skdeepcluster.datasets import ImageFiles
from skdeepcluster.pretraining import BYOL, SimCLR
from tests.estimators.soundness_helpers import CLUSTERERS, PRETRAINERS, flat_backbone

RNG = np.random.default_rng(0)
KIND = np.arange(24) % 2
E = (RNG.normal(size=(24, 4)) + 8 * KIND[:, None]).astype(np.float32)
# Two kinds of images, bright above or bright below, of any number of channels.
PIXELS = RNG.integers(0, 90, size=(24, 8, 8, 13), dtype=np.uint8)
PIXELS[KIND == 0, :4] += 150
PIXELS[KIND == 1, 4:] += 150
RGB, GREY = PIXELS[..., :3], PIXELS[..., 0]
COUNTS = (GREY // 5 + 120).astype(np.uint16)  # what a camera of 12 bits gives
# Clusters are lost by fits as short as these, which is announced, and not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
EVERYONE = pytest.mark.parametrize(
    "estimator", CLUSTERERS + PRETRAINERS, ids=lambda estimator: estimator.__name__
)
SHORT = {
    **{method: {"n_clusters": 2, "calibrate": False, "max_epochs": 1} for method in CLUSTERERS},
    **{method: {"max_epochs": 1} for method in PRETRAINERS},
}
SHORT[MiniClustering] |= {"pretraining": None}
SHORT[CalibratedDeepClustering] |= {"pretraining": None}
SHORT[ProximityDeepClustering] |= {"pretraining_epochs": 1}
SHORT[GenerativeCalibrationClustering] |= {
    "pretraining": None,
    "generation_epochs": 1,
    "n_rounds": 1,
}


class Column(Sequence):
    """A column as datasets.Dataset["name"] is: rows are made when they are asked for."""

    def __init__(self, rows, make=lambda row: row):
        self.rows, self.make = rows, make

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return [self.make(row) for row in self.rows[key]]
        return self.make(self.rows[key])


class Table:
    """A table as datasets.Dataset is: rows are dicts, and there is a shape, but no array."""

    def __init__(self, **columns):
        self.columns = columns
        self.shape = len(self), len(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return Column(self.columns[key])
        return {name: rows[key] for name, rows in self.columns.items()}


class Listed(torch.utils.data.Dataset):
    """A map-style Dataset of given items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def boxed(rows):
    """An object array of one axis, whatever the rows are."""
    box = np.empty(len(rows), dtype=object)
    box[:] = list(rows)
    return box


def pictures(pixels, mode=None):
    return [Image.fromarray(np.ascontiguousarray(x)).convert(mode) for x in pixels]


def short(estimator, channels=None, **parameters):
    """An estimator whose fit takes a fraction of a second."""
    model = estimator(random_state=0, **SHORT[estimator]).set_params(**parameters)
    return model if channels is None else model.set_params(backbone=flat_backbone(channels))


def pixelwise(**parameters):
    """The fastest clusterer of images: the network hands the pixels on."""
    return MiniClustering(
        2, random_state=0, backbone=nn.Flatten(), pretraining=None, max_epochs=0, calibrate=False
    ).set_params(**parameters)


def check_same(model, X, array):
    """Check that a model says of X what it says of the array, fitted on either."""
    ours, theirs = clone(model).fit(X), clone(model).fit(array)
    expected = theirs.transform(array)
    for fitted in (ours, theirs):
        np.testing.assert_array_equal(fitted.transform(X), expected)
        np.testing.assert_array_equal(fitted.transform(array), expected)
    if hasattr(ours, "labels_"):
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_array_equal(ours.predict(X), ours.labels_)
    return ours


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

RGB_FIRST, GREY_FIRST = RGB.transpose(0, 3, 1, 2), GREY[:, None]
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


@EVERYONE
def test_images_are_read_by_everyone(estimator):
    X, expected = IMAGES["a list of 5 bands, last"]
    check_same(short(estimator, channels=expected.shape[1]), X, expected)


def test_sixteen_by_sixteen_pixels_of_thirteen_bands():
    X = np.random.default_rng(0).random((60, 16, 16, 13))
    assert pixelwise().fit(X).image_shape_ == (13, 16, 16)
    assert pixelwise().fit(np.moveaxis(X, -1, 1)).image_shape_ == (13, 16, 16)


HOLDERS = {"an array": np.asarray, "a tensor": torch.tensor, "a Dataset": Listed, "a list": list}


@pytest.mark.parametrize(
    ("shape", "read_as"),
    [((9, 9, 9), (9, 9, 9)), ((9, 9, 20), (20, 9, 9)), ((13, 17, 15), (13, 17, 15))],
)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_doubtful_shape_is_told_once_and_at_the_line_of_the_user(holder, shape, read_as):
    X = HOLDERS[holder](np.random.default_rng(0).random((6, *shape)))
    n, height, width = read_as
    message = f"read as {n} channels of {height} x {width} pixels"
    with pytest.warns(UserWarning, match=message) as caught:
        model = pixelwise().fit(X)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    assert model.image_shape_ == read_as
    np.testing.assert_array_equal(model.predict(X), model.labels_)  # without another warning


def test_prediction_reads_images_as_the_fit_did():
    X = np.random.default_rng(0).random((24, 20, 30, 5))
    model = pixelwise().fit(np.moveaxis(X, -1, 1))  # of which there is no doubt
    np.testing.assert_array_equal(model.predict(X), model.labels_)


# --- files ---------------------------------------------------------------------------------------


def written(folder, images, ending="png"):
    """Write images to files; return their paths."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02}.{ending}" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


PATHS = {
    "a list of strings": lambda paths: [str(path) for path in paths],
    "a tuple of paths": tuple,
    "an array of strings": lambda paths: np.array([str(path) for path in paths]),
    "an object array of paths": lambda paths: np.array(paths, dtype=object),
    "a series of strings": lambda paths: pd.Series([str(path) for path in paths]),
    "a series of paths": pd.Series,
    "a frame with one column of paths": lambda paths: pd.DataFrame({"file": paths}),
    "a frame with one column of strings": lambda paths: pd.DataFrame({"f": map(str, paths)}),
    "a polars series of strings": lambda paths: pl.Series([str(path) for path in paths]),
    "a column of strings": lambda paths: Column([str(path) for path in paths]),
}


@pytest.mark.parametrize("kind", PATHS)
def test_files_are_read_from(kind, tmp_path):
    paths = written(tmp_path / "images", RGB)
    model = check_same(pixelwise(), PATHS[kind](paths), RGB_FIRST)
    assert model.paths_ == [str(path) for path in paths]


DEEP = {
    "12 bits in uint16": COUNTS,
    "all of uint16": COUNTS * 300,
    "32 bits with negative values": COUNTS.astype(np.int32) - 140,
    "floats": COUNTS.astype(np.float32) / 7,
    "floats from 0 to 1": (GREY / 255).astype(np.float32),
}


@pytest.mark.parametrize("share", [_validation.RESIDENT_SHARE, 0.0], ids=["at once", "by batch"])
@pytest.mark.parametrize("kind", DEEP)
def test_deep_files_are_clustered_as_their_array_is(kind, share, tmp_path, monkeypatch):
    monkeypatch.setattr(_validation, "RESIDENT_SHARE", share)
    images, first_kind = DEEP[kind], KIND[0] == KIND
    folder = tmp_path / "images"
    written(folder, images, "tif")
    model = check_same(pixelwise(), folder, images[:, None].repeat(3, axis=1))
    np.testing.assert_array_equal(model.labels_ == model.labels_[0], first_kind)
    one_channel = pixelwise().fit(images[:, None]).labels_
    np.testing.assert_array_equal(one_channel == one_channel[0], first_kind)


@EVERYONE
def test_everyone_takes_deep_files(estimator, tmp_path):
    written(tmp_path / "images", COUNTS, "tif")
    check_same(short(estimator, channels=3), tmp_path / "images", COUNTS[:, None].repeat(3, axis=1))


@pytest.mark.parametrize("images", [RGB, COUNTS], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("kind", ["a list of strings", "an array of strings", "a series of paths"])
def test_a_grid_search_splits_files(kind, images, tmp_path):
    X = PATHS[kind](written(tmp_path / "images", images, "tif"))
    search = GridSearchCV(pixelwise(), {"n_clusters": [2, 3]}, cv=2, error_score="raise").fit(X)
    assert search.best_estimator_.paths_ == [str(path) for path in X]
    assert len(search.predict(X)) == 24


def test_a_grid_search_splits_image_files_and_datasets(tmp_path):
    written(tmp_path / "images", RGB)
    for X in (ImageFiles(tmp_path / "images"), Listed([(torch.tensor(x), 1) for x in RGB_FIRST])):
        search = GridSearchCV(pixelwise(), {"n_clusters": [2, 3]}, cv=2, error_score="raise")
        assert len(search.fit(X).predict(X)) == 24


def test_a_grid_search_on_a_folder_is_told_of_its_files(tmp_path):
    written(tmp_path / "images", RGB)
    search = GridSearchCV(pixelwise(), {"n_clusters": [2, 3]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match=r"name of a folder, .* Pass ImageFiles\(folder\)\.paths"):
        search.fit(str(tmp_path / "images"))


# --- what cannot be read -------------------------------------------------------------------------

TEXTS = ["I like trains", "so do I", "..."] * 8
EMBED = r"X is a list of texts, X\[0\]='I like trains'. Embed texts first: .*encode\(X\)"
UNREADABLE = {
    "a list of texts": (TEXTS, EMBED),
    "a tuple of texts": (tuple(TEXTS), EMBED),
    "an array of texts": (np.array(TEXTS), EMBED),
    "an object array of texts": (np.array(TEXTS, dtype=object), EMBED),
    "a series of texts": (pd.Series(TEXTS), EMBED),
    "a polars series of texts": (pl.Series(TEXTS), EMBED),
    "a column of texts": (Column(TEXTS), EMBED),
    "a Dataset of texts": (Listed(TEXTS), "item 0 is a str. Let the Dataset .* Embed texts first"),
    "a table": (
        Table(e=E.tolist(), label=KIND),
        r"item 0 is a dict with the columns 'e', 'label'. Pass one of them, for example X\['e'\]",
    ),
    "several tables": ({"train": Table(e=E)}, r"type dict\. .* one of its values, such as X\['tr"),
    "a column of numbers": (Column(KIND.tolist()), "item 0 is a int. Let the Dataset return"),
    "a column of grey arrays": (Column(GREY), r"has shape \(8, 8\). Grey images need an axis"),
    "a column of pictures of two sizes": (
        Column(pictures(RGB[:1]) + pictures(RGB[1:, :6])),
        r"item 1 has shape \(3, 6, 8\), but item 0 has \(3, 8, 8\).*resize or pad them",
    ),
    "a list of pictures of two sizes": (
        pictures(RGB[:20]) + pictures(RGB[20:, :6]),
        r"images of 2 sizes: 8 x 8 \(20 of them\), 8 x 6 \(4 of them\). .*ImageOps.fit\(image",
    ),
    "a series of pictures of two sizes": (
        pd.Series(pictures(RGB[:20]) + pictures(RGB[20:, :6])),
        r"images of 2 sizes: 8 x 8 \(20 of them\), 8 x 6 \(4 of them\). .* a list of paths",
    ),
    "a list of pictures of 8 and of 16 bits": (
        pictures(GREY[:12]) + [Image.fromarray(x) for x in COUNTS[12:]],
        r"images of 8 bits and of more \(modes I;16, L\), .* Convert them to one mode",
    ),
    "a list of pictures and nothing": ([*pictures(RGB), None], r"X\[24\] is a NoneType, but X"),
    "a list of images of two sizes": (
        [RGB[0], RGB[1, :6]] * 12,
        r"X\[1\] has shape \(6, 8, 3\), but X\[0\] has shape \(8, 8, 3\). All samples need one sh",
    ),
    "a series of vectors of two lengths": (
        pd.Series([E[0], E[1, :3]] * 12),
        r"X\[1\] has shape \(3,\), but X\[0\] has shape \(4,\). All samples need one shape",
    ),
    "a series with a vector missing": (
        pd.Series([*E[:23], np.nan]),
        r"X\[23\] is a float, but X\[0\] has shape \(4,\). .* leave out what is missing",
    ),
    "a column of lists of two lengths": (Column([[1.0, 2.0], [3.0]] * 12), "inhomogeneous shape"),
    "a series with a path missing": (pd.Series([Path(__file__), None] * 12), r"X\[1\] is None"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_it_says_what_to_do_about(kind):
    X, message = UNREADABLE[kind]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        pixelwise().fit(X)


@EVERYONE
@pytest.mark.parametrize("kind", ["a list of texts", "a table"])
def test_everyone_says_what_to_do_about(estimator, kind):
    X, message = UNREADABLE[kind]
    with pytest.raises(ValueError, match=message):
        short(estimator).fit(X)
    model = short(estimator).fit(E)
    with pytest.raises(ValueError, match=message):
        model.transform(X)


def test_an_image_above_the_limit_of_pillow_is_refused_with_the_remedy(tmp_path, monkeypatch):
    written(tmp_path / "images", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"00\.png .*raise PIL\.Image\.MAX_IMAGE_PIXELS, or set"):
        pixelwise().fit(tmp_path / "images")


# --- ranges --------------------------------------------------------------------------------------

UNIT = (RGB_FIRST / 255).astype(np.float32)
RANGES = {
    "floats after bytes": (RGB_FIRST, UNIT),
    "bytes after floats": (UNIT, RGB_FIRST),
    "floats in tensors after bytes": (RGB_FIRST, torch.tensor(UNIT)),
    "bytes in tensors after floats": (torch.tensor(UNIT), torch.tensor(RGB_FIRST)),
    "floats in a Dataset after bytes": (RGB_FIRST, Listed(torch.tensor(UNIT))),
    "bytes in a Dataset after floats": (Listed(UNIT), Listed(RGB_FIRST)),
    "pictures after floats": (UNIT, pictures(RGB)),
    "double precision after bytes": (RGB_FIRST, UNIT.astype(np.float64)),
    "a single image after bytes": (RGB_FIRST, UNIT[:1]),
    "a single image after floats": (UNIT, RGB_FIRST[:1]),
    "floats as large as bytes after bytes": (RGB_FIRST, RGB_FIRST.astype(np.float32)),
}


@pytest.mark.parametrize("kind", RANGES)
def test_images_are_brought_to_the_range_of_the_fit_for(kind):
    first, second = RANGES[kind]
    model = pixelwise().fit(first)
    np.testing.assert_array_equal(model.predict(second), model.labels_[: len(second)])
    expected = model.transform(first)[: len(second)]
    np.testing.assert_allclose(model.transform(second), expected, atol=1e-6)


@EVERYONE
@pytest.mark.parametrize("kind", ["floats after bytes", "bytes after floats"])
def test_everyone_brings_images_to_the_range_of_the_fit(estimator, kind):
    first, second = RANGES[kind]
    model = short(estimator, channels=3).fit(first)
    np.testing.assert_allclose(model.transform(second), model.transform(first), atol=1e-5)


def test_files_are_brought_to_the_range_of_the_fit(tmp_path):
    # Three equal channels, as files of greys have.
    bytes_, floats = (x[:, None].repeat(3, axis=1) for x in (GREY, (GREY / 255).astype(np.float32)))
    deep = written(tmp_path / "floats", floats[:, 0], "tif")
    shallow = written(tmp_path / "bytes", GREY)
    for first, second in ((bytes_, deep), (floats, shallow), (shallow, deep), (deep, shallow)):
        model = pixelwise().fit(first)
        np.testing.assert_array_equal(model.predict(second), model.labels_)


OTHER_SCALES = {
    "signed floats after bytes": (RGB_FIRST, 2 * UNIT - 1),
    "16 bits after bytes": (RGB_FIRST, RGB_FIRST.astype(np.uint16) * 257),
    "signed floats after floats from 0 to 1": (UNIT, 2 * UNIT - 1),
    "floats as large as bytes after floats from 0 to 1": (UNIT, RGB_FIRST.astype(np.float32)),
    "bytes after signed floats": (2 * UNIT - 1, RGB_FIRST),
    "floats from 0 to 1 after 12 bits": (COUNTS[:, None], (COUNTS[:, None] / 4095).astype("f4")),
}


@pytest.mark.parametrize("kind", OTHER_SCALES)
def test_another_scale_is_refused_for(kind, tmp_path):
    first, second = OTHER_SCALES[kind]
    model = pixelwise().fit(first)
    skdeepcluster.save(model, tmp_path / "model")
    loaded = skdeepcluster.load(tmp_path / "model", backbone=nn.Flatten())
    copied = pickle.loads(pickle.dumps(model))
    for fitted in (model, loaded, copied):
        with pytest.raises(
            ValueError, match=r"X has images of .* from .*, but the model was fitted"
        ):
            fitted.predict(second)
        np.testing.assert_array_equal(fitted.predict(first), model.labels_)


def test_a_warm_start_brings_images_to_the_range_of_the_first_fit():
    model = pixelwise(warm_start=True).fit(RGB_FIRST)
    first = model.transform(RGB_FIRST)
    model.fit(UNIT)
    np.testing.assert_allclose(model.transform(UNIT), first, atol=1e-6)
    np.testing.assert_allclose(model.transform(RGB_FIRST), first, atol=1e-6)


def test_a_new_fit_forgets_the_range():
    model = pixelwise().fit(RGB_FIRST).fit(2 * UNIT - 1)
    np.testing.assert_array_equal(model.predict(2 * UNIT - 1), model.labels_)
    model.set_params(backbone="auto").fit(E)
    assert not hasattr(model, "_pixel_range")


def test_masks_stay_masks():
    masks = (RGB_FIRST > 120).astype(np.uint8)
    for first, second in ((masks, masks.astype(bool)), (masks.astype(np.float32), masks)):
        model = pixelwise().fit(first)
        np.testing.assert_array_equal(model.transform(second), model.transform(first))


# --- backbones of other precision ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("X", [E, RGB_FIRST], ids=["features", "images"])
def test_a_backbone_of_any_precision_is_trained_in_single(X, dtype, tmp_path):
    own = nn.Sequential(nn.Linear(4, 3), nn.ReLU()) if X.ndim == 2 else flat_backbone(3)
    own = own.to(dtype)
    weights = copy.deepcopy(own.state_dict())
    model = short(MiniClustering, backbone=own).fit(X)
    single = short(MiniClustering, backbone=copy.deepcopy(own).float()).fit(X)
    np.testing.assert_array_equal(model.transform(X), single.transform(X))
    assert all(torch.equal(own.state_dict()[name], weights[name]) for name in weights)
    assert {tensor.dtype for tensor in own.state_dict().values()} <= {dtype, torch.int64}
    skdeepcluster.save(model, tmp_path / "model")
    loaded = skdeepcluster.load(tmp_path / "model", backbone=own)
    np.testing.assert_array_equal(loaded.predict(X), model.labels_)


@EVERYONE
def test_everyone_takes_a_backbone_of_half_precision(estimator):
    model = short(estimator, backbone=flat_backbone(3).half()).fit(RGB_FIRST)
    assert np.isfinite(model.transform(RGB_FIRST)).all()


# --- y and parameters ----------------------------------------------------------------------------

LENGTHS = r"Found input variables with inconsistent numbers of samples: \[24, 23\]"


@EVERYONE
def test_y_of_another_length_is_refused(estimator):
    with pytest.raises(ValueError, match=LENGTHS):
        short(estimator).fit(E, KIND[1:])


@pytest.mark.parametrize(
    "y", [KIND[1:], KIND[1:].tolist(), torch.tensor(KIND[1:]), pd.Series(KIND[1:])], ids=type
)
@pytest.mark.parametrize("call", ["fit", "fit_predict", "fit_transform"])
def test_y_of_another_length_is_refused_by(call, y):
    with pytest.raises(ValueError, match=LENGTHS):
        getattr(short(MiniClustering), call)(E, y)


def test_y_of_another_length_is_refused_by_the_calibrator():
    with pytest.raises(ValueError, match=LENGTHS):
        RegionCalibrator(KMeans(2)).fit(E, KIND[1:])


@pytest.mark.parametrize("y", [None, KIND, ["cat", "dog"] * 12, "labels", 3, np.float64(3), {}])
def test_y_is_ignored_otherwise(y):
    expected = short(MiniClustering).fit(E).labels_
    np.testing.assert_array_equal(short(MiniClustering).fit(E, y).labels_, expected)


def test_y_counts_damaged_files_too(tmp_path):
    paths = written(tmp_path / "images", RGB)
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: len(content) - 40])
    files = ImageFiles(tmp_path / "images", unreadable="skip")
    with pytest.warns(UserWarning, match="^1 unreadable"):
        model = pixelwise().fit(files, KIND)
    assert len(model.labels_) == 23


@pytest.mark.parametrize("value", ["auto", [2, 3], (2, 3), np.array([2, 3])], ids=repr)
@pytest.mark.parametrize(
    "estimator",
    [method for method in CLUSTERERS if method is not StableClusterDiscrimination],
    ids=lambda estimator: estimator.__name__,
)
def test_several_numbers_of_clusters_are_sent_to_who_takes_them(estimator, value):
    message = r"'n_clusters' parameter of .*StableClusterDiscrimination\(n_clusters=\[8, 10, 12\]\)"
    with pytest.raises(ValueError, match=message):
        estimator(value).fit(E)


@pytest.mark.parametrize("value", ["BYOL", "SimCLR", BYOL], ids=repr)
@pytest.mark.parametrize(
    "estimator",
    [method for method in CLUSTERERS if "pretraining" in method().get_params(deep=False)],
    ids=lambda estimator: estimator.__name__,
)
def test_a_pretraining_that_is_none_is_sent_to_the_public_classes(estimator, value):
    message = r"must be 'auto', .*skdeepcluster\.pretraining\.BYOL\(\), MoCo\(\) or SimCLR\(\)"
    with pytest.raises(ValueError, match=message):
        estimator(2, pretraining=value).fit(E)
    short(estimator, pretraining=SimCLR(max_epochs=1)).fit(E)
