"""Contingency tables against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from skdeepcluster.numerics import contingency_table


@settings(max_examples=40, deadline=None)
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
