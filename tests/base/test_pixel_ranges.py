"""New images are brought to the range of those of the fit, or refused."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import skdeepcluster
from tests.base.container_helpers import (
    COUNTS,
    GREY,
    RGB,
    RGB_FIRST,
    E,
    Listed,
    pictures,
    pixelwise,
    short,
    written,
)
from tests.instances import EVERYONE, LOST_CLUSTERS

# Clusters are lost by fits as short as these, which is announced, and not what is tested here.
pytestmark = LOST_CLUSTERS
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
