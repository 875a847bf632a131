"""A backbone that arrives trained is fine-tuned where that is asked for, and kept if it helped."""

import dataclasses
import pickle
import signal
from itertools import groupby

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from torch import nn

import skdeepcluster
from skdeepcluster import ProximityDeepClustering
from skdeepcluster.base import _clusterer, _protection, _tuning
from skdeepcluster.exceptions import DivergenceError
from tests.callback_helpers import InterruptIn, KillAfter, Killed, ctrl_c_is_heard
from tests.instances import LOST_CLUSTERS, METHODS

pytestmark = LOST_CLUSTERS
CLUSTERER = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
IMAGES = np.random.default_rng(0).integers(0, 128, size=(60, 1, 8, 8), dtype=np.uint8)
IMAGES[::2, :, :4] += 127


def convolutions():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()),
        )


def tuning(method, **parameters):
    usual = {"backbone": convolutions(), "fine_tune": True, "max_epochs": 2, "n_clusters": 2}
    return clone(method).set_params(**(usual | parameters))


def weights(model):
    return torch.cat([p.detach().cpu().flatten() for p in model._frozen.backbone.parameters()])


def as_it_came():
    return torch.cat([p.detach().flatten() for p in convolutions().parameters()])


@pytest.fixture
def judged(monkeypatch):
    """Return a function that decides what the judge says."""

    def say(better):
        monkeypatch.setattr(_tuning, "separates_better", lambda *_: better)

    return say


@CLUSTERER
def test_what_separates_better_is_kept(method, judged, tmp_path):
    judged(True)
    views = {} if isinstance(method, ProximityDeepClustering) else {"views": ["mirror"]}
    model = tuning(method, **views).fit(IMAGES)
    assert model.selected_stage_ == "fine-tuning"
    assert model.views_ == views.get("views", ["neighbor"])
    assert not torch.equal(weights(model), as_it_came())
    assert torch.equal(model._frozen.backbone[-1][1].running_mean.cpu(), torch.zeros(6))  # stays
    assert not any(weight.requires_grad for weight in model._frozen.parameters())
    assert len(model.labels_) == len(IMAGES)
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(IMAGES), model.predict_proba(IMAGES))
    skdeepcluster.save(model, tmp_path / "model")
    again = skdeepcluster.load(tmp_path / "model", backbone=convolutions())
    np.testing.assert_array_equal(again.predict_proba(IMAGES), model.predict_proba(IMAGES))
    assert again.selected_stage_ == "fine-tuning"


@CLUSTERER
def test_what_does_not_is_taken_back(method, judged):
    judged(False)
    model = tuning(method).fit(IMAGES)
    expected = tuning(method, fine_tune=False).fit(IMAGES)
    assert model.selected_stage_ == getattr(expected, "selected_stage_", "clustering")
    assert torch.equal(weights(model), as_it_came())
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    np.testing.assert_array_equal(model.predict_proba(IMAGES), expected.predict_proba(IMAGES))
    assert getattr(model, "views_", None) == getattr(expected, "views_", None)


def test_a_fit_that_goes_back_to_kmeans_is_taken_back_whole(judged, monkeypatch):
    judged(False)
    monkeypatch.setattr(_protection, "choose_partition", lambda *_: "plain")
    for method in METHODS.values():
        model = tuning(method, n_clusters=4).fit(IMAGES)
        expected = tuning(method, n_clusters=4, fine_tune=False).fit(IMAGES)
        np.testing.assert_array_equal(model.labels_, expected.labels_)
        np.testing.assert_array_equal(model.predict_proba(IMAGES), expected.predict_proba(IMAGES))


def test_the_best_number_of_clusters_is_judged_and_all_are_kept(monkeypatch):
    seen = []

    def judge(partitions, *_):
        seen.append(partitions)
        return True

    monkeypatch.setattr(_tuning, "separates_better", judge)
    model = tuning(METHODS["one stage"], n_clusters=[2, 3]).fit(IMAGES)
    (partitions,) = seen
    first = tuning(METHODS["one stage"], n_clusters=[2, 3], fine_tune=False).fit(IMAGES)
    np.testing.assert_array_equal(partitions["plain"].cpu(), first.labels_)
    after = model.choose(first.n_clusters_)
    np.testing.assert_array_equal(partitions["tuned"].cpu(), after.labels_)
    for k in (2, 3):
        np.testing.assert_array_equal(model.choose(k).predict(IMAGES), model.choose(k).labels_)


def test_the_next_fit_forgets_the_stage(judged):
    judged(True)
    model = tuning(METHODS["default"]).fit(IMAGES)
    model.set_params(fine_tune=False).fit(IMAGES)
    assert not hasattr(model, "selected_stage_")


def test_warm_starts_tune_no_more(judged):
    judged(True)
    once = tuning(METHODS["default"]).fit(IMAGES)
    model = tuning(METHODS["default"], warm_start=True).fit(IMAGES)
    np.testing.assert_array_equal(model.predict_proba(IMAGES), once.predict_proba(IMAGES))
    tuned = weights(model)
    model.fit(IMAGES)
    assert torch.equal(weights(model), tuned)
    assert "fine-tuning" not in {record["phase"] for record in model.history_}
    assert model.selected_stage_ == "fine-tuning"


LEARNING = ["pretraining", "start", "clustering", "calibration"]


@pytest.mark.parametrize("better", [True, False])
def test_phases_are_announced_and_what_is_kept_is_recorded(judged, better, capsys):
    judged(better)
    model = tuning(METHODS["default"], verbose=1)
    model.fit(IMAGES)
    said = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    announced = [name for name, _ in groupby(said) if name in [*LEARNING, "fine-tuning"]]
    assert announced == [*LEARNING, "fine-tuning", *LEARNING]
    assert len(model._phases()) == len(announced)
    phases = [record["phase"] for record in model.history_]
    expected = ["fine-tuning", *LEARNING] if better else LEARNING
    assert list(dict.fromkeys(phases)) == expected
    assert model.n_iter_ == model.max_epochs_ == 2


def test_callbacks_score_with_the_backbone_of_the_moment(judged):
    judged(True)
    monitor = ScoringMonitor(scoring=lambda model, X, y: np.mean(model.predict(X)))
    tuning(METHODS["default"]).set_callbacks(monitor).fit(IMAGES)


class InterruptLast:
    """Press Ctrl-C at the end of the last epoch of a phase, when it comes for the nth time."""

    def __init__(self, phase, number=1):
        self.phase, self.number = phase, number

    def setup(self, estimator, context):
        self.begun = 0

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        self.begun += context.task_name == self.phase

    def on_fit_task_end(self, estimator, context):
        phase = context.parent
        if context.task_name != "epoch" or phase.task_name != self.phase:
            return
        if self.begun == self.number and context.task_id + 1 == phase.max_subtasks:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("phase", "press"),
    [
        ("fine-tuning", InterruptIn("fine-tuning")),
        ("fine-tuning", InterruptLast("fine-tuning")),
        ("clustering", InterruptLast("clustering", 2)),
    ],
    ids=["first epoch", "last epoch", "second clustering"],
)
def test_ctrl_c_leaves_what_the_backbone_as_it_came_has_led_to(phase, press):
    model = tuning(METHODS["default"]).set_callbacks(press)
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=f"Interrupted .* {phase}"):
        model.fit(IMAGES)
    assert torch.equal(weights(model), as_it_came())
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    assert model.selected_stage_ == "clustering"
    assert [record["phase"] for record in model.history_][-1] == "calibration"


@pytest.mark.parametrize("error", [DivergenceError, MemoryError])
@pytest.mark.parametrize("at", ["fine_tuned", "choose_precision"])
def test_what_fails_is_warned_of(error, at, monkeypatch):
    def fail(*_):
        raise error("not finite")

    monkeypatch.setattr(_tuning, at, fail)
    model = tuning(METHODS["default"])
    with pytest.warns(ConvergenceWarning, match="used as it came, for fine-tuning it has failed"):
        model.fit(IMAGES)
    assert (model.selected_stage_, len(model.labels_)) == ("clustering", len(IMAGES))
    assert torch.equal(weights(model), as_it_came())


class Phases:
    """Note which phases have begun and ended."""

    def setup(self, estimator, context):
        self.begun, self.ended = [], []

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        if context.parent is not None and context.task_name != "epoch":
            self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        if context.parent is not None and context.task_name != "epoch":
            self.ended.append(context.task_name)


def test_rates_that_are_far_too_high_are_survived(monkeypatch):
    monkeypatch.setattr(_tuning, "TUNING", dataclasses.replace(_tuning.TUNING, learning_rate=1e38))
    phases = Phases()
    model = tuning(METHODS["default"]).set_callbacks(phases)
    with pytest.warns(ConvergenceWarning, match="used as it came"):
        model.fit(IMAGES)
    assert phases.begun == phases.ended == [*LEARNING, "fine-tuning"]
    assert torch.equal(weights(model), as_it_came())
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)


def test_an_error_leaves_the_first_result(monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tuning, "separates_better", stop)
    model = tuning(METHODS["default"])
    with pytest.raises(KeyboardInterrupt):
        model.fit(IMAGES)
    assert torch.equal(weights(model), as_it_came())
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    assert model.n_iter_ == sum(record["phase"] == "clustering" for record in model.history_) == 2


def test_what_its_owner_has_frozen_stays(judged):
    judged(True)
    backbone = convolutions()
    backbone[0].requires_grad_(False)
    model = tuning(METHODS["default"], backbone=backbone).fit(IMAGES)
    as_before = dict(backbone.named_parameters())
    now = {name.split(".", 1)[1]: p.cpu() for name, p in model._frozen.backbone.named_parameters()}
    changed = {name for name, p in now.items() if not torch.equal(p, as_before[name])}
    assert changed == {"1.weight", "1.bias"}


@pytest.mark.parametrize("backbone", [nn.Flatten(), convolutions().requires_grad_(False)])
def test_where_nothing_may_learn_nothing_is_tuned(backbone, monkeypatch):
    with pytest.raises(ValueError, match=r"fine_tune=True.*no parameter.*'auto'"):
        tuning(METHODS["default"], backbone=backbone).fit(IMAGES)
    # Wherever fits are fast, "auto" fine-tunes what can be.
    monkeypatch.setattr(_clusterer.DeepClusterer, "_may_fine_tune", lambda self: True)
    model = tuning(METHODS["default"], backbone=backbone, fine_tune="auto").fit(IMAGES)
    assert not hasattr(model, "selected_stage_")


def test_no_gradients_are_kept(judged):
    judged(True)
    model = tuning(METHODS["default"]).fit(IMAGES)
    assert all(weight.grad is None for weight in model._frozen.parameters())


def test_a_fit_that_was_killed_tunes_again(judged, tmp_path):
    judged(True)
    whole = tuning(METHODS["default"]).fit(IMAGES)
    parameters = {"checkpoint_dir": tmp_path, "backbone": convolutions()}
    with pytest.raises(Killed):
        tuning(METHODS["default"], **parameters).set_callbacks(KillAfter("fine-tuning", 1)).fit(
            IMAGES
        )
    resumed = tuning(METHODS["default"], **parameters).fit(IMAGES)
    np.testing.assert_array_equal(resumed.predict_proba(IMAGES), whole.predict_proba(IMAGES))


def test_both_kinds_of_features_are_the_judges():
    """What only one of them separates is no reason to leave k-means on the other."""
    y = torch.arange(200) % 2
    other = torch.arange(200) // 100
    generator = torch.Generator().manual_seed(0)
    clear = 5.0 * y[:, None] + torch.randn(200, 4, generator=generator)
    noise = torch.randn(200, 4, generator=generator)
    partitions = {"plain": other, "tuned": y}
    assert _tuning.separates_better(partitions, clear, clear, 2)
    assert _tuning.separates_better(partitions, noise, clear, 2)
    assert not _tuning.separates_better({"plain": y, "tuned": other}, clear, noise, 2)
    assert not _tuning.separates_better({"plain": y, "tuned": y}, clear, clear, 2)


def test_a_lost_cluster_is_no_better_separation():
    y = torch.arange(200) % 2
    mixed = y[:, None] + torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    assert not _tuning.separates_better({"plain": y, "tuned": 0 * y}, mixed, mixed, 2)
