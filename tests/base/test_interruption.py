"""Ctrl-C and losses that are not finite end a fit with a usable model."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from skdeepcluster.exceptions import DivergenceError
from tests.base.soundness_helpers import heads_own
from tests.callback_helpers import InterruptIn, ctrl_c_is_heard
from tests.instances import ESTIMATORS
from tests.samples import X, Y


def test_ctrl_c_stops_after_the_epoch_with_a_usable_model(method):
    model = method.set_callbacks(InterruptIn("clustering"))
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match="Interrupted after epoch 1"):
        model.fit(X)
    assert model.n_iter_ == 1
    assert "calibration" not in {record["phase"] for record in model.history_}
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_array_equal(model.predict_proba(X).argmax(axis=1), model.labels_)
    np.testing.assert_allclose(model.predict_proba(X), heads_own(model, X), atol=1e-6)
    assert adjusted_rand_score(Y, model.labels_) > 0.95


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
