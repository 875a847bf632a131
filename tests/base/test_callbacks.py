"""What callbacks are told and may do, and what the history records."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.callback import ScoringMonitor

from skdeepcluster.training import choose_device
from tests.callback_helpers import Watcher
from tests.instances import fitted
from tests.samples import X, Y


def test_history_has_one_record_per_epoch(estimator):
    estimator = fitted(estimator)
    clustering = [r for r in estimator.history_ if r["phase"] == "clustering"]
    assert len(clustering) == estimator.n_iter_ > 0
    assert [r["epoch"] for r in clustering] == list(range(estimator.n_iter_))
    assert all(np.isfinite(r["loss"]) and r["seconds"] > 0 for r in estimator.history_)
    assert estimator.device_ == str(choose_device("auto"))


def test_the_phases_announced_are_those_that_run(method):
    for warm_start in (False, True):  # the second goes on from the first
        model = method.set_params(warm_start=warm_start).fit(X)
        found = list(dict.fromkeys(record["phase"] for record in model.history_))
        assert found == model._phases()


@pytest.mark.parametrize("calibrate", [True, False])
def test_calibration_is_the_last_phase_for_callbacks_and_history(estimator, calibrate):
    class Watch(Watcher):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                epochs.append(context.parent.task_name)

    epochs = []
    estimator.set_params(calibrate=calibrate).set_callbacks(Watch()).fit(X)
    phases = [record["phase"] for record in estimator.history_]
    assert ("calibration" in phases) == calibrate
    assert phases[-1] == ("calibration" if calibrate else estimator._own_phases()[-1])
    assert epochs == phases


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
    class StopAtOnce(Watcher):
        def on_fit_task_end(self, estimator, context):
            return context.task_name == "epoch" and context.parent.task_name == "clustering"

    model = method.set_callbacks(StopAtOnce()).fit(X)
    assert model.n_iter_ == 1
