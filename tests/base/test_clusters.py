"""Clusters are right where those of KMeans are, and lost ones are announced."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs, make_circles
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import (
    CalibratedDeepClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base import _protection
from skdeepcluster.pretraining import SimCLR
from tests.instances import CLUSTERERS, LOST_CLUSTERS, brief
from tests.samples import X, Y


def test_blobs_are_found(sound_estimator):
    assert adjusted_rand_score(Y, sound_estimator.fit_predict(X)) > 0.95


def test_rows_beyond_the_graph_of_neighbors_are_clustered_too(method, monkeypatch):
    for module in (
        "base._building",
        "estimators._proximity",
        "estimators._generative",
    ):
        monkeypatch.setattr(f"skdeepcluster.{module}.GRAPH_ROWS", 60)
    assert adjusted_rand_score(Y, method.fit_predict(X)) > 0.95


def test_large_classes_get_small_weights(method):
    data, y = make_blobs(n_samples=[300, 40, 40], n_features=6, random_state=1)
    model = method.fit(data)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    assert model.class_weights_.argmin() == model.cluster_sizes_.argmax()


def test_never_much_worse_than_kmeans_on_plain_blobs(method):
    data, y = make_blobs(n_samples=300, centers=6, n_features=12, cluster_std=3, random_state=2)
    baseline = adjusted_rand_score(y, KMeans(6, n_init=10, random_state=0).fit_predict(data))
    found = adjusted_rand_score(y, method.set_params(n_clusters=6).fit_predict(data))
    assert found > baseline - 0.02


def unequal_blobs(sizes, n_features):
    """The first so many samples of each of some clear blobs, as users would make them."""
    data, y = make_blobs(
        3 * max(sizes), n_features=n_features, centers=len(sizes), random_state=170
    )
    kept = np.concatenate([np.flatnonzero(y == k)[:size] for k, size in enumerate(sizes)])
    return data[kept], y[kept]


@pytest.mark.parametrize(
    ("sizes", "n_features"),
    [
        ((500, 100, 10), 2),
        pytest.param((500, 100, 10), 10, marks=pytest.mark.slow),
        pytest.param((500, 100, 10), 100, marks=pytest.mark.slow),
        pytest.param(
            *((1000, 50), 6),
            # Which is so.
            marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore:One cluster holds 95%")],
        ),
    ],
)
def test_small_clusters_beside_large_ones_are_found(method, sizes, n_features):
    data, y = unequal_blobs(sizes, n_features)
    model = method.set_params(n_clusters=len(sizes)).fit(data)
    assert adjusted_rand_score(y, model.labels_) > 0.99
    np.testing.assert_array_equal(model.predict(data), model.labels_)


@pytest.mark.parametrize(
    "sizes", [(300, 60, 8), pytest.param((400, 150, 50, 20, 8), marks=pytest.mark.slow)]
)
def test_a_fit_that_goes_back_to_kmeans_answers_with_it(method, monkeypatch, sizes):
    data, _ = unequal_blobs(sizes, 3)
    kept = []

    def plain(candidates, *_):
        kept.append(candidates["plain"])
        return "plain"

    monkeypatch.setattr("skdeepcluster.base._protection.choose_partition", plain)
    model = method.set_params(n_clusters=len(sizes), random_state=1).fit(data)
    (expected,) = kept
    assert adjusted_rand_score(expected.cpu(), model.labels_) == 1


WITHOUT_HEADS = {"plain", "fine"} | {
    f"{name} of the embedding" for name in ("kmeans", "centers", "neighbors", "fine")
}


@pytest.mark.parametrize("estimator", [StableClusterDiscrimination, ProximityDeepClustering])
@pytest.mark.parametrize(
    ("name", "space", "told"),
    [
        ("fine", "features", "a merger of small clusters of the features"),
        ("centers of the embedding", "embedding", "a partition of the embedding"),
    ],
)
def test_so_does_one_that_keeps_a_merger(estimator, name, space, told, monkeypatch, capsys):
    """Methods that have not started from one: of rings no other partition is right."""
    data, y = rings()
    kept, divided, partitions = [], [], _protection.candidate_partitions

    def watched(X, mini, neighbors, *arguments):
        divided.append(X)
        assert mini.centers.shape == (8, X.shape[1])
        assert neighbors.shape == (500, 10)
        return partitions(X, mini, neighbors, *arguments)

    def merger(candidates, features, embedding, *_):
        assert set(candidates) == {"trained", *WITHOUT_HEADS}
        assert features.shape == (500, 2)
        assert torch.equal(*divided, embedding)
        kept.append(candidates[name])
        return name

    monkeypatch.setattr(_protection, "candidate_partitions", watched)
    monkeypatch.setattr(_protection, "choose_partition", merger)
    model = estimator(2, random_state=0, max_epochs=1, verbose=1).fit(data)
    (expected,) = kept
    assert len(expected.unique()) == 2
    assert adjusted_rand_score(expected.cpu(), model.labels_) > 0.98
    assert f"{told} is kept" in capsys.readouterr().out
    if estimator is StableClusterDiscrimination:
        assert model.selected_stage_ == space
    if name == "fine":
        assert adjusted_rand_score(y, model.labels_) > 0.99


def test_classes_that_a_trained_embedding_tells_apart_are_found_there():
    data, y = load_digits(return_X_y=True)
    baseline = adjusted_rand_score(y, KMeans(10, n_init=10, random_state=0).fit_predict(data))
    model = StableClusterDiscrimination(10, calibrate=False, random_state=1).fit(data)
    assert model.selected_stage_ == "embedding"
    assert adjusted_rand_score(y, model.labels_) > baseline + 0.05


def rings():
    return make_circles(500, factor=0.4, noise=0.05, random_state=0)


@pytest.mark.parametrize("estimator", CLUSTERERS)
def test_rings_are_found(estimator):
    data, y = rings()
    assert adjusted_rand_score(y, KMeans(2, n_init=10, random_state=0).fit_predict(data)) < 0.1
    model = estimator(2, random_state=0).fit(data)
    assert adjusted_rand_score(y, model.labels_) > 0.99
    np.testing.assert_array_equal(model.predict(data), model.labels_)


@pytest.mark.parametrize("n_judged", [2**15, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method",
    [method for method in CLUSTERERS if method is not ProximityDeepClustering],
)
def test_so_does_one_on_images(method, n_judged, monkeypatch):
    monkeypatch.setattr("skdeepcluster.base._protection.GRAPH_ROWS", n_judged)
    pixels, _ = load_digits(n_class=3, return_X_y=True)
    images = (pixels[:150] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    kept = []

    def plain(candidates, *_):
        kept.append(candidates["plain"])
        return "plain"

    monkeypatch.setattr("skdeepcluster.base._protection.choose_partition", plain)
    model = brief(method, 3, pretraining=SimCLR(max_epochs=3)).fit(images)
    (expected,) = kept
    if n_judged < len(images):  # the others follow them
        assert adjusted_rand_score(kmeans_on(pixels[:150]), model.labels_) > 0.8
        return
    assert adjusted_rand_score(kmeans_on(pixels[:150]), expected.cpu()) > 0.95
    assert adjusted_rand_score(expected.cpu(), model.labels_) == 1


def kmeans_on(features):
    return KMeans(3, n_init=10, random_state=0).fit_predict(features)


@LOST_CLUSTERS
def test_pixels_of_photographs_are_no_measure(monkeypatch):
    def refuse(*_):
        raise AssertionError("partitions were judged")

    monkeypatch.setattr("skdeepcluster.base._protection.choose_partition", refuse)
    images = np.random.default_rng(0).random((30, 1, 8, 8), dtype=np.float32)
    for views in (["crop", "mirror"], ["neighbor"]):
        model = MiniClustering(2, views=views, pretraining=SimCLR(max_epochs=1), max_epochs=1)
        with pytest.raises(AssertionError) if views == ["neighbor"] else nullcontext():
            model.fit(images)


def test_clusters_that_no_sample_wants_come_last_and_are_announced(method):
    duplicates = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    with pytest.warns(ConvergenceWarning, match="clusters have no sample"):
        model = method.set_params(n_clusters=5).fit(duplicates)
    n_used = len(np.unique(model.labels_))
    assert n_used < 5
    np.testing.assert_array_equal(np.unique(model.labels_), np.arange(n_used))
    assert np.all(model.cluster_sizes_[:n_used] > 0)
    assert np.all(model.cluster_sizes_[n_used:] == 0)
    assert model.predict_proba(duplicates).shape == (40, 5)
    np.testing.assert_array_equal(model.predict(duplicates), model.labels_)


def test_warnings_point_at_the_line_that_called_fit(method):
    with pytest.warns(ConvergenceWarning) as caught:
        method.set_params(n_clusters=5).fit(np.repeat(np.eye(2), 20, axis=0))
    assert {warning.filename for warning in caught} == {__file__}


def given_away():
    """Blobs of which k-means halves the large one: it costs less than to keep the smallest."""
    centers = [[-8.6, 4.4, 5.3], [7.3, -3.6, -7.8], [-2.7, 2.7, 0.2]]
    return make_blobs([900, 90, 10], centers=centers, random_state=1)


@pytest.mark.parametrize("estimator", [MiniClustering, CalibratedDeepClustering])
@pytest.mark.parametrize("contradicted", [True, False])
def test_an_encoder_learns_a_start_that_its_embedding_contradicts(
    estimator, contradicted, monkeypatch
):
    data, y = given_away()
    margins = []

    def choose(candidates, features, embedding, graph, n_clusters, margin=None):
        if "merger" not in candidates:
            return "neighbors"
        margins.append(margin)
        assert set(candidates) == {"merger", "plain"}
        return "merger" if contradicted else "plain"

    partitions = {"kmeans": torch.zeros(len(y)).long(), "neighbors": torch.from_numpy(y)}
    base = "skdeepcluster.base"
    monkeypatch.setattr(
        f"{base}._two_stage.candidate_partitions",
        lambda X, *_: {name: labels.to(X.device) for name, labels in partitions.items()},
    )
    monkeypatch.setattr(f"{base}._two_stage.choose_partition", choose)
    monkeypatch.setattr(f"{base}._protection.choose_partition", lambda *_: "trained")
    model = estimator(3, max_epochs=0, calibrate=False, random_state=0).fit(data)
    assert margins == [1.0]
    assert bool(model._model.embedding.taught) == contradicted
    if contradicted:
        assert adjusted_rand_score(y, model.labels_) == 1


@pytest.mark.parametrize("estimator", [MiniClustering, CalibratedDeepClustering])
def test_a_small_cluster_that_k_means_gives_away_is_found(estimator):
    data, y = given_away()
    assert adjusted_rand_score(y, KMeans(3, n_init=10, random_state=0).fit_predict(data)) < 0.5
    for seed in (0, 3):  # those for which a merger by ten neighbours found nothing
        found = estimator(3, calibrate=False, max_epochs=0, random_state=seed).fit_predict(data)
        assert adjusted_rand_score(y, found) > 0.99
