"""Copies by pickle, joblib and torch predict the same and hold no training data."""

import io
import pickle

import joblib
import numpy as np
import pytest
import torch

from skdeepcluster.pretraining import SimCLR
from tests.instances import CLUSTERERS, LOST_CLUSTERS, brief, fitted
from tests.samples import NOISE, X


def copy_by_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


def copy_by_joblib(estimator):
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return joblib.load(buffer)


def copy_by_torch(estimator):
    buffer = io.BytesIO()
    torch.save(estimator, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def test_copies_predict_the_same(estimator):
    estimator.fit(X)
    for copy in (copy_by_pickle, copy_by_joblib, copy_by_torch):
        np.testing.assert_array_equal(copy(estimator).predict(X), estimator.labels_)


@LOST_CLUSTERS
@pytest.mark.parametrize("estimator", CLUSTERERS)
def test_pickles_hold_no_training_data(estimator):
    data = np.tile(X, (40, 100))
    model = brief(estimator, n_epochs=1, pretraining=SimCLR(max_epochs=1)).fit(data)
    state = pickle.dumps(model)
    parameters = sum(p.numel() for p in model._objective.parameters())
    assert len(state) < 8 * parameters + 8 * len(data) + 100_000 < data.nbytes


def test_pickling_leaves_the_estimator_as_it_was(method):
    method = fitted(method)
    before = dict(vars(method))
    pickle.dumps(method)
    assert all(vars(method)[name] is value for name, value in before.items())


def test_calibration_survives_a_pickle(estimator):
    estimator = fitted(estimator, "NOISE")
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(NOISE), estimator.predict_proba(NOISE))
    np.testing.assert_array_equal(
        again.predict(NOISE, reject_below=0.6), estimator.predict(NOISE, reject_below=0.6)
    )
