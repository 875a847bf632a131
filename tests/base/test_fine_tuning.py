"""A backbone that arrives trained is fine-tuned where that is asked for, and kept if it helped."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from torch import nn

import skdeepcluster
from skdeepcluster import ProximityDeepClustering
from skdeepcluster.base import _clusterer, _tuning
from skdeepcluster.exceptions import DivergenceError
from tests.callback_helpers import InterruptIn, KillAfter, Killed, Watcher, ctrl_c_is_heard
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
    parameters = {"backbone": convolutions(), "fine_tune": True, "max_epochs": 2} | parameters
    return clone(method).set_params(n_clusters=2, **parameters)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model._frozen.backbone.parameters()])


def as_it_came():
    return torch.cat([p.detach().flatten() for p in convolutions().parameters()])


@pytest.fixture
def judged(monkeypatch):
    """Return a function that decides what the judge says."""

    def say(better):
        monkeypatch.setattr(_clusterer, "separates_better", lambda *_: better)

    return say


@CLUSTERER
def test_what_separates_better_is_kept(method, judged, tmp_path):
    judged(True)
    views = {} if isinstance(method, ProximityDeepClustering) else {"views": ["mirror"]}
    model = tuning(method, **views).fit(IMAGES)
    assert model.selected_stage_ == "fine-tuning"
    assert model.views_ == views.get("views", ["neighbor"])
    assert not torch.equal(weights(model), as_it_came())
    assert torch.equal(model._frozen.backbone[-1][1].running_mean, torch.zeros(6))  # stays
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


def test_the_next_fit_forgets_the_stage(judged):
    judged(True)
    model = tuning(METHODS["default"]).fit(IMAGES)
    model.set_params(fine_tune="auto").fit(IMAGES)
    assert not hasattr(model, "selected_stage_")


def test_warm_starts_tune_no_more(judged):
    judged(True)
    model = tuning(METHODS["default"], warm_start=True).fit(IMAGES)
    tuned = weights(model)
    model.fit(IMAGES)
    assert torch.equal(weights(model), tuned)
    assert "fine-tuning" not in {record["phase"] for record in model.history_}


def test_phases_are_announced_and_recorded(judged):
    judged(True)
    watcher = Watcher()
    model = tuning(METHODS["default"]).set_callbacks(watcher).fit(IMAGES)
    learning = ["pretraining", "start", "clustering"]
    expected = [*learning, "fine-tuning", *learning, "calibration"]
    recorded = [record["phase"] for record in model.history_]
    assert [name for at, name in enumerate(recorded) if recorded[at - 1 : at] != [name]] == expected


def test_callbacks_score_with_the_backbone_of_the_moment(judged):
    judged(True)
    monitor = ScoringMonitor(scoring=lambda model, X, y: np.mean(model.predict(X)))
    tuning(METHODS["default"]).set_callbacks(monitor).fit(IMAGES)


@pytest.mark.parametrize("phase", ["fine-tuning"])
def test_ctrl_c_leaves_what_the_backbone_as_it_came_has_led_to(phase):
    model = tuning(METHODS["default"]).set_callbacks(InterruptIn(phase))
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=f"Interrupted .* {phase}"):
        model.fit(IMAGES)
    assert torch.equal(weights(model), as_it_came())
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)
    assert model.selected_stage_ == "clustering"


def test_so_do_divergence_and_errors(monkeypatch):
    def diverge(*_):
        raise DivergenceError("not finite")

    monkeypatch.setattr(_clusterer, "fine_tuned", diverge)
    model = tuning(METHODS["default"]).fit(IMAGES)
    assert (model.selected_stage_, len(model.labels_)) == ("clustering", len(IMAGES))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.undo()
    monkeypatch.setattr(_clusterer, "separates_better", stop)
    model = tuning(METHODS["default"])
    with pytest.raises(KeyboardInterrupt):
        model.fit(IMAGES)
    assert torch.equal(weights(model), as_it_came())
    np.testing.assert_array_equal(model.predict(IMAGES), model.labels_)


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
