"""Nearest neighbours against scikit-learn, in blocks of every size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from skdeepcluster.numerics import _neighbors, nearest_neighbors
from tests.helpers import MostMade


def random_rows(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(X, k):
    """scikit-learn leaves the row itself out when it is asked about its own data."""
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X.double().numpy()).kneighbors()


@pytest.mark.parametrize("block", [2048, 100, 64, 50, 7, 1])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_against_scikit_learn(monkeypatch, k, block):
    monkeypatch.setattr(_neighbors, "BLOCK", block)
    X = random_rows(100, 6)
    distances, indices = nearest_neighbors(X, k)
    expected_distances, expected_indices = reference(X, k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)
    assert indices.dtype == torch.int64


def test_digits_in_single_precision():
    X = torch.from_numpy(load_digits().data).float()
    distances, _ = nearest_neighbors(X, 5)
    # Pixels are integers and so are squared distances: ties make the indices ambiguous.
    np.testing.assert_allclose(distances, reference(X, 5)[0], rtol=1e-4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 5),
    k=st.integers(1, 45),
    block=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_every_shape_and_block_size(n, d, k, block, seed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_neighbors, "BLOCK", block)
        X = random_rows(n, d, seed)
        distances, indices = nearest_neighbors(X, k)
    expected_distances, _ = reference(X, min(k, n - 1))
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)
    assert (indices != torch.arange(n)[:, None]).all()
    assert all(len(set(row)) == len(row) for row in indices.tolist())


@pytest.mark.parametrize("block", [2048, 3])
def test_a_repeated_row_never_returns_itself(monkeypatch, block):
    monkeypatch.setattr(_neighbors, "BLOCK", block)
    X = random_rows(5, 3, dtype=torch.float32).repeat(4, 1)
    distances, indices = nearest_neighbors(X, 3)
    assert (indices != torch.arange(20)[:, None]).all()
    assert (indices % 5 == torch.arange(20)[:, None] % 5).all()
    torch.testing.assert_close(distances, torch.zeros(20, 3), rtol=0, atol=2e-3)


@pytest.mark.parametrize("value", [0.0, 3.3, 1e4])
def test_constant_data(value):
    distances, indices = nearest_neighbors(torch.full((12, 3), value), 4)
    assert not distances.any()
    assert (indices != torch.arange(12)[:, None]).all()


def test_two_rows_have_each_other_and_one_row_has_none():
    distances, indices = nearest_neighbors(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), 10)
    assert indices.tolist() == [[1], [0]]
    assert distances.tolist() == [[5.0], [5.0]]
    distances, indices = nearest_neighbors(torch.ones(1, 2), 10)
    assert distances.shape == indices.shape == (1, 0)


def test_data_far_from_zero():
    X = random_rows(200, 4, dtype=torch.float32)
    _, near = nearest_neighbors(X, 3)
    # Adding the offset itself rounds the rows, so compare within the rows that result.
    far_rows = X + 1e4
    _, far = nearest_neighbors(far_rows, 3)
    distances = torch.cdist(far_rows.double(), far_rows.double())
    chosen = distances.gather(1, far)
    best = torch.from_numpy(reference(far_rows, 3)[0])
    torch.testing.assert_close(chosen, best, rtol=1e-3, atol=1e-3)
    assert (near == far).float().mean() > 0.9


def test_no_block_is_larger_than_planned_and_none_is_made_twice(monkeypatch):
    monkeypatch.setattr(_neighbors, "BLOCK", 16)
    sizes = []

    class Recording(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function in (torch.addmm, torch.Tensor.matmul):
                sizes.append(tuple(result.shape))
            return result

    with Recording():
        nearest_neighbors(random_rows(64, 3), 5)
    assert sizes == 10 * [(16, 16)]  # of the 16 pairs of blocks


def test_the_input_is_not_written_to():
    X = random_rows(20, 3)
    before = X.clone()
    nearest_neighbors(X, 3)
    assert torch.equal(X, before)


def test_no_copy_of_all_rows_is_made(monkeypatch):
    monkeypatch.setattr(_neighbors, "BLOCK", 50)
    X = random_rows(400, 100)
    with MostMade() as made:
        nearest_neighbors(X, 5)
    assert made.entries <= 50 * 100
