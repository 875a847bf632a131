"""Samples become unit vectors, and training brings neighbours together."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline

from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from skdeepcluster.training import choose_device
from tests.instances import PRETRAINERS
from tests.pretraining.pretraining_helpers import EPOCHS, METHODS, image_backbone, phases
from tests.samples import IMAGES, NOISE, X, Y


def test_samples_become_unit_vectors(case):
    model, data = case
    embedding = clone(model).fit_transform(data)
    assert embedding.shape == (len(data), 64 if data is NOISE else embedding.shape[1])
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert len(np.unique(embedding, axis=0)) > 3  # no collapse
    np.testing.assert_array_equal(model.fit(data).transform(data), embedding)


@pytest.mark.parametrize(
    ("model", "data", "width"),
    [
        (SimCLR(), IMAGES, 128),
        (MoCo(), IMAGES, 128),
        (BYOL(), IMAGES, 512),
        (BYOL(embedding_dim=7), IMAGES, 7),
        (BYOL(embedding_dim=7), NOISE, 7),
    ],
    ids=str,
)
def test_width_of_the_embedding(model, data, width):
    backbone = image_backbone() if data is IMAGES else "auto"
    model = clone(model).set_params(backbone=backbone, max_epochs=0)
    assert model.fit_transform(data).shape == (len(data), width)


@pytest.mark.parametrize("method", PRETRAINERS)
def test_the_defaults_separate_blobs(method):
    pipeline = make_pipeline(method(random_state=0), KMeans(3, n_init=10, random_state=0))
    assert adjusted_rand_score(Y, pipeline.fit_predict(X)) > 0.95
    np.testing.assert_array_equal(pipeline.predict(X), pipeline[-1].labels_)


@pytest.mark.parametrize("name", METHODS)
def test_training_brings_neighbors_together(name):
    data, y = make_blobs(n_samples=120, centers=4, n_features=20, cluster_std=3.0, random_state=0)
    model = clone(METHODS[name]).set_params(max_epochs=0)
    same = y[:, None] == y

    def contrast(model):
        z = model.fit_transform(data)
        cosines = z @ z.T
        return cosines[same].mean() - cosines[~same].mean()

    assert (
        contrast(model.set_params(max_epochs=40))
        > contrast(clone(model).set_params(max_epochs=0)) + 0.1
    )


def test_history_has_one_record_per_epoch(case):
    model, data = case
    model.fit(data)
    assert phases(model) == ["pretraining"] * EPOCHS
    assert [record["epoch"] for record in model.history_] == list(range(EPOCHS))
    assert all(np.isfinite(r["loss"]) and r["learning_rate"] >= 0 for r in model.history_)
    assert model.n_iter_ == EPOCHS
    assert model.device_ == str(choose_device("auto"))


def test_lines_are_printed_on_request(method, capsys):
    method.fit(X)
    assert capsys.readouterr().out == ""
    method.set_params(verbose=2).fit(X)
    first, *epochs, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{type(method).__name__}: {len(X)} samples of shape (5,), backbone ")
    assert last.startswith(f"pretraining: {EPOCHS} epochs of ")
    assert len(epochs) == EPOCHS
    for number, line in enumerate(epochs, 1):
        assert line.startswith(f"pretraining {number}/{EPOCHS}: loss")


def test_without_epochs_there_is_a_random_embedding(case):
    model, data = case
    model.set_params(max_epochs=0).fit(data)
    assert model.history_ == []
    assert model.n_iter_ == 0
    embedding = model.transform(data)
    assert np.isfinite(embedding).all()
    assert not np.allclose(embedding, clone(model).set_params(max_epochs=3).fit_transform(data))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_samples(case, n):
    model, data = case
    embedding = model.fit_transform(data[:n])
    assert embedding.shape[0] == n
    assert np.isfinite(embedding).all()
    if data is NOISE:
        model.set_params(max_epochs="auto").fit(data[:n])
        assert model.n_iter_ == 6


def test_rows_beyond_the_graph_of_neighbors_are_embedded_too(method, monkeypatch):
    monkeypatch.setattr("skdeepcluster.base._building.GRAPH_ROWS", 60)
    labels = KMeans(3, n_init=10, random_state=0).fit_predict(
        method.set_params(max_epochs=30).fit_transform(X)
    )
    assert adjusted_rand_score(Y, labels) > 0.95


def test_an_embedding_does_not_depend_on_the_batch(case):
    model, data = case
    whole = model.fit_transform(data)
    np.testing.assert_array_equal(model.transform(data[::-1]), whole[::-1])
    np.testing.assert_array_equal(model.transform(data[7:8]), whole[7:8])


@pytest.mark.parametrize("kind", ["memory map", "tensor", "Dataset"])
def test_the_same_numbers_give_the_same_embedding(kind, case, tmp_path):
    model, data = case
    expected = clone(model.set_params(max_epochs=1)).fit_transform(data)
    if kind == "memory map":
        np.save(tmp_path / "X.npy", data)
        converted = np.load(tmp_path / "X.npy", mmap_mode="r")
    elif kind == "tensor":
        converted = torch.from_numpy(data.copy())
    else:
        tensor = torch.from_numpy(data.copy())
        converted = torch.utils.data.TensorDataset(tensor, torch.zeros(len(data)))
    np.testing.assert_array_equal(model.fit_transform(converted), expected)
