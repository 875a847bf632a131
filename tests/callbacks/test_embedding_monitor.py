"""EmbeddingMonitor: looks on now and then, needs no labels, changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsClassifier

from skdeepcluster import (
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.callbacks import EmbeddingMonitor
from skdeepcluster.numerics import centroid_silhouette
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR

X, Y = make_blobs(n_samples=60, centers=3, n_features=5, random_state=0)
X = X.astype(np.float32)
ESTIMATORS = [
    BYOL(max_epochs=4, random_state=0),
    MoCo(max_epochs=4, random_state=0),
    SimCLR(max_epochs=4, random_state=0),
    StableClusterDiscrimination(3, max_epochs=4, random_state=0, calibrate=False),
    ProximityDeepClustering(3, max_epochs=4, random_state=0, calibrate=False),
    GenerativeCalibrationClustering(3, max_epochs=4, random_state=0, calibrate=False),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_it_looks_every_few_epochs_and_changes_nothing(estimator):
    alone = clone(estimator).fit(X)
    monitor = EmbeddingMonitor(every=2, n_clusters=3)
    watched = clone(estimator).set_callbacks(monitor).fit(X)
    assert [record["epoch"] for record in monitor.log] == [1, 3]
    assert all(-1 <= record["silhouette"] <= 1 for record in monitor.log)
    assert not any("knn_accuracy" in record for record in monitor.log)
    np.testing.assert_array_equal(watched.transform(X), alone.transform(X))


def test_phases_without_an_embedding_to_show_are_left_out():
    monitor = EmbeddingMonitor(every=1, n_clusters=3)
    model = MiniClustering(3, max_epochs=2, random_state=0).set_callbacks(monitor).fit(X)
    assert {record["phase"] for record in model.history_} > {"clustering"}
    assert [record["phase"] for record in monitor.log] == ["clustering"] * 2


def test_the_accuracy_is_that_of_neighbors_other_than_the_sample_itself():
    monitor = EmbeddingMonitor(every=3, n_neighbors=4, n_clusters=3)
    shuffled = np.random.default_rng(0).permutation(Y)
    model = SimCLR(max_epochs=3, random_state=0).set_callbacks(monitor).fit(X, shuffled)
    embedding = model.transform(X)
    right = 0
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        voters = KNeighborsClassifier(4).fit(embedding[others], shuffled[others])
        right += voters.predict(embedding[[i]])[0] == shuffled[i]
    assert monitor.log[-1]["knn_accuracy"] == pytest.approx(right / len(X))
    assert monitor.log[-1]["knn_accuracy"] < 0.7  # these labels mean nothing


def test_clear_blobs_are_seen():
    monitor = EmbeddingMonitor(every=1, n_clusters=3)
    model = SimCLR(random_state=0).set_callbacks(monitor).fit(X, np.array(["a", "b", "c"])[Y])
    assert monitor.log[-1]["knn_accuracy"] == 1
    embedding = torch.from_numpy(model.transform(X))
    expected = centroid_silhouette(embedding, torch.from_numpy(Y), 3)
    assert monitor.log[-1]["silhouette"] == pytest.approx(expected)


def test_no_more_samples_than_asked_for_are_looked_at():
    class Counting(SimCLR):
        def transform(self, X):
            counts.append(len(X))
            return super().transform(X)

    counts = []
    monitor = EmbeddingMonitor(every=1, n_samples=7, n_clusters=20, n_neighbors=20)
    Counting(max_epochs=2, random_state=0).set_callbacks(monitor).fit(X, Y)
    assert counts == [7, 7]
    assert len(monitor.log) == 2


@pytest.mark.parametrize("container", [pd.DataFrame, np.ndarray.tolist, torch.from_numpy])
def test_samples_may_lie_in_many_containers(container):
    logs = []
    for data in (X, container(X)):
        monitor = EmbeddingMonitor(every=2, n_samples=20)
        SimCLR(max_epochs=2, random_state=0).set_callbacks(monitor).fit(data)
        logs.append(monitor.log)
    assert logs[0] == logs[1] != []


@pytest.mark.parametrize("name", ["every", "n_clusters", "n_neighbors", "n_samples"])
def test_what_is_out_of_range_is_refused(name):
    with pytest.raises(ValueError, match=name):
        EmbeddingMonitor(**{name: 0})
    with pytest.raises(TypeError, match=name):
        EmbeddingMonitor(**{name: 2.5})
