"""Lengths of rows against numpy, and how much is squared at a time."""

import numpy as np
import pytest
import torch

from skdeepcluster.numerics import _lengths, squared_lengths
from tests.helpers import MostMade, seeded


@pytest.mark.parametrize("n", [0, 1, 64, 65, 500])
@pytest.mark.parametrize("d", [1, 3, 100])
def test_against_numpy_and_all_at_once_to_the_bit(monkeypatch, n, d):
    X = torch.randn(n, d, generator=seeded())
    monkeypatch.setattr(_lengths, "BLOCK_ENTRIES", 6500)
    lengths = squared_lengths(X)
    np.testing.assert_allclose(lengths, np.square(X.numpy()).sum(axis=1), rtol=1e-5)
    assert torch.equal(lengths, X.square().sum(dim=1))


@pytest.mark.parametrize(("d", "most"), [(3, 1000), (100, 6400)])
def test_no_more_is_squared_at_a_time_than_fits(monkeypatch, d, most):
    monkeypatch.setattr(_lengths, "BLOCK_ENTRIES", 1000)
    X = torch.ones(500, d)
    with MostMade() as made:
        squared_lengths(X)
    assert made.entries <= most
