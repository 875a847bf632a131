"""Calibration makes probabilities honest and changes nothing else."""

import numpy as np
import pytest
from sklearn.base import clone

from tests.base.soundness_helpers import heads_own
from tests.instances import fitted
from tests.samples import NOISE, X


def test_calibration_changes_the_probabilities_and_nothing_else(estimator):
    calibrated = fitted(estimator, "NOISE")
    plain = clone(estimator).set_params(calibrate=False).fit(NOISE)
    np.testing.assert_array_equal(plain.labels_, calibrated.labels_)
    np.testing.assert_array_equal(plain.transform(NOISE), calibrated.transform(NOISE))
    np.testing.assert_allclose(plain.predict_proba(NOISE), heads_own(plain, NOISE), atol=1e-6)
    np.testing.assert_allclose(heads_own(calibrated, NOISE), heads_own(plain, NOISE), atol=1e-6)
    p = calibrated.predict_proba(NOISE)
    assert np.abs(p - plain.predict_proba(NOISE)).max() > 0.01
    np.testing.assert_array_equal(p.argmax(axis=1), calibrated.labels_)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


def test_new_samples_have_calibrated_probabilities_too(estimator):
    estimator.fit(NOISE[:60])
    p, labels = estimator.predict_proba(NOISE[60:]), estimator.predict(NOISE[60:])
    np.testing.assert_array_equal(p.argmax(axis=1), labels)
    ranked = np.sort(p, axis=1)
    assert (ranked[:, -1] > ranked[:, -2]).all()
    np.testing.assert_array_equal(p, estimator.predict_proba(NOISE)[60:])


def test_confidences_of_noise_are_lower_than_those_of_blobs(method):
    blobs = fitted(method).predict_proba(X).max(axis=1)
    noise = fitted(method, "NOISE").predict_proba(NOISE).max(axis=1)
    assert blobs.mean() > 0.9
    assert noise.mean() < blobs.mean() - 0.2


def test_the_expected_accuracy_is_the_mean_confidence_in_the_labels(estimator):
    estimator = fitted(estimator, "NOISE")
    mean = estimator.predict_proba(NOISE).max(axis=1).mean()
    assert type(estimator.expected_accuracy_) is float
    assert estimator.expected_accuracy_ == pytest.approx(mean, abs=1e-5)
    low, high = estimator.expected_accuracy_interval_
    assert 0 <= low < mean < high <= 1


def test_who_is_not_calibrated_expects_nothing(estimator):
    assert not hasattr(estimator, "expected_accuracy_")
    estimator = fitted(estimator).set_params(calibrate=False).fit(X)
    with pytest.raises(AttributeError, match="calibrate=True"):
        _ = estimator.expected_accuracy_
    assert not hasattr(estimator, "expected_accuracy_interval_")
