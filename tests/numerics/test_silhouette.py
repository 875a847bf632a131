"""The simplified silhouette against a slow one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdeepcluster.numerics import _silhouette, centroid_silhouette


def slow_silhouette(X, labels):
    """One sample after the other, in double precision."""
    X = np.asarray(X, dtype=np.float64)
    labels = np.asarray(labels)
    means = {k: X[labels == k].mean(axis=0) for k in np.unique(labels)}
    if len(means) < 2:
        return 0.0
    values = []
    for x, label in zip(X, labels, strict=True):
        distances = {k: np.linalg.norm(x - mean) for k, mean in means.items()}
        a = distances.pop(label)
        b = min(distances.values())
        values.append((b - a) / max(a, b) if max(a, b) > 0 else 0.0)
    return float(np.sort(values)[(len(values) - 1) // 2])  # torch's median: the lower one


def random_partition(n, d, k, seed):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return X, torch.randint(k, (n,), generator=generator)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 40), d=st.integers(1, 5), k=st.integers(1, 9), seed=st.integers(0, 99))
def test_against_the_slow_one(n, d, k, seed):
    X, labels = random_partition(n, d, k, seed)
    assert centroid_silhouette(X, labels, k) == pytest.approx(slow_silhouette(X, labels), abs=1e-6)


def test_unused_clusters_do_not_count():
    X, labels = random_partition(50, 3, 4, 0)
    X = X + 4 * torch.eye(4, 3)[labels]  # far from the middle, where a mean of none would be
    assert centroid_silhouette(X, labels * 3, 20) == pytest.approx(
        centroid_silhouette(X, labels, 4)
    )


def test_one_cluster_and_constant_data_score_zero():
    X, labels = random_partition(20, 3, 4, 0)
    assert centroid_silhouette(X, torch.zeros(20, dtype=torch.long), 5) == 0
    assert centroid_silhouette(torch.full((20, 3), 7.3), labels, 4) == 0


def test_separated_clusters_score_near_one_and_wrong_labels_below_zero():
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    labels = torch.arange(60) % 3
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    X = centers[labels] + 0.1 * noise
    assert 0.99 < centroid_silhouette(X, labels, 3) <= 1
    wrong = torch.cat([labels[:50], (labels[50:] + 1) % 3])
    assert centroid_silhouette(X[50:], wrong[50:], 3) == pytest.approx(1, abs=0.01)
    assert centroid_silhouette(X, wrong, 3) < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_far_from_zero(dtype):
    X, labels = random_partition(300, 4, 3, 1)
    X = (X + 3 * torch.eye(3, 4, dtype=torch.float64)[labels]).to(dtype)
    far = X + 1e4
    assert centroid_silhouette(far, labels, 3) == pytest.approx(
        slow_silhouette(far, labels), abs=1e-4
    )


@pytest.mark.parametrize(("n", "d", "k"), [(3000, 700, 3), (3000, 3, 700)])
def test_block_size_changes_nothing_and_counts_what_a_row_holds(monkeypatch, n, d, k):
    X, labels = random_partition(n, d, k, 0)
    whole, sizes, cdist = centroid_silhouette(X, labels, k), [], torch.cdist

    def recording(rows, means):
        sizes.append(len(rows))
        return cdist(rows, means)

    monkeypatch.setattr(torch, "cdist", recording)
    monkeypatch.setattr(_silhouette, "BLOCK_ENTRIES", 700_000)
    assert centroid_silhouette(X, labels, k) == pytest.approx(whole, abs=1e-9)
    assert sizes == [1000, 1000, 1000]
