"""Long-tailed subsets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdeepcluster.datasets import make_long_tailed


@pytest.mark.parametrize(
    ("n_classes", "n_max", "ratio", "total"),
    [(10, 5000, 10, 20_431), (10, 100, 1, 1000), (1, 30, 10, 30)],
    ids=["cifar10", "balanced", "one class"],
)
def test_number_of_rows(n_classes, n_max, ratio, total):
    y = np.repeat(np.arange(n_classes), n_max)
    X_lt, y_lt = make_long_tailed(y[:, None], y, imbalance_ratio=ratio, random_state=0)
    assert X_lt.shape == (total, 1)
    assert y_lt.shape == (total,)


@settings(deadline=None, derandomize=True)
@given(
    n_classes=st.integers(2, 12),
    n_max=st.integers(50, 400),
    ratio=st.floats(1, 50),
    seed=st.integers(0, 9),
)
def test_profile(n_classes, n_max, ratio, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(n_classes), n_max))
    _, y_lt = make_long_tailed(y, y, imbalance_ratio=ratio, random_state=seed)
    sizes = np.bincount(y_lt, minlength=n_classes)
    paper = n_max * ratio ** (-np.arange(n_classes) / (n_classes - 1))
    assert np.all(sizes <= paper + 1e-6)
    assert np.all(sizes > paper - 1)


@pytest.mark.parametrize(("ratio", "sizes"), [(8, [80, 40, 20, 10]), (27, [81, 27, 9, 3])])
def test_whole_sizes_lose_no_row_to_rounding(ratio, sizes):
    y = np.repeat(np.arange(4), sizes[0])
    _, y_lt = make_long_tailed(y, y, imbalance_ratio=ratio, random_state=0)
    assert np.bincount(y_lt).tolist() == sizes


def test_smallest_class_sets_the_scale():
    y = ["b"] * 40 + ["a"] * 1000 + ["c"] * 500
    _, y_lt = make_long_tailed(list(range(1540)), y, imbalance_ratio=4, random_state=0)
    assert [y_lt.count(k) for k in "abc"] == [40, 20, 10]


def test_rows_stay_with_their_labels_and_are_distinct():
    y = np.tile(np.arange(5), 100)
    X = np.arange(500)
    X_lt, y_lt = make_long_tailed(X, y, random_state=3)
    assert len(np.unique(X_lt)) == len(X_lt)
    np.testing.assert_array_equal(y[X_lt], y_lt)


def test_without_shuffle_the_order_is_kept():
    y = np.tile(np.arange(5), 100)
    X_lt, _ = make_long_tailed(np.arange(500), y, shuffle=False, random_state=3)
    shuffled, _ = make_long_tailed(np.arange(500), y, random_state=3)
    assert np.all(np.diff(X_lt) > 0)
    assert not np.all(np.diff(shuffled) > 0)
    np.testing.assert_array_equal(np.sort(shuffled), X_lt)


def test_long_tail_depends_on_random_state_alone():
    y = np.tile(np.arange(3), 60)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is under test
    first, second, other = (
        make_long_tailed(np.arange(180), y, random_state=seed)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002 - as above


def test_containers_keep_their_type(tmp_path):
    y = np.tile(np.arange(2), 20)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4)).astype(np.uint8)
    expected, y_lt = make_long_tailed(images, y, random_state=0)
    assert expected.shape == (22, 3, 4, 4)

    stored = np.memmap(tmp_path / "images", dtype=np.uint8, mode="w+", shape=images.shape)
    stored[:] = images
    np.testing.assert_array_equal(make_long_tailed(stored, y, random_state=0)[0], expected)

    tensor, y_tensor = make_long_tailed(torch.tensor(images), torch.tensor(y), random_state=0)
    assert torch.equal(tensor, torch.tensor(expected))
    assert torch.equal(y_tensor, torch.tensor(y_lt))

    frame = pd.DataFrame(images.reshape(40, -1)[:, :2], columns=["a", "b"])
    frame_lt, series_lt = make_long_tailed(frame, pd.Series(y, name="y"), random_state=0)
    assert list(frame_lt.columns) == ["a", "b"]
    assert series_lt.name == "y"
    np.testing.assert_array_equal(frame_lt, expected.reshape(22, -1)[:, :2])

    as_list, y_list = make_long_tailed(list(range(40)), y.tolist(), random_state=0)
    assert isinstance(as_list, list)
    assert y_list == y_lt.tolist()


@pytest.mark.parametrize("ratio", [0.5, 0, -1, np.inf, np.nan])
def test_impossible_ratio(ratio):
    with pytest.raises(ValueError, match="imbalance_ratio must be"):
        make_long_tailed([0, 1], [0, 1], imbalance_ratio=ratio)


def test_ratio_that_empties_a_class_says_what_is_possible():
    y = [0] * 5 + [1] * 5
    with pytest.raises(ValueError, match=r"imbalance_ratio=10\.0 .* pass at most 5"):
        make_long_tailed(y, y)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make_long_tailed([1, 2, 3], [0, 1])
