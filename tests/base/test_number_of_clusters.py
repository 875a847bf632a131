"""``n_clusters="auto"``: more clusters than needed are learned, and cut to the best number."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score

import skdeepcluster
from skdeepcluster import MiniClustering, StableClusterDiscrimination
from skdeepcluster.base import _clusterer, _merging, _tuning
from skdeepcluster.exceptions import DivergenceError
from tests.callback_helpers import Watcher
from tests.instances import CLUSTERERS, LOST_CLUSTERS, METHODS, brief, tiny_backbone
from tests.samples import IMAGES, X, Y

pytestmark = LOST_CLUSTERS
CLUSTERER = pytest.mark.parametrize("method", CLUSTERERS)
MOST = 90 // 4
KNOWN_LATER = ("labels_", "cluster_sizes_", "cluster_centers_", "class_weights_")


@pytest.fixture(scope="module")
def found():
    """Return a way to get a model of each method that has found its number of clusters in X."""
    models = {}

    def get(method):
        if method not in models:
            models[method] = pickle.dumps(method("auto", random_state=0).fit(X))
        return pickle.loads(models[method])

    return get


@CLUSTERER
def test_clear_groups_are_found(method, found):
    model = found(method)
    assert model.n_clusters_ == len(model.cluster_sizes_) == 3
    assert adjusted_rand_score(Y, model.labels_) == 1
    assert model.get_params()["n_clusters"] == clone(model).n_clusters == "auto"
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert model.predict_proba(X).shape == (90, 3)
    assert model.cluster_centers_.shape == (3, model.transform(X).shape[1])


@CLUSTERER
def test_it_is_what_cutting_by_hand_gives(method, found):
    model = found(method)
    fine = method(MOST, random_state=0).fit(X)
    assert list(model.cut_scores_) == list(range(2, MOST + 1))[: len(model.cut_scores_)]
    assert max(model.cut_scores_, key=model.cut_scores_.get) == 3
    assert model.cut_scores_ == pytest.approx(fine.cut_scores(X), abs=1e-6)
    again = model.cut_scores(X)
    assert again == pytest.approx({k: model.cut_scores_[k] for k in again}, abs=1e-6)
    cut = fine.cut(3)
    for name in KNOWN_LATER:
        np.testing.assert_array_equal(getattr(model, name), getattr(cut, name))
    np.testing.assert_array_equal(model.predict_proba(X), cut.predict_proba(X))
    np.testing.assert_array_equal(model.merge_tree_, cut.merge_tree_)
    np.testing.assert_array_equal(model.outlier_score(X), cut.outlier_score(X))


@CLUSTERER
def test_of_many_samples_the_same_are_asked_again(method, monkeypatch):
    monkeypatch.setattr(_merging, "SCORED_ROWS", 30)
    model = brief(method, n_clusters="auto").fit(X)
    again = model.cut_scores(X)
    assert again == pytest.approx({k: model.cut_scores_[k] for k in again}, abs=1e-6)


@CLUSTERER
def test_all_that_was_learned_can_be_had(method, found):
    model = found(method)
    fine = method(MOST, random_state=0).fit(X)
    for k in (4, MOST):
        cut = model.cut(k)
        np.testing.assert_array_equal(cut.predict_proba(X), fine.cut(k).predict_proba(X))
    assert model.cut(MOST).expected_accuracy_ == fine.expected_accuracy_


@CLUSTERER
def test_the_expected_accuracy_is_that_of_the_clusters_that_are_left(method, found):
    model = found(method)
    confidence = model.predict_proba(X).max(axis=1).mean()
    assert model.expected_accuracy_ == pytest.approx(confidence, abs=1e-6)
    low, high = model.expected_accuracy_interval_
    assert low < model.expected_accuracy_ <= high
    assert model.cut(3).expected_accuracy_ == model.expected_accuracy_
    with pytest.raises(AttributeError, match="before clusters were merged"):
        _ = model.cut(2).expected_accuracy_
    unsure = brief(method, n_clusters="auto", calibrate=False).fit(X)
    with pytest.raises(AttributeError, match="calibrate=True"):
        _ = unsure.expected_accuracy_


@CLUSTERER
def test_it_is_kept_in_files(method, found, tmp_path):
    model = found(method)
    skdeepcluster.save(model, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.cut_scores_ == model.cut_scores_
    assert again.expected_accuracy_ == model.expected_accuracy_
    assert again.n_clusters_ == 3
    np.testing.assert_array_equal(again.cut(2).labels_, model.cut(2).labels_)


@CLUSTERER
def test_the_next_fit_has_its_own_number(method, found):
    model = found(method).set_params(n_clusters=4, max_epochs=1).fit(X)
    assert model.n_clusters_ == 4
    assert not hasattr(model, "cut_scores_")
    assert model.expected_accuracy_ == pytest.approx(model._confidence.mean_confidence.item())
    few, _ = make_blobs(24, centers=2, n_features=5, random_state=1)
    model.set_params(n_clusters="auto").fit(few)
    assert list(model.cut_scores_)[-1] <= 24 // 4
    np.testing.assert_array_equal(model.predict(few), model.labels_)


@CLUSTERER
def test_warm_starts_go_on_from_all_clusters(method, found):
    model = found(method).set_params(warm_start=True, max_epochs=1).fit(X)
    assert model.n_clusters_ == model.predict_proba(X).shape[1] == 3
    assert list(model.cut_scores_)[-1] > 3
    message = f"n_samples=20 should be >= n_clusters={MOST}. So many .* warm_start=False"
    with pytest.raises(ValueError, match=message):
        model.fit(X[:20])


@CLUSTERER
@pytest.mark.parametrize("n_samples", [2, 7, 8, 11])
def test_few_samples_have_few_clusters(method, n_samples):
    model = brief(method, n_clusters="auto").fit(X[:n_samples])
    assert 1 <= model.n_clusters_ <= max(n_samples // 4, 1)
    np.testing.assert_array_equal(model.predict(X[:n_samples]), model.labels_)


@CLUSTERER
def test_samples_that_are_all_the_same_are_one_cluster(method):
    model = brief(method, n_clusters="auto").fit(np.ones((60, 3)))
    assert model.n_clusters_ == 1
    assert model.cut_scores_ == {}
    assert model.cluster_sizes_.tolist() == [60]


def test_the_largest_number_is_said_to_be_the_limit():
    many, _ = make_blobs(900, centers=45, n_features=20, cluster_std=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"found 30 clusters, the most .* 900 samples.*cut"):
        model = MiniClustering("auto", random_state=0).fit(many)
    assert model.n_clusters_ == 30
    assert 0 < model.expected_accuracy_ <= 1


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_clusters_that_were_lost_and_merged_are_nothing_to_warn_of():
    """Eight different samples, thirty clusters: nobody but us had asked for as many."""
    data = np.repeat(np.eye(8, 5), 30, axis=0) + np.repeat([0.0, 20.0], 120)[:, None]
    model = MiniClustering("auto", random_state=0).fit(data)
    assert 1 < model.n_clusters_ <= 8
    assert (model.cluster_sizes_ > 0).all()


@CLUSTERER
def test_images_have_a_number(method):
    model = brief(method, 1, n_clusters="auto", backbone=tiny_backbone()).fit(IMAGES)
    # After so few steps from a random start all may be in one cluster, which has no score.
    assert model.n_clusters_ == max(model.cut_scores_, key=model.cut_scores_.get, default=1)
    assert model.cut_scores_ or method is StableClusterDiscrimination
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)


@CLUSTERER
def test_fine_tuning_is_judged_before_clusters_are_merged(method, monkeypatch):
    seen = []

    def judge(partitions, *_):
        seen.append({name: len(np.unique(labels.cpu())) for name, labels in partitions.items()})
        return True

    monkeypatch.setattr(_tuning, "separates_better", judge)
    monkeypatch.setattr(_clusterer, "MOST_CLUSTERS", 4)
    model = brief(
        method, 1, n_clusters="auto", backbone=tiny_backbone(), fine_tune=True, init="kmeans"
    ).fit(IMAGES)
    assert seen == [{"plain": 4, "tuned": 4}]
    assert model.n_clusters_ in model.cut_scores_
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)


def test_a_fit_that_fails_is_cut_as_well():
    model = MiniClustering("auto", random_state=0, fine_tune=True, learning_rate=1e30)
    with pytest.raises(DivergenceError, match="learning_rate"):
        model.fit(X)
    assert model.n_clusters_ == max(model.cut_scores_, key=model.cut_scores_.get, default=1)
    np.testing.assert_array_equal(model.predict(X), model.labels_)


@CLUSTERER
@pytest.mark.parametrize("step", ["_calibrate", "_describe", "_build"])
def test_a_fit_that_is_broken_off_leaves_a_sound_model(method, step, found, monkeypatch, tmp_path):
    def break_off(*_):
        raise KeyboardInterrupt

    model = found(method)
    monkeypatch.setattr(_clusterer.DeepClusterer, step, break_off)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:48])
    if step == "_describe":  # the clusters are there, and not how they may merge
        assert model.n_clusters_ == 48 // 4
        with pytest.raises(NotFittedError, match="under way"):
            model.cut(2)
        return
    if step == "_calibrate":
        assert model.n_clusters_ == max(model.cut_scores_, key=model.cut_scores_.get)
    else:
        assert len(model.labels_) == 90  # as it was
    assert model.predict_proba(X).shape == (90, model.n_clusters_)
    skdeepcluster.save(model, tmp_path / "model")
    np.testing.assert_array_equal(
        skdeepcluster.load(tmp_path / "model").predict(X), model.predict(X)
    )


@CLUSTERER
def test_callbacks_see_no_number_before_it_is_found(method, found):
    class Look(Watcher):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if fitted_estimator is not None:
                seen.append(fitted_estimator)

    seen = []
    found(method).set_callbacks(Look()).set_params(max_epochs=1).fit(X)
    *under_way, ended = seen
    assert under_way
    assert not any(hasattr(snapshot, "n_clusters_") for snapshot in under_way)
    assert ended.n_clusters_ == len(ended.cluster_sizes_)


def test_the_number_is_printed(capsys):
    brief(MiniClustering, n_clusters="auto", verbose=1).fit(X)
    assert f"of up to {MOST}\n" in capsys.readouterr().out


def test_all_clusters_of_the_one_stage_can_be_chosen_again(found):
    model = found(StableClusterDiscrimination)
    fine = model.choose(MOST)
    assert fine.n_clusters_ == MOST
    assert adjusted_rand_score(Y, fine.cut(3).labels_) == 1
    assert fine.expected_accuracy_ == pytest.approx(fine.predict_proba(X).max(axis=1).mean())


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize("number", ["Auto", "many", b"auto"])
def test_no_other_word_is_a_number(method, number):
    with pytest.raises(ValueError, match=r"n_clusters.*'auto'"):
        clone(method).set_params(n_clusters=number).fit(X)


def test_parts_are_of_all_clusters():
    with pytest.raises(ValueError, match=f"n_mini_clusters=5 should be >= n_clusters={MOST}"):
        MiniClustering("auto", n_mini_clusters=5).fit(X)
