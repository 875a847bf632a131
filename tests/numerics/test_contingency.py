"""Counts of labels, and contingency tables against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from skdeepcluster.numerics import contingency_table, label_counts, numbered_alike


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(0, 50), n_labels=st.integers(1, 9), seed=st.integers(0, 99))
def test_labels_are_counted(n, n_labels, seed):
    labels = torch.randint(n_labels, (n,), generator=torch.Generator().manual_seed(seed))
    counts = label_counts(labels, n_labels)
    np.testing.assert_array_equal(counts, np.bincount(labels, minlength=n_labels))
    assert counts.dtype == torch.int64


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 50), rows=st.integers(1, 8), columns=st.integers(2, 8), seed=st.integers(0, 99)
)
def test_against_scikit_learn(n, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(rows, (n,), generator=generator)
    b = torch.randint(columns, (n,), generator=generator)
    side = max(rows, columns)
    expected = confusion_matrix(a, b, labels=range(side))[:rows, :columns]
    table = contingency_table(a, b, rows, columns)
    np.testing.assert_array_equal(table, expected)
    assert table.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_small_integer_types_do_not_overflow(dtype):
    labels = torch.tensor([200, 1, 200], dtype=dtype)
    table = contingency_table(labels, labels, 201, 201)
    assert table[200, 200] == 2
    assert table[1, 1] == 1
    assert table.sum() == 3


def test_no_samples_make_an_empty_table():
    none = torch.empty(0, dtype=torch.long)
    assert contingency_table(none, none, 2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_clusters_are_numbered_as_those_that_they_overlap():
    like = torch.tensor([2, 2, 2, 0, 0, 1])
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    assert numbered_alike(labels, like, 3).tolist() == [2, 2, 0, 0, 0, 1]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(n=st.integers(1, 60), k=st.integers(1, 9), seed=st.integers(0, 999))
def test_matching_is_a_permutation_with_the_most_agreement(n, k, seed):
    rng = np.random.default_rng(seed)
    found, labels = rng.integers(k, size=n), rng.integers(rng.integers(1, k + 1), size=n)
    matched = numbered_alike(torch.from_numpy(found), torch.from_numpy(labels), k).numpy()
    assert matched.dtype == np.int64
    table = np.zeros((k, k), dtype=int)
    for a, b in zip(found, labels, strict=True):
        table[a, b] += 1
    best = table[linear_sum_assignment(table, maximize=True)].sum()
    assert (matched == labels).sum() == best
    # One number for each number, and no number twice.
    pairs = set(zip(found.tolist(), matched.tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert matched.max() < k


def test_matching_undoes_a_renumbering():
    labels = torch.arange(50) % 5
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(numbered_alike(order[labels], labels, 5), labels)
