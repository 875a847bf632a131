"""Training that is stopped, diverges or fails leaves a usable transformer."""

import pickle
import signal

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.objectives import BYOLObjective, ContrastiveObjective, MoCoObjective
from tests.callback_helpers import InterruptIn, KillAfter, Killed, Watcher, ctrl_c_is_heard
from tests.pretraining.pretraining_helpers import (
    EPOCHS,
    FEW_STEPS,
    METHODS,
    clusterer,
    phases,
    same_states,
)
from tests.samples import NOISE, X

# --- Ctrl-C and callbacks ------------------------------------------------------------------------


def test_ctrl_c_leaves_a_usable_transformer(case):
    model, data = case
    model.set_callbacks(InterruptIn("pretraining"))
    message = f"Interrupted after epoch 1 of {EPOCHS} of the pretraining"
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=message):
        model.fit(data)
    assert model.n_iter_ == 1
    embedding = model.transform(data)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert not model._model.training


def test_ctrl_c_in_the_last_epoch_changes_nothing(method):
    class InterruptLast(Watcher):
        def on_fit_task_begin(self, estimator, context):
            if context.task_name == "epoch" and context.task_id == EPOCHS - 1:
                signal.raise_signal(signal.SIGINT)

    expected = clone(method).fit_transform(X)
    with ctrl_c_is_heard():
        embedding = method.set_callbacks(InterruptLast()).fit_transform(X)
    np.testing.assert_array_equal(embedding, expected)


@FEW_STEPS
def test_ctrl_c_in_the_pretraining_leaves_a_usable_clusterer(method):
    model = clusterer(pretraining=method).set_callbacks(InterruptIn("pretraining"))
    message = f"Interrupted after epoch 1 of {EPOCHS} of the pretraining"
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=message):
        model.fit(X)
    assert "clustering" not in phases(model)
    np.testing.assert_array_equal(model.predict(X), model.labels_)


class StopAfter(Watcher):
    """Stop after some epochs, and keep what callbacks get to transform with."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def setup(self, estimator, context):
        self.seen = []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.seen.append((fitted_estimator, fitted_estimator.transform(NOISE)))
            return len(self.seen) == self.n_epochs
        return False


def test_callbacks_transform_as_if_the_fit_had_stopped(method):
    expected = clone(method).fit_transform(NOISE)
    watcher = StopAfter(EPOCHS)
    # Looking on changes nothing.
    np.testing.assert_array_equal(
        clone(method).set_callbacks(watcher).fit_transform(NOISE), expected
    )
    for n_epochs, (snapshot, embedding) in enumerate(watcher.seen, 1):
        stopped = clone(method).set_callbacks(StopAfter(n_epochs)).fit(NOISE)
        assert stopped.n_iter_ == n_epochs
        np.testing.assert_array_equal(stopped.transform(NOISE), embedding)
        np.testing.assert_array_equal(snapshot.transform(NOISE), embedding)


# --- losses that are not finite, and other failures ----------------------------------------------

OBJECTIVES = {"SimCLR": ContrastiveObjective, "MoCo": MoCoObjective, "BYOL": BYOLObjective}


def embedding_state(model):
    return model._model.embedding.state_dict()


def test_a_fit_that_diverges_leaves_a_usable_transformer(case):
    model, data = case
    model.set_params(learning_rate=1e30)
    with pytest.raises(DivergenceError, match="learning_rate"):
        model.fit(data)
    embedding = model.transform(data)
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert model.n_iter_ == len(model.history_) < EPOCHS
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(data), embedding)


def spoil(monkeypatch, name, n_batches):
    """Let the loss be infinite after so many batches; return the objectives that were asked."""
    forward = OBJECTIVES[name].forward
    asked = []

    def spoiled(self, first, second):
        asked.append(self)
        loss, scalars = forward(self, first, second)
        return loss * (float("inf") if len(asked) > n_batches else 1), scalars

    monkeypatch.setattr(OBJECTIVES[name], "forward", spoiled)
    return asked


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_that_diverges_keeps_what_it_would_have_kept(name, monkeypatch):
    asked = spoil(monkeypatch, name, 3)
    model = clone(METHODS[name])
    with pytest.raises(DivergenceError, match="Epoch 4 of the pretraining"):
        model.fit(NOISE)
    assert model.n_iter_ == 3
    assert same_states(embedding_state(model), asked[-1].result.state_dict())


@FEW_STEPS
@pytest.mark.parametrize("name", METHODS)
def test_a_clusterer_whose_pretraining_diverges_is_usable(name, monkeypatch):
    spoil(monkeypatch, name, 3)
    model = clusterer(pretraining=clone(METHODS[name]))
    with pytest.raises(DivergenceError, match="Epoch 4 of the pretraining"):
        model.fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert np.isfinite(model.predict_proba(X)).all()


def test_a_fit_that_fails_leaves_the_one_before(case):
    model, data = case
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("pretraining", 1)).fit(data)
    embedding = model.fit_transform(data)
    model.set_callbacks(KillAfter("pretraining", 2)).set_params(random_state=1)
    with pytest.raises(Killed):
        model.fit(data)
    np.testing.assert_array_equal(model.transform(data), embedding)
    assert model.n_iter_ == len(model.history_) == EPOCHS
    fresh = clone(model).set_callbacks(KillAfter("pretraining", 2))
    with pytest.raises(Killed):
        fresh.fit(data)
    with pytest.raises(NotFittedError):
        fresh.transform(data)
