"""Copies by pickle, joblib and torch predict the same and hold no training data."""

import io
import pickle

import joblib
import numpy as np
import torch

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


def test_copies_predict_the_same_and_hold_no_training_data(estimator):
    data = np.tile(X, (100, 60))
    estimator.fit(data)
    for copy in (copy_by_pickle, copy_by_joblib, copy_by_torch):
        np.testing.assert_array_equal(copy(estimator).predict(data), estimator.labels_)
    state = pickle.dumps(estimator)
    parameters = sum(p.numel() for p in estimator._objective.parameters())
    assert len(state) < 8 * parameters + 8 * len(data) + 100_000 < data.nbytes


def test_pickling_leaves_the_estimator_as_it_was(method):
    before = dict(vars(method.fit(X)))
    pickle.dumps(method)
    assert all(vars(method)[name] is value for name, value in before.items())


def test_calibration_survives_a_pickle(estimator):
    estimator.fit(NOISE)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(NOISE), estimator.predict_proba(NOISE))
    np.testing.assert_array_equal(
        again.predict(NOISE, reject_below=0.6), estimator.predict(NOISE, reject_below=0.6)
    )
