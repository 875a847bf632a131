"""What only ProximityDeepClustering promises: no clusters before the end, and its ablations."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from skdeepcluster import ProximityDeepClustering
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.objectives import InterpolationObjective, ProximityObjective
from skdeepcluster.training import Trainer

X, Y = make_blobs(n_samples=120, centers=7, n_features=6, random_state=0)
IMAGES = np.random.default_rng(0).integers(0, 128, size=(30, 1, 10, 10), dtype=np.uint8)
IMAGES[::2, :, :5] += 127
IMAGES[1::2, :, 5:] += 127


def phase(model, name):
    return [record for record in model.history_ if record["phase"] == name]


def test_no_cluster_is_assigned_before_the_end():
    n_clusters = 7  # no other size in these networks
    seen = []

    def look(module, inputs, output):
        if isinstance(module, ProximityObjective) and module.training:
            seen.append(module)
            for name, tensor in module.state_dict().items():
                if "head" in name:
                    assert not tensor.any(), name
                else:
                    assert n_clusters not in tensor.shape, name
                    assert (
                        tensor.is_floating_point()
                        or tensor.dtype == torch.bool
                        or (tensor.ndim == 0)
                    ), name
        if isinstance(module, InterpolationObjective):
            assert not any("head" in name for name in module.state_dict())

    hook = register_module_forward_hook(look)
    try:
        model = ProximityDeepClustering(n_clusters, random_state=0).fit(X)
    finally:
        hook.remove()
    assert seen
    assert model._objective.head.weight.any()


def test_labels_are_those_of_kmeans_on_the_codes():
    model = ProximityDeepClustering(7, random_state=0).fit(X)
    labels = KMeans(7, n_init=10, random_state=0).fit_predict(model.transform(X))
    assert adjusted_rand_score(labels, model.labels_) == 1
    assert adjusted_rand_score(Y, model.labels_) > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_a_large_cluster_is_not_torn_apart_by_its_neighborhoods(seed):
    data, y = make_blobs(n_samples=[300, 40, 40], n_features=6, random_state=seed)
    model = ProximityDeepClustering(3, random_state=seed, calibrate=False).fit(data)
    assert adjusted_rand_score(y, model.labels_) == 1


def test_samples_move_gradually_until_all_have():
    model = ProximityDeepClustering(7, random_state=0, max_epochs=30).fit(X)
    moved = [record["moved"] for record in phase(model, "clustering")]
    assert moved[0] < 0.6
    assert moved[-1] == 1


@cache
def fitted_by_default():
    return ProximityDeepClustering(7, random_state=0, calibrate=False).fit(X)


@pytest.mark.parametrize(
    "change",
    [
        {"filters": None},
        {"filters": "edge"},
        {"centroid": "medoid"},
        {"schedule": "hard"},
        {"interpolation_weight": 0.0},
        {"code_weight": 0.0},
        {"n_neighbors": 3},
        {"max_epochs": 0},
        {"pretraining_epochs": 0},
    ],
    ids=str,
)
def test_every_part_can_be_changed(change):
    default = fitted_by_default()
    changed = clone(default).set_params(**change)
    assert not np.array_equal(default.transform(X), changed.fit_transform(X))
    records = phase(changed, "pretraining") + phase(changed, "clustering")
    if change == {"interpolation_weight": 0.0}:
        assert "critic" not in records[0]
    moved = [[r["moved"] for r in phase(model, "clustering")] for model in (default, changed)]
    if "filters" in change:
        assert moved[1][0] > moved[0][0]
        assert (moved[1][0] == 1) == (change["filters"] is None)
    if "schedule" in change:
        assert moved[1][0] == moved[0][0]
        assert moved[1].index(1) < moved[0].index(1)
    if change == {"max_epochs": 0}:
        assert {record["phase"] for record in records} == {"pretraining"}
    if change == {"pretraining_epochs": 0}:
        assert {record["phase"] for record in records} == {"clustering"}


def image_model(**parameters):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    settings = {"pretraining_epochs": 15, "max_epochs": 5, "batch_size": 10, "random_state": 0}
    return ProximityDeepClustering(2, backbone=backbone, **{**settings, **parameters})


def test_images(tmp_path):
    model = image_model(checkpoint_dir=tmp_path).fit(IMAGES)
    assert adjusted_rand_score(np.arange(30) % 2, model.labels_) == 1
    losses = [record["reconstruction"] for record in phase(model, "pretraining")]
    assert losses[-1] < 0.8 * losses[0]  # of pixels with variance one
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    again = image_model(checkpoint_dir=tmp_path).fit(IMAGES)
    np.testing.assert_array_equal(again.transform(IMAGES), model.transform(IMAGES))
    probabilities = model.predict_proba(IMAGES)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), model.labels_)


def test_a_first_phase_that_diverges_leaves_a_usable_model():
    model = ProximityDeepClustering(3, random_state=0, learning_rate=1e30)
    with pytest.raises(DivergenceError, match="learning_rate"):
        model.fit(X)
    assert np.isfinite(model.predict_proba(X)).all()
    np.testing.assert_array_equal(model.predict(X), model.labels_)


def test_callbacks_of_one_process_do_not_wait_for_the_others(monkeypatch):
    class Look:
        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            looked.append(fitted_estimator.labels_ if hasattr(fitted_estimator, "labels_") else 0)
            return False

        def teardown(self, estimator, context):
            pass

    looked, exchanges = [], []
    monkeypatch.setattr(Trainer, "agreed", lambda _, values: exchanges.append(1) or values)
    model = ProximityDeepClustering(7, random_state=0, calibrate=False)
    clone(model).fit(X)
    without = len(exchanges)
    clone(model).set_callbacks(Look()).fit(X)
    assert looked
    assert len(exchanges) == 2 * without


def test_warm_start_moves_on_from_the_codes_of_the_last_fit():
    model = ProximityDeepClustering(7, random_state=0, warm_start=True, max_epochs=0).fit(X)
    codes = model.transform(X)
    model.fit(X)
    np.testing.assert_array_equal(model.transform(X), codes)
    assert not phase(model, "pretraining")
    model.set_params(max_epochs=5).fit(X)
    assert len(phase(model, "clustering")) == 5
    assert not np.array_equal(model.transform(X), codes)


def test_codes_move_together():
    data, _ = load_digits(n_class=4, return_X_y=True)
    first = ProximityDeepClustering(4, random_state=0, max_epochs=0, calibrate=False).fit(data)
    both = ProximityDeepClustering(4, random_state=0, calibrate=False).fit(data)

    def spread(model):  # the mean distance within clusters over that to the mean of all
        codes, labels = model.transform(data), model.labels_
        within = np.linalg.norm(codes - model.cluster_centers_[labels], axis=1)
        return within.mean() / np.linalg.norm(codes - codes.mean(axis=0), axis=1).mean()

    assert spread(both) < 0.8 * spread(first)
