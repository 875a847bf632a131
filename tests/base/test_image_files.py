"""Folders and lists of image files are clustered as their pixels are."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skdeepcluster.base import _validation
from skdeepcluster.datasets import ImageFiles
from tests.base.container_helpers import (
    COUNTS,
    GREY,
    KIND,
    RGB,
    RGB_FIRST,
    Column,
    Listed,
    check_same,
    pixelwise,
    short,
    written,
)
from tests.instances import EVERYONE, LOST_CLUSTERS, image_model
from tests.samples import IMAGES


@pytest.fixture
def folder(tmp_path):
    for number, image in enumerate(IMAGES):
        place = tmp_path / f"class{number % 3}"
        place.mkdir(exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, 2)).save(place / f"{number:02}.png")
    return tmp_path


def test_a_folder_of_images(folder, image_method):
    model = clone(image_method).fit(folder)
    assert len(model.paths_) == len(model.labels_) == len(IMAGES)
    order = [int(path[-6:-4]) for path in model.paths_]
    expected = image_method.fit(IMAGES[order])
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    np.testing.assert_array_equal(model.predict(str(folder)), model.labels_)
    np.testing.assert_array_equal(model.predict(model.paths_[::-1]), model.labels_[::-1])
    np.testing.assert_array_equal(expected.predict(IMAGES[order]), expected.labels_)
    assert not hasattr(model.fit(IMAGES), "paths_")


def test_unreadable_files_are_named_or_skipped_and_listed(folder):
    broken = folder / "class0" / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        image_model().fit(folder)
    with pytest.warns(UserWarning, match="1 unreadable"):
        files = ImageFiles(folder, unreadable="skip")
    model = image_model().fit(files)
    assert [path for path, _ in files.unreadable] == [str(broken)]
    assert str(broken) not in model.paths_
    assert len(model.paths_) == len(model.labels_) == len(IMAGES)


def test_a_folder_that_does_not_fit_into_memory_is_streamed(folder, image_method, monkeypatch):
    labels = clone(image_method).fit(folder).labels_
    monkeypatch.setattr("skdeepcluster.base._validation.free_memory", lambda device: 0)
    image_method.set_params(num_workers=2)
    np.testing.assert_array_equal(image_method.fit(folder).labels_, labels)


def test_an_image_above_the_limit_of_pillow_is_refused_with_the_remedy(tmp_path, monkeypatch):
    written(tmp_path / "images", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"00\.png .*raise PIL\.Image\.MAX_IMAGE_PIXELS, or set"):
        pixelwise().fit(tmp_path / "images")


# --- paths ---------------------------------------------------------------------------------------

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


# --- more than eight bits ------------------------------------------------------------------------

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


@LOST_CLUSTERS  # by fits as short as these
@EVERYONE
def test_everyone_takes_deep_files(estimator, tmp_path):
    written(tmp_path / "images", COUNTS, "tif")
    check_same(short(estimator, channels=3), tmp_path / "images", COUNTS[:, None].repeat(3, axis=1))


# --- searches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [RGB, COUNTS], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("kind", ["a list of strings", "an array of strings", "a series of paths"])
def test_a_grid_search_splits_files(kind, images, tmp_path):
    X = PATHS[kind](written(tmp_path / "images", images, "tif"))
    search = GridSearchCV(pixelwise(), {"batch_size": [8, 12]}, cv=2, error_score="raise").fit(X)
    assert search.best_estimator_.paths_ == [str(path) for path in X]
    assert len(search.predict(X)) == 24


def test_a_grid_search_splits_image_files_and_datasets(tmp_path):
    written(tmp_path / "images", RGB)
    for X in (ImageFiles(tmp_path / "images"), Listed([(torch.tensor(x), 1) for x in RGB_FIRST])):
        search = GridSearchCV(pixelwise(), {"batch_size": [8, 12]}, cv=2, error_score="raise")
        assert len(search.fit(X).predict(X)) == 24


def test_a_grid_search_on_a_folder_is_told_of_its_files(tmp_path):
    written(tmp_path / "images", RGB)
    search = GridSearchCV(pixelwise(), {"batch_size": [8, 12]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match=r"name of a folder, .* Pass ImageFiles\(folder\)\.paths"):
        search.fit(str(tmp_path / "images"))
