"""The conductance of partitions against a slow count, and what it is there for."""

import numpy as np
import pytest
import torch

from skdeepcluster.numerics import conductances, mean_conductance, nearest_neighbors


def slow_conductances(labels, neighbors, n_clusters):
    """Edge by edge; NaN where a cluster has no sample."""
    sizes = np.bincount(labels, minlength=n_clusters)
    volumes, leaving = np.zeros(n_clusters), np.zeros(n_clusters)
    for i, row in enumerate(neighbors):
        for j in row[: max(sizes[labels[i]] - 1, 1)]:
            for end in (i, j):
                volumes[labels[end]] += 1
                leaving[labels[end]] += labels[i] != labels[j]
    shares = [
        leaving[k] / max(min(volumes[k], volumes.sum() - volumes[k]), 1) if volumes[k] else np.nan
        for k in range(n_clusters)
    ]
    return np.array(shares)


@pytest.mark.parametrize("seed", range(10))
def test_against_a_count_edge_by_edge(seed):
    rng = np.random.default_rng(seed)
    n, k, n_neighbors = rng.integers(6, 60), rng.integers(1, 8), rng.integers(1, 5)
    labels = rng.choice(k, size=n, p=rng.dirichlet(np.ones(k)))
    others = [np.delete(np.arange(n), i) for i in range(n)]
    neighbors = np.array([rng.choice(others[i], n_neighbors, replace=False) for i in range(n)])
    given = torch.from_numpy(labels), torch.from_numpy(neighbors), k + 2
    expected = slow_conductances(labels, neighbors, k + 2)
    shares, used = conductances(*given)
    np.testing.assert_array_equal(used, ~np.isnan(expected))
    np.testing.assert_allclose(shares[used], expected[used], rtol=1e-6)
    assert not shares[~used].any()
    assert mean_conductance(*given) == pytest.approx(np.nanmean(expected))


def blobs(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.cat(
        [torch.randn(n, 3, generator=generator) + 20 * place for place, n in enumerate(sizes)]
    )
    return X, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def test_clear_clusters_leak_nothing_however_small():
    X, labels = blobs([200, 40, 6])
    _, graph = nearest_neighbors(X, 15)
    # A few rows of the larger ones are neighbours of the six, which have too few of their own.
    assert mean_conductance(labels, graph, 3) < 0.02


def test_torn_and_fused_clusters_leak():
    X, labels = blobs([200, 40, 40])
    _, graph = nearest_neighbors(X, 15)
    torn = torch.where(torch.arange(280) < 100, 1, labels)
    torn[200:240] = 2  # and the two small ones fused
    assert mean_conductance(torn, graph, 3) > mean_conductance(labels, graph, 3) + 0.1
