"""Schedules: where they start, peak and end."""

import numpy as np
import pytest

from skdeepcluster.training import constant, cosine, one_cycle

PROGRESS = np.linspace(0, 1, 101)


def test_constant():
    assert {constant(p) for p in PROGRESS} == {1.0}


def test_cosine_falls_from_one_to_zero():
    factors = [cosine(p) for p in PROGRESS]
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(factors) < 0).all()


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.9])
def test_one_cycle_rises_and_falls(warmup):
    factors = np.array([one_cycle(p, warmup) for p in PROGRESS])
    peak = round(100 * warmup)
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[peak] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(factors[: peak + 1]) > 0).all()
    assert (np.diff(factors[peak:]) < 0).all()


def test_one_cycle_without_warmup_starts_at_the_base_rate():
    assert one_cycle(0.0, warmup=0.0) == 1
    assert one_cycle(0.0, warmup=1.0) == pytest.approx(1 / 25)
