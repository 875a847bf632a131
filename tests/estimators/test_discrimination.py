"""What StableClusterDiscrimination alone can do: one stage, and several numbers of clusters."""

import copy
import pickle
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from torch import nn

from skdeepcluster import StableClusterDiscrimination
from skdeepcluster.base._judging import Judgement
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.objectives import RefinementObjective
from tests.callback_helpers import (
    InterruptAt,
    InterruptIn,
    KillAfter,
    Killed,
    Watcher,
    ctrl_c_is_heard,
)
from tests.samples import IMAGES, NOISE, X, Y

# Where there are fewer blobs than a head has clusters, it loses some, as it should.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* clusters have no sample:sklearn.exceptions.ConvergenceWarning"
)

# Neither sorted nor with the best at an end, so that no head is right by its place alone.
NUMBERS = [4, 3, 2]


def several(**parameters):
    return StableClusterDiscrimination(NUMBERS, random_state=0, **parameters)


@pytest.fixture(scope="module")
def fitted():
    """Only to be looked at: all tests share it."""
    return several().fit(X)


def image_model(**parameters):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
    return StableClusterDiscrimination(backbone=backbone, random_state=0, **parameters)


def heads_own(model, data):
    """Return the softmax of the head that predicts, without the votes."""
    with torch.no_grad():
        network = copy.deepcopy(model._model).eval().cpu()
        return network(torch.from_numpy(data)).double().softmax(dim=1).numpy()


def assert_usable(model, data):
    """Whatever happened to the fit, what it left agrees with itself, for every number."""
    for k in model.head_scores_:
        chosen = model.choose(k)
        np.testing.assert_array_equal(chosen.predict(data), chosen.labels_)
        np.testing.assert_array_equal(chosen.predict_proba(data).argmax(axis=1), chosen.labels_)
        assert np.isfinite(chosen.transform(data)).all()
    np.testing.assert_array_equal(model.predict(data), model.labels_)


def assert_same_answers(model, other, data):
    assert model.n_clusters_ == other.n_clusters_
    assert model.head_scores_ == other.head_scores_
    assert model.selected_stage_ == other.selected_stage_
    np.testing.assert_array_equal(model.transform(data), other.transform(data))
    for k in model.head_scores_:
        one, two = model.choose(k), other.choose(k)
        np.testing.assert_array_equal(one.labels_, two.labels_)
        np.testing.assert_array_equal(one.predict_proba(data), two.predict_proba(data))


def phases(model):
    return list(dict.fromkeys(record["phase"] for record in model.history_))


def training_phases(model):
    return [phase for phase in phases(model) if phase != "calibration"]


# --- several numbers of clusters in one fit ------------------------------------------------------


@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_labels_are_those_of_the_number_with_the_best_score(container):
    model = several().set_params(n_clusters=container(NUMBERS))
    labels = model.fit_predict(X)
    assert sorted(model.head_scores_) == [2, 3, 4]
    assert model.n_clusters_ == max(model.head_scores_, key=model.head_scores_.get) == 3
    assert adjusted_rand_score(Y, labels) > 0.95
    np.testing.assert_array_equal(labels, model.choose(3).labels_)
    np.testing.assert_array_equal(model.predict(X), labels)
    np.testing.assert_array_equal(model.cluster_sizes_, np.bincount(labels, minlength=3))


def test_a_list_of_one_number_is_that_number():
    as_list = StableClusterDiscrimination([3], random_state=0).fit(X)
    assert_same_answers(as_list, StableClusterDiscrimination(3, random_state=0).fit(X), X)
    assert list(as_list.head_scores_) == [3]


@pytest.mark.parametrize("k", NUMBERS)
def test_a_chosen_number_is_a_fitted_estimator(fitted, k):
    chosen = fitted.choose(k)
    assert type(chosen) is StableClusterDiscrimination
    assert chosen.n_clusters_ == k
    np.testing.assert_array_equal(chosen.predict(X), chosen.labels_)
    used = np.unique(chosen.labels_)
    np.testing.assert_array_equal(used, np.arange(len(used)))
    np.testing.assert_array_equal(chosen.cluster_sizes_, np.bincount(chosen.labels_, minlength=k))
    p = chosen.predict_proba(X)
    assert p.shape == (90, k)
    np.testing.assert_array_equal(p.argmax(axis=1), chosen.labels_)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    clusters, _ = chosen.predict_top(X)
    assert clusters.shape == (90, k)
    # One encoder for all.
    np.testing.assert_array_equal(chosen.transform(X), fitted.transform(X))
    assert chosen.cluster_centers_.shape == (k, fitted.transform(X).shape[1])
    for number, mean in enumerate(chosen.cluster_centers_[: len(used)]):
        own = chosen.transform(X[chosen.labels_ == number])
        np.testing.assert_allclose(mean, own.mean(axis=0), atol=1e-6)
    assert chosen.class_weights_.shape == (k,)
    assert (chosen.class_weights_ > 0).all()


@pytest.mark.parametrize("k", NUMBERS)
def test_probabilities_of_every_number_are_calibrated(k):
    calibrated = several().fit(NOISE).choose(k)
    plain = several(calibrate=False).fit(NOISE).choose(k)
    np.testing.assert_array_equal(plain.labels_, calibrated.labels_)
    np.testing.assert_allclose(plain.predict_proba(NOISE), heads_own(plain, NOISE), atol=1e-6)
    p = calibrated.predict_proba(NOISE)
    assert np.abs(p - plain.predict_proba(NOISE)).max() > 0.01
    assert calibrated.expected_accuracy_ == pytest.approx(p.max(axis=1).mean(), abs=1e-5)


def test_choosing_leaves_the_original_untouched():
    model = several().fit(X)
    before = copy.deepcopy(model)
    chosen = model.choose(2)
    with torch.no_grad():
        for parameter in chosen._objective.parameters():
            parameter.zero_()
    chosen.set_params(random_state=1, max_epochs=1).fit(NOISE)
    assert_same_answers(model, before, X)
    assert model.get_params() == before.get_params()
    for name in ("labels_", "cluster_sizes_", "cluster_centers_", "class_weights_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(before, name))


def test_every_number_can_be_chosen_from_a_choice(fitted):
    assert_same_answers(fitted.choose(2).choose(3), fitted, X)
    assert fitted.choose(2).choose(2).n_clusters_ == 2


def test_a_choice_fitted_anew_chooses_anew(fitted):
    assert_same_answers(fitted.choose(2).fit(X), fitted, X)


@pytest.mark.parametrize("k", [1, 5, 0, -3])
def test_a_number_that_was_not_fitted_is_refused(fitted, k):
    with pytest.raises(ValueError, match=rf"n_clusters={k} .*\[2, 3, 4\]"):
        fitted.choose(k)


@pytest.mark.parametrize("k", ["3", None, 3.0, [3]])
def test_what_is_no_number_of_clusters_cannot_be_chosen(fitted, k):
    with pytest.raises(TypeError, match="n_clusters"):
        fitted.choose(k)


def test_there_is_nothing_to_choose_before_fit():
    with pytest.raises(NotFittedError):
        several().choose(3)


@pytest.mark.parametrize("name", ["n_clusters", "over_clusterings"])
@pytest.mark.parametrize(
    "numbers", [[], (), [2, 2], [0, 2], [-1], [2.0, 3.0], ["2"], [None], [True], "23", 2.5, None]
)
def test_what_is_no_list_of_different_numbers_is_refused(name, numbers):
    model = StableClusterDiscrimination(3).set_params(**{name: numbers})
    with pytest.raises(ValueError, match=name):
        model.fit(X)


def test_integers_of_numpy_are_numbers():
    model = several().set_params(n_clusters=list(np.array(NUMBERS))).fit(X)
    assert model.n_clusters_ == 3
    assert model.choose(np.int64(2)).cluster_sizes_.shape == (2,)


def test_too_few_samples_for_the_largest_number_are_refused():
    with pytest.raises(ValueError, match="n_samples=3 should be >= n_clusters=4"):
        several().fit(X[:3])


def test_the_list_of_numbers_is_a_parameter_like_any_other():
    numbers = list(NUMBERS)
    model = StableClusterDiscrimination(numbers, random_state=0, max_epochs=1).fit(X)
    assert model.n_clusters is numbers
    assert numbers == NUMBERS
    assert clone(model).get_params()["n_clusters"] == NUMBERS
    assert "n_clusters=[4, 3, 2]" in repr(model)
    # A choice is made among the numbers of a fit; it is none of its parameters.
    assert model.choose(2).get_params() == model.get_params()


def test_a_grid_search_takes_lists_as_candidates():
    grid = {"n_clusters": [2, [2], (4, 2, 3)]}
    search = GridSearchCV(StableClusterDiscrimination(random_state=0), grid, cv=2).fit(X)
    assert search.best_params_ == {"n_clusters": (4, 2, 3)}
    assert search.best_estimator_.n_clusters_ == 3
    assert adjusted_rand_score(Y, search.predict(X)) > 0.95


def test_callbacks_can_predict_while_there_are_several_numbers():
    monitor = ScoringMonitor(scoring="adjusted_rand_score")
    model = several(max_epochs=2, refine=True).set_callbacks(monitor).fit(X, Y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == sum(r["phase"] in ("clustering", "refinement") for r in model.history_)


# --- pickles, and what is not in them ------------------------------------------------------------


def test_numbers_can_be_chosen_after_a_pickle(fitted):
    assert_same_answers(pickle.loads(pickle.dumps(fitted)), fitted, X)
    assert_same_answers(pickle.loads(pickle.dumps(fitted.choose(2))).choose(3), fitted, X)


def test_a_pickle_grows_with_the_labels_alone():
    def size(n_copies):
        # Neither networks nor the history depend on the number of samples then.
        model = several(over_clusterings=[2], max_epochs=1, calibrate=False)
        return len(pickle.dumps(model.fit(np.tile(X, (n_copies, 1)))))

    # Twelve copies are more samples than outlier scores keep distances of. Each sample has a label
    # of 8 bytes for each number; clusters of the heads would be 10 more.
    assert size(32) - size(12) < 8 * len(NUMBERS) * 20 * len(X) + 1000


def per_sample(model, n_samples):
    state = model._objective.state_dict()
    return [name for name, tensor in state.items() if n_samples in tensor.shape]


class StopAtOnce(Watcher):
    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch"


def test_nothing_is_remembered_of_the_samples():
    data = X[:83]  # no layer is as wide
    model = several(max_epochs=2, refine=True).fit(data)
    assert per_sample(model, 83) == []
    assert per_sample(model.choose(2), 83) == []
    assert per_sample(clone(model).set_callbacks(StopAtOnce()).fit(data), 83) == []


def test_a_fit_that_diverges_leaves_a_model_like_any_other():
    data = X[:83]
    model = several(learning_rate=1e30)
    with (
        pytest.raises(DivergenceError, match="learning_rate"),
        warnings.catch_warnings(action="ignore", category=ConvergenceWarning),
    ):
        model.fit(data)
    assert_usable(model, data)
    assert model.selected_stage_ == "clustering"
    assert per_sample(model, 83) == []


# --- the score that decides ----------------------------------------------------------------------


def median_silhouette(data, labels):
    used = np.unique(labels)
    distances = cdist(data, [data[labels == k].mean(axis=0) for k in used])
    values = []
    for i in range(len(data)):
        own = used == labels[i]
        a, b = distances[i, own].item(), distances[i, ~own].min()
        values.append((b - a) / max(a, b))
    return np.sort(values)[(len(values) - 1) // 2]  # of two middle values torch takes the lower


@pytest.mark.parametrize("k", NUMBERS)
def test_the_score_is_the_silhouette_times_the_share_of_clusters_in_use(fitted, k):
    chosen = fitted.choose(k)
    expected = median_silhouette(X.astype(float), chosen.labels_)
    expected *= np.mean(chosen.cluster_sizes_ > 0)
    assert fitted.head_scores_[k] == pytest.approx(expected, rel=1e-4)


def test_lost_clusters_lower_the_score():
    duplicates = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    model = StableClusterDiscrimination([5, 2, 4], random_state=0).fit(duplicates)
    assert model.n_clusters_ == 2
    # Two clusters of duplicates cannot be separated better, and no more are to be had.
    assert model.head_scores_ == pytest.approx({2: 1, 4: 1 / 2, 5: 2 / 5}, rel=1e-4)
    np.testing.assert_array_equal(model.choose(5).cluster_sizes_, [20, 20, 0, 0, 0])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("n_blobs", [2, 4, 7])
def test_the_number_of_clear_blobs_is_found(n_blobs, seed):
    centers = 10 * np.eye(n_blobs, 8)
    data, y = make_blobs(n_samples=20 * n_blobs, centers=centers, random_state=seed)
    model = StableClusterDiscrimination(list(range(2, 9)), random_state=seed, calibrate=False)
    labels = model.fit_predict(data)
    assert model.n_clusters_ == n_blobs
    assert adjusted_rand_score(y, labels) > 0.95


@pytest.mark.parametrize("multiples", [[2, 6], [6, 2]])
def test_the_finest_head_is_the_last_which_gives_the_class_weights(multiples):
    model = several(over_clusterings=multiples, max_epochs=1).fit(X)
    assert model._objective.heads[-1].n_clusters == 18  # five samples for each, not 6 * 4


# --- phases --------------------------------------------------------------------------------------


def test_there_is_one_stage_by_default(fitted):
    assert phases(fitted) == ["clustering", "calibration"]
    assert fitted.selected_stage_ == "clustering"
    firsts = [r for r in fitted.history_ if r["phase"] == "calibration" and r["epoch"] == 0]
    assert len(firsts) == len(NUMBERS)


@pytest.mark.parametrize("refine", [False, True])
def test_a_pretraining_comes_first_where_it_is_asked_for(refine):
    model = several(pretraining="auto", refine=refine).fit(X)
    own = ["clustering", "refinement"] if refine else ["clustering"]
    assert phases(model) == ["pretraining", *own, "calibration"]
    assert model.n_iter_ == sum(r["phase"] == "clustering" for r in model.history_)
    assert adjusted_rand_score(Y, model.labels_) > 0.95


@pytest.mark.parametrize("constraint", ["size", "entropy", None])
@pytest.mark.parametrize("init", ["auto", "kmeans", "merged"])
def test_blobs_are_found_under_every_constraint_and_from_every_partition(init, constraint):
    model = StableClusterDiscrimination(3, random_state=0, init=init, constraint=constraint)
    assert adjusted_rand_score(Y, model.fit_predict(X)) > 0.95
    shares = [r["changed"] for r in model.history_ if r["phase"] == "clustering"]
    assert all(0 <= share <= 1 for share in shares)


def test_the_lower_bound_keeps_clusters_from_being_small():
    def smallest(**parameters):
        model = StableClusterDiscrimination(5, random_state=0, init="random", **parameters)
        return model.fit(NOISE).cluster_sizes_.min()

    free = smallest(constraint=None)
    assert smallest(constraint="size", lower_bound=0.0) == free
    assert smallest(constraint="size", lower_bound=0.9) > free + 3


# --- the refinement ------------------------------------------------------------------------------


def force_verdict(monkeypatch, gain, lost):
    """Let the judge say after the refinement what is wanted; return the state that it judges."""
    judge = StableClusterDiscrimination._judge
    verdicts, judged = [], {}

    def forced(self, objective, source):
        verdicts.append(judge(self, objective, source))
        if len(verdicts) != 2:
            return verdicts[-1]
        judged.update(copy.deepcopy(objective.state_dict()))
        return [Judgement(score + gain, alive - lost) for score, alive in verdicts[0]]

    monkeypatch.setattr(StableClusterDiscrimination, "_judge", forced)
    return judged


def same_states(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("gain", "lost"), [(-0.1, 0), (0.0, 0), (0.1, 1)], ids=["worse", "as good", "lost a cluster"]
)
def test_a_refinement_that_does_not_help_is_undone_to_the_bit(gain, lost, monkeypatch):
    plain = several().fit(NOISE)
    refined = force_verdict(monkeypatch, gain, lost)
    model = several(refine=True).fit(NOISE)
    state = model._objective.state_dict()
    assert not same_states(refined, state)  # there was something to undo
    assert same_states(plain._objective.state_dict(), state)
    assert model.selected_stage_ == "clustering"
    assert phases(model) == ["clustering", "refinement", "calibration"]
    assert_same_answers(model, plain, NOISE)


def test_a_refinement_that_helps_is_kept(monkeypatch):
    plain = several().fit(NOISE)
    refined = force_verdict(monkeypatch, 0.1, 0)
    model = several(refine=True).fit(NOISE)
    assert model.selected_stage_ == "refinement"
    assert not np.array_equal(model.transform(NOISE), plain.transform(NOISE))
    # The encoder is kept as it was judged. (Clusters of heads may have been renumbered since.)
    kept = model._objective.state_dict()
    assert all(torch.equal(kept[name], refined[name]) for name in kept if "embedding" in name)
    assert_usable(model, NOISE)


def test_a_refinement_that_diverges_is_undone_to_the_bit(monkeypatch):
    plain = several().fit(NOISE)
    forward = RefinementObjective.forward

    def exploding(self, first, second):
        loss, scalars = forward(self, first, second)
        return loss * float("inf"), scalars

    monkeypatch.setattr(RefinementObjective, "forward", exploding)
    model = several(refine=True).fit(NOISE)
    assert model.selected_stage_ == "clustering"
    assert phases(model) == ["clustering", "calibration"]  # no epoch of it ended
    assert same_states(plain._objective.state_dict(), model._objective.state_dict())
    assert_same_answers(model, plain, NOISE)


@pytest.mark.parametrize("seed", range(4))
def test_a_refinement_never_lowers_the_best_score(seed):
    plain = several().set_params(random_state=seed).fit(NOISE)
    model = several(refine=True).set_params(random_state=seed).fit(NOISE)
    best, best_before = max(model.head_scores_.values()), max(plain.head_scores_.values())
    assert best > best_before if model.selected_stage_ == "refinement" else best == best_before


def test_a_refinement_without_confident_samples_learns_nothing(monkeypatch):
    plain = several().fit(NOISE)
    name = "skdeepcluster.objectives.RefinementObjective.CONFIDENCE_THRESHOLD"
    monkeypatch.setattr(name, 1.0)
    model = several(refine=True).fit(NOISE)
    records = [r for r in model.history_ if r["phase"] == "refinement"]
    assert {r["selected"] for r in records} == {0.0}
    assert model.n_skipped_steps_ == len(records)  # one batch holds all of these samples
    # No more than this: running statistics may have followed the samples.
    pairs = zip(model._objective.parameters(), plain._objective.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


# --- training that stops or goes on --------------------------------------------------------------


@cache
def whole_fit_of_several(init):
    return several(refine=True, init=init).fit(NOISE)


@pytest.mark.parametrize(
    ("init", "phase", "n_epochs"),
    [
        ("auto", "clustering", 5),
        ("auto", "refinement", 5),
        ("auto", "calibration", 5),
        ("auto", "calibration", 20),  # a calibration takes twelve: this is the second number's
        ("random", "clustering", 5),
        ("random", "calibration", 20),
    ],
)
def test_a_killed_fit_of_several_numbers_resumes_to_the_same_bits(init, phase, n_epochs, tmp_path):
    whole = whole_fit_of_several(init)
    estimator = clone(whole)
    estimator.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(estimator).set_callbacks(KillAfter(phase, n_epochs)).fit(NOISE)
    resumed = clone(estimator).fit(NOISE)
    assert_same_answers(resumed, whole, NOISE)
    assert len(resumed.history_) == len(whole.history_)
    # A finished fit is loaded, not done again.
    assert_same_answers(clone(estimator).fit(NOISE), whole, NOISE)


@pytest.mark.parametrize("phase", ["clustering", "refinement", "calibration"])
def test_ctrl_c_leaves_every_number_usable(phase):
    model = several(refine=True).set_callbacks(InterruptIn(phase))
    message = f"Interrupted after epoch 1 .* {phase}"
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=message):
        model.fit(NOISE)
    assert phases(model)[-1] == phase
    assert_usable(model, NOISE)
    assert per_sample(model, len(NOISE)) == []
    if phase != "calibration":
        np.testing.assert_allclose(model.predict_proba(NOISE), heads_own(model, NOISE), atol=1e-6)


@pytest.mark.parametrize("which", ["first", "last"])
def test_ctrl_c_in_the_last_epoch_of_a_calibration(which):
    whole = several().fit(NOISE)
    n_epochs = sum(record["phase"] == "calibration" for record in whole.history_)
    assert n_epochs % len(NUMBERS) == 0
    number = n_epochs // len(NUMBERS) if which == "first" else n_epochs
    model = several().set_callbacks(InterruptAt("calibration", number))
    with ctrl_c_is_heard():
        if which == "first":
            with pytest.warns(ConvergenceWarning, match="Interrupted after epoch .* calibration"):
                model.fit(NOISE)
        else:
            model.fit(NOISE)
    # What was calibrated first is the answer, so it is worth the most.
    np.testing.assert_array_equal(model.predict_proba(NOISE), whole.predict_proba(NOISE))
    assert len(model.history_) == len(whole.history_) - (n_epochs - number)


@pytest.mark.parametrize("k", NUMBERS)
def test_warm_start_goes_on_whatever_number_was_chosen(fitted, k):
    again = fitted.choose(k).set_params(warm_start=True, max_epochs=0).fit(X)
    assert_same_answers(again, fitted, X)
    again = fitted.choose(k).set_params(warm_start=True, max_epochs=3).fit(X)
    assert training_phases(again) == ["clustering"]
    assert again.n_iter_ == 3
    assert not np.array_equal(again.transform(X), fitted.transform(X))
    assert adjusted_rand_score(Y, again.labels_) > 0.95
    assert_usable(again, X)


def test_warm_start_takes_more_samples():
    model = several(warm_start=True, max_epochs=1, over_clusterings=[2]).fit(X)
    more = np.concatenate([X, X[:40]])
    assert_usable(model.fit(more), more)


@pytest.mark.parametrize("numbers", [2, [4, 3], [2, 3, 4], [4, 3, 2, 5]])
def test_warm_start_refuses_other_numbers(numbers):
    # One head for each number, and that of the last is selected: smaller fits have none there.
    model = several(init="kmeans", warm_start=True, max_epochs=1).fit(X).choose(2)
    with pytest.raises(ValueError, match="warm_start"):
        model.set_params(n_clusters=numbers).fit(X)


def test_warm_start_goes_on_with_a_refinement():
    model = several(warm_start=True, refine=True, max_epochs=1).fit(NOISE)
    model.fit(NOISE)
    assert training_phases(model) == ["clustering", "refinement"]
    assert_usable(model, NOISE)


# --- images --------------------------------------------------------------------------------------


# Few steps from a random start may lead to one cluster.
@pytest.mark.filterwarnings("ignore:One cluster holds:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("constraint", ["size", "entropy", None])
@pytest.mark.parametrize("refine", [False, True])
def test_images_start_from_random_centers(constraint, refine):
    model = image_model(n_clusters=[2, 3], max_epochs=3, constraint=constraint, refine=refine)
    model.fit(IMAGES)
    assert model.image_shape_ == (3, 8, 8)
    # One head for each number, and finer ones: all multiples come to the same here.
    assert [head.n_clusters for head in model._objective.heads] == [2, 3, 4]
    assert training_phases(model) == ["clustering", "refinement"][: 1 + refine]
    assert sorted(model.head_scores_) == [2, 3]
    assert_usable(model, IMAGES)
    again = clone(model).fit(IMAGES)
    assert_same_answers(again, model, IMAGES)


def test_images_are_judged_in_the_embedding():
    model = image_model(n_clusters=2, init="kmeans", max_epochs=0).fit(IMAGES)
    expected = median_silhouette(model.transform(IMAGES).astype(float), model.labels_)
    assert model.head_scores_[2] == pytest.approx(expected, rel=1e-3)


@pytest.mark.filterwarnings("ignore:One cluster holds:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", ["random", "kmeans"])
def test_a_killed_fit_of_images_resumes_to_the_same_bits(init, tmp_path):
    # The backbone has running statistics: one that is resumed in another mode is found out.
    estimator = image_model(n_clusters=[2, 3], init=init, max_epochs=4)
    whole = clone(estimator).fit(IMAGES)
    estimator.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(estimator).set_callbacks(KillAfter("clustering", 2)).fit(IMAGES)
    assert_same_answers(clone(estimator).fit(IMAGES), whole, IMAGES)
