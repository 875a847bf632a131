"""Schedules: where they start, peak and end."""

import numpy as np
import pytest

from skdeepcluster.training import constant, cosine, delayed, one_cycle

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


@pytest.mark.parametrize(("rest", "warmup"), [(0.1, 0.3), (0.0, 0.3), (0.25, 0.9), (0.02, 0.5)])
def test_delayed_rests_rises_and_falls(rest, warmup):
    factors = np.array([delayed(rest, warmup)(p) for p in PROGRESS])
    begin, peak = round(100 * rest), round(100 * warmup)
    assert (factors[: begin + 1] == 0).all()
    np.testing.assert_allclose(
        factors[begin : peak + 1], np.linspace(0, 1, peak + 1 - begin), atol=1e-12
    )
    middle = delayed(rest, warmup)((warmup + 1) / 2)
    assert middle == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(factors[peak:]) < 0).all()
    # No jumps where one part ends and the next begins.
    assert np.abs(np.diff(factors)).max() < 0.2


def test_delayed_falls_as_cosine_does():
    schedule = delayed(0.2, 0.5)
    expected = [cosine(2 * (p - 0.5)) for p in PROGRESS[50:]]
    np.testing.assert_allclose([schedule(p) for p in PROGRESS[50:]], expected, atol=1e-12)


def test_delayed_by_nothing_is_the_cosine():
    assert [delayed(0.0, 0.0)(p) for p in PROGRESS] == [cosine(p) for p in PROGRESS]


def test_delayed_without_a_rise_jumps():
    schedule = delayed(0.5, 0.5)
    assert {schedule(p) for p in PROGRESS[:50]} == {0.0}
    assert schedule(0.5) == 1
