"""Backbones in saved models: weights are in the file, modules are given again."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import skdeepcluster
from skdeepcluster import MiniClustering, StableClusterDiscrimination, save
from skdeepcluster.pretraining import SimCLR
from tests.instances import LOST_CLUSTERS
from tests.persistence.cases import (
    BRIEF,
    BRIEF_CLUSTERER,
    IMAGES,
    TINY,
    Half,
    assert_same_answers,
    dropping_backbone,
    fitted,
    save_and_load,
)
from tests.samples import NOISE

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


def test_a_module_has_to_be_given_again(tmp_path):
    model, data = fitted("module")
    save(model, tmp_path)
    with pytest.raises(
        ValueError,
        match=r"backbone cannot be read: it was a module \(Sequential\).*backbone=\.\.\.",
    ):
        skdeepcluster.load(tmp_path)
    other = dropping_backbone()
    before = [p.clone() for p in other.parameters()]
    again = skdeepcluster.load(tmp_path, backbone=other)
    assert_same_answers(again, model, data)
    assert again.backbone is other
    assert all(torch.equal(p, q) for p, q in zip(before, other.parameters(), strict=True))


def test_weights_have_the_type_in_which_they_were_trained(tmp_path):
    model, data = fitted("half module")
    save(model, tmp_path)
    again = skdeepcluster.load(tmp_path, backbone=Half(5, 6))
    assert_same_answers(again, model, data)
    assert again._model.embedding.backbone.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (nn.Linear(5, 6), r"model\.embedding\.backbone\.0\.bias.* unknown"),
        (
            nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 6)),
            r"backbone\.0\.weight has the shape \(8, 5\) instead of \(7, 5\)",
        ),
    ],
)
def test_a_module_of_another_architecture_is_refused(backbone, message, tmp_path):
    save(fitted("module")[0], tmp_path)
    with pytest.raises(ValueError, match=message):
        skdeepcluster.load(tmp_path, backbone=backbone)


@pytest.mark.parametrize(
    ("data", "pool", "width", "another"),
    [(NOISE, nn.AdaptiveAvgPool1d, 2, 3), (IMAGES, nn.AdaptiveAvgPool2d, 12, 27)],
    ids=["features", "images"],
)
def test_a_module_without_parameters_of_another_width_is_refused(
    data, pool, width, another, tmp_path
):
    model = MiniClustering(**BRIEF_CLUSTERER | {"backbone": pool(2)}).fit(data)
    save(model, tmp_path)
    message = rf"{pool.__name__} returns {another} features .* returned {width}\. .*architecture"
    with pytest.raises(ValueError, match=message):
        skdeepcluster.load(tmp_path, backbone=pool(3))
    again = skdeepcluster.load(tmp_path, backbone=pool(2))
    assert_same_answers(again, model, data)


def test_a_module_that_is_not_needed_is_refused(tmp_path):
    save(fitted("default")[0], tmp_path)
    with pytest.raises(ValueError, match=r"backbone=Linear was given.*backbone='auto'. Leave it"):
        skdeepcluster.load(tmp_path, backbone=nn.Linear(5, 2))


@pytest.mark.parametrize("data", [NOISE, IMAGES], ids=["features", "images"])
def test_the_backbone_of_a_pretraining(data, tmp_path):
    first = SimCLR(**BRIEF, backbone=TINY if data.ndim == 4 else "auto").fit(data)
    parameters = BRIEF_CLUSTERER | {"backbone": first.backbone_}
    model = StableClusterDiscrimination(**parameters).fit(data)
    assert_same_answers(save_and_load(model, tmp_path), model, data)


def test_a_folder_in_timms_layout_is_not_looked_at(tmp_path, monkeypatch):
    folder = tmp_path / "timm"
    timm.models.save_for_hf(timm.create_model(TINY, num_classes=5), folder, safe_serialization=True)
    model = MiniClustering(**BRIEF_CLUSTERER, backbone=folder).fit(IMAGES)
    save(model, tmp_path / "model")
    folder.rename(tmp_path / "elsewhere")
    again = skdeepcluster.load(tmp_path / "model")
    assert again.backbone == folder
    assert_same_answers(again, model, IMAGES)


@pytest.mark.parametrize("small_stem", [True, False])
def test_a_file_of_weights_is_not_looked_at(small_stem, tmp_path):
    file = tmp_path / "weights.safetensors"
    network = timm.create_model(TINY, num_classes=0)
    if small_stem:
        first = MiniClustering(**BRIEF_CLUSTERER, backbone=TINY).fit(IMAGES)
        network = first._model.embedding.backbone[1]
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    model = MiniClustering(**BRIEF_CLUSTERER, backbone=TINY, pretrained=str(file)).fit(IMAGES)
    file.unlink()
    assert_same_answers(save_and_load(model, tmp_path / "model"), model, IMAGES)


def test_published_weights_are_not_fetched(tmp_path, monkeypatch):
    create = timm.create_model
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, pretrained=False, **k: create(name, **k))
        model = MiniClustering(**BRIEF_CLUSTERER, backbone=TINY, pretrained=True).fit(IMAGES)

    def refuse(*args, pretrained=False, **kwargs):
        assert not pretrained
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", refuse)
    assert_same_answers(save_and_load(model, tmp_path), model, IMAGES)


def test_a_stem_that_its_shapes_do_not_tell(tmp_path):
    # The first layers of both have three by three weights; only their strides differ.
    for size in (64, 65):
        images = np.random.default_rng(0).random((4, 3, size, size), dtype=np.float32)
        model = SimCLR(max_epochs=0, backbone="test_efficientnet", random_state=0).fit(images)
        assert_same_answers(save_and_load(model, tmp_path / str(size)), model, images)
    strides = [
        skdeepcluster.load(tmp_path / size).backbone_[1].conv_stem.stride for size in ("64", "65")
    ]
    assert strides == [(1, 1), (2, 2)]
