"""What every estimator promises its users, on one parametrised list."""

import io
import pickle
import signal
import subprocess
import sys
import warnings
from collections import defaultdict

import joblib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.calibration import ConfidenceHead, confident_in
from skdeepcluster.datasets import ImageFiles
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import CosineHead, PrototypeHead, PrototypePerceptron
from skdeepcluster.pretraining import SimCLR

ESTIMATORS = {
    "default": MiniClustering(3, random_state=0),
    "fine-tuned": MiniClustering(3, random_state=0, fine_tune=True, learning_rate=1e-3),
    "no pretraining": MiniClustering(3, random_state=0, pretraining=None),
    "merged": MiniClustering(3, random_state=0, init="merged"),
    "calibrated": CalibratedDeepClustering(3, random_state=0),
    "one head": CalibratedDeepClustering(
        3, random_state=0, calibration_head=False, confidence_threshold=0.9
    ),
    "random start": CalibratedDeepClustering(
        3, random_state=0, init="random", selection="balanced"
    ),
    "one stage": StableClusterDiscrimination(3, random_state=0),
    "refined": StableClusterDiscrimination(3, random_state=0, init="kmeans", refine=True),
    "random centers": StableClusterDiscrimination(
        3, random_state=0, init="random", constraint="entropy"
    ),
    "proximity": ProximityDeepClustering(3, random_state=0),
    "all at once": ProximityDeepClustering(
        3, random_state=0, filters=None, centroid="medoid", interpolation_weight=0.0
    ),
    "generative": GenerativeCalibrationClustering(3, random_state=0),
    "nothing generated": GenerativeCalibrationClustering(3, random_state=0, generated_ratio=0),
}
# Ablations whose clusters need not be right, nor all be there.
CRIPPLED = {"random start", "random centers"}
LOST_CLUSTERS = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
METHODS = {
    name: ESTIMATORS[name]
    for name in ("default", "calibrated", "one stage", "proximity", "generative")
}
X, Y = make_blobs(n_samples=90, centers=3, n_features=5, random_state=0)
X = X.astype(np.float32)
NOISE = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)  # without clusters
IMAGES = np.random.default_rng(0).integers(0, 128, size=(24, 3, 8, 8), dtype=np.uint8)
IMAGES[::2, :, :4] += 127  # two kinds: the upper or the lower half is bright
IMAGES[1::2, :, 4:] += 127


def crippled_may_lose_clusters(names):
    return [pytest.param(n, marks=LOST_CLUSTERS if n in CRIPPLED else ()) for n in names]


@pytest.fixture(params=crippled_may_lose_clusters(ESTIMATORS))
def estimator(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture(params=[name for name in ESTIMATORS if name not in CRIPPLED])
def sound_estimator(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture(params=METHODS)
def method(request):
    return clone(METHODS[request.param])


def tiny_backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


def image_model(method=MiniClustering, **parameters):
    return method(
        2, backbone=tiny_backbone(), random_state=0, max_epochs=1, pretraining=None, **parameters
    )


IMAGE_METHODS = {
    "default": image_model(),
    # So few steps lead nowhere from a random start; these stay near the start.
    "one stage": image_model(
        StableClusterDiscrimination,
        init="kmeans",
        learning_rate=1e-3,
        center_learning_rate=1e-2,
    ),
}


@pytest.fixture(params=IMAGE_METHODS)
def image_method(request):
    return clone(IMAGE_METHODS[request.param])


# --- the fitted attributes agree with each other -------------------------------------------------


def test_labels_probabilities_and_sizes_agree(estimator):
    labels = estimator.fit_predict(X)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, estimator.labels_)
    np.testing.assert_array_equal(estimator.predict(X), labels)
    probabilities = estimator.predict_proba(X)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(np.bincount(labels, minlength=3), estimator.cluster_sizes_)
    assert estimator.cluster_centers_.shape == (3, estimator.transform(X).shape[1])
    assert estimator.class_weights_.shape == (3,)
    assert np.all(estimator.class_weights_ > 0)


def test_blobs_are_found(sound_estimator):
    assert adjusted_rand_score(Y, sound_estimator.fit_predict(X)) > 0.95


def test_one_cluster(estimator):
    estimator.set_params(n_clusters=1).fit(X)
    assert set(estimator.labels_) == {0}
    np.testing.assert_array_equal(estimator.predict_proba(X), np.ones((len(X), 1)))
    assert estimator.score(X) == pytest.approx(0)


def test_score_is_the_mutual_information(estimator):
    p = estimator.fit(X).predict_proba(X)
    information = 0.0
    for i in range(len(p)):
        for k in range(p.shape[1]):
            if p[i, k] > 0:
                information += p[i, k] / len(p) * np.log(p[i, k] / p[:, k].mean())
    assert estimator.score(X) == pytest.approx(information, rel=1e-6)
    assert estimator.score(X, Y) == estimator.score(X)


def test_history_has_one_record_per_epoch(estimator):
    estimator.fit(X)
    clustering = [r for r in estimator.history_ if r["phase"] == "clustering"]
    assert len(clustering) == estimator.n_iter_ > 0
    assert [r["epoch"] for r in clustering] == list(range(estimator.n_iter_))
    assert all(np.isfinite(r["loss"]) and r["seconds"] > 0 for r in estimator.history_)
    assert estimator.device_ == "cpu"


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


# --- confidences ---------------------------------------------------------------------------------


def heads_own(model, data):
    """Return the softmax of the head that knows best, without the votes."""
    objective = model._objective.eval()
    with torch.no_grad():
        embedding = objective.model.embed(torch.from_numpy(data))
        logits = objective.model.head(embedding)
        labels = logits.argmax(dim=1)
        if getattr(objective, "calibration_head", None) is None:
            return logits.double().softmax(dim=1).numpy()
        opinion = objective.calibration_head(embedding).double().softmax(dim=1)
    return confident_in(labels, opinion).numpy()


def test_rejected_are_exactly_the_samples_below_the_threshold(estimator):
    confidence = estimator.fit(NOISE).predict_proba(NOISE).max(axis=1)
    assert len(np.unique(confidence)) > 20
    # One of the confidences is a threshold, which does not reject its own sample.
    for threshold in (0, 0.2, np.sort(confidence)[45], 0.999, 1, 1.0):
        labels = estimator.predict(NOISE, reject_below=threshold)
        expected = [
            estimator.labels_[i] if confidence[i] >= threshold else -1 for i in range(len(NOISE))
        ]
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(estimator.predict(NOISE, reject_below=0), estimator.labels_)
    np.testing.assert_array_equal(estimator.predict(NOISE, reject_below=None), estimator.labels_)
    assert 0 < (estimator.predict(NOISE, reject_below=np.median(confidence)) == -1).sum() < 46


def test_the_share_of_rejected_samples_is_printed_on_request(capsys):
    model = CalibratedDeepClustering(3, random_state=0).fit(NOISE)
    labels = model.predict(NOISE, reject_below=0.7)
    assert capsys.readouterr().out == ""
    model.set_params(verbose=1).predict(NOISE, reject_below=0.7)
    assert f"{np.mean(labels == -1):.1%} of 90 samples" in capsys.readouterr().out


@pytest.mark.parametrize("threshold", [1.5, -0.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(method, threshold):
    with pytest.raises(ValueError, match="reject_below"):
        method.fit(X).predict(X, reject_below=threshold)


@pytest.mark.parametrize("k", [1, 2, 3, 5, np.int64(2)])
def test_the_top_clusters_are_those_of_the_probabilities(estimator, k):
    p = estimator.fit(NOISE).predict_proba(NOISE)
    clusters, probabilities = estimator.predict_top(NOISE, k)
    assert clusters.shape == probabilities.shape == (90, min(k, 3))
    assert clusters.dtype == np.int64
    assert probabilities.dtype == np.float64
    for i in range(len(NOISE)):
        order = sorted(range(3), key=lambda c: (-p[i, c], c))[:k]
        assert clusters[i].tolist() == order
        assert probabilities[i].tolist() == p[i, order].tolist()
    np.testing.assert_array_equal(clusters[:, 0], estimator.predict(NOISE))


def test_five_top_clusters_are_the_default():
    model = CalibratedDeepClustering(7, random_state=0).fit(NOISE)
    clusters, probabilities = model.predict_top(NOISE)
    assert clusters.shape == (90, 5)
    assert (np.diff(probabilities) <= 0).all()


def test_fewer_than_one_top_cluster_is_refused(method):
    method.fit(X)
    with pytest.raises(ValueError, match="k == 0, must be >= 1"):
        method.predict_top(X, 0)
    with pytest.raises(TypeError, match="k must be an instance of"):
        method.predict_top(X, 1.5)


def test_calibration_changes_the_probabilities_and_nothing_else(estimator):
    calibrated = clone(estimator).fit(NOISE)
    plain = clone(estimator).set_params(calibrate=False).fit(NOISE)
    np.testing.assert_array_equal(plain.labels_, calibrated.labels_)
    np.testing.assert_array_equal(plain.transform(NOISE), calibrated.transform(NOISE))
    np.testing.assert_allclose(plain.predict_proba(NOISE), heads_own(plain, NOISE), atol=1e-6)
    np.testing.assert_allclose(heads_own(calibrated, NOISE), heads_own(plain, NOISE), atol=1e-6)
    p = calibrated.predict_proba(NOISE)
    assert np.abs(p - plain.predict_proba(NOISE)).max() > 0.01
    np.testing.assert_array_equal(p.argmax(axis=1), calibrated.labels_)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


def test_new_samples_have_calibrated_probabilities_too(estimator):
    estimator.fit(NOISE[:60])
    p, labels = estimator.predict_proba(NOISE[60:]), estimator.predict(NOISE[60:])
    np.testing.assert_array_equal(p.argmax(axis=1), labels)
    ranked = np.sort(p, axis=1)
    assert (ranked[:, -1] > ranked[:, -2]).all()
    np.testing.assert_array_equal(p, estimator.predict_proba(NOISE)[60:])


def test_calibration_survives_a_pickle(estimator):
    estimator.fit(NOISE)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(NOISE), estimator.predict_proba(NOISE))
    np.testing.assert_array_equal(
        again.predict(NOISE, reject_below=0.6), estimator.predict(NOISE, reject_below=0.6)
    )


@pytest.mark.parametrize("calibrate", [True, False])
def test_calibration_is_the_last_phase_for_callbacks_and_history(estimator, calibrate):
    class Watch:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                epochs.append(context.parent.task_name)

    epochs = []
    estimator.set_params(calibrate=calibrate).set_callbacks(Watch()).fit(X)
    phases = [record["phase"] for record in estimator.history_]
    assert ("calibration" in phases) == calibrate
    assert phases[-1] == ("calibration" if calibrate else estimator._own_phases()[-1])
    assert epochs == phases


def test_confidences_of_noise_are_lower_than_those_of_blobs(method):
    blobs = clone(method).fit(X).predict_proba(X).max(axis=1)
    noise = method.fit(NOISE).predict_proba(NOISE).max(axis=1)
    assert blobs.mean() > 0.9
    assert noise.mean() < blobs.mean() - 0.2


# --- the same result whatever happens around it --------------------------------------------------


def test_labels_and_order_of_y_are_never_used(estimator):
    labels = clone(estimator).fit(X).labels_
    np.testing.assert_array_equal(clone(estimator).fit(X, Y).labels_, labels)
    np.testing.assert_array_equal(clone(estimator).fit(X, Y[::-1]).labels_, labels)


def test_same_seed_same_bits_and_another_seed_other_bits(estimator):
    first = clone(estimator).fit(X).transform(X)
    np.testing.assert_array_equal(first, clone(estimator).fit(X).transform(X))
    if estimator._projector() is not None:
        assert not np.array_equal(
            first, clone(estimator).set_params(random_state=1).fit_transform(X)
        )


@pytest.mark.parametrize("name", ["default", "one stage"])
def test_two_processes_give_the_same_labels(name):
    program = (
        "import numpy as np; from sklearn.datasets import make_blobs;"
        "import skdeepcluster;"
        "X, _ = make_blobs(n_samples=90, centers=3, n_features=5, random_state=0);"
        f"m = skdeepcluster.{METHODS[name]!r}.fit(X.astype(np.float32));"
        "print(m.labels_.tolist(), m.transform(X.astype(np.float32))[0].tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1


def test_global_state_is_left_alone(estimator):
    np.random.seed(3)  # noqa: NPY002 - the legacy global state is what is tested
    torch.manual_seed(3)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - as above
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    dtype = torch.get_default_dtype()
    estimator.fit(X).predict(X)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 - as above
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == dtype


def test_the_environment_is_left_alone():
    program = (
        "import os; before = dict(os.environ);"
        "import numpy as np; from skdeepcluster import MiniClustering;"
        "MiniClustering(2).fit(np.eye(8)); assert dict(os.environ) == before, "
        "set(os.environ.items()) ^ set(before.items())"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["fine-tuned", "one stage"])
def test_parameters_are_left_alone(name):
    backbone = nn.Linear(5, 4)
    before = [p.clone() for p in backbone.parameters()]
    model = clone(ESTIMATORS[name]).set_params(backbone=backbone)
    parameters = model.get_params()
    model.fit(X)
    assert model.get_params() == parameters
    assert model.backbone is backbone
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))


def test_prediction_does_not_depend_on_the_batch(estimator):
    estimator.fit(X)
    whole = estimator.transform(X)
    np.testing.assert_array_equal(whole[::-1], estimator.transform(X[::-1]))
    np.testing.assert_array_equal(whole[7:8], estimator.transform(X[7:8]))
    many = np.tile(X, (20, 1))  # more rows than one batch of inference
    np.testing.assert_array_equal(estimator.predict(many), np.tile(estimator.labels_, 20))


# --- all the ways in which data may come ---------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.astype(np.float64),
        lambda a: np.asfortranarray(a),
        lambda a: np.flip(np.flip(a, 1).copy(), 1),
        lambda a: a.tolist(),
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).double(),
        lambda a: torch.utils.data.TensorDataset(torch.from_numpy(a), torch.zeros(len(a))),
    ],
    ids=["float64", "Fortran", "negative strides", "list", "tensor", "double tensor", "Dataset"],
)
def test_the_same_numbers_give_the_same_labels(estimator, convert):
    labels = clone(estimator).fit(X).labels_
    converted = convert(X.copy())
    np.testing.assert_array_equal(estimator.fit(converted).labels_, labels)
    np.testing.assert_array_equal(estimator.predict(converted), labels)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, bool])
def test_other_number_types_are_features(dtype):
    values = (X.mean() < X) if dtype is bool else np.clip(X * 10 + 100, 0, 255)
    expected = MiniClustering(3, random_state=0).fit(values.astype(dtype).astype(np.float32))
    model = MiniClustering(3, random_state=0).fit(values.astype(dtype))
    np.testing.assert_array_equal(model.labels_, expected.labels_)


def test_a_read_only_memory_map_is_left_alone(tmp_path, estimator):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(estimator.fit(mapped).labels_, clone(estimator).fit(X).labels_)
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), X)


def test_data_that_do_not_fit_are_streamed_with_the_same_result(estimator, monkeypatch):
    labels = clone(estimator).fit(X).labels_
    monkeypatch.setattr("skdeepcluster.data._sources.free_memory", lambda device: 0)
    wide = X.astype(np.float64)  # single precision would be used where it lies
    np.testing.assert_array_equal(estimator.fit(wide).labels_, labels)
    np.testing.assert_array_equal(estimator.predict(wide), labels)


def test_results_are_written_where_the_user_says(method, tmp_path):
    model = method.fit(X)
    probabilities, labels = model.predict_proba(X), model.predict(X)
    place = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.float64, (90, 3))
    assert model.predict_proba(X, out=place) is place
    np.testing.assert_array_equal(place, probabilities)
    narrow = np.empty((90, 3), np.float16)
    np.testing.assert_array_equal(model.predict_proba(X, out=narrow), probabilities.astype("f2"))
    numbers = np.empty(90, np.int32)
    assert model.predict(X, out=numbers) is numbers
    np.testing.assert_array_equal(numbers, labels)
    model.predict(X, reject_below=1.0, out=numbers)
    assert (numbers == -1).sum() > 0


@pytest.mark.parametrize(
    "out", [np.empty((90, 4)), np.empty((89, 3)), np.empty((90, 3), int), np.empty(90), [0.0]]
)
def test_a_place_for_results_that_does_not_suit_is_refused(out):
    model = MiniClustering(3, random_state=0, max_epochs=0, calibrate=False).fit(X)
    with pytest.raises(ValueError, match=r"out has to be an array of shape \(90, 3\)"):
        model.predict_proba(X, out=out)


def test_rows_beyond_the_graph_of_neighbors_are_clustered_too(method, monkeypatch):
    for module in ("_building", "_discrimination", "_proximity", "_generative"):
        monkeypatch.setattr(f"skdeepcluster.estimators.{module}.GRAPH_ROWS", 60)
    assert adjusted_rand_score(Y, method.fit_predict(X)) > 0.95


@pytest.mark.parametrize("name", METHODS)
@settings(deadline=None, max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 6),
    k=st.integers(1, 5),
    kind=st.sampled_from(["normal", "constant", "duplicates", "zero column", "far", "tiny"]),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_any_small_array_is_clustered(name, n, d, k, kind):
    k = min(k, n)
    rng = np.random.default_rng(n * 100 + d)
    data = rng.normal(size=(n, d))
    if kind == "constant":
        data[:] = 3.0
    elif kind == "duplicates":
        data = data[rng.integers(2, size=n)]
    elif kind == "zero column":
        data[:, 0] = 0
    elif kind == "far":
        data += 1e6
    elif kind == "tiny":
        data *= 1e-20
    model = clone(METHODS[name]).set_params(n_clusters=k).fit(data)
    assert model.labels_.min() == 0
    np.testing.assert_array_equal(np.unique(model.labels_), np.arange(model.labels_.max() + 1))
    assert model.labels_.max() < k
    np.testing.assert_array_equal(model.predict(data), model.labels_)
    assert np.isfinite(model.predict_proba(data)).all()
    assert np.isfinite(model.transform(data)).all()
    assert np.isfinite(model.score(data))


# --- images --------------------------------------------------------------------------------------


def test_images_channels_first_and_last_are_the_same(image_method):
    first = clone(image_method).fit(IMAGES)
    last = image_method.fit(np.moveaxis(IMAGES, 1, 3))
    assert first.image_shape_ == last.image_shape_ == (3, 8, 8)
    np.testing.assert_array_equal(first.labels_, last.labels_)
    np.testing.assert_array_equal(first.predict(np.moveaxis(IMAGES, 1, 3)), first.labels_)


def test_uint8_and_unit_floats_are_the_same_images(image_method):
    as_floats = clone(image_method).fit((IMAGES / 255).astype(np.float32))
    expected = image_method.fit(IMAGES).transform(IMAGES)
    found = as_floats.transform((IMAGES / 255).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_images_with_pretraining_and_a_timm_backbone(image_method, monkeypatch):
    short = skdeepcluster.base._building.Recipe(8, learning_rate=1e-3, image_epochs=1)
    monkeypatch.setattr(SimCLR, "_image_recipe", short)
    model = image_method.set_params(backbone="test_resnet", pretraining="auto").fit(IMAGES)
    assert {r["phase"] for r in model.history_} == {"pretraining", "clustering", "calibration"}
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    again = clone(model).fit(IMAGES)
    np.testing.assert_array_equal(model.transform(IMAGES), again.transform(IMAGES))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_networks_in_lower_precision(sound_estimator, precision, capfd):
    model = sound_estimator.set_params(precision=precision).fit(X)
    assert adjusted_rand_score(Y, model.labels_) == 1
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert capfd.readouterr() == ("", "")


def test_heads_compute_in_single_precision_whatever_the_networks_do(image_method):
    dtypes = defaultdict(set)

    def look(module, inputs, output):
        if isinstance(module, PrototypeHead | PrototypePerceptron | CosineHead | ConfidenceHead):
            dtypes["heads"].add(output.dtype)
        elif isinstance(module, nn.Conv2d):
            dtypes["networks"].add(output.dtype)

    hook = register_module_forward_hook(look)
    try:
        image_method.set_params(precision="bf16-mixed").fit(IMAGES)
    finally:
        hook.remove()
    assert dtypes["heads"] == {torch.float32}
    assert torch.bfloat16 in dtypes["networks"]


def test_a_frozen_backbone_for_images():
    model = image_model(fine_tune=False).fit(IMAGES)
    backbone = model._model.embedding.backbone[1]
    for trained, given_ in zip(backbone.parameters(), model.backbone.parameters(), strict=True):
        assert torch.equal(trained, given_)


def test_weights_from_a_local_file(tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    model = MiniClustering(
        2,
        backbone="test_resnet",
        pretrained=tmp_path / "weights.pt",
        fine_tune=False,
        max_epochs=0,
        random_state=0,
    ).fit(IMAGES)
    loaded = model._model.embedding.backbone[1].state_dict()
    assert torch.equal(loaded["conv1.0.weight"], network.state_dict()["conv1.0.weight"])
    assert not any(r["phase"] == "pretraining" for r in model.history_)


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for number, image in enumerate(IMAGES):
        place = tmp_path / f"class{number % 3}"
        place.mkdir(exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, 2)).save(place / f"{number:02}.png")
    return tmp_path


def test_a_folder_of_images(folder, image_method):
    model = clone(image_method).fit(folder)
    assert len(model.paths_) == len(model.labels_) == len(IMAGES)
    order = [int(path[-6:-4]) for path in model.paths_]
    expected = image_method.fit(IMAGES[order])
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    np.testing.assert_array_equal(model.predict(str(folder)), model.labels_)
    np.testing.assert_array_equal(model.predict(model.paths_[::-1]), model.labels_[::-1])
    np.testing.assert_array_equal(expected.predict(IMAGES[order]), expected.labels_)
    assert not hasattr(model.fit(IMAGES), "paths_")


def test_unreadable_files_are_named_or_skipped_and_listed(folder):
    broken = folder / "class0" / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        image_model().fit(folder)
    with pytest.warns(UserWarning, match="1 unreadable"):
        files = ImageFiles(folder, unreadable="skip")
    model = image_model().fit(files)
    assert [path for path, _ in files.unreadable] == [str(broken)]
    assert str(broken) not in model.paths_
    assert len(model.paths_) == len(model.labels_) == len(IMAGES)


def test_a_folder_that_does_not_fit_into_memory_is_streamed(folder, image_method, monkeypatch):
    labels = clone(image_method).fit(folder).labels_
    monkeypatch.setattr("skdeepcluster.base._validation.free_memory", lambda device: 0)
    image_method.set_params(num_workers=2)
    np.testing.assert_array_equal(image_method.fit(folder).labels_, labels)


# --- pipelines, searches, copies -----------------------------------------------------------------


def test_pipeline(sound_estimator):
    pipeline = make_pipeline(StandardScaler(), sound_estimator).fit(X)
    assert adjusted_rand_score(Y, pipeline.predict(X)) > 0.95
    assert pipeline.predict_proba(X).shape == (90, 3)
    assert pipeline.transform(X).shape[0] == 90


# That estimators travel to other processes is seen with one of them.
@pytest.mark.parametrize(("name", "n_jobs"), [*((name, 1) for name in METHODS), ("default", 2)])
def test_grid_search_on_features(name, n_jobs):
    search = GridSearchCV(clone(METHODS[name]), {"n_clusters": [2, 3]}, cv=2, n_jobs=n_jobs).fit(X)
    assert search.best_params_ == {"n_clusters": 3}
    assert adjusted_rand_score(Y, search.predict(X)) > 0.95


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_on_images(n_jobs):
    search = GridSearchCV(image_model(), {"alignment_weight": [0.0, 0.2]}, cv=2, n_jobs=n_jobs).fit(
        IMAGES
    )
    assert search.predict(IMAGES).shape == (24,)


def copy_by_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


def copy_by_joblib(estimator):
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return joblib.load(buffer)


def copy_by_torch(estimator):
    buffer = io.BytesIO()
    torch.save(estimator, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def test_copies_predict_the_same_and_hold_no_training_data(estimator):
    data = np.tile(X, (100, 60))
    estimator.fit(data)
    for copy in (copy_by_pickle, copy_by_joblib, copy_by_torch):
        np.testing.assert_array_equal(copy(estimator).predict(data), estimator.labels_)
    state = pickle.dumps(estimator)
    parameters = sum(p.numel() for p in estimator._objective.parameters())
    assert len(state) < 8 * parameters + 8 * len(data) + 100_000 < data.nbytes


def test_pickling_leaves_the_estimator_as_it_was(method):
    before = dict(vars(method.fit(X)))
    pickle.dumps(method)
    assert all(vars(method)[name] is value for name, value in before.items())


def test_get_feature_names_out_and_set_output(estimator):
    estimator.set_output(transform="pandas").fit(X)
    frame = estimator.transform(X)
    assert list(frame.columns) == list(estimator.get_feature_names_out())
    assert frame.columns[0] == f"{type(estimator).__name__.lower()}0"


def test_html_repr_and_documentation_link(estimator):
    html = estimator._repr_html_()
    name = type(estimator).__name__
    assert name in html
    assert f"skdeepcluster.{name}.html" in html


# --- training that goes on, stops or fails -------------------------------------------------------


def test_warm_start_goes_on_from_the_last_fit():
    noise = np.random.default_rng(0).normal(size=(90, 5))  # nothing saturates
    model = MiniClustering(3, random_state=0, warm_start=True, max_epochs=0).fit(noise)
    before = model._model.head.weight.clone()
    embedding = model.transform(noise)
    model.set_params(max_epochs=1).fit(noise)
    assert [r["phase"] for r in model.history_ if r["phase"] != "calibration"] == ["clustering"]
    np.testing.assert_array_equal(model.transform(noise), embedding)
    assert not torch.equal(model._model.head.weight, before)
    assert torch.allclose(model._model.head.weight, before, atol=0.1)


@pytest.mark.parametrize("n", [70, 30, 5])  # each fine cluster needs five samples at a start
def test_warm_start_on_fewer_samples(method, n):
    model = method.set_params(warm_start=True).fit(X).fit(X[:n])
    assert len(model.labels_) == n
    assert len(model.fit(X).labels_) == len(X)


@pytest.mark.parametrize("change", [{"n_clusters": 4}, {"n_mini_clusters": 5}, {"reweight": False}])
def test_warm_start_after_a_change_of_parameters(change):
    model = MiniClustering(3, random_state=0, warm_start=True).fit(X)
    model.set_params(**change)
    if "reweight" in change:
        model.fit(X)
        assert model._objective.reweight is False
    else:
        with pytest.raises(ValueError, match="warm_start"):
            model.fit(X)


def test_the_phases_announced_are_those_that_run(method):
    for warm_start in (False, True):  # the second goes on from the first
        model = method.set_params(warm_start=warm_start).fit(X)
        found = list(dict.fromkeys(record["phase"] for record in model.history_))
        assert found == model._phases()


def test_warm_start_refuses_other_samples(method):
    model = method.set_params(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X[:, :4])


# A start is not resumable, so one of those that follow a pretraining tells nothing new.
PHASES = [
    (name, phase)
    for name, estimator in ESTIMATORS.items()
    for phase in estimator._phases()
    if phase != "start" or not estimator._pretrainer()
]


@LOST_CLUSTERS
@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_fit_killed_in_any_phase_resumes_to_the_same_bits(name, phase, tmp_path):
    estimator = clone(ESTIMATORS[name])

    class Killed(Exception):
        pass

    class KillAt:
        def setup(self, estimator, context):
            self.seen = 0

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context):
            self.seen += context.task_name == "epoch" and context.parent.task_name == phase
            if self.seen == 5:
                raise Killed

    whole = clone(estimator).fit(X)
    estimator.set_params(checkpoint_dir=tmp_path)
    killed = clone(estimator).set_callbacks(KillAt())
    with pytest.raises(Killed):
        killed.fit(X)
    resumed = clone(estimator).fit(X)
    np.testing.assert_array_equal(resumed.transform(X), whole.transform(X))
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    assert len(resumed.history_) == len(whole.history_)
    # A finished fit is loaded, not done again.
    np.testing.assert_array_equal(clone(estimator).fit(X).transform(X), whole.transform(X))


def test_a_checkpoint_with_another_module_as_backbone_is_refused(method, tmp_path):
    method.set_params(checkpoint_dir=tmp_path, backbone=nn.Linear(5, 4)).fit(X)
    method.fit(X)  # with the same one
    with pytest.raises(ValueError, match=r"backbone: Linear.* with weights"):
        method.set_params(backbone=nn.Linear(5, 4)).fit(X)


def test_a_checkpoint_of_another_fit_is_refused(method, tmp_path):
    method.set_params(checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match="n_clusters: 3 in the checkpoint, 2 now"):
        clone(method).set_params(n_clusters=2).fit(X)
    with pytest.raises(ValueError, match="content of X"):
        clone(method).fit(X + 1)


@pytest.mark.parametrize("name", ["fine-tuned", "one stage"])
def test_a_loss_that_is_not_finite_raises_and_leaves_a_usable_model(name):
    model = clone(ESTIMATORS[name]).set_params(learning_rate=1e30)
    with (
        pytest.raises(DivergenceError, match="learning_rate"),
        warnings.catch_warnings(action="ignore", category=ConvergenceWarning),
    ):
        model.fit(X)
    assert np.isfinite(model.predict_proba(X)).all()
    np.testing.assert_array_equal(model.predict(X), model.labels_)


def test_batches_without_confident_samples_change_nothing(monkeypatch):
    # Heads that are never sure, and stay so.
    monkeypatch.setattr("skdeepcluster.estimators._mini.FEATURE_LOGIT_SCALE", 0.1)
    slow = skdeepcluster.base._building.Recipe(512, learning_rate=1e-9, max_steps=20)
    monkeypatch.setattr(MiniClustering, "_head_fit", slow)
    model = MiniClustering(3, random_state=0, max_epochs=7).fit(X)
    start = clone(model).set_params(max_epochs=0).fit(X)
    assert model.n_skipped_steps_ == 7
    np.testing.assert_array_equal(model.predict_proba(X), start.predict_proba(X))


@pytest.mark.parametrize("with_y", [True, False])
def test_a_scoring_monitor_sees_every_clustering_epoch(method, with_y):
    monitor = ScoringMonitor(scoring="adjusted_rand_score")
    model = method.set_params(max_epochs=4)
    watched = clone(model).set_callbacks(monitor).fit(X, Y if with_y else None)
    np.testing.assert_array_equal(watched.transform(X), model.fit(X).transform(X))
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 4
    if with_y:
        assert rows[-1]["adjusted_rand_score"] > 0.95


def test_a_callback_can_stop_the_clustering(method):
    class StopAtOnce:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            return context.task_name == "epoch" and context.parent.task_name == "clustering"

    model = method.set_callbacks(StopAtOnce()).fit(X)
    assert model.n_iter_ == 1


def test_ctrl_c_stops_after_the_epoch_with_a_usable_model(method):
    class Interrupt:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context):
            if context.task_name == "epoch" and context.parent.task_name == "clustering":
                signal.raise_signal(signal.SIGINT)

        def on_fit_task_end(self, estimator, context): ...

    model = method.set_callbacks(Interrupt())
    # A process in the background of a shell inherits that Ctrl-C is ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(ConvergenceWarning, match="Interrupted after epoch 1"):
            model.fit(X)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert model.n_iter_ == 1
    assert "calibration" not in {record["phase"] for record in model.history_}
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_array_equal(model.predict_proba(X).argmax(axis=1), model.labels_)
    np.testing.assert_allclose(model.predict_proba(X), heads_own(model, X), atol=1e-6)
    assert adjusted_rand_score(Y, model.labels_) > 0.95


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((9, 2), np.nan), "NaN"),
        (np.full((9, 2), np.inf), "infinity"),
        (torch.full((9, 2), torch.nan), "NaN"),
        (np.zeros((0, 2)), "0 sample"),
        (np.zeros((9, 0)), "0 feature"),
        (np.zeros((1, 2)), "1 sample"),
        (np.zeros(9), "1D array"),
        (np.zeros((9, 2, 2)), "dim 3"),
        (np.zeros((9, 2), dtype=complex), "Complex"),
        (np.array([["a", "b"]] * 9), "could not convert string to float: .*'a'"),
        (np.zeros((2, 2)), "n_samples=2 should be >= n_clusters=3"),
        (
            np.zeros((9, 3, 0, 8), dtype=np.uint8),
            r"X has samples of shape \(3, 0, 8\), which hold no numbers",
        ),
        ([torch.zeros(3), 4], r"X\[1\] is a int, but X\[0\] has shape \(3,\)"),
    ],
)
def test_bad_input_is_refused(data, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MiniClustering(3).fit(data)


def test_samples_of_another_shape_are_refused():
    model = MiniClustering(3, random_state=0).fit(X)
    with pytest.raises(ValueError, match="4 features, but MiniClustering is expecting 5"):
        model.predict(X[:, :4])
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\).*expecting"):
        model.predict(IMAGES)
    with pytest.raises(ValueError, match="fitted on feature arrays"):
        model.predict(["image.png"])
    images = image_model().fit(IMAGES)
    with pytest.raises(ValueError, match=r"\(3, 4, 8\).*expecting.*\(3, 8, 8\)"):
        images.predict(IMAGES[:, :, :4])


def test_unfitted_estimators_say_so(estimator):
    for method in ("predict", "predict_proba", "transform", "score"):
        with pytest.raises(NotFittedError):
            getattr(estimator, method)(X)


def test_a_failed_fit_leaves_the_estimator_usable(sound_estimator):
    with pytest.raises(ValueError, match="NaN"):
        sound_estimator.fit(np.full((9, 2), np.nan))
    assert adjusted_rand_score(Y, sound_estimator.fit_predict(X)) > 0.95


def test_fewer_mini_clusters_than_clusters_are_refused():
    with pytest.raises(ValueError, match="n_mini_clusters=2 should be >= n_clusters=3"):
        MiniClustering(3, n_mini_clusters=2).fit(X)


def test_numbers_beyond_single_precision_are_refused():
    with pytest.raises(ValueError, match="too large for dtype"):
        MiniClustering(3).fit(np.where(np.eye(9) > 0, 1e300, 0.0))


def test_warnings_point_at_the_line_that_called_fit(method):
    with pytest.warns(ConvergenceWarning) as caught:
        method.set_params(n_clusters=5).fit(np.repeat(np.eye(2), 20, axis=0))
    assert {warning.filename for warning in caught} == {__file__}


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match=r"device='gpu'"):
        MiniClustering(3, device="gpu").fit(X)


# --- the lever of the method ---------------------------------------------------------------------


def test_large_classes_get_small_weights(method):
    data, y = make_blobs(n_samples=[300, 40, 40], n_features=6, random_state=1)
    model = method.fit(data)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    assert model.class_weights_.argmin() == model.cluster_sizes_.argmax()


def test_never_much_worse_than_kmeans_on_plain_blobs(method):
    data, y = make_blobs(n_samples=600, centers=6, n_features=12, cluster_std=3, random_state=2)
    baseline = adjusted_rand_score(y, KMeans(6, n_init=10, random_state=0).fit_predict(data))
    found = adjusted_rand_score(y, method.set_params(n_clusters=6).fit_predict(data))
    assert found > baseline - 0.02
