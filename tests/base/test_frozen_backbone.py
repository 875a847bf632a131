"""Of a backbone that arrives trained the features are clustered: each image is embedded once."""

import pickle

import numpy as np
import pytest
import timm
import torch
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import interpolate

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training import _progress
from tests.callback_helpers import KillAfter, Killed
from tests.instances import LOST_CLUSTERS, METHODS

CLUSTERER = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
PIXELS, Y = (part[:150] for part in load_digits(n_class=3, return_X_y=True))
IMAGES = (PIXELS / 16).astype(np.float32).reshape(-1, 1, 8, 8)
ALWAYS_LEARNING = [
    StableClusterDiscrimination,
    ProximityDeepClustering,
    GenerativeCalibrationClustering,
]
SEEN = []


class Counting(nn.Module):
    """Turns an image into its pixels and one number more, and notes how many it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(1, affine=False)  # would learn from any batch in training

    def forward(self, images):
        SEEN.append(len(images))
        pixels = self.norm(images).flatten(1) * self.weight
        return torch.cat([pixels, pixels.square().mean(1, keepdim=True)], dim=1)


class Dividing(nn.Module):
    """Makes no numbers."""

    def forward(self, images):
        return images.flatten(1) / 0


def assert_all_were_seen_once():
    two_that_tell_the_width, *passes = SEEN
    assert two_that_tell_the_width == 2
    assert len(set(passes)) == 1  # the last is filled up
    assert 0 <= sum(passes) - len(IMAGES) < passes[0]


def assert_trained(model):
    assert model._frozen is None
    assert model._model.embedding.backbone[-1].weight.item() != 1


def features():
    """Return what the backbone makes of the images, as a fit sees them."""
    model = frozen(METHODS["default"], max_epochs=0, calibrate=False).fit(IMAGES)
    with torch.no_grad():
        there = torch.from_numpy(IMAGES).to(next(model._frozen.parameters()).device)
        return model._frozen(there).cpu().numpy()


def frozen(method, **parameters):
    return clone(method).set_params(backbone=Counting(), fine_tune=False, **parameters)


@CLUSTERER
def test_images_are_clustered_as_the_array_of_their_features(method):
    of_images = frozen(method).fit(IMAGES)
    of_features = clone(method).fit(features())
    np.testing.assert_array_equal(of_images.labels_, of_features.labels_)
    np.testing.assert_allclose(
        of_images.predict_proba(IMAGES), of_features.predict_proba(features()), atol=1e-4
    )
    assert getattr(of_images, "views_", ["neighbor"]) == ["neighbor"]  # R-DC has none
    assert of_images.image_shape_ == (1, 8, 8)
    assert of_images.n_features_in_ == 64
    assert of_images.backbone_name_ == "Counting"


@CLUSTERER
def test_each_image_is_embedded_once(method):
    SEEN.clear()
    frozen(method, max_epochs=3).fit(IMAGES)
    assert_all_were_seen_once()


@pytest.mark.parametrize("n", [1, 16, 17])
def test_a_single_image_waits_for_few_others(n):
    model = frozen(METHODS["default"], max_epochs=0, device="cpu").fit(IMAGES)
    SEEN.clear()
    model.predict(IMAGES[:n])
    assert set(SEEN) == {16}
    assert len(SEEN) == -(-n // 16)


@CLUSTERER
def test_the_backbone_stays_as_it_came(method):
    model = frozen(method, max_epochs=2).fit(IMAGES)
    assert model._frozen.backbone[-1].weight.item() == 1
    assert not any(weight.requires_grad for weight in model._frozen.parameters())
    assert model._frozen.backbone[-1].norm.num_batches_tracked == 0
    assert model.backbone.weight.requires_grad  # the user's own


@CLUSTERER
def test_new_images_are_embedded_too(method, tmp_path):
    model = frozen(method, max_epochs=2).fit(IMAGES[:100])
    expected = model.predict_proba(IMAGES[100:])
    assert expected.shape == (50, 3)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(IMAGES[100:]), expected)
    skdeepcluster.save(model, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model", backbone=Counting())
    np.testing.assert_array_equal(again.predict_proba(IMAGES[100:]), expected)
    np.testing.assert_array_equal(again.transform(IMAGES), model.transform(IMAGES))
    again.set_params(fine_tune=True)  # for the next fit
    np.testing.assert_array_equal(again.predict(IMAGES), model.predict(IMAGES))


def test_published_weights_see_small_images_enlarged(tmp_path):
    """As they have learned to; what users trained on small images sees them as they are."""
    images = IMAGES.repeat(3, axis=1)  # in colour they are normalised as published
    network = timm.create_model("test_resnet", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    named = MiniClustering(
        3, random_state=0, backbone="test_resnet", pretrained=tmp_path / "weights.pth"
    )
    named.set_params(fine_tune=False).fit(images)
    assert named._frozen.least_side == 128
    large = interpolate(torch.from_numpy(images), (128, 128), mode="bilinear")
    as_given = clone(named).fit(large.numpy())
    with torch.no_grad():
        expected = as_given._frozen.cpu()(large)
        features = named._frozen.cpu()(torch.from_numpy(images))
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-3)
    skdeepcluster.save(named, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(images), named.predict_proba(images))

    module = MiniClustering(3, random_state=0, backbone=network, fine_tune=False).fit(images)
    assert module._frozen.least_side == 0
    small = SimCLR(backbone="test_resnet", max_epochs=1, random_state=0).fit(images)
    torch.save(small.backbone_[-1].state_dict(), tmp_path / "small.pth")
    learned = clone(named).set_params(pretrained=tmp_path / "small.pth").fit(images)
    assert learned._frozen.least_side == 0


def test_a_named_backbone_is_saved_with_its_weights(tmp_path):
    network = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = MiniClustering(
        3,
        random_state=0,
        backbone="test_resnet",
        pretrained=tmp_path / "weights.pth",
        fine_tune=False,
    ).fit(IMAGES)
    assert model.views_ == ["neighbor"]
    assert {record["phase"] for record in model.history_} >= {"pretraining", "clustering"}
    skdeepcluster.save(model, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(IMAGES), model.predict_proba(IMAGES))


@CLUSTERER
def test_a_warm_start_goes_on_with_the_same_features(method):
    model = frozen(method, max_epochs=1, warm_start=True).fit(IMAGES)
    backbone = model._frozen
    model.fit(IMAGES[:90])
    assert model._frozen is backbone
    assert model.predict(IMAGES).shape == (len(IMAGES),)


OTHER = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))


@pytest.mark.parametrize(
    ("parameters", "X"),
    [
        ({"backbone": OTHER}, IMAGES),
        ({}, IMAGES.repeat(3, axis=1)),
        ({}, PIXELS),
    ],
    ids=["another backbone", "more channels", "an array"],
)
def test_a_warm_start_goes_on_with_no_others(parameters, X):
    model = frozen(METHODS["default"], max_epochs=1, warm_start=True).fit(IMAGES)
    with pytest.raises(ValueError, match="warm_start=True goes on from the networks of the last"):
        model.set_params(**parameters).fit(X)


@LOST_CLUSTERS
def test_every_fit_of_images_may_be_the_first_of_warm_starts():
    model = MiniClustering(
        3, warm_start=True, pretraining=SimCLR(max_epochs=1), max_epochs=1, random_state=0
    )
    name = model.fit(IMAGES).backbone_name_
    assert model.fit(IMAGES).backbone_name_ == name in ("small_convnet", "resnet18")


@pytest.mark.parametrize(
    "parameters",
    [{"backbone": Dividing()}, {"n_clusters": 1000}, {"backbone": OTHER, "views": ["crop"]}],
)
def test_a_fit_that_fails_leaves_the_model_as_it_was(parameters):
    model = frozen(METHODS["default"], max_epochs=2).fit(IMAGES)
    with pytest.raises(ValueError):  # noqa: PT011  # each its own
        model.set_params(**parameters).fit(IMAGES)
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)


def test_checkpoints_hold_what_is_trained_alone(tmp_path):
    frozen(METHODS["default"], max_epochs=2, checkpoint_dir=tmp_path).fit(IMAGES)
    backbone = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    sizes = {}
    for name, network in {"small": Counting(), "large": backbone}.items():
        folder = tmp_path / name
        model = frozen(METHODS["default"], max_epochs=1, checkpoint_dir=folder, calibrate=False)
        model.set_params(backbone=network).fit(IMAGES)
        sizes[name] = (folder / "checkpoint.pt").stat().st_size
    n_bytes = 4 * sum(tensor.numel() for tensor in backbone.state_dict().values())
    assert sizes["large"] - sizes["small"] < n_bytes / 2  # wider features, but not the weights


def test_a_fit_resumes_from_a_checkpoint(tmp_path):
    whole = frozen(METHODS["default"], max_epochs=6).fit(IMAGES)
    model = frozen(METHODS["default"], max_epochs=6, checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("clustering", 3)).fit(IMAGES)
    SEEN.clear()
    resumed = model.fit(IMAGES)
    assert_all_were_seen_once()
    np.testing.assert_array_equal(resumed.transform(IMAGES), whole.transform(IMAGES))
    assert len(resumed.history_) == len(whole.history_)


@CLUSTERER
def test_callbacks_watch_it(method):
    monitor = ScoringMonitor(scoring="adjusted_rand_score")
    frozen(method, max_epochs=3).set_callbacks(monitor).fit(IMAGES[:60], Y[:60])
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 3
    assert rows[-1]["adjusted_rand_score"] > 0.4


def test_the_next_fit_may_be_on_an_array():
    model = MiniClustering(3, random_state=0, backbone=Counting()).fit(IMAGES)
    model.set_params(backbone="auto").fit(PIXELS)
    expected = MiniClustering(3, random_state=0).fit(PIXELS)
    np.testing.assert_array_equal(model.predict(PIXELS), expected.labels_)


@pytest.mark.parametrize("method", ALWAYS_LEARNING)
def test_what_no_one_has_trained_has_to_learn(method):
    with pytest.raises(ValueError, match="fine_tune=False asks for a backbone that is used"):
        method(3, fine_tune=False).fit(IMAGES)
    if method is not ProximityDeepClustering:
        with pytest.raises(ValueError, match=r"pretraining=SimCLR\(\) has to learn"):
            method(3, backbone=Counting(), pretraining=SimCLR(), fine_tune=False).fit(IMAGES)
    method(3, fine_tune=False, random_state=0).fit(PIXELS)  # an array has no backbone


@LOST_CLUSTERS
@pytest.mark.parametrize("method", [StableClusterDiscrimination, ProximityDeepClustering])
def test_a_module_is_trained_by_methods_that_need_no_pretraining(method):
    model = method(3, backbone=Counting(), random_state=0, max_epochs=3).fit(IMAGES[:40])
    assert_trained(model)


@pytest.mark.parametrize("method", [MiniClustering, CalibratedDeepClustering])
def test_a_pretraining_that_is_asked_for_trains_the_backbone(method):
    pretraining = SimCLR(max_epochs=1, batch_size=20)
    model = method(3, backbone=Counting(), pretraining=pretraining, random_state=0)
    model.fit(IMAGES[:40])
    assert_trained(model)
    assert model.history_[0]["phase"] == "pretraining"


def test_of_no_length_too():
    """So the objective of the method itself, as published, trains a backbone that was given."""
    model = MiniClustering(3, backbone=Counting(), pretraining=SimCLR(max_epochs=0), fine_tune=True)
    assert_trained(model.set_params(random_state=0, max_epochs=2).fit(IMAGES[:40]))
    assert "fine-tuning" not in {record["phase"] for record in model.history_}


def test_views_of_a_backbone_that_does_not_learn_are_refused():
    with pytest.raises(ValueError, match=r"views=\['crop'\] are made while a backbone learns"):
        MiniClustering(3, backbone=Counting(), views=["crop"], fine_tune=False).fit(IMAGES)


def test_features_have_to_be_finite():
    with pytest.raises(ValueError, match="features of X that are not finite"):
        MiniClustering(3, backbone=Dividing()).fit(IMAGES)


def test_samples_are_generated_as_features():
    model = frozen(METHODS["generative"]).fit(IMAGES)
    assert model.sample(6, random_state=0).shape == (6, 65)


def test_features_of_large_images_can_be_generated():
    images = np.random.default_rng(0).random((20, 1, 72, 72), dtype=np.float32)
    model = GenerativeCalibrationClustering(
        2, backbone=nn.Sequential(nn.AvgPool2d(24), nn.Flatten()), random_state=0
    ).fit(images)
    assert model.sample(1, random_state=0).shape == (1, 9)


def test_one_is_told_how_long_it_takes(capsys):
    frozen(METHODS["default"], verbose=1).fit(IMAGES)
    assert "embedding: " in capsys.readouterr().out


def test_a_long_wait_is_announced(monkeypatch):
    said, now = [], iter([0.0, 20.0, 40.0])
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: next(now))
    countdown = _progress.Countdown("embedding", 1024, said.append)
    countdown(512)
    countdown(1024)
    assert said == ["embedding, about 20 s to go", "embedding: 40 s"]
