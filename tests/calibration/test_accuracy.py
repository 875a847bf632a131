"""The interval around a mean confidence."""

import numpy as np
import pytest

from skdeepcluster.calibration import accuracy_interval


@pytest.mark.parametrize("mean", np.linspace(0, 1, 21))
def test_the_interval_holds_the_mean_and_stays_in_range(mean):
    low, high = accuracy_interval(mean)
    assert 0 <= low <= mean <= high <= 1
    assert low < high


def test_the_interval_by_hand():
    # sqrt(.5 * .5 + .001) = .501; sqrt(.8 * .2 + .001) = .40125
    assert accuracy_interval(0.5) == pytest.approx(
        (0.5 - 0.8 * 0.501, 0.5 + 0.35 * 0.501), abs=1e-3
    )
    assert accuracy_interval(0.8) == pytest.approx((0.4790, 0.9404), abs=1e-3)


def test_the_surer_the_narrower():
    widths = [np.diff(accuracy_interval(mean))[0] for mean in (0.7, 0.8, 0.9, 0.99, 1.0)]
    assert (np.diff(widths) < 0).all()
    assert 0.01 < widths[-1] < 0.04
