"""RegionCalibrator: scikit-learn's checks, complete, and what it promises beyond them."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdeepcluster.calibration import RegionCalibrator, accuracy_interval, collect_votes
from skdeepcluster.data import _sources
from skdeepcluster.metrics import expected_calibration_error

X, Y = make_blobs(n_samples=300, centers=3, n_features=4, cluster_std=2.5, random_state=0)


def kmeans(k=3):
    return KMeans(k, n_init=1, random_state=0)


CLUSTERERS = {
    "KMeans": kmeans(),
    "GaussianMixture": GaussianMixture(3, random_state=0),
    "AgglomerativeClustering": AgglomerativeClustering(3),
    "DBSCAN": DBSCAN(eps=2.5, min_samples=5),
    "Pipeline": make_pipeline(StandardScaler(), kmeans()),
}
CHECKED = [
    RegionCalibrator(kmeans(), random_state=0),
    RegionCalibrator(AgglomerativeClustering(3), random_state=0, n_voters=2),
    RegionCalibrator(make_pipeline(StandardScaler(), kmeans()), random_state=0, n_voters=2),
]
FURTHER_CHECKS = [
    "check_dataframe_column_names_consistency",
    "check_n_features_in_after_fitting",
]


@parametrize_with_checks(CHECKED)
def test_sklearn_compatible(estimator, check):
    # No expected failures; and a skip is a failure here, so that none can hide.
    try:
        check(estimator)
    except pytest.skip.Exception as skipped:
        pytest.fail(f"skipped: {skipped}")


@pytest.mark.parametrize("check", FURTHER_CHECKS)
def test_further_checks(check):
    getattr(estimator_checks, check)("RegionCalibrator", clone(CHECKED[0]))


@pytest.fixture(params=CLUSTERERS)
def calibrator(request):
    return RegionCalibrator(clone(CLUSTERERS[request.param]), random_state=0)


# --- labels and probabilities --------------------------------------------------------------------


def assert_probabilities_belong_to(labels, probabilities, classes):
    assert probabilities.shape == (len(labels), len(classes))
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(classes[probabilities.argmax(axis=1)], labels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (probabilities >= 0).all()
    ranked = np.sort(probabilities, axis=1)
    assert (ranked[:, -1] > ranked[:, -2]).all()


def test_labels_are_the_clusterers_and_probabilities_agree_with_them(calibrator):
    labels = calibrator.fit_predict(X)
    alone = clone(calibrator.clusterer).fit(X)
    expected = alone.predict(X) if hasattr(alone, "predict") else alone.labels_
    assert labels.dtype == calibrator.labels_.dtype == calibrator.classes_.dtype == np.int64
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(calibrator.labels_, expected)
    np.testing.assert_array_equal(calibrator.predict(X), expected)
    np.testing.assert_array_equal(calibrator.classes_, np.unique(expected))
    probabilities = calibrator.predict_proba(X)
    assert_probabilities_belong_to(labels, probabilities, calibrator.classes_)
    mean = probabilities.max(axis=1).mean()
    assert calibrator.expected_accuracy_ == pytest.approx(mean, abs=1e-5)
    assert calibrator.expected_accuracy_interval_ == accuracy_interval(
        calibrator.expected_accuracy_
    )


def test_new_samples_get_labels_and_probabilities(calibrator):
    calibrator.fit(X[:200])
    labels = calibrator.predict(X[200:])
    if hasattr(calibrator.clusterer_, "predict"):
        np.testing.assert_array_equal(labels, calibrator.clusterer_.predict(X[200:]))
    else:
        distances = np.square(X[200:, None] - X[None, :200]).sum(axis=2)
        np.testing.assert_array_equal(labels, calibrator.labels_[distances.argmin(axis=1)])
    assert_probabilities_belong_to(labels, calibrator.predict_proba(X[200:]), calibrator.classes_)


def test_noise_is_a_label_like_any_other():
    calibrator = RegionCalibrator(DBSCAN(eps=2.5, min_samples=5), random_state=0).fit(X)
    assert calibrator.classes_[0] == -1
    assert len(calibrator.classes_) > 1
    noise = calibrator.labels_ == -1
    assert 0 < noise.sum() < 300
    assert (calibrator.predict_proba(X)[noise].argmax(axis=1) == 0).all()


def test_numbers_of_clusters_may_have_gaps_or_be_one():
    class Strange(KMeans):
        def predict(self, X):
            return super().predict(X) * 7 - 3

    calibrator = RegionCalibrator(Strange(3, n_init=1, random_state=0), random_state=0).fit(X)
    np.testing.assert_array_equal(calibrator.classes_, [-3, 4, 11])
    assert_probabilities_belong_to(
        calibrator.predict(X), calibrator.predict_proba(X), calibrator.classes_
    )
    plain = RegionCalibrator(kmeans(), random_state=0).fit(X)
    np.testing.assert_array_equal(calibrator.predict_proba(X), plain.predict_proba(X))
    one = RegionCalibrator(kmeans(1), random_state=0).fit(X)
    np.testing.assert_array_equal(one.predict_proba(X), np.ones((300, 1)))


def test_samples_do_not_depend_on_their_company_or_the_size_of_a_chunk(calibrator, monkeypatch):
    whole = calibrator.fit(X).predict_proba(X)
    np.testing.assert_allclose(calibrator.predict_proba(X[::-1])[::-1], whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(calibrator.predict_proba(X[7:8]), whole[7:8], rtol=0, atol=1e-12)
    monkeypatch.setattr("skdeepcluster.calibration._calibrator.BLOCK_ROWS", 7)
    np.testing.assert_allclose(calibrator.predict_proba(X), whole, rtol=0, atol=1e-12)


def test_a_head_learns_from_some_samples_where_there_are_many(monkeypatch):
    whole = RegionCalibrator(kmeans(), random_state=0).fit(X)
    monkeypatch.setattr("skdeepcluster.calibration._calibrator.MOST_ROWS", 150)
    some = RegionCalibrator(kmeans(), random_state=0).fit(X)
    np.testing.assert_array_equal(whole.labels_, some.labels_)
    difference = np.abs(whole.predict_proba(X) - some.predict_proba(X))
    assert 0 < difference.mean() < 0.1


# --- how far they can be trusted -----------------------------------------------------------------


def overlapping(seed):
    return make_blobs(1000, 4, centers=6, cluster_std=3.5, random_state=seed)


@pytest.mark.parametrize("seed", range(3))
def test_better_calibrated_than_distances(seed):
    data, y = overlapping(seed)
    calibrator = RegionCalibrator(kmeans(6), random_state=0).fit(data)
    logits = -np.square(calibrator.clusterer_.transform(data))
    naive = np.exp(logits - logits.max(axis=1, keepdims=True))
    naive /= naive.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(naive.argmax(axis=1), calibrator.labels_)
    ours = expected_calibration_error(y, calibrator.predict_proba(data))
    theirs = expected_calibration_error(y, naive)
    assert ours < 0.6 * theirs


def test_confidence_falls_where_clusters_meet():
    data, _ = overlapping(0)
    calibrator = RegionCalibrator(kmeans(6), random_state=0).fit(data)
    confidence = calibrator.predict_proba(data).max(axis=1)
    ranked = np.sort(calibrator.clusterer_.transform(data), axis=1)
    lead = ranked[:, 1] - ranked[:, 0]
    near = lead < np.quantile(lead, 0.2)
    assert confidence[near].mean() < confidence[~near].mean() - 0.1


def test_clear_clusters_are_certain_and_halves_of_a_cluster_are_not():
    data, _ = make_blobs(600, 5, centers=4, cluster_std=0.7, random_state=3)
    certain = RegionCalibrator(kmeans(4), random_state=0).fit(data)
    assert certain.predict_proba(data).max(axis=1).mean() > 0.95

    class Cut(KMeans):
        """A clusterer that fuses the last two of its clusters and cuts the first one in two."""

        def predict(self, X):
            labels = super().predict(X)
            first = (labels == 0) & (X[:, 0] > self.cluster_centers_[0, 0])
            return np.where(first, 3, np.where(labels == 3, 2, labels))

    cut = RegionCalibrator(Cut(4, n_init=1, random_state=0), random_state=0).fit(data)
    confidence = cut.predict_proba(data).max(axis=1)
    means = [confidence[cut.labels_ == k].mean() for k in range(4)]
    assert means[1] > 0.9
    # Of two halves at most one is right, and of two clusters in one as well.
    assert means[0] + means[3] < 1.4
    assert means[2] < 0.8


def test_single_precision_is_kept_and_says_the_same(monkeypatch):
    seen = []
    prepare = RegionCalibrator._prepare

    def watch(self, features):
        seen.append(features.dtype)
        return prepare(self, features)

    monkeypatch.setattr(RegionCalibrator, "_prepare", watch)
    single = X.astype(np.float32)
    model = RegionCalibrator(KMeans(3, n_init=1, random_state=0), random_state=0)
    double = single.astype(np.float64)
    expected = clone(model).fit(double).predict_proba(double)
    assert set(seen) == {np.dtype(np.float64)}
    seen.clear()
    found = model.fit(single).predict_proba(single)
    assert set(seen) == {np.dtype(np.float32)}
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_wide_rows_are_converted_few_at_a_time(monkeypatch):
    wide = np.random.default_rng(0).normal(size=(60, 1000)).astype(np.float32)
    model = RegionCalibrator(KMeans(3, n_init=1, random_state=0), n_voters=2, random_state=0)
    expected = clone(model).fit(wide).predict_proba(wide)
    sizes, square = [], np.square

    def recording(rows):
        sizes.append(len(rows))
        return square(rows)

    monkeypatch.setattr(np, "square", recording)
    monkeypatch.setattr(_sources, "BLOCK_BYTES", 4 * 1000 * 16)
    found = model.fit(wide).predict_proba(wide)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sizes == [16, 16, 16, 12]


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_place_and_scale_of_all_features_do_not_matter(factor):
    found = RegionCalibrator(kmeans(), random_state=0).fit(X).predict_proba(X)
    moved = factor * (X + 100)
    other = RegionCalibrator(kmeans(), random_state=0).fit(moved).predict_proba(moved)
    np.testing.assert_allclose(other, found, atol=0.01)


# --- randomness ----------------------------------------------------------------------------------


def test_same_seed_same_bits_and_another_seed_other_bits(calibrator):
    first = clone(calibrator).fit(X).predict_proba(X)
    np.testing.assert_array_equal(clone(calibrator).fit(X).predict_proba(X), first)
    np.testing.assert_array_equal(calibrator.fit(X).fit(X).predict_proba(X), first)
    other = clone(calibrator).set_params(random_state=1).fit(X)
    assert not np.array_equal(other.predict_proba(X), first)
    np.testing.assert_array_equal(other.labels_, calibrator.labels_)


def test_a_random_state_object_is_drawn_from():
    state = np.random.RandomState(0)
    model = RegionCalibrator(kmeans(), random_state=state)
    first = model.fit(X).predict_proba(X)
    assert not np.array_equal(model.fit(X).predict_proba(X), first)
    again = RegionCalibrator(kmeans(), random_state=np.random.RandomState(0)).fit(X)
    np.testing.assert_array_equal(again.predict_proba(X), first)


def test_global_state_is_left_alone(calibrator):
    np.random.seed(3)  # noqa: NPY002 - the legacy global state is what is tested
    torch.manual_seed(3)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - as above
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    calibrator.fit(X).predict_proba(X)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 - as above
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads


def test_known_classes_are_never_used():
    plain = RegionCalibrator(kmeans(), random_state=0).fit(X).predict_proba(X)
    told = RegionCalibrator(kmeans(), random_state=0).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(told, plain)


def test_as_many_partitions_vote_as_asked(monkeypatch):
    def counting(*args, **kwargs):
        votes = collect_votes(*args, **kwargs)
        counts.append(votes.shape[1])
        return votes

    counts = []
    monkeypatch.setattr("skdeepcluster.calibration._calibrator.collect_votes", counting)
    RegionCalibrator(kmeans(), random_state=0, n_voters=3).fit(X)
    assert counts == [3]


# --- pipelines, searches, copies -----------------------------------------------------------------


def test_a_copy_is_fitted_and_parameters_are_left_alone():
    clusterer = kmeans()
    calibrator = RegionCalibrator(clusterer, random_state=0, n_voters=3)
    calibrator.fit(X)
    assert not hasattr(clusterer, "labels_")
    assert calibrator.clusterer is clusterer
    assert calibrator.clusterer_ is not clusterer
    assert calibrator.get_params()["n_voters"] == 3
    assert not hasattr(clone(calibrator), "clusterer_")


def test_copies_predict_the_same(calibrator):
    calibrator.fit(X)
    again = pickle.loads(pickle.dumps(calibrator))
    np.testing.assert_array_equal(again.predict(X), calibrator.predict(X))
    np.testing.assert_array_equal(again.predict_proba(X), calibrator.predict_proba(X))


def test_training_data_are_not_kept_where_the_clusterer_predicts():
    data = np.tile(X, (50, 20))
    calibrator = RegionCalibrator(GaussianMixture(3, covariance_type="spherical", random_state=0))
    size = len(pickle.dumps(calibrator.fit(data)))
    assert size < 2 * calibrator.labels_.nbytes + 50_000 < data.nbytes


def test_inside_a_pipeline():
    pipeline = make_pipeline(PCA(2), RegionCalibrator(kmeans(), random_state=0)).fit(X)
    step = pipeline[-1]
    assert step.n_features_in_ == 2
    assert_probabilities_belong_to(pipeline.predict(X), pipeline.predict_proba(X), step.classes_)


def test_parameters_of_the_clusterer_can_be_set():
    search = GridSearchCV(
        RegionCalibrator(kmeans(), random_state=0, n_voters=2),
        {"clusterer__n_clusters": [2, 3]},
        scoring=lambda model, data, y=None: -model.clusterer_.inertia_,
        cv=2,
    ).fit(X)
    assert search.best_params_ == {"clusterer__n_clusters": 3}
    assert search.predict_proba(X).shape == (300, 3)


def test_a_second_fit_forgets_the_first():
    calibrator = RegionCalibrator(kmeans(), random_state=0).fit(X)
    calibrator.set_params(clusterer__n_clusters=5).fit(X[:, :2])
    fresh = RegionCalibrator(kmeans(5), random_state=0).fit(X[:, :2])
    assert calibrator.predict_proba(X[:, :2]).shape == (300, 5)
    np.testing.assert_array_equal(calibrator.predict_proba(X[:, :2]), fresh.predict_proba(X[:, :2]))


# --- all the ways in which data may come ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_number_types(calibrator, dtype):
    data = np.clip(X * 5 + 100, 0, 255).astype(dtype)
    before = data.copy()
    if isinstance(calibrator.clusterer, DBSCAN):
        calibrator.set_params(clusterer__eps=12)
    labels = calibrator.fit_predict(data)
    assert_probabilities_belong_to(labels, calibrator.predict_proba(data), calibrator.classes_)
    np.testing.assert_array_equal(data, before)


def test_lists_are_arrays():
    calibrator = RegionCalibrator(kmeans(), random_state=0).fit(X.tolist())
    expected = RegionCalibrator(kmeans(), random_state=0).fit(X)
    np.testing.assert_array_equal(calibrator.predict_proba(X.tolist()), expected.predict_proba(X))


def test_names_of_columns(calibrator):
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    calibrator.fit(frame)
    assert list(calibrator.feature_names_in_) == ["a", "b", "c", "d"]
    if not isinstance(calibrator.clusterer, GaussianMixture | AgglomerativeClustering | DBSCAN):
        assert list(calibrator.clusterer_.feature_names_in_) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(calibrator.predict(frame), calibrator.labels_)
    assert_probabilities_belong_to(
        calibrator.labels_, calibrator.predict_proba(frame), calibrator.classes_
    )
    with pytest.raises(ValueError, match="feature names"):
        calibrator.predict(frame[["b", "a", "c", "d"]])


@pytest.mark.parametrize(
    "data",
    [
        np.ones((20, 3)),
        np.zeros((20, 3)),
        np.repeat(np.eye(3), 20, axis=0),
        np.eye(3),
        np.arange(10.0)[:, None],
        X * [1, 0, 1, 0],
        X * 1e-150,
        X * 1e30,
        X + 1e6,
    ],
    ids=["ones", "zeros", "three rows", "n=K", "narrow", "zero columns", "tiny", "huge", "far"],
)
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_odd_data(data):
    calibrator = RegionCalibrator(kmeans(), random_state=0).fit(data)
    p = calibrator.predict_proba(data)
    assert np.isfinite(p).all()
    np.testing.assert_array_equal(calibrator.classes_[p.argmax(axis=1)], calibrator.labels_)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_voters", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), ("4", TypeError)]
)
def test_a_wrong_number_of_voters_is_refused(n_voters, error):
    with pytest.raises(error, match="n_voters"):
        RegionCalibrator(kmeans(), n_voters=n_voters).fit(X)


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match=f"device='{device}'.*'cpu'"):
        RegionCalibrator(kmeans(), device=device).fit(X)


@pytest.mark.parametrize("clusterer", [StandardScaler(), PCA(2)])
def test_what_has_no_labels_is_refused(clusterer):
    with pytest.raises(TypeError, match=r"clusterer=.*neither predict nor labels_.*KMeans"):
        RegionCalibrator(clusterer).fit(X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((9, 2), np.nan), "NaN"),
        (np.full((9, 2), np.inf), "infinity"),
        (np.zeros((0, 2)), "0 sample"),
        (np.zeros((9, 0)), "0 feature"),
        (np.zeros((1, 2)), "1 sample"),
        (np.zeros(9), "1D array"),
        (np.zeros((9, 2, 2)), "dim 3"),
        (np.zeros((9, 2), dtype=complex), "Complex"),
        (np.zeros((2, 2)), "n_samples=2 should be >= n_clusters=3"),
    ],
)
def test_bad_input_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        RegionCalibrator(kmeans()).fit(data)


def test_samples_of_another_width_are_refused(calibrator):
    calibrator.fit(X)
    for method in (calibrator.predict, calibrator.predict_proba):
        with pytest.raises(ValueError, match="3 features, but RegionCalibrator is expecting 4"):
            method(X[:, :3])


def test_an_unfitted_calibrator_says_so(calibrator):
    for method in (calibrator.predict, calibrator.predict_proba):
        with pytest.raises(NotFittedError):
            method(X)
