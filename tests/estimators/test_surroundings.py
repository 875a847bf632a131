"""Fits are the same whatever was set around them, whoever computes beside them, and however far
from zero their samples lie."""

import threading

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch import nn

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.calibration import RegionCalibrator
from skdeepcluster.data import DatasetSource
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training import intra_op_threads
from tests.estimators.soundness_helpers import CLUSTERERS, PRETRAINERS
from tests.training.test_surroundings import SURROUNDINGS

X, Y = make_blobs(80, centers=3, n_features=6, random_state=0)
IMAGES = np.random.default_rng(0).integers(0, 128, size=(20, 1, 8, 8), dtype=np.uint8)
IMAGES[::2, :, :4] += 127
SHORT = {
    **{method: {"n_clusters": 3, "max_epochs": 2} for method in CLUSTERERS},
    **{method: {"max_epochs": 2} for method in PRETRAINERS},
}
SHORT[ProximityDeepClustering] |= {"pretraining_epochs": 2}
SHORT[GenerativeCalibrationClustering] |= {"generation_epochs": 2, "n_rounds": 1}
# Clusters are lost by fits as short as these, which is announced, and not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
EVERYONE = pytest.mark.parametrize(
    "estimator", CLUSTERERS + PRETRAINERS, ids=lambda estimator: estimator.__name__
)


class Noisy(nn.Module):
    """A user's backbone that draws in more ways than one, when it predicts, too."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(6, 8)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.dropout(self.linear(x)).relu() + torch.rand(1)


def answers(estimator, X, seed=0, **parameters):
    """Everything that a fit and the methods after it say."""
    model = estimator(**SHORT[estimator], random_state=seed, **parameters).fit(X)
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


# Settings around a call


@pytest.fixture(scope="module")
def on_features():
    return {estimator: answers(estimator, X) for estimator in CLUSTERERS + PRETRAINERS}


@pytest.fixture(scope="module")
def on_images():
    short = {"backbone": "test_resnet"}
    return {estimator: answers(estimator, IMAGES, **short) for estimator in CLUSTERERS}


@EVERYONE
@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_what_is_set_around_a_fit_changes_nothing(on_features, estimator, surroundings):
    with surroundings():
        found = answers(estimator, X)
    assert_same(found, on_features[estimator])


@pytest.mark.parametrize("estimator", CLUSTERERS)
@pytest.mark.parametrize("surroundings", ["autocast", "inference_mode", "a default type"])
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


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_nor_a_model_that_is_written_read_and_trained_on(tmp_path, surroundings):
    model = MiniClustering(3, random_state=0, max_epochs=1, warm_start=True).fit(X)
    skdeepcluster.save(model, tmp_path / "before")
    expected = skdeepcluster.load(tmp_path / "before").fit(X).transform(X)
    with surroundings():
        skdeepcluster.save(model, tmp_path / "inside")
        again = skdeepcluster.load(tmp_path / "inside")
        np.testing.assert_array_equal(again.predict(X), model.labels_)
        np.testing.assert_array_equal(again.fit(X).transform(X), expected)


# Threads


@pytest.mark.parametrize("number", [1, 3])
def test_fits_in_threads_equal_the_same_fits_alone(number):
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
    model = estimator(**SHORT[estimator], backbone=Noisy(), random_state=0)
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


# Numbers


VISITS = np.repeat([0, 1, 2], 40)
NOISE = np.random.default_rng(0).normal(size=120)
FAR = {
    "seconds since 1970": 1.7e9 + 60 * VISITS + 3 * NOISE,
    "Julian dates": 2460000.5 + 0.01 * VISITS + 0.0005 * NOISE,
    "nanoseconds in integers": 1_700_000_000_000_000_000
    + 3_600_000_000_000 * VISITS
    + (1e11 * NOISE).astype(np.int64),
    "far below zero": -4e11 + VISITS + 0.05 * NOISE,
}


@pytest.mark.parametrize("estimator", CLUSTERERS, ids=lambda estimator: estimator.__name__)
@pytest.mark.parametrize("kind", FAR)
def test_samples_far_from_zero_keep_their_differences(estimator, kind):
    far = FAR[kind][:, None]
    model = estimator(3, random_state=0).fit(far)
    assert adjusted_rand_score(VISITS, model.labels_) == 1.0
    np.testing.assert_array_equal(model.predict(far), model.labels_)


@pytest.mark.parametrize(
    "held",
    [
        lambda far: torch.from_numpy(far),
        lambda far: pd.DataFrame({"time": far[:, 0]}),
        lambda far: [torch.from_numpy(row) for row in far],
        lambda far: far.tolist(),
    ],
    ids=["a tensor", "a table", "a Dataset", "lists"],
)
@pytest.mark.parametrize("kind", FAR)
def test_whatever_holds_them(held, kind):
    far = FAR[kind][:, None]
    model = MiniClustering(3, random_state=0, calibrate=False).fit(held(far))
    assert adjusted_rand_score(VISITS, model.labels_) == 1.0
    np.testing.assert_array_equal(model.predict(held(far)), model.labels_)


def test_a_file_in_double_precision_is_read_so(tmp_path):
    far = FAR["Julian dates"][:, None]
    np.save(tmp_path / "far.npy", far)
    model = MiniClustering(3, random_state=0).fit(np.load(tmp_path / "far.npy", mmap_mode="r"))
    assert adjusted_rand_score(VISITS, model.labels_) == 1.0


def test_generated_samples_lie_where_the_data_do():
    far = FAR["seconds since 1970"][:, None]
    model = GenerativeCalibrationClustering(3, random_state=0).fit(far)
    samples = model.sample(30, random_state=0)
    assert samples.dtype == np.float64
    assert abs(samples - far.mean()).max() < 1000


@EVERYONE
@pytest.mark.parametrize("scale", [1e20, 1e36])
def test_a_feature_that_hides_all_others_is_named(estimator, scale):
    table = pd.DataFrame(X, columns=list("abcdef"))
    table["c"] *= scale
    with pytest.warns(UserWarning, match=r"Feature 2 \('c'\) has a standard deviation of ") as log:
        estimator(**SHORT[estimator], random_state=0).fit(table)
    (warning,) = [w for w in log if "Feature" in str(w.message)]
    assert warning.filename == __file__


def test_an_outlier_is_found_in_its_feature():
    outlier = X.copy()
    outlier[7, 3] = 1e20
    with pytest.warns(UserWarning, match="Feature 3 has a standard deviation .*an outlier"):
        MiniClustering(3, random_state=0).fit(outlier)


def test_a_pixel_beside_which_images_are_black_is_told():
    images = (IMAGES / 255).astype(np.float32)
    images[3, 0, 2, 2] = 1e20
    with pytest.warns(UserWarning, match=r"pixels from 0 to 1e\+20, but nearly all lie between"):
        SimCLR(backbone="test_resnet", max_epochs=1, random_state=0).fit(images)


def test_masks_of_few_pixels_are_not_complained_about():
    masks = np.zeros((20, 1, 8, 8), np.float32)
    masks[::2, 0, 3, 3] = 1.0
    SimCLR(backbone="test_resnet", max_epochs=1, random_state=0).fit(masks)


def test_features_of_usual_scales_and_constants_are_not_complained_about():
    table = X * np.array([1, 1e3, 1, 1, 1e-2, 1])
    MiniClustering(3, random_state=0).fit(np.hstack([table, np.full((80, 2), 0.1)]))
    MiniClustering(3, random_state=0).fit(np.hstack([1e5 * X[:, :1], np.full((80, 1), 0.1)]))


def test_a_number_beyond_single_precision_is_located():
    beyond = X.copy()
    beyond[5, 4] = -1e200
    with pytest.raises(ValueError, match=r"sample 5, feature 4\. Rescale X"):
        StableClusterDiscrimination(3).fit(beyond)
    with pytest.raises(ValueError, match=r"sample 5, feature 4\. Rescale X"):
        CalibratedDeepClustering(**SHORT[CalibratedDeepClustering]).fit(X).predict(beyond)
