"""What only GenerativeCalibrationClustering promises: samples, and its ablations."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from torch import nn

import skdeepcluster
from skdeepcluster import GenerativeCalibrationClustering
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.objectives import GenerativeObjective
from skdeepcluster.pretraining import SimCLR
from tests.instances import brief

X, Y = make_blobs(n_samples=[150, 60, 30], n_features=6, random_state=0)
X += 100.0
IMAGES = np.random.default_rng(0).integers(0, 128, size=(30, 1, 9, 10), dtype=np.uint8)
IMAGES[::2, :, :5] += 127
IMAGES[1::2, :, 5:] += 127


@pytest.fixture(scope="module")
def fitted():
    return GenerativeCalibrationClustering(3, random_state=0).fit(X)


def phase(model, name):
    return [record for record in model.history_ if record["phase"] == name]


def test_samples_of_a_cluster_look_like_it(fitted):
    assert adjusted_rand_score(Y, fitted.labels_) == 1
    for k in range(3):
        samples = fitted.sample(40, cluster=k, random_state=0)
        assert samples.shape == (40, 6)
        assert samples.dtype == np.float64
        assert np.mean(fitted.predict(samples) == k) > 0.9
        own = X[fitted.labels_ == k]
        assert np.linalg.norm(samples.mean(axis=0) - own.mean(axis=0)) < own.std()


def test_samples_of_all_clusters_are_sorted_and_equally_many(fitted):
    samples = fitted.sample(11, random_state=1)
    assert samples.shape == (11, 6)
    labels = np.sort(np.arange(11) % 3)
    assert np.mean(fitted.predict(samples) == labels) > 0.8


def test_the_seed_decides(fitted, tmp_path):
    first = fitted.sample(3, cluster=1, random_state=0)
    np.testing.assert_array_equal(first, fitted.sample(3, cluster=1, random_state=0))
    assert not np.array_equal(first, fitted.sample(3, cluster=1, random_state=1))
    skdeepcluster.save(fitted, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model")
    np.testing.assert_array_equal(again.sample(3, cluster=1, random_state=0), first)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cluster": 3}, ValueError, "cluster == 3, must be <= 2"),
        ({"cluster": -1}, ValueError, "cluster == -1, must be >= 0"),
        ({"cluster": 0.5}, TypeError, "cluster must be an instance"),
        ({"n_samples": 0}, ValueError, "n_samples == 0, must be >= 1"),
    ],
)
def test_what_cannot_be_generated_is_refused(fitted, arguments, error, message):
    with pytest.raises(error, match=message):
        fitted.sample(**arguments)


def test_without_a_generator_nothing_is_generated():
    model = GenerativeCalibrationClustering(3, random_state=0, generated_ratio=0)
    with pytest.raises(NotFittedError):
        model.sample()
    model.fit(X)
    assert adjusted_rand_score(Y, model.labels_) == 1
    assert not phase(model, "generation")
    with pytest.raises(ValueError, match="generated_ratio=0"):
        model.sample()


def test_a_small_share_of_generated_samples_is_one_in_a_batch():
    model = GenerativeCalibrationClustering(3, random_state=0, generated_ratio=1e-3).fit(X)
    assert adjusted_rand_score(Y, model.labels_) == 1
    assert all(0 <= record["reliability"] <= 1 for record in phase(model, "clustering"))


MORE_NOISE = np.random.default_rng(0).normal(size=(240, 5))  # enough for more than one round


@cache
def fitted_by_default():
    default = brief(
        GenerativeCalibrationClustering,
        n_epochs=24,
        generation_epochs=6,
        pretraining=SimCLR(max_epochs=10),
        init="kmeans",  # of noise nothing better than k-means on the features is found
        n_rounds=2,
        calibrate=False,
    )
    return default.fit(MORE_NOISE)


@pytest.mark.parametrize(
    "change",
    [
        {"generated_ratio": 2.0},
        {"generated_ratio": 0.0},
        {"n_rounds": 1},
        {"generated_weight": 0.0},
        {"discrepancy_weight": 1.0},
        {"matching_weight": 0.0},
        {"metric_weight": 0.0},
        {"reliability_weighting": False},
        {"size_weight": 0.0},
        {"guidance": 1.0},
        {"confidence_threshold": 0.0},
        {"max_epochs": 0},
        {"generation_epochs": 1},
        {"generator_learning_rate": 1e-3},
    ],
    ids=str,
)
def test_every_part_can_be_changed(change):
    default = fitted_by_default()
    changed = clone(default).set_params(**change)
    assert not np.array_equal(default.transform(MORE_NOISE), changed.fit_transform(MORE_NOISE))
    if change == {"generation_epochs": 1}:
        assert len(phase(changed, "generation")) == 1


def image_model(**parameters):
    backbone = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    settings = {"generation_epochs": 40, "max_epochs": 3, "batch_size": 10, "random_state": 0}
    untrained = SimCLR(max_epochs=0)  # the module is not to be taken for trained
    return GenerativeCalibrationClustering(
        2, backbone=backbone, pretraining=untrained, **{**settings, **parameters}
    )


def test_images(tmp_path):
    model = image_model(checkpoint_dir=tmp_path).fit(IMAGES)
    assert adjusted_rand_score(np.arange(30) % 2, model.labels_) == 1
    again = image_model(checkpoint_dir=tmp_path)
    again.set_params(backbone=model.backbone).fit(IMAGES)
    np.testing.assert_array_equal(again.transform(IMAGES), model.transform(IMAGES))
    for k in range(2):
        made = model.sample(8, cluster=k, random_state=0)
        assert made.shape == (8, 1, 9, 10)
        assert made.min() >= 0
        assert made.max() <= 255
        own = IMAGES[model.labels_ == k].mean(axis=0)
        other = IMAGES[model.labels_ != k].mean(axis=0)
        assert np.abs(made.mean(axis=0) - own).mean() < np.abs(made.mean(axis=0) - other).mean()


def test_images_that_are_too_large_for_the_generator_are_refused():
    images = np.zeros((4, 1, 8, 65), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(1, 8, 65\).*64 pixels.*generated_ratio=0"):
        image_model().fit(images)
    images[::2, :, :4] = 200
    assert image_model(generated_ratio=0).fit(images).labels_.shape == (4,)


def test_the_generator_learns_on_and_is_relied_upon(fitted):
    records = phase(fitted, "clustering")
    assert records[-1]["reliability"] > 0.9
    assert all("denoising" in record for record in records)


def test_the_generator_forgets_nothing_when_the_clustering_begins():
    images = load_digits().images[:256, None].astype(np.float32) / 16
    parameters = {"generation_epochs": 10, "max_epochs": 6, "generated_ratio": 0.1}
    model = GenerativeCalibrationClustering(
        2, backbone="test_resnet", pretraining=None, calibrate=False, random_state=0, **parameters
    ).fit(images)
    before = phase(model, "generation")[-1]["loss"]
    after = [record["denoising"] for record in phase(model, "clustering")]
    # A new optimiser takes its first steps blindly: at the full rate they cost a multiple of it.
    assert after[0] < 1.2 * before
    assert max(after) < 2 * before


def test_a_generator_that_diverges_names_its_learning_rate():
    model = GenerativeCalibrationClustering(3, random_state=0, generator_learning_rate=1e30)
    with pytest.raises(DivergenceError, match=r"of the generation .*Lower generator_learning_rate"):
        model.fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)


@pytest.mark.parametrize("n_clusters", [7, 9])
def test_small_clusters_are_generated_as_often_as_large_ones(n_clusters, monkeypatch):
    generate, asked = GenerativeObjective.generate, []

    def listen(objective, noise, labels):
        asked.append(torch.bincount(labels, minlength=n_clusters))
        return generate(objective, noise, labels)

    monkeypatch.setattr(GenerativeObjective, "generate", listen)
    model = GenerativeCalibrationClustering(n_clusters, random_state=0, calibrate=False)
    model.fit(np.random.default_rng(0).normal(size=(60, 3)))
    assert asked
    for counts in asked:
        assert len(set(counts.tolist())) == 1
        assert counts.sum() >= 60
