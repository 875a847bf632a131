"""What is kept of training samples, and how far from it others are, against slow loops of numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdeepcluster.calibration import NearestMean, learn_familiar, outlier_ranks
from skdeepcluster.calibration._outliers import (
    KEPT_DISTANCES,
    MEANS_PER_CLUSTER,
    distances_to_others,
)
from tests.helpers import seeded


def rows(n, d=3, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "n_means"), [(40, 6), (12, 9), (5, 1), (2, 2)])
def test_each_sample_is_compared_with_means_without_it(n, n_means):
    X = rows(n)
    labels = torch.cat(
        [torch.arange(n_means), torch.randint(n_means, (n - n_means,), generator=seeded(1))]
    )
    means = torch.stack([X[labels == k].mean(dim=0) for k in range(n_means)])
    expected = []
    for i, x in enumerate(X.numpy()):
        others = np.arange(n) != i
        members = [X.numpy()[others & (labels.numpy() == k)] for k in range(n_means)]
        expected.append(min(np.linalg.norm(x - m.mean(axis=0)) for m in members if len(m)))
    found = distances_to_others(X, means, labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_a_single_sample_lies_where_it_lies():
    assert distances_to_others(rows(1), rows(1), torch.tensor([0])).tolist() == [0]


def test_the_opinion_is_the_distance_to_the_nearest_mean():
    X, means = rows(50).float(), rows(7, seed=1).float()
    expected = torch.cdist(X.double(), means.double()).amin(dim=1, keepdim=True)
    # Of several descriptions of a sample it looks at the first.
    found = NearestMean(means)(X, rows(50, seed=2))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


known_distances = st.lists(st.integers(0, 20), min_size=1, max_size=30)


@given(known_distances, st.lists(st.floats(0, 1e30), min_size=1, max_size=10))
def test_ranks_are_shares_in_the_order_of_the_distances(known, distances):
    known, distances = np.sort(np.array(known, dtype=np.float32)), np.sort(distances)
    ranks = outlier_ranks(distances, known)
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert (np.diff(ranks) >= 0).all()
    within = distances <= known[-1]
    n = len(known)
    for rank, distance in zip(ranks[within], distances[within], strict=True):
        share = np.mean(known < distance) + np.mean(known == distance) / 2
        assert rank * (n + 1) == pytest.approx(n * share)
    assert (ranks[~within] > n / (n + 1)).all()


def test_what_is_farther_than_everything_known_is_still_ranked():
    ranks = outlier_ranks(np.array([3.0, 3.1, 6.0, 1e9]), np.array([1.0, 2.0, 3.0]))
    assert (np.diff(ranks) > 0).all()
    assert ranks[2] == pytest.approx(1 - 0.5 / 4)
    assert ranks[3] == pytest.approx(1)


def test_of_samples_that_are_all_alike_others_are_strange():
    known = np.zeros(4)
    assert outlier_ranks(np.array([0.0, 1e-30]), known).tolist() == [0.4, 1]


@pytest.mark.parametrize(("n", "n_clusters"), [(1, 1), (9, 2), (200, 3), (2000, 40)])
def test_what_is_kept_are_means_and_no_samples(n, n_clusters):
    X = rows(n)
    means, distances = learn_familiar(X, n_clusters, seeded())
    assert means.dtype == distances.dtype == np.float32
    assert len(means) == max(1, min(n // 5, max(64, MEANS_PER_CLUSTER * n_clusters)))
    assert len(distances) == min(n, KEPT_DISTANCES)
    assert (np.diff(distances) >= 0).all()
    again = learn_familiar(X, n_clusters, seeded())
    assert all(np.array_equal(*pair) for pair in zip((means, distances), again, strict=True))


def test_new_samples_of_the_same_kind_are_spread_over_all_ranks():
    X = rows(4000, d=5).float()
    means, known = learn_familiar(X[:2000], 3, seeded())
    distances = NearestMean(torch.from_numpy(means))(X[2000:])[:, 0].numpy()
    ranks = outlier_ranks(distances, known)
    quantiles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(ranks, quantiles), quantiles, atol=0.07)
