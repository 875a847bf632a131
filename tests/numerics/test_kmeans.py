"""k-means against scikit-learn, and on data that is small, constant, repeated or far from zero."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from skdeepcluster.numerics import _kmeans, breathing_kmeans, cluster_means, kmeans, lloyd
from skdeepcluster.numerics._kmeans import (
    _lloyd,
    _plus_plus,
    _sums_by_index,
    _sums_by_product,
    nearest_center,
)
from tests.helpers import seeded
from tests.virtual_cuda import CUDA, virtual_cuda

both = pytest.mark.parametrize("partition", [kmeans, breathing_kmeans])


def blobs(n=500, d=5, k=6, std=1.0, seed=0, dtype=torch.float64):
    X, y = make_blobs(n, d, centers=k, cluster_std=std, random_state=seed)
    return torch.from_numpy(X).to(dtype), y


def digits():
    return torch.from_numpy(load_digits().data).float()


# Against scikit-learn ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "k"),
    [(blobs(dtype=torch.float32)[0], 6), (blobs(std=4.0)[0], 9), (digits(), 10)],
    ids=["blobs", "overlapping", "digits"],
)
def test_inertia_is_as_low_as_scikit_learns(X, k):
    ours = kmeans(X, k, generator=seeded(), n_init=5)
    theirs = KMeans(k, n_init=5, random_state=0).fit(X.double().numpy())
    assert ours.inertia <= 1.015 * theirs.inertia_


@pytest.mark.parametrize("max_iter", [1, 3, 300])
@pytest.mark.parametrize("tol", [0.0, 1e-2])
@pytest.mark.parametrize("seed", range(2))
def test_same_start_gives_the_same_result_as_scikit_learn(seed, tol, max_iter):
    X, _ = blobs(std=4.0, seed=seed)
    X = X - X.mean(dim=0)
    start = X[torch.randperm(len(X), generator=seeded(seed))[:8]]
    threshold = tol * X.var(dim=0, correction=0).mean().item()
    ours = _lloyd(X, start, max_iter, threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = KMeans(8, init=start.numpy(), n_init=1, max_iter=max_iter, tol=tol)
        theirs.fit(X.numpy())
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-9)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-9)
    assert ours.n_iter <= max_iter


# The result ----------------------------------------------------------------------------------


def test_the_fields_of_the_result_agree_with_each_other():
    X = digits()[:600]
    result = kmeans(X, 10, generator=seeded(), n_init=1, tol=0.0)
    distances = torch.cdist(X.double(), result.centers.double()).square()
    assert result.labels.dtype == torch.int64
    assert torch.equal(result.labels, distances.argmin(dim=1))
    assert result.inertia == pytest.approx(distances.min(dim=1).values.sum().item(), rel=1e-5)
    means, _ = cluster_means(X, result.labels, 10)
    torch.testing.assert_close(result.centers, means, rtol=0, atol=1e-4)
    assert 1 <= result.n_iter <= 300


def test_more_runs_are_never_worse():
    X, _ = blobs(std=3.0)
    inertias = [kmeans(X, 12, generator=seeded(), n_init=n).inertia for n in (1, 2, 4, 8)]
    assert inertias == sorted(inertias, reverse=True)


def test_rounding_does_not_choose_among_runs_that_end_alike(monkeypatch):
    X = torch.randn(20, 2, generator=seeded())
    inertias = iter([1.0, 1.0 - 1e-7, 0.9, 0.9 - 1e-7, 0.9 + 1e-7])
    run = kmeans(X, 3, generator=seeded(), n_init=1)
    monkeypatch.setattr(
        _kmeans, "_lloyd", lambda *_: dataclasses.replace(run, inertia=next(inertias))
    )
    assert kmeans(X, 3, generator=seeded(), n_init=5).inertia == 0.9


@both
@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 40), d=st.integers(1, 6), k=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_shape_works(partition, n, d, k, seed):
    k = min(n, k)
    X = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)
    result = partition(X, k, generator=seeded(seed))
    assert result.centers.shape == (k, d)
    assert result.labels.shape == (n,)
    # Rows differ, so no cluster needs to stay empty.
    assert torch.bincount(result.labels, minlength=k).min() >= 1
    assert result.centers.isfinite().all()


@both
def test_one_cluster_is_the_mean(partition):
    X = digits()
    result = partition(X, 1, generator=seeded())
    torch.testing.assert_close(result.centers[0], X.mean(dim=0), rtol=0, atol=1e-5)
    assert result.inertia == pytest.approx((X.var(dim=0, correction=0) * len(X)).sum().item())
    assert not result.labels.any()


@both
def test_as_many_clusters_as_samples(partition):
    X = torch.randn(30, 4, generator=seeded())
    result = partition(X, 30, generator=seeded())
    assert sorted(result.labels.tolist()) == list(range(30))
    assert result.inertia == pytest.approx(0.0, abs=1e-4)
    torch.testing.assert_close(result.centers[result.labels], X)


@both
@pytest.mark.parametrize("value", [0.0, 7.3, 1e4])
def test_constant_data(partition, value):
    X = torch.full((50, 3), value)
    result = partition(X, 4, generator=seeded())
    assert result.inertia == 0.0
    torch.testing.assert_close(result.centers, X[:4])


@both
def test_as_many_clusters_as_equal_samples(partition):
    X = torch.ones(8, 3)
    result = partition(X, 8, generator=seeded())
    assert result.inertia == 0.0
    torch.testing.assert_close(result.centers, X)


@both
def test_fewer_distinct_rows_than_clusters(partition):
    distinct = torch.randn(5, 3, generator=seeded())
    X = distinct.repeat(10, 1)
    result = partition(X, 8, generator=seeded())
    assert result.inertia == pytest.approx(0.0, abs=1e-4)
    assert len(result.labels.unique()) == 5
    torch.testing.assert_close(result.centers[result.labels], X, rtol=0, atol=1e-4)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_far_from_zero(partition, dtype):
    X, y = blobs(k=4, d=3, std=0.5, dtype=dtype)
    near = partition(X, 4, generator=seeded())
    far = partition(X + 1e4, 4, generator=seeded())
    assert adjusted_rand_score(near.labels, far.labels) == 1
    assert adjusted_rand_score(y, far.labels) == 1
    torch.testing.assert_close(far.centers - 1e4, near.centers, rtol=0, atol=5e-3)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)


@both
def test_float64_is_kept(partition):
    X, _ = blobs()
    result = partition(X, 3, generator=seeded())
    assert result.centers.dtype == torch.float64


@both
def test_the_input_is_not_written_to(partition):
    X = digits()
    before = X.clone()
    partition(X, 10, generator=seeded())
    assert torch.equal(X, before)


@pytest.mark.parametrize("entries", [1, 7, 1000])
def test_block_size_changes_nothing(monkeypatch, entries):
    X, _ = blobs(n=200, std=3.0)
    whole = kmeans(X, 7, generator=seeded(), n_init=2)
    monkeypatch.setattr(_kmeans, "BLOCK_ENTRIES", entries)
    parts = kmeans(X, 7, generator=seeded(), n_init=2)
    assert torch.equal(whole.labels, parts.labels)
    torch.testing.assert_close(whole.centers, parts.centers)


def test_distances_are_formed_in_blocks(monkeypatch):
    sizes = []
    addmm = torch.addmm

    def recording(*args, **kwargs):
        result = addmm(*args, **kwargs)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(torch, "addmm", recording)
    monkeypatch.setattr(_kmeans, "BLOCK_ENTRIES", 1000)
    nearest_center(torch.randn(500, 3, generator=seeded()), torch.eye(20, 3))
    assert max(sizes) <= 1000
    assert sum(sizes) == 500 * 20


def test_rows_are_summed_in_blocks_and_of_wide_ones_fewer_at_a_time(monkeypatch):
    X, labels = torch.randn(500, 30, generator=seeded()), torch.arange(500) % 7
    whole, sizes, double = _sums_by_index(X, labels, 7), [], torch.Tensor.double

    def recording(tensor):
        sizes.append(tensor.numel())
        return double(tensor)

    monkeypatch.setattr(torch.Tensor, "double", recording)
    monkeypatch.setattr(_kmeans, "BLOCK_ENTRIES", 1000)
    assert torch.equal(_sums_by_index(X, labels, 7), whole)
    assert max(sizes) <= 1000
    assert sum(sizes) == 500 * 30


@both
def test_all_randomness_comes_from_the_generator(partition):
    X = digits()[:600]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is under test
    first = partition(X, 10, generator=seeded(3))
    torch.rand(5)
    torch.set_rng_state(states[0])
    second = partition(X, 10, generator=seeded(3))
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.centers, second.centers)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002 - the global state is under test
    assert not torch.equal(first.labels, partition(X, 10, generator=seeded(4)).labels)


# k-means++ -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 8),
    k=st.integers(1, 60),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_starting_centers_are_distinct_rows(n, d, k, repeats, seed):
    k = min(n, k)
    X = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64).repeat(repeats, 1)
    centers = _plus_plus(X, k, seeded(seed))
    assert (centers[:, None] == X).all(dim=2).any(dim=1).all()
    assert len(centers.unique(dim=0)) == k
    assert torch.equal(centers, _plus_plus(X, k, seeded(seed)))


def test_starting_centers_find_every_far_cluster():
    X, y = blobs(n=400, k=8, std=0.01, d=3)
    for seed in range(10):
        centers = _plus_plus(X, 8, seeded(seed))
        rows = (centers[:, None] == X).all(dim=2).int().argmax(dim=1)
        assert len(np.unique(y[rows])) == 8


def test_a_draw_of_zero_does_not_choose_a_row_twice(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, **_: torch.zeros(*shape, dtype=dtype))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([0]))
    X = torch.arange(4.0)[:, None]
    assert len(_plus_plus(X, 4, seeded()).unique()) == 4


# Lloyd's pieces ------------------------------------------------------------------------------


def test_nearest_center_against_all_distances():
    X = torch.randn(300, 4, generator=seeded(), dtype=torch.float64)
    centers = torch.randn(11, 4, generator=seeded(1), dtype=torch.float64)
    labels, distances = nearest_center(X, centers)
    squared = torch.cdist(X, centers).square()
    assert torch.equal(labels, squared.argmin(dim=1))
    torch.testing.assert_close(
        distances + X.square().sum(dim=1), squared.min(dim=1).values, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("sum_rows", [_sums_by_index, _sums_by_product])
@pytest.mark.parametrize("block_rows", [1, 64, 2**13])
def test_both_ways_to_sum_agree_with_numpy(monkeypatch, sum_rows, block_rows):
    monkeypatch.setattr(_kmeans, "BLOCK_ROWS", block_rows)
    X = torch.randn(200, 3, generator=seeded())
    labels = torch.randint(5, (200,), generator=seeded(1))
    labels[labels == 2] = 0
    expected = np.stack([X.double().numpy()[labels == k].sum(axis=0) for k in range(6)])
    sums = sum_rows(X, labels, 6)
    np.testing.assert_allclose(sums, expected, atol=1e-4)


@pytest.mark.parametrize("entries", [1, 50, 2**20])
def test_cluster_means_against_numpy(monkeypatch, entries):
    monkeypatch.setattr(_kmeans, "BLOCK_ENTRIES", entries)
    X = torch.randn(200, 3, generator=seeded(), dtype=torch.float64)
    labels = torch.randint(5, (200,), generator=seeded(1))
    labels[labels == 2] = 0
    means, counts = cluster_means(X, labels, 7)
    assert means.dtype == X.dtype
    np.testing.assert_array_equal(counts, np.bincount(labels, minlength=7))
    for k in range(7):
        expected = X[labels == k].mean(dim=0) if counts[k] else torch.zeros(3)
        torch.testing.assert_close(means[k], expected, check_dtype=False)


@pytest.mark.parametrize("sum_rows", [_sums_by_index, _sums_by_product])
def test_sums_of_many_similar_rows_lose_no_digits(sum_rows):
    X = torch.full((1_000_000, 1), 0.97)
    sums = sum_rows(X, torch.zeros(len(X), dtype=torch.long), 1)
    assert sums.item() == pytest.approx(970_000, rel=1e-4)


@pytest.mark.parametrize("sum_rows", [_sums_by_index, _sums_by_product])
def test_blocks_are_added_up_in_double_precision(sum_rows, monkeypatch):
    monkeypatch.setattr(_kmeans, "BLOCK_ROWS", 16)
    X = torch.full((200_000, 1), 0.97)
    sums = sum_rows(X, torch.zeros(len(X), dtype=torch.long), 1)
    assert sums.item() == pytest.approx(len(X) * X[0].item(), rel=1e-6)


def test_empty_clusters_move_to_the_farthest_samples():
    X = torch.tensor([[0.0], [0.1], [0.2], [5.0], [9.0]])
    start = torch.tensor([[0.0], [100.0], [200.0]])
    result = _lloyd(X, start, 100, 0.0)
    assert torch.bincount(result.labels, minlength=3).tolist() == [3, 1, 1]
    assert result.inertia == pytest.approx(0.02, abs=1e-5)


# From given centres --------------------------------------------------------------------------


@pytest.mark.parametrize("max_iter", [1, 2, 5, 300])
@pytest.mark.parametrize("tol", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_given_centers_are_refined_as_by_scikit_learn(offset, tol, max_iter):
    X, _ = blobs(std=4.0, seed=3)
    X += offset
    start = X[torch.randperm(len(X), generator=seeded(5))[:8]]
    ours = lloyd(X, start, max_iter=max_iter, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = KMeans(8, init=start.numpy(), n_init=1, max_iter=max_iter, tol=tol)
        theirs.fit(X.numpy())
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-9)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-9)
    assert ours.n_iter <= max_iter


def test_the_default_tolerance_is_that_of_kmeans():
    X, _ = blobs(n=5000, std=9.0, seed=3)
    default = lloyd(X, X[:12], max_iter=300)
    assert torch.equal(default.centers, lloyd(X, X[:12], max_iter=300, tol=1e-4).centers)
    assert default.n_iter < lloyd(X, X[:12], max_iter=300, tol=0.0).n_iter


def test_centers_at_rest_stay():
    X, _ = blobs()
    result = kmeans(X, 6, generator=seeded(), tol=0.0)
    again = lloyd(X, result.centers, max_iter=10, tol=0.0)
    assert again.n_iter == 1
    assert torch.equal(again.labels, result.labels)
    torch.testing.assert_close(again.centers, result.centers)


def test_no_iteration_gives_the_nearest_of_the_given_centers():
    X, _ = blobs()
    result = lloyd(X, X[:6], max_iter=0)
    torch.testing.assert_close(result.centers, X[:6])
    assert torch.equal(result.labels, torch.cdist(X, X[:6]).argmin(dim=1))
    assert result.n_iter == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_given_centers_without_samples_are_repaired(dtype):
    X, y = blobs(std=0.05, dtype=dtype)
    # Two are far from all samples, and three are the same.
    start = torch.cat([X[y == 0][:1].repeat(3, 1), X[y == 1][:1], torch.full((2, 5), 1e3).to(X)])
    result = lloyd(X, start, max_iter=50)
    assert result.centers.dtype == dtype
    assert torch.bincount(result.labels, minlength=6).min() >= 1
    assert result.centers.abs().max() <= X.abs().max()
    assert result.inertia < lloyd(X, start, max_iter=1).inertia


def test_refining_writes_to_nothing_and_draws_nothing():
    X, _ = blobs()
    start = X[:6].clone()
    before, state = X.clone(), torch.get_rng_state()
    lloyd(X, start, max_iter=10)
    assert torch.equal(X, before)
    assert torch.equal(start, X[:6])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(torch.cuda.is_available(), reason="waits are counted on the virtual device")
@pytest.mark.parametrize("n_clusters", [5, 10])
def test_an_accelerator_is_waited_for_once_an_iteration(n_clusters):
    with virtual_cuda() as device:
        X = digits()[:300].to(CUDA)
        device.waits.clear()
        run = kmeans(X, n_clusters, generator=seeded(), n_init=1)
        # Besides: the threshold, the draws, the counts of the start and the inertia.
        assert device.waits.total() == run.n_iter + 4
        there = run.labels.cpu()
    here = kmeans(digits()[:300], n_clusters, generator=seeded(), n_init=1)
    assert torch.equal(there, here.labels)
