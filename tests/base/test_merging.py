"""After the fit there can be fewer clusters: copies that predict, save and merge again."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import is_monotonic, is_valid_linkage
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.neighbors import NearestNeighbors

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base import _adjacency, _merging
from skdeepcluster.numerics import evenly_spaced
from skdeepcluster.pretraining import SimCLR
from tests.callback_helpers import Watcher
from tests.instances import CLUSTERERS, LOST_CLUSTERS, METHODS, brief, fitted, tiny_backbone
from tests.samples import IMAGES, X, Y

pytestmark = LOST_CLUSTERS
CLUSTERER = pytest.mark.parametrize("method", CLUSTERERS)
K = 6


def assert_same_answers(model, other, data):
    """Check that two models are the same, as far as anybody can see."""
    for name in ("labels_", "cluster_sizes_", "cluster_centers_", "class_weights_"):
        np.testing.assert_allclose(getattr(model, name), getattr(other, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(data), other.predict_proba(data), atol=1e-6)


@pytest.fixture(scope="module")
def many():
    """Return a way to get a model of each method with more clusters than there are groups in X."""
    models = {}

    def get(method, **parameters):
        key = method, repr(sorted(parameters.items()))
        if key not in models:
            models[key] = pickle.dumps(brief(method, 1, n_clusters=K, **parameters).fit(X))
        return pickle.loads(models[key])

    return get


@CLUSTERER
@pytest.mark.parametrize("calibrate", [True, False])
def test_merged_clusters_answer_as_one(method, calibrate, many):
    model = many(method, calibrate=calibrate)
    merged = model.merge([[4, 1], [2, 5, 3]])
    groups = np.array([0, 1, 2, 2, 1, 2])
    np.testing.assert_array_equal(merged.labels_, groups[model.labels_])
    np.testing.assert_array_equal(merged.predict(X), merged.labels_)
    probabilities = merged.predict_proba(X)
    assert probabilities.shape == (len(X), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), merged.labels_)
    top, _ = merged.predict_top(X, k=2)
    np.testing.assert_array_equal(top[:, 0], merged.labels_)
    assert merged.cluster_sizes_.tolist() == np.bincount(groups, model.cluster_sizes_).tolist()
    np.testing.assert_array_equal(merged.transform(X), model.transform(X))
    for number in range(3):
        mean = model.transform(X)[merged.labels_ == number].mean(axis=0)
        np.testing.assert_allclose(merged.cluster_centers_[number], mean, atol=1e-5)
    members = model.class_weights_[groups == 2]
    expected = max(1 / (1 / members[model.cluster_sizes_[groups == 2] > 0]).sum(), 1)
    assert merged.class_weights_[2] == pytest.approx(expected, rel=1e-6)
    assert model.cut(1).class_weights_ >= 1
    assert merged.score(X) <= np.log(3)


@CLUSTERER
def test_probabilities_add_up(method, many):
    """But for labels that one in six is not enough for, which are ahead by a little more."""
    model = many(method)
    merged = model.merge([[0, 1, 2]])
    single = model.predict_proba(X)
    summed = np.column_stack([single[:, :3].sum(axis=1), single[:, 3:]])
    sure = single.max(axis=1) > 0.5
    assert sure.mean() > 0.3
    np.testing.assert_allclose(merged.predict_proba(X)[sure], summed[sure], atol=1e-5)


@CLUSTERER
def test_a_cut_is_a_way_along_the_tree(method, many):
    model = many(method)
    tree = model.merge_tree_
    assert is_valid_linkage(tree)
    assert is_monotonic(tree)
    first, second = tree[0, :2].astype(int)
    cut = model.cut(K - 1)
    together = np.isin(model.labels_, [first, second])
    assert len(np.unique(cut.labels_[together])) == 1
    for k in range(1, K + 1):
        direct = model.cut(k)
        assert len(direct.cluster_sizes_) == k
        assert_same_answers(cut.cut(min(k, K - 1)), model.cut(min(k, K - 1)), X)
    assert_same_answers(model.cut(K), model, X)
    assert model.cut(1).merge_tree_.shape == (0, 4)
    np.testing.assert_array_equal(model.cut(1).predict_proba(X), np.ones((len(X), 1)))


@CLUSTERER
def test_a_merged_copy_keeps_what_it_is(method, many, tmp_path):
    model = many(method)
    before = model.predict_proba(X)
    merged = model.cut(4).merge([[0, 2]])
    skdeepcluster.save(merged, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(merged)), skdeepcluster.load(tmp_path / "model")):
        assert_same_answers(again, merged, X)
        np.testing.assert_array_equal(again.merge_tree_, merged.merge_tree_)
        np.testing.assert_array_equal(again.outlier_score(X), model.outlier_score(X))
        assert_same_answers(again.cut(2), merged.cut(2), X)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert clone(merged).get_params()["n_clusters"] == K


@CLUSTERER
def test_a_fit_forgets_what_was_merged(method, many):
    merged = many(method).cut(2)
    again = merged.fit(X)
    assert len(again.cluster_sizes_) == K
    np.testing.assert_array_equal(again.labels_, many(method).labels_)
    merged = many(method).cut(2).set_params(warm_start=True).fit(X)
    assert len(merged.cluster_sizes_) == merged.predict_proba(X).shape[1] == K


@CLUSTERER
def test_clusters_that_were_torn_come_together(method):
    """Samples of three clear groups, fitted as six: their tree knows the three."""
    model = clone(next(m for m in METHODS.values() if type(m) is method)).set_params(n_clusters=6)
    assert adjusted_rand_score(Y, model.fit(X).cut(3).labels_) == 1


@CLUSTERER
def test_the_number_of_clear_groups_has_the_highest_score(method):
    model = clone(next(m for m in METHODS.values() if type(m) is method)).set_params(n_clusters=7)
    scores = model.fit(X).cut_scores(X)
    assert list(scores) == [2, 3, 4, 5, 6, 7][: len(scores)]
    assert max(scores, key=scores.get) == 3


def test_scores_are_the_silhouette_and_half_the_modularity():
    model = brief(METHODS["default"].__class__, 1, n_clusters=K).fit(X)
    prepared = copy.deepcopy(model._model.prepare).cpu()(torch.from_numpy(X)).numpy()
    neighbors = NearestNeighbors(n_neighbors=10).fit(prepared).kneighbors(return_distance=False)
    graph = np.zeros((len(X), len(X)))
    graph[np.arange(len(X))[:, None], neighbors] = 1
    graph = (graph + graph.T) / 2
    degrees, total = graph.sum(axis=1), graph.sum()
    for k, score in model.cut_scores(X).items():
        labels = model.cut(k).labels_
        same = labels[:, None] == labels
        modularity = ((graph - np.outer(degrees, degrees) / total) * same).sum() / total
        silhouette = silhouette_score(prepared, labels)
        assert score == pytest.approx(silhouette + modularity / 2, abs=1e-4)


def test_some_of_the_samples_are_enough_for_scores(monkeypatch):
    model = brief(METHODS["default"].__class__, 1, n_clusters=K).fit(X)
    monkeypatch.setattr(_merging, "SCORED_ROWS", 30)
    assert model.cut_scores(X) == pytest.approx(model.cut_scores(X[evenly_spaced(len(X), 30)]))
    assert model.cut_scores(X[:1]) == {}
    assert model.cut(1).cut_scores(X) == {}
    with pytest.raises(ValueError, match="features"):
        model.cut_scores(X[:, :3])


@CLUSTERER
def test_images_merge_in_the_embedding_or_by_the_features_they_have(method):
    model = brief(method, 1, n_clusters=3, backbone=tiny_backbone()).fit(IMAGES)
    cut = model.cut(2)
    np.testing.assert_array_equal(cut.predict(IMAGES), cut.labels_)
    assert all(np.isfinite(score) for score in model.cut_scores(IMAGES).values())


def test_neighbors_are_counted_in_the_features():
    model = fitted(METHODS["default"], to="X").merge([])
    prepared = copy.deepcopy(model._model.prepare).cpu()(torch.from_numpy(X)).numpy()
    neighbors = NearestNeighbors(n_neighbors=10).fit(prepared).kneighbors(return_distance=False)
    ours, theirs = np.repeat(model.labels_, 10), model.labels_[neighbors].ravel()
    expected = np.zeros((3, 3), dtype=int)
    np.add.at(expected, (np.minimum(ours, theirs), np.maximum(ours, theirs)), 1)
    assert {tuple(row) for row in model._neighbor_counts.tolist()} == {
        (a, b, n) for (a, b), n in np.ndenumerate(expected) if n
    }
    merged = model.merge([[0, 2]])
    found = {tuple(pair): n for *pair, n in merged._neighbor_counts.tolist()}
    assert found[0, 0] == expected[0, 0] + expected[2, 2] + expected[0, 2]
    assert sum(found.values()) == 10 * len(X)


def test_a_cluster_of_which_few_were_drawn_is_no_neighbor_for_want_of_its_own():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(300, 4, generator=generator)
    X[295:] += 50
    labels = (X[:, 0] > 0).long()
    labels[295:] = 2
    drawn = torch.bincount(labels)

    def outside(n):
        """Return how many of the third cluster's pairs leave it, if it has n samples in all."""
        sizes = torch.tensor([1000, 1000, n])
        counts = {
            tuple(pair): n for *pair, n in _adjacency.neighbor_counts(X, labels, sizes).tolist()
        }
        assert counts[2, 2] == 5 * 4
        return counts.get((0, 2), 0) + counts.get((1, 2), 0)

    assert [outside(n) for n in (50, 11, 10, 8, 5)] == [0, 0, 5, 15, 30]
    # All were drawn: all count.
    assert _adjacency.neighbor_counts(X, labels, drawn)[:, 2].sum() == 3000


def test_of_many_samples_some_are_asked(monkeypatch):
    assert [_adjacency.n_asked(k) for k in (2, 100, 200, 5000)] == [2048, 2048, 3200, 2**14]
    monkeypatch.setattr(_adjacency, "ASKED_ROWS", 20)
    monkeypatch.setattr(_adjacency, "ASKED_OF_CLUSTER", 1)
    model = brief(METHODS["default"].__class__, 1).fit(X)
    assert model._neighbor_counts[:, 2].sum() <= 20 * 10


@CLUSTERER
def test_a_small_cluster_far_away_merges_last(method):
    """Few of its samples are asked, for there are many others."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(6000, 4)).astype(np.float32)
    # Neither apart nor one: of ten clusters, how a CPU rounds would decide which they are.
    data[:, :2] += rng.integers(2, size=(6000, 2)) * 5
    data[:30] += 60
    model = method(5, random_state=0, max_epochs=1, calibrate=False).fit(data)
    for n_clusters in (5, 4, 3, 2):
        labels = model.cut(n_clusters).labels_
        assert np.array_equal(np.flatnonzero(labels == labels[0]), np.arange(30))


def test_the_distance_tells_how_many_neighbors_there_are():
    model = fitted(METHODS["default"])
    model.cluster_sizes_ = np.array([20, 20, 40])
    model._neighbor_counts = np.array([[0, 0, 150], [0, 1, 100], [1, 1, 150], [2, 2, 400]])
    first, last = model.merge_tree_
    assert first[:2].tolist() == [0, 1]
    # At random there were 800 pairs, 2 of 16 between the first two.
    assert first[2] == pytest.approx(0.5, abs=1e-3)
    assert 0.998 < last[2] < 1
    model._neighbor_counts = model._neighbor_counts[[0, 2, 3]]
    model.cluster_centers_ = np.eye(3, dtype=np.float32)
    model.cluster_centers_[2] = [0.0, 0.8, 0.6]
    assert model.merge_tree_[0, :2].tolist() == [1, 2]  # closest in the embedding
    # All that the embedding says weighs less than a single pair of neighbours.
    model._neighbor_counts[0] = [0, 1, 1]
    model.cluster_centers_[:2] = [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    assert model.merge_tree_[0, :2].tolist() == [0, 1]


def test_clusters_without_samples_merge_first():
    model = fitted(METHODS["default"])
    model.cluster_sizes_ = np.array([60, 30, 0])
    model._neighbor_counts = np.array([[0, 0, 550], [0, 1, 100], [1, 1, 250]])
    tree = model.merge_tree_
    assert tree[0, :2].tolist() == [0, 2]
    assert tree[0, 2] < 1e-6
    assert model.cut(2)._groups.tolist() == [0, 1, 0]


def test_the_accuracy_that_was_expected_is_not_that_of_the_copy():
    merged = fitted(METHODS["default"]).cut(2)
    with pytest.raises(AttributeError, match=r"before clusters were merged.*predict_proba"):
        _ = merged.expected_accuracy_
    assert not hasattr(merged, "expected_accuracy_interval_")
    model = fitted(METHODS["default"])
    for same in (model.merge([]), model.merge([[1]]), model.cut(3)):
        assert same.expected_accuracy_ == model.expected_accuracy_


@CLUSTERER
def test_what_was_merged_is_split_along_the_tree(method, many, tmp_path):
    model = many(method)
    for k in range(1, K):
        finer, cut = model.cut(k + 1), model.cut(k)
        last = finer._groups if k + 1 < K else np.arange(K)
        (divided,) = [
            number for number in range(k) if len(np.unique(last[cut._groups == number])) == 2
        ]
        split = cut.split(divided)
        assert_same_but_for_numbers(split, finer)
        # The others keep their numbers, and so does one half.
        others = cut.labels_ != divided
        np.testing.assert_array_equal(split.labels_[others], cut.labels_[others])
        assert set(split.labels_[~others].tolist()) <= {divided, k}
    whole = model.cut(1)
    for k in range(2, K + 1):
        n_parts = np.bincount(whole._groups, model.cluster_sizes_ > 0)
        if n_parts.max() < 2:  # the rest has no samples
            whole = model
            break
        whole = whole.split(int(n_parts.argmax()))
        assert whole.n_clusters_ == k
    assert_same_but_for_numbers(whole, model)
    assert whole.expected_accuracy_ == model.expected_accuracy_
    assert not hasattr(model.cut(1).split(0), "expected_accuracy_")
    for other in (whole, model.cut(2)):
        skdeepcluster.save(other, tmp_path / "model")
        again = skdeepcluster.load(tmp_path / "model")
        assert_same_answers(again, other, X)
        assert_same_answers(again.cut(1).split(0), model.cut(2), X)


def assert_same_but_for_numbers(model, other):
    numbers = [np.arange(K) if m._groups is None else m._groups for m in (model, other)]
    order = np.empty(model.n_clusters_, dtype=int)
    order[numbers[0]] = numbers[1]
    np.testing.assert_array_equal(order[model.labels_], other.labels_)
    for name in ("cluster_sizes_", "cluster_centers_", "class_weights_"):
        expected = getattr(other, name)[order]
        np.testing.assert_allclose(getattr(model, name), expected, rtol=1e-5, atol=1e-6)
    expected = other.predict_proba(X)[:, order]
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)


@CLUSTERER
def test_a_cut_goes_back_up_to_what_was_learned(method, many):
    model = many(method)
    for low in (1, 3):
        for k in range(low, K + 1):
            assert_same_answers(model.cut(low).cut(k), model.cut(k), X)
    by_hand = model.merge([[0, 5]])
    assert_same_answers(by_hand.cut(K), model, X)
    assert by_hand.cut(K).expected_accuracy_ == model.expected_accuracy_
    with pytest.raises(ValueError, match="more than the 6 clusters that the fit has learned"):
        model.cut(2).cut(K + 1)


def test_what_was_merged_by_hand_is_split_where_it_is_least_alike(many):
    model = many(MiniClustering)
    first, second = model.merge_tree_[0, :2].astype(int).tolist()
    other = next(k for k in range(K) if k not in (first, second))
    merged = model.merge([[first, second, other]])
    split = merged.split(min(first, second, other))
    assert_same_but_for_numbers(split, model.merge([[first, second]]))


def test_a_cluster_without_samples_is_not_split_off():
    model = fitted(METHODS["default"])
    model.cluster_sizes_ = np.array([60, 30, 0])
    model._neighbor_counts = np.array([[0, 0, 550], [0, 1, 100], [1, 1, 250]])
    assert model.merge([[1, 2]]).merge([[0, 1]]).split(0).cluster_sizes_.tolist() == [60, 30]
    with pytest.raises(ValueError, match=r"cluster=1 was not merged.* were merged: \[\]"):
        model.merge([[1, 2]]).split(1)


@pytest.mark.parametrize(
    ("cluster", "error", "message"),
    [
        (1, ValueError, r"cluster=1 was not merged.* were merged: \[0\]\. To divide"),
        (2, ValueError, "cluster"),
        (-1, ValueError, "cluster"),
        (0.0, TypeError, "cluster"),
        ([0], TypeError, "cluster"),
    ],
)
def test_splits_that_cannot_be(cluster, error, message):
    model = fitted(METHODS["default"])
    with pytest.raises(error, match=message):
        model.merge([[0, 2]]).split(cluster)
    with pytest.raises(ValueError, match="was not merged"):
        model.split(0)


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([[0, 3]], ValueError, "names cluster 3, but there are those from 0 to 2"),
        ([[-1, 0]], ValueError, "names cluster -1"),
        ([[0, 1], [1, 2]], ValueError, "names cluster 1 twice"),
        ([0, 1], TypeError, "should be groups of clusters"),
        (3, TypeError, "should be groups of clusters"),
        ([[0.0, 1.0]], TypeError, "integers"),
        ([[True, False, True]], TypeError, "integers"),
        (["ab"], TypeError, "integers"),
    ],
)
def test_groups_that_are_none(groups, error, message):
    with pytest.raises(error, match=message):
        fitted(METHODS["default"]).merge(groups)


def test_numbers_of_any_kind_are_numbers():
    model = fitted(METHODS["default"])
    expected = model.merge([[0, 2]])
    for groups in (np.array([[0, 2]]), ((0, 2),), iter([iter([0, 2])]), [[np.int32(0), 2], []]):
        assert_same_answers(model.merge(groups), expected, X)


@pytest.mark.parametrize(
    ("n_clusters", "error", "message"),
    [
        (4, ValueError, "more than the 3 clusters that the fit has learned"),
        (0, ValueError, "n_clusters"),
        (2.0, TypeError, "n_clusters"),
    ],
)
def test_cuts_that_cannot_be(n_clusters, error, message):
    with pytest.raises(error, match=message):
        fitted(METHODS["default"]).cut(n_clusters)


@CLUSTERER
def test_what_splits_clusters_is_no_splitter_of_samples(method):
    assert not hasattr(method(3), "set_split_request")
    assert not method(3).get_metadata_routing().split.requests


@CLUSTERER
def test_a_model_that_is_not_fitted_has_no_tree(method):
    model = method(3)
    with pytest.raises(AttributeError, match="no n_clusters_ before it is fitted"):
        _ = model.n_clusters_
    assert not hasattr(model, "merge_tree_")
    with pytest.raises(NotFittedError):
        model.cut(2)
    with pytest.raises(NotFittedError):
        model.merge([[0, 1]])
    with pytest.raises(NotFittedError):
        model.split(0)
    with pytest.raises(NotFittedError):
        model.cut_scores(X)


@CLUSTERER
def test_callbacks_see_clusters_that_are_not_to_be_merged_yet(method):
    class Look(Watcher):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if fitted_estimator is not None:
                seen.append(fitted_estimator)

    seen = []
    model = brief(method, 1, n_clusters=4).fit(X).cut(2)
    model.set_callbacks(Look()).fit(X)
    *under_way, ended = seen
    for snapshot in under_way:
        assert snapshot.predict(X).max() > 1
        for use in (
            lambda s: s.cut(1),
            lambda s: s.merge([]),
            lambda s: s.split(0),
            lambda s: s.cut_scores(X),
        ):
            with pytest.raises(NotFittedError, match="under way"):
                use(snapshot)
    np.testing.assert_array_equal(ended.cut(3).labels_, model.cut(3).labels_)


@CLUSTERER
def test_a_copy_shares_nothing_that_either_may_change(method, many):
    model = many(method)
    history, labels = len(model.history_), model.labels_.copy()
    for other in (model.cut(K), model.cut(2), model.merge([[1, 2]])):
        other.set_output(transform="pandas")
        other.history_.clear()
        other.labels_[:] = 0
        if "pretraining" in other.get_params():
            other.set_params(pretraining=SimCLR(max_epochs=1))
    assert isinstance(model.transform(X), np.ndarray)
    assert len(model.history_) == history
    np.testing.assert_array_equal(model.labels_, labels)
    nested = brief(MiniClustering, 1, pretraining=SimCLR(max_epochs=1)).fit(X)
    nested.cut(2).set_params(pretraining__max_epochs=7)
    assert nested.pretraining.max_epochs == 1


def test_what_is_not_fitted_says_what_it_lacks():
    with pytest.raises(AttributeError, match="calibrate=True"):
        _ = MiniClustering(3).expected_accuracy_


# --- what some methods have besides --------------------------------------------------------------


def test_without_a_calibration_the_head_that_was_made_for_it_is_asked():
    model = brief(CalibratedDeepClustering, 1, n_clusters=K, calibrate=False).fit(X)
    merged = model.merge([[0, 1, 2, 3, 4]])
    both = model.predict_proba(X)
    sure = both.max(axis=1) > 0.5
    np.testing.assert_allclose(
        merged.predict_proba(X)[sure, 1], both[sure, 5], atol=1e-5, rtol=1e-4
    )


def test_other_numbers_can_be_chosen_after_a_cut(tmp_path):
    model = StableClusterDiscrimination([4, 5], max_epochs=1, random_state=0).fit(X)
    expected = model.choose(5)
    cut = model.choose(4).cut(2)
    assert cut.n_clusters_ == 2
    assert_same_answers(cut.choose(5), expected, X)
    skdeepcluster.save(cut, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model")
    assert_same_answers(again, cut, X)
    assert_same_answers(again.choose(5), expected, X)


def test_generated_samples_are_of_all_that_has_merged():
    model = fitted(METHODS["generative"])
    merged = model.merge([[0, 2]])
    made = merged.sample(8, cluster=0, random_state=0)
    assert set(model.predict(made).tolist()) == {0, 2}
    assert set(merged.predict(made).tolist()) == {0}
    assert len(merged.sample(8, random_state=0)) == 8
    with pytest.raises(ValueError, match="cluster"):
        merged.sample(1, cluster=2)


def test_a_merged_copy_is_exported(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    merged = fitted(METHODS["default"]).merge([[0, 2]])
    skdeepcluster.to_onnx(merged, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    _, labels, probabilities = session.run(None, {"X": X.astype(np.float32)})
    np.testing.assert_array_equal(labels, merged.labels_)
    np.testing.assert_allclose(probabilities, merged.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_groups", np.array([0, 2, 0])),
        ("_groups", np.array([0, 1])),
        ("_groups", np.array([0.0, 1.0, 0.0])),
        ("_neighbor_counts", np.array([[0, 2, 5]])),
        ("_neighbor_counts", np.zeros((2, 4), dtype=int)),
        ("_neighbor_counts", np.array([[0, 1, 5.0]])),
        ("_neighbor_counts", np.array([[0, 1, 5], [0, 1, 5]])),
        ("_neighbor_counts", np.array([[1, 0, 5]])),
        ("_neighbor_counts", np.array([[0, 1, -5]])),
        ("_outputs", None),
        ("_outputs", {"labels_": np.array([0])}),
        ("_groups", None),
        ("_groups", np.array([], dtype=int)),
    ],
)
def test_what_does_not_suit_the_networks_is_not_loaded(name, value, tmp_path):
    merged = fitted(METHODS["default"]).merge([[0, 2]])
    setattr(merged, name, value)
    with pytest.raises(ValueError, match=f"{name}|labels_|_neighbor_counts|_groups"):
        skdeepcluster.save(merged, tmp_path / "model")


def test_generated_samples_are_of_outputs_that_have_some():
    """Three different samples, five clusters: what is empty joins the first."""
    data = np.repeat(np.eye(3, 4, dtype=np.float32) * 9, 60, axis=0)
    model = brief(GenerativeCalibrationClustering, 1, n_clusters=5).fit(data)
    assert model.cluster_sizes_[-1] == 0
    cut = model.cut(int((model.cluster_sizes_ > 0).sum()))
    np.testing.assert_array_equal(
        cut.sample(20, cluster=0, random_state=0), model.sample(20, cluster=0, random_state=0)
    )
    np.testing.assert_array_equal(
        cut.class_weights_, model.class_weights_[: len(cut.class_weights_)]
    )


def test_generated_samples_are_of_each_part_as_often_as_it_has_samples():
    model = fitted(METHODS["generative"])
    model.cluster_sizes_ = np.array([10, 30, 20])
    merged = model.merge([[0, 2]])
    outputs = merged._outputs_of(torch.tensor([0] * 9 + [1] * 2))
    assert torch.bincount(outputs).tolist() == [3, 2, 6]


def test_generative_clusters_of_a_snapshot_can_be_sampled():
    """As callbacks see it: there are no sizes yet."""
    model = brief(GenerativeCalibrationClustering, 1).fit(X)
    del model.cluster_sizes_
    assert len(model.sample(4)) == 4
