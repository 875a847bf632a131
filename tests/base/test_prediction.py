"""Labels, probabilities and scores agree; predictions are ranked, rejected and written as asked."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skdeepcluster import CalibratedDeepClustering, MiniClustering
from tests.instances import fitted
from tests.samples import NOISE, X, Y

# --- what a fitted estimator says agrees ---------------------------------------------------------


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


def test_one_cluster(estimator):
    estimator.set_params(n_clusters=1).fit(X)
    assert set(estimator.labels_) == {0}
    np.testing.assert_array_equal(estimator.predict_proba(X), np.ones((len(X), 1)))
    assert estimator.score(X) == pytest.approx(0)


def test_score_is_the_mutual_information(estimator):
    estimator = fitted(estimator)
    p = estimator.predict_proba(X)
    information = 0.0
    for i in range(len(p)):
        for k in range(p.shape[1]):
            if p[i, k] > 0:
                information += p[i, k] / len(p) * np.log(p[i, k] / p[:, k].mean())
    assert estimator.score(X) == pytest.approx(information, rel=1e-6)
    assert estimator.score(X, Y) == estimator.score(X)


def test_prediction_does_not_depend_on_the_batch(estimator):
    estimator = fitted(estimator)
    whole = estimator.transform(X)
    np.testing.assert_array_equal(whole[::-1], estimator.transform(X[::-1]))
    np.testing.assert_array_equal(whole[7:8], estimator.transform(X[7:8]))
    many = np.tile(X, (20, 1))  # more rows than one batch of inference
    np.testing.assert_array_equal(estimator.predict(many), np.tile(estimator.labels_, 20))


def test_unfitted_estimators_say_so(estimator):
    for method in ("predict", "predict_proba", "transform", "score"):
        with pytest.raises(NotFittedError):
            getattr(estimator, method)(X)


# --- rejected samples ----------------------------------------------------------------------------


def test_rejected_are_exactly_the_samples_below_the_threshold(estimator):
    estimator = fitted(estimator, "NOISE")
    confidence = estimator.predict_proba(NOISE).max(axis=1)
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


@pytest.mark.parametrize(
    ("threshold", "error"),
    [(1.5, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("0.7", TypeError)],
)
def test_a_threshold_that_is_no_probability_is_refused(method, threshold, error):
    with pytest.raises(error, match="reject_below"):
        fitted(method).predict(X, reject_below=threshold)


# --- the most probable clusters ------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5, np.int64(2)])
def test_the_top_clusters_are_those_of_the_probabilities(estimator, k):
    estimator = fitted(estimator, "NOISE")
    p = estimator.predict_proba(NOISE)
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
    method = fitted(method)
    with pytest.raises(ValueError, match="k == 0, must be >= 1"):
        method.predict_top(X, 0)
    with pytest.raises(TypeError, match="k must be an instance of"):
        method.predict_top(X, 1.5)


# --- a place for results -------------------------------------------------------------------------


def test_results_are_written_where_the_user_says(method, tmp_path):
    model = fitted(method)
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
