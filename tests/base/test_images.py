"""Images: channels first or last, bytes or floats, and the networks that embed them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

import skdeepcluster
from skdeepcluster import MiniClustering
from skdeepcluster.pretraining import SimCLR
from tests.base.container_helpers import Listed, pixelwise
from tests.instances import image_model
from tests.samples import IMAGES

# --- channels and ranges -------------------------------------------------------------------------


def test_images_channels_first_and_last_are_the_same(image_method):
    first = clone(image_method).fit(IMAGES)
    last = image_method.fit(np.moveaxis(IMAGES, 1, 3))
    assert first.image_shape_ == last.image_shape_ == (3, 8, 8)
    np.testing.assert_array_equal(first.labels_, last.labels_)
    np.testing.assert_array_equal(first.predict(np.moveaxis(IMAGES, 1, 3)), first.labels_)


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


def test_uint8_and_unit_floats_are_the_same_images(image_method):
    as_floats = clone(image_method).fit((IMAGES / 255).astype(np.float32))
    expected = image_method.fit(IMAGES).transform(IMAGES)
    found = as_floats.transform((IMAGES / 255).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=0.02)


# --- backbones -----------------------------------------------------------------------------------


def test_images_with_pretraining_and_a_timm_backbone(image_method, monkeypatch):
    short = skdeepcluster.base._building.Recipe(8, learning_rate=1e-3, image_epochs=1)
    monkeypatch.setattr(SimCLR, "_image_recipe", short)
    model = image_method.set_params(backbone="test_resnet", pretraining="auto").fit(IMAGES)
    phases = {"pretraining", "clustering", "calibration"}
    assert {r["phase"] for r in model.history_} - {"start"} == phases
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    again = clone(model).fit(IMAGES)
    np.testing.assert_array_equal(model.transform(IMAGES), again.transform(IMAGES))


def test_a_frozen_backbone_for_images():
    model = image_model(fine_tune=False).fit(IMAGES)
    backbone = model._frozen.backbone[1]
    for trained, given_ in zip(backbone.parameters(), model.backbone.parameters(), strict=True):
        assert torch.equal(trained.cpu(), given_)


def test_weights_from_a_local_file(tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    model = MiniClustering(
        2,
        backbone="test_resnet",
        pretrained=tmp_path / "weights.pt",
        fine_tune=False,
        max_epochs=0,
        random_state=0,
    ).fit(IMAGES)
    loaded = model._frozen.backbone[1].state_dict()
    assert torch.equal(loaded["conv1.0.weight"].cpu(), network.state_dict()["conv1.0.weight"])
