"""Metrics against an oracle that tries every matching of clusters to classes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdeepcluster.metrics import class_averaged_accuracy, clustering_accuracy

METRICS = [clustering_accuracy, class_averaged_accuracy]

label_pairs = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


def best_matching(labels_true, labels_pred):
    """Accuracy and class average of the best of all matchings, one by one."""
    classes, clusters = sorted(set(labels_true)), sorted(set(labels_pred))
    unmatched = [None] * len(classes)
    scores = []
    for given_to in permutations([*clusters, *unmatched], len(classes)):
        recalls, n_right = [], 0
        for k, cluster in zip(classes, given_to, strict=True):
            members = [p for t, p in zip(labels_true, labels_pred, strict=True) if t == k]
            right = sum(p == cluster for p in members)
            n_right += right
            recalls.append(right / len(members))
        scores.append((n_right / len(labels_true), sum(recalls) / len(recalls)))
    accuracy = max(score[0] for score in scores)
    return accuracy, max(score[1] for score in scores if score[0] == accuracy)


@settings(deadline=None, derandomize=True)
@given(label_pairs)
def test_brute_force_agrees(pair):
    accuracy, class_average = best_matching(*pair)
    assert clustering_accuracy(*pair) == pytest.approx(accuracy)
    assert class_averaged_accuracy(*pair) == pytest.approx(class_average)


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, derandomize=True)
@given(labels=st.lists(st.integers(-5, 5), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_equal_partitions_score_one(metric, labels, seed):
    numbering = np.random.default_rng(seed).permutation(11)
    assert metric(labels, numbering[np.array(labels) + 5]) == 1.0


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, derandomize=True)
@given(pair=label_pairs, seed=st.integers(0, 99))
def test_cluster_numbers_and_row_order_do_not_matter(metric, pair, seed):
    rng = np.random.default_rng(seed)
    labels_true, labels_pred = map(np.array, pair)
    rows, numbering = rng.permutation(len(labels_true)), rng.permutation(5)
    assert metric(labels_true[rows], numbering[labels_pred][rows]) == pytest.approx(metric(*pair))


def test_more_clusters_than_classes():
    labels_true, labels_pred = [0] * 6 + [1] * 2, [0, 0, 0, 1, 1, 2, 3, 3]
    assert clustering_accuracy(labels_true, labels_pred) == 5 / 8
    assert class_averaged_accuracy(labels_true, labels_pred) == (3 / 6 + 1) / 2


def test_fewer_clusters_than_classes():
    labels_true, labels_pred = [0] * 6 + [1] * 3 + [2], [0] * 10
    assert clustering_accuracy(labels_true, labels_pred) == 6 / 10
    assert class_averaged_accuracy(labels_true, labels_pred) == 1 / 3


def test_class_average_is_the_best_of_equally_accurate_matchings():
    # Cluster 0 gives one right sample to either class, but that is all of the rare one.
    labels_true, labels_pred = ["common", "rare", "common"], [0, 0, 1]
    assert clustering_accuracy(labels_true, labels_pred) == pytest.approx(2 / 3)
    assert class_averaged_accuracy(labels_true, labels_pred) == pytest.approx(0.75)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "as_container",
    [list, np.array, pd.Series, lambda labels: np.array(labels)[:, None]],
    ids=["list", "array", "series", "column"],
)
def test_strings_and_integers_in_any_container(metric, as_container):
    score = metric(as_container(["a", "a", "b", "b"]), as_container([7, 7, 7, -1]))
    assert isinstance(score, float)
    assert score == 0.75


def test_many_samples_are_counted_exactly():
    labels_true = np.repeat(np.arange(100), 2_000)
    labels_pred = labels_true.copy()
    labels_pred[0] = 1
    assert clustering_accuracy(labels_true, labels_pred) == 199_999 / 200_000


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("labels_true", "labels_pred", "message"),
    [
        ([], [], "0 sample"),
        ([0, 1], [0, 1, 1], "inconsistent numbers of samples"),
        ([0.0, np.nan], [0, 1], "labels_true contains NaN"),
        ([0, 1], [0.0, np.nan], "labels_pred contains NaN"),
        ([0, 1], np.eye(2), r"labels_pred must be one-dimensional.*\(2, 2\)"),
    ],
)
def test_bad_labels_are_named(metric, labels_true, labels_pred, message):
    with pytest.raises(ValueError, match=message):
        metric(labels_true, labels_pred)


@pytest.mark.parametrize("metric", METRICS)
def test_arguments_are_positional(metric):
    with pytest.raises(TypeError):
        metric(labels_true=[0], labels_pred=[0])
