"""Fits are the same whatever was set around them, and whoever computes beside them."""

import threading

import joblib
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from torch import nn

import skdeepcluster
from skdeepcluster import MiniClustering
from skdeepcluster.calibration import RegionCalibrator
from skdeepcluster.data import DatasetSource
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training import intra_op_threads
from tests.instances import CLUSTERERS, EVERYONE, LOST_CLUSTERS, PRETRAINERS, brief
from tests.training.test_surroundings import SURROUNDINGS

X, Y = make_blobs(80, centers=3, n_features=6, random_state=0)
IMAGES = np.random.default_rng(0).integers(0, 128, size=(20, 1, 8, 8), dtype=np.uint8)
IMAGES[::2, :, :4] += 127
# Networks train by the precision of products that the user wants; some CPUs then round sooner.
UNNOTICED = {name: around for name, around in SURROUNDINGS.items() if name != "matrix precision"}
# Clusters are lost by fits as short as these, which is announced, and not what is tested here.
pytestmark = LOST_CLUSTERS


class Noisy(nn.Module):
    """A user's backbone that draws in more ways than one, when it predicts, too."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(6, 8)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.dropout(self.linear(x)).relu() + torch.rand(1, device=x.device)


def answers(estimator, X, seed=0, **parameters):
    """Everything that a fit and the methods after it say."""
    model = brief(estimator, random_state=seed, **parameters).fit(X)
    said = {"transform": model.transform(X)}
    if hasattr(model, "predict"):
        said |= {"labels_": model.labels_, "predict": model.predict(X)}
        said |= {"predict_proba": model.predict_proba(X), "score": np.array(model.score(X))}
    if hasattr(model, "sample"):
        said["sample"] = model.sample(3, random_state=0)
    return said


def assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# --- settings around a call ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_features():
    return {estimator: answers(estimator, X) for estimator in CLUSTERERS + PRETRAINERS}


@pytest.fixture(scope="module")
def on_images():
    return {
        estimator: answers(estimator, IMAGES, backbone="test_resnet") for estimator in CLUSTERERS
    }


@EVERYONE
@pytest.mark.parametrize("surroundings", UNNOTICED.values(), ids=UNNOTICED)
def test_what_is_set_around_a_fit_changes_nothing(on_features, estimator, surroundings):
    with surroundings():
        found = answers(estimator, X)
    assert_same(found, on_features[estimator])


@EVERYONE
def test_products_of_fewer_digits_change_digits_alone(on_features, estimator):
    with SURROUNDINGS["matrix precision"]():
        found = answers(estimator, X)
    if "labels_" in found:
        np.testing.assert_array_equal(found["predict"], found["labels_"])
    for name in ("transform", "predict_proba", "score"):
        if name in found:
            expected = on_features[estimator][name]
            np.testing.assert_allclose(found[name], expected, atol=0.02, err_msg=name)


@pytest.mark.parametrize("estimator", CLUSTERERS)
@pytest.mark.parametrize(
    "surroundings",
    ["autocast", "inference_mode", pytest.param("a default type", marks=pytest.mark.slow)],
)
def test_nor_a_fit_on_images(on_images, estimator, surroundings):
    with SURROUNDINGS[surroundings]():
        found = answers(estimator, IMAGES, backbone="test_resnet")
    assert_same(found, on_images[estimator])


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_a_module_and_a_tensor_of_the_user_s_come_from_there(surroundings):
    def fit(X):
        backbone = nn.Linear(6, 8, bias=False, device="cpu", dtype=torch.float32)
        backbone.weight.data = torch.eye(8, 6, dtype=torch.float32, device="cpu")
        return MiniClustering(3, backbone=backbone, max_epochs=2, random_state=0).fit(X).labels_

    expected = fit(torch.from_numpy(X))
    with surroundings():
        found = fit(torch.from_numpy(X).clone())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_nor_the_calibration_of_another_clusterer(surroundings):
    def probabilities():
        model = RegionCalibrator(KMeans(3, random_state=0), random_state=0).fit(X)
        return model.predict_proba(X)

    expected = probabilities()
    with surroundings():
        found = probabilities()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("surroundings", UNNOTICED.values(), ids=UNNOTICED)
def test_nor_a_model_that_is_written_read_and_trained_on(tmp_path, surroundings):
    model = MiniClustering(3, random_state=0, max_epochs=1, warm_start=True).fit(X)
    skdeepcluster.save(model, tmp_path / "before")
    expected = skdeepcluster.load(tmp_path / "before").fit(X).transform(X)
    with surroundings():
        skdeepcluster.save(model, tmp_path / "inside")
        again = skdeepcluster.load(tmp_path / "inside")
        np.testing.assert_array_equal(again.predict(X), model.labels_)
        np.testing.assert_array_equal(again.fit(X).transform(X), expected)


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_fits_in_threads_equal_the_same_fits_alone(number, real_device):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    jobs = [
        (estimator, seed, parameters)
        for estimator in CLUSTERERS + PRETRAINERS
        for seed in (0, 1)
        for parameters in ({}, {"backbone": Noisy()})
        if parameters or estimator in CLUSTERERS
    ]

    def fit(estimator, seed, parameters):
        said = answers(estimator, X, seed, **parameters)
        return said | {"threads": np.array(torch.get_num_threads())}

    try:
        state = torch.get_rng_state()
        alone = [fit(*job) for job in jobs]
        together = joblib.Parallel(6, prefer="threads")(joblib.delayed(fit)(*job) for job in jobs)
        for found, expected in zip(together, alone, strict=True):
            assert_same(found, expected)
        assert torch.equal(torch.get_rng_state(), state)
        assert intra_op_threads.count() == number
    finally:
        torch.set_num_threads(before)


@EVERYONE
def test_other_threads_draw_as_if_there_were_no_fit(estimator):
    model = brief(estimator, backbone=Noisy())
    torch.manual_seed(5)
    expected = torch.cat([torch.rand(1) for _ in range(2000)])
    torch.manual_seed(5)
    drawn, done = [], threading.Event()

    def draw():
        while not done.is_set() and len(drawn) < 2000:
            drawn.append(torch.rand(1))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        model.fit(X)
    finally:
        done.set()
        thread.join()
    assert drawn
    assert torch.equal(torch.cat(drawn), expected[: len(drawn)])


class Drawing(torch.utils.data.Dataset):
    """Items with noise from torch's global generator, as transforms draw theirs."""

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        return torch.from_numpy(X[number]).float() + 0.1 * torch.randn(6)


def test_training_on_items_that_draw_depends_on_the_seed_alone():
    def losses():
        torch.manual_seed(0)  # for what is drawn outside of training, as the user's own
        model = MiniClustering(3, max_epochs=2, random_state=0).fit(Drawing())
        return [record["loss"] for record in model.history_ if record["phase"] == "pretraining"]

    assert losses() == losses()


def test_items_that_draw_do_so_whichever_thread_reads_them_first():
    def rows(num_workers, seed):
        source = DatasetSource(Drawing(), torch.device("cpu"), num_workers)
        with OwnDraws(seed):
            return source.rows(torch.arange(80))

    state = torch.get_rng_state()
    torch.manual_seed(1)
    expected = rows(2, 0)
    assert torch.equal(rows(5, 0), expected)
    assert not torch.equal(rows(5, 1), expected)
    torch.set_rng_state(state)
