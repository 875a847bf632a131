"""Breathing k-means: lower inertias than many starts, what moves and where, a part of many rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from skdeepcluster.numerics import _breathing, breathing_kmeans, cluster_means, kmeans, lloyd
from skdeepcluster.numerics._breathing import (
    _gains,
    _next_to_the_worst,
    _with_fewer,
)
from tests.helpers import seeded
from tests.virtual_cuda import CUDA, virtual_cuda


def many_blobs(k=100, per_cluster=20, d=20, seed=0):
    """Samples of clusters that are well apart, and the inertia of what is right."""
    places = 4 * torch.randn(k, d, generator=seeded(seed))
    y = torch.arange(k).repeat_interleave(per_cluster)
    X = places[y] + torch.randn(len(y), d, generator=seeded(seed + 1))
    means, _ = cluster_means(X, y, k)
    return X, (X - means[y]).square().sum().item()


def squared_distances(X, centers):
    """A slow oracle."""
    return ((X.numpy()[:, None] - centers.numpy()[None]) ** 2).sum(axis=2)


def own_draws():
    """What a run draws from that was given ``seeded()``."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeded())))


@pytest.mark.parametrize("seed", range(3))
def test_many_clusters_are_found_where_starts_alone_do_not(seed):
    X, right = many_blobs(seed=seed)
    assert kmeans(X, 100, generator=seeded(), n_init=3).inertia > 1.02 * right
    assert breathing_kmeans(X, 100, generator=seeded()).inertia == pytest.approx(right, rel=1e-3)


def test_real_data_gain_by_moving():
    X = torch.from_numpy(load_digits().data).float()
    started = kmeans(X, 40, generator=seeded(), n_init=1)
    assert breathing_kmeans(X, 40, generator=seeded()).inertia < 0.99 * started.inertia


@pytest.mark.parametrize("fewest_rows", [50, 4096])
def test_one_number_is_drawn_however_often_centers_move(monkeypatch, fewest_rows):
    monkeypatch.setattr(_breathing, "FEWEST_ROWS", fewest_rows)
    monkeypatch.setattr(_breathing, "ROWS_PER_CLUSTER", 2)
    states = []
    for k in (2, 40):
        generator = seeded()
        breathing_kmeans(torch.randn(200, 3, generator=seeded(1)), k, generator=generator)
        states.append(generator.get_state())
    torch.randint(2**62, (), generator=(after_one := seeded()))
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], after_one.get_state())


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(2, 60), d=st.integers(1, 4), k=st.integers(1, 20), seed=st.integers(0, 99))
def test_it_is_never_worse_than_its_starts(n, d, k, seed):
    k = min(n, k)
    X = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)
    started = kmeans(X, k, generator=own_draws(), n_init=1)
    found = breathing_kmeans(X, k, generator=seeded())
    assert found.inertia <= started.inertia * (1 + 1e-9) + 1e-12  # where all is rounding
    squares = squared_distances(X, found.centers)
    assert found.inertia == pytest.approx(squares.min(axis=1).sum(), abs=1e-9)
    np.testing.assert_array_equal(found.labels, squares.argmin(axis=1))


# What moves ----------------------------------------------------------------------------------


def test_how_much_farther_the_next_center_is(monkeypatch):
    monkeypatch.setattr(_breathing, "BLOCK_ENTRIES", 21)
    X, centers = torch.randn(50, 3, generator=seeded()), torch.randn(7, 3, generator=seeded(1))
    squares = squared_distances(X, centers)
    labels, gains = _gains(X, centers)
    np.testing.assert_array_equal(labels, squares.argmin(axis=1))
    np.testing.assert_allclose(gains, np.diff(np.sort(squares, axis=1))[:, 0], atol=1e-5)


def test_new_centers_lie_next_to_those_with_the_largest_errors():
    X = torch.randn(400, 2, generator=seeded(), dtype=torch.float64)
    centers = X[:8]
    squares = squared_distances(X, centers)
    labels = squares.argmin(axis=1)
    errors = np.bincount(labels, squares.min(axis=1), minlength=8)
    apart = squared_distances(_next_to_the_worst(X, centers, 3, seeded()), centers)
    beside = apart.argmin(axis=1)
    assert beside.tolist() == np.argsort(-errors)[:3].tolist()
    deviations = np.sqrt(errors / np.bincount(labels, minlength=8) / 2)[beside]
    # A hundredth of a standard deviation, in each of two features.
    assert (apart.min(axis=1) > 0).all()
    assert (np.sqrt(apart.min(axis=1)) < 0.05 * deviations).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_center_that_is_missed_least_goes(seed):
    X = torch.randn(300, 3, generator=seeded(seed), dtype=torch.float64)
    centers = torch.randn(12, 3, generator=seeded(seed + 1), dtype=torch.float64)
    without = [
        squared_distances(X, centers[torch.arange(12) != i]).min(axis=1).sum() for i in range(12)
    ]
    kept = torch.arange(12) != int(np.argmin(without))
    assert torch.equal(_with_fewer(X, centers, 1), centers[kept])


def test_who_stands_in_for_another_stays():
    places = torch.tensor([[0.0], [10.0], [20.0]])
    X = (places + torch.randn(3, 50, generator=seeded())).reshape(-1, 1)
    # Two centres share each of the first two places: of each pair one is not missed.
    centers = torch.tensor([[-0.1], [0.1], [9.8], [10.2], [20.0]])
    kept = _with_fewer(X, centers, 2)
    assert kept.round(decimals=-1).flatten().tolist() == [0, 10, 20]


# Of many rows a part -------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_breathing, "FEWEST_ROWS", 300)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("k", "n_rows"), [(3, 300), (10, 500), (40, 1797)])
def test_a_part_finds_the_centers_and_all_rows_refine_them(monkeypatch, k, n_rows):
    rows = []

    def recorded(X, *args, **kwargs):
        rows.append(len(X))
        return kmeans(X, *args, **kwargs)

    monkeypatch.setattr(_breathing, "kmeans", recorded)
    X = torch.from_numpy(load_digits().data).float()
    found = breathing_kmeans(X, k, generator=seeded())
    assert rows == [n_rows]
    assert found.labels.shape == (len(X),)
    means, _ = cluster_means(X, found.labels, k)
    torch.testing.assert_close(found.centers, means, rtol=0, atol=0.2)
    best = KMeans(k, n_init=10, random_state=0).fit(X.numpy()).inertia_
    assert found.inertia <= 1.01 * best


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("seed", range(5))
def test_a_small_cluster_is_found_though_a_part_may_hold_none_of_it(seed):
    X = torch.randn(3000, 4, generator=seeded(seed))
    X[1500:, 0] += 8
    X[-4:, 1] += 100
    labels = breathing_kmeans(X, 3, generator=seeded(seed)).labels
    assert (labels == labels[-1]).nonzero()[:, 0].tolist() == [2996, 2997, 2998, 2999]


def test_the_farthest_sample_is_reached_out_for(monkeypatch):
    added = []

    def recorded(X, run, centers):
        added.append(centers)
        return run

    monkeypatch.setattr(_breathing, "_move", recorded)
    X = torch.randn(100, 2, generator=seeded())
    X[40] = 9.0
    _breathing._reach_out(X, lloyd(X, X[:3], max_iter=2))
    assert torch.equal(torch.cat(added), X[40:41])


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("X", [many_blobs(5, 200)[0], torch.from_numpy(load_digits().data).float()])
def test_a_device_finds_the_same(X):
    here = breathing_kmeans(X, 5, generator=seeded())
    with virtual_cuda():
        there = breathing_kmeans(X.to(CUDA), 5, generator=seeded())
        assert there.centers.device == CUDA
        labels, centers = there.labels.cpu(), there.centers.cpu()
    assert torch.equal(here.labels, labels)
    torch.testing.assert_close(here.centers, centers, rtol=0, atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="waits are counted on the virtual device")
def test_a_move_waits_once_besides_its_iterations(monkeypatch):
    refined, moves = [], []

    def recorded(*args, **kwargs):
        refined.append(lloyd(*args, **kwargs))
        return refined[-1]

    def counted(*args):
        moves.append(args)
        return _with_fewer(*args)

    monkeypatch.setattr(_breathing, "lloyd", recorded)
    monkeypatch.setattr(_breathing, "_with_fewer", counted)
    with virtual_cuda() as device:
        X = many_blobs(10)[0].to(CUDA)
        started = kmeans(X - X.mean(dim=0), 10, generator=own_draws(), n_init=1)
        device.waits.clear()
        breathing_kmeans(X, 10, generator=seeded())
    assert len(refined) == 2 * len(moves) > 0
    # A refinement besides: the threshold, the counts of the start and the inertia; a start one
    # more, for its draws.
    of_refinements = sum(run.n_iter + 3 for run in refined)
    assert device.waits.total() == started.n_iter + 4 + of_refinements + len(moves)
