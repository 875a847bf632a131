"""What only an accelerator shows: networks and modules that lie there, and those that come back."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from torch import nn

import skdeepcluster
from skdeepcluster import (
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
)
from skdeepcluster.base import _building, _tuning
from skdeepcluster.base._view_choice import NAMES
from skdeepcluster.calibration import RegionCalibrator, _calibrator
from skdeepcluster.numerics import _widest
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training._steps import Steps
from tests.instances import (
    CLUSTERERS,
    EVERYONE,
    LOST_CLUSTERS,
    PRETRAINERS,
    brief,
    tiny_backbone,
)
from tests.samples import IMAGES, X
from tests.virtual_cuda import CUDA, virtual_cuda


def small_backbone(device):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).to(device)


def quick(estimator, **parameters):
    return brief(estimator, 1, pretraining=SimCLR(max_epochs=1), **parameters)


@LOST_CLUSTERS
@EVERYONE
def test_a_fit_runs_there_and_its_pickle_without(estimator, cuda):
    model = quick(estimator).fit(X)
    assert model.device_ == str(cuda)
    assert next(model._model.parameters()).device == cuda
    embedding = model.transform(X)
    again = pickle.loads(pickle.dumps(model))
    assert next(again._model.parameters()).device.type == "cpu"
    again.set_params(device="cpu")
    np.testing.assert_allclose(again.transform(X), embedding, atol=1e-4)
    if hasattr(model, "labels_"):
        np.testing.assert_array_equal(model.predict(X), model.labels_)
        np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), atol=1e-4)


@LOST_CLUSTERS
@EVERYONE
def test_on_images_too(estimator, cuda):
    model = quick(estimator, backbone=tiny_backbone(), n_clusters=2).fit(IMAGES)
    assert next(model._model.parameters()).device == cuda
    embedding = model.transform(IMAGES)
    again = pickle.loads(pickle.dumps(model)).set_params(device="cpu")
    np.testing.assert_allclose(again.transform(IMAGES), embedding, atol=1e-3)


@pytest.mark.parametrize("estimator", CLUSTERERS)
def test_a_backbone_that_is_left_as_it_came_lies_there_too(estimator, cuda, tmp_path):
    model = brief(estimator, 1, backbone=tiny_backbone(), fine_tune=False, n_clusters=2)
    model.fit(IMAGES)
    assert next(model._frozen.parameters()).device == cuda
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    skdeepcluster.save(model, tmp_path / "model")
    loaded = skdeepcluster.load(tmp_path / "model", backbone=tiny_backbone())
    for again in (loaded, pickle.loads(pickle.dumps(model))):
        assert next(again._frozen.parameters()).device.type == "cpu"
        again.set_params(device="cpu")
        np.testing.assert_allclose(again.transform(IMAGES), model.transform(IMAGES), atol=1e-3)


@LOST_CLUSTERS
@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize("estimator", [MiniClustering, ProximityDeepClustering])
def test_one_that_is_fine_tuned_lies_there_too(estimator, better, cuda, monkeypatch):
    judge = _tuning.separates_better

    def judged(*arguments):
        assert isinstance(judge(*arguments), bool)
        return better

    monkeypatch.setattr(_tuning, "separates_better", judged)
    model = brief(estimator, 1, backbone=tiny_backbone(), fine_tune=True, n_clusters=2)
    model.fit(IMAGES)
    assert model.selected_stage_ == ("fine-tuning" if better else "clustering")
    assert next(model._frozen.parameters()).device == cuda
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)


@pytest.mark.parametrize("estimator", CLUSTERERS)
def test_fits_go_on_from_a_checkpoint_and_from_a_file(estimator, cuda, tmp_path):
    model = quick(estimator, checkpoint_dir=tmp_path / "checkpoint").fit(X)
    again = clone(model).fit(X)  # loaded, not done again
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    skdeepcluster.save(model, tmp_path / "model")
    loaded = skdeepcluster.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.labels_)
    if "warm_start" in loaded.get_params():
        loaded.set_params(warm_start=True, checkpoint_dir=None).fit(X)
        assert next(loaded._model.parameters()).device == cuda


def test_another_clusterer_is_calibrated_there(cuda, monkeypatch):
    devices, vote = set(), _calibrator.collect_votes

    def watched(X, *arguments, **options):
        devices.add(X.device)
        return vote(X, *arguments, **options)

    monkeypatch.setattr(_calibrator, "collect_votes", watched)
    calibrator = RegionCalibrator(KMeans(3, random_state=0), random_state=0).fit(X)
    assert devices == {cuda}
    found = pickle.loads(pickle.dumps(calibrator)).predict_proba(X)
    expected = clone(calibrator).set_params(device="cpu").fit(X).predict_proba(X)
    assert devices == {cuda, torch.device("cpu")}
    np.testing.assert_allclose(found, expected, atol=1e-3)


# Waits per step that each method may have: one more, and a fast card has nothing to do.
MOST_WAITS = 1
# Operations that the host starts per step, on feature arrays and on images: each takes it some
# microseconds, in which a fast card has nothing to do.
MOST_LAUNCHES = {
    "MiniClustering": (102, 243),
    "CalibratedDeepClustering": (159, 561),
    "StableClusterDiscrimination": (260, 317),
    "ProximityDeepClustering": (101, 109),
    "GenerativeCalibrationClustering": (260, 556),
    "SimCLR": (65, 129),
    "MoCo": (78, 146),
    "BYOL": (98, 165),
}


@LOST_CLUSTERS
@pytest.mark.skipif(torch.cuda.is_available(), reason="counted on the virtual device")
@pytest.mark.parametrize("estimator", CLUSTERERS + PRETRAINERS)
@pytest.mark.parametrize("images", [False, True], ids=["features", "images"])
def test_a_step_hardly_waits_and_starts_little(estimator, images, monkeypatch):
    data = IMAGES if images else X[:24]
    parameters = {"backbone": tiny_backbone()} if images else {}
    if estimator is MiniClustering:
        parameters["confidence_threshold"] = 0.0  # a skipped step starts less
    everything = [name for name in NAMES if name != "slight crop"]
    monkeypatch.setattr(_building, "choose_views", lambda *_: everything)
    main = "clustering" if estimator in CLUSTERERS else "pretraining"
    waits, launches, epoch = {}, Counter(), Steps.epoch

    def counted(steps, *arguments):
        before = device.launches
        record = epoch(steps, *arguments)
        if steps.phase.name == main:
            launches[n_steps] += device.launches - before
        return record

    monkeypatch.setattr(Steps, "epoch", counted)
    for n_steps in (2, 4):
        # The module is trained by the method itself, for no other phase has so many steps.
        pretraining = SimCLR(max_epochs=0) if images else None
        parameters |= {"batch_size": 24 // n_steps, "pretraining": pretraining}
        with virtual_cuda() as device:
            brief(estimator, 1, n_clusters=2, calibrate=False, **parameters).fit(data)
        waits[n_steps] = device.waits_of_steps
    more = waits[4] - waits[2]
    assert more.total() / 2 <= MOST_WAITS, more
    assert (launches[4] - launches[2]) / 2 <= MOST_LAUNCHES[estimator.__name__][images]


@LOST_CLUSTERS
@pytest.mark.skipif(torch.cuda.is_available(), reason="counted on the virtual device")
@pytest.mark.parametrize("images", [False, True], ids=["features", "images"])
@pytest.mark.parametrize("estimator", CLUSTERERS + PRETRAINERS)
def test_a_device_without_doubles_is_asked_for_none(estimator, images, monkeypatch):
    monkeypatch.setattr(_widest, "WITHOUT_DOUBLES", {"cuda"})  # as Apple's
    data = IMAGES if images else X.astype(np.float64)
    parameters = {"backbone": tiny_backbone()} if images else {}
    with virtual_cuda() as device:
        model = quick(estimator, n_clusters=2, **parameters).fit(data)
        model.transform(data)
        if hasattr(model, "predict_proba"):
            model.predict_proba(data)
            whole = data if images else (100 * data).astype(np.int64)
            model.fit(torch.from_numpy(whole).to(CUDA))
        if hasattr(model, "sample"):
            model.sample(3, random_state=0)
        assert device.doubles == 0


@LOST_CLUSTERS
@pytest.mark.parametrize("change", ["none", "pickle", "to the CPU", "to the CPU, and predict"])
def test_samples_are_generated_wherever_the_networks_lie(change, cuda):
    model = quick(GenerativeCalibrationClustering, calibrate=False).fit(X)
    expected = model.sample(6, random_state=0)
    if change == "pickle":
        model = pickle.loads(pickle.dumps(model))
    elif change != "none":
        model.set_params(device="cpu")
    if change == "to the CPU, and predict":
        model.predict(X)
    np.testing.assert_allclose(model.sample(6, random_state=0), expected, atol=1e-3)


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_is_readable_without_the_device_of_a_user_s_backbone(nested, cuda):
    backbone = small_backbone(cuda)
    pretraining = SimCLR(max_epochs=1, backbone=backbone) if nested else None
    model = brief(MiniClustering, 1, backbone=backbone, pretraining=pretraining).fit(X)
    again = pickle.loads(pickle.dumps(model))
    modules = [again.backbone, again._model, *([again.pretraining.backbone] if nested else [])]
    assert {p.device.type for module in modules for p in module.parameters()} == {"cpu"}
    assert next(model.backbone.parameters()).device == cuda  # which is the user's
    np.testing.assert_array_equal(again.predict(X), model.labels_)


def test_backbones_on_two_devices_are_the_same(cuda):
    pretraining = SimCLR(max_epochs=1, backbone=small_backbone(cuda))
    model = brief(MiniClustering, 1, backbone=small_backbone("cpu"), pretraining=pretraining)
    assert len(model.fit(X).labels_) == len(X)
