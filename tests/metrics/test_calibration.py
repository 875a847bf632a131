"""Calibration scores against torchmetrics, scikit-learn and loops that try every matching."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from math import log

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from skdeepcluster.metrics import (
    brier_score,
    clustering_accuracy,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)

METRICS = [
    expected_calibration_error,
    maximum_calibration_error,
    brier_score,
    negative_log_likelihood,
]
EPS = np.finfo(np.float64).eps


def random_case(seed, n_samples, n_classes, n_clusters, sharpness=2.0):
    """Labels and probabilities that know something about them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_samples)
    logits = rng.normal(size=(n_samples, n_clusters))
    logits[np.arange(n_samples), labels % n_clusters] += rng.normal(size=n_samples)
    odds = np.exp(sharpness * logits)
    return labels, odds / odds.sum(axis=1, keepdims=True)


cases = st.builds(
    random_case,
    seed=st.integers(0, 9999),
    n_samples=st.integers(1, 25),
    n_classes=st.integers(1, 4),
    n_clusters=st.integers(1, 4),
    sharpness=st.sampled_from([0.5, 2.0, 20.0]),
).filter(lambda case: case[1].shape[1] == 1 or (np.diff(np.sort(case[1])[:, -2:]) > 1e-9).all())


def matched_by_trying(labels, probabilities):
    """Cluster of each class (None for none) under the best of all matchings, one by one."""
    classes, clusters = sorted(set(labels.tolist())), list(range(probabilities.shape[1]))
    hits, mass = Counter(), Counter()
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        hits[label, row.index(max(row))] += 1
        for cluster, probability in enumerate(row):
            mass[label, cluster] += probability
    unmatched = [None] * (len(classes) - len(clusters))
    matchings = permutations([*clusters, *unmatched], len(classes))
    best = max(
        matchings,
        key=lambda given_to: [
            sum(table[pair] for pair in zip(classes, given_to, strict=True))
            for table in (hits, mass)
        ],
    )
    return dict(zip(classes, best, strict=True))


def loop_scores(labels, probabilities, n_bins):
    """All four scores as their definitions read, sample by sample and bin by bin."""
    cluster_of = matched_by_trying(labels, probabilities)
    brier, loss = 0.0, 0.0
    bins = [[] for _ in range(n_bins)]
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        true = cluster_of[label]
        brier += sum((p - (k == true)) ** 2 for k, p in enumerate(row)) + (true is None)
        loss -= log(max(0.0 if true is None else row[true], EPS))
        for b in range(n_bins):
            # Rounding can take the sum of a row, and so its largest entry, just above 1.
            if b / n_bins < min(max(row), 1) <= (b + 1) / n_bins:
                bins[b].append((max(row), row.index(max(row)) == true))
    gaps = []
    for members in filter(None, bins):
        confidence = sum(c for c, _ in members) / len(members)
        accuracy = sum(right for _, right in members) / len(members)
        gaps.append((len(members) / len(labels), abs(confidence - accuracy)))
    assert sum(share for share, _ in gaps) == pytest.approx(1)
    expected = sum(share * gap for share, gap in gaps)
    return expected, max(gap for _, gap in gaps), brier / len(labels), loss / len(labels)


@settings(deadline=None, derandomize=True)
@given(case=cases, n_bins=st.integers(1, 20))
def test_loops_agree(case, n_bins):
    expected, maximum, brier, loss = loop_scores(*case, n_bins)
    assert expected_calibration_error(*case, n_bins=n_bins) == pytest.approx(expected)
    assert maximum_calibration_error(*case, n_bins=n_bins) == pytest.approx(maximum)
    assert brier_score(*case) == pytest.approx(brier)
    assert negative_log_likelihood(*case) == pytest.approx(loss)


@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize(("n_classes", "n_clusters"), [(2, 2), (7, 7), (3, 6), (6, 3)])
def test_torchmetrics_agrees(n_classes, n_clusters, n_bins):
    labels, probabilities = random_case(0, 500, n_classes, n_clusters)
    cluster_of = matched_by_trying(labels, probabilities)
    # A class without a cluster is a column that is never predicted.
    targets = [
        n_clusters + label if cluster_of[label] is None else cluster_of[label]
        for label in labels.tolist()
    ]
    padded = np.hstack([probabilities, np.zeros((500, n_classes))])
    options = {"num_classes": n_clusters + n_classes, "n_bins": n_bins}
    # torchmetrics counts in single precision.
    for metric, norm in [(expected_calibration_error, "l1"), (maximum_calibration_error, "max")]:
        oracle = multiclass_calibration_error(
            torch.tensor(padded), torch.tensor(targets), norm=norm, **options
        )
        assert metric(labels, probabilities, n_bins=n_bins) == pytest.approx(
            oracle.item(), abs=1e-5
        )


def test_scikit_learn_agrees_where_clusters_are_classes():
    labels, probabilities = random_case(0, 400, 5, 5)
    # Columns in the order of the classes they are matched to.
    cluster_of = matched_by_trying(labels, probabilities)
    probabilities = probabilities[:, [cluster_of[label] for label in range(5)]]
    assert brier_score(labels, probabilities) == pytest.approx(
        brier_score_loss(labels, probabilities, scale_by_half=False)
    )
    assert negative_log_likelihood(labels, probabilities) == pytest.approx(
        log_loss(labels, probabilities)
    )


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, derandomize=True)
@given(case=cases, seed=st.integers(0, 99))
def test_cluster_numbers_and_row_order_do_not_matter(metric, case, seed):
    labels, probabilities = case
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(labels)), rng.permutation(probabilities.shape[1])
    names = np.array(["d", "b", "a", "c"])
    score = metric(names[labels][rows], probabilities[rows][:, columns])
    assert score == pytest.approx(metric(*case), abs=1e-12)


@settings(deadline=None, derandomize=True)
@given(case=cases, n_bins=st.integers(1, 30), strategy=st.sampled_from(["uniform", "quantile"]))
def test_the_curve_is_a_partition_of_the_samples(case, n_bins, strategy):
    labels, probabilities = case
    options = {"n_bins": n_bins, "strategy": strategy}
    confidence, accuracy, share = reliability_curve(*case, **options)
    assert 1 <= len(confidence) <= min(n_bins, len(labels))
    assert (np.diff(confidence) > 0).all()
    assert share.sum() == pytest.approx(1)
    assert share @ confidence == pytest.approx(probabilities.max(axis=1).mean())
    assert share @ accuracy == pytest.approx(clustering_accuracy(labels, probabilities.argmax(1)))
    mean_gap = expected_calibration_error(*case, **options)
    assert mean_gap <= maximum_calibration_error(*case, **options) + 1e-12


@pytest.mark.parametrize("n_bins", [1, 2, 3, 7, 15])
@pytest.mark.parametrize("n_samples", [1, 2, 4, 10, 60])
def test_quantile_bins_hold_equally_many(n_samples, n_bins):
    *_, share = reliability_curve(
        *random_case(0, n_samples, 3, 3), n_bins=n_bins, strategy="quantile"
    )
    sizes = np.rint(share * n_samples)
    assert len(sizes) == min(n_bins, n_samples)
    assert sizes.max() - sizes.min() <= 1


def test_equal_confidences_share_a_quantile_bin():
    probabilities = np.repeat([[0.6, 0.4], [0.9, 0.1]], [7, 3], axis=0)
    labels = [0, 1, 0, 1, 0, 1, 0, 0, 0, 0]
    confidence, accuracy, share = reliability_curve(
        labels, probabilities, n_bins=5, strategy="quantile"
    )
    np.testing.assert_allclose(confidence, [0.6, 0.9])
    np.testing.assert_allclose(accuracy, [4 / 7, 1])
    np.testing.assert_allclose(share, [0.7, 0.3])


@pytest.mark.parametrize("confidence", [0.6, 0.8, 1.0])
def test_an_edge_belongs_to_the_bin_below_it(confidence):
    below, above = confidence - 1e-9, min(confidence + 1e-9, 1.0)
    rows = np.array([[c, 1 - c] for c in (below, confidence, above)])
    _, _, share = reliability_curve([0, 0, 0], rows, n_bins=15)
    assert share.tolist() == pytest.approx([1.0] if confidence == 1 else [2 / 3, 1 / 3])


def test_a_cluster_that_is_nowhere_on_top_still_finds_its_class():
    # Cluster 0 takes every argmax; cluster 1 or 2 may stand for the other class.
    probabilities = np.array([[0.8, 0.1, 0.1], [0.5, 0.1, 0.4], [0.7, 0.2, 0.1]])
    assert brier_score(["a", "b", "a"], probabilities) == pytest.approx(
        (0.06 + (0.25 + 0.01 + 0.36) + 0.14) / 3
    )


def test_more_clusters_than_classes():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    labels = [0, 0, 1]
    # Cluster 1 has more of class 0 than cluster 0 has; cluster 0 is left over and never true.
    assert brier_score(labels, probabilities) == pytest.approx(
        ((0.49 + 0.64 + 0.01) + 0.06 + 0.06) / 3
    )
    assert negative_log_likelihood(labels, probabilities) == pytest.approx(
        -(log(0.2) + 2 * log(0.8)) / 3
    )


def test_fewer_clusters_than_classes():
    labels, probabilities = [0, 0, 1], np.ones((3, 1))
    assert expected_calibration_error(labels, probabilities) == pytest.approx(1 / 3)
    assert brier_score(labels, probabilities) == pytest.approx(2 / 3)
    assert negative_log_likelihood(labels, probabilities) == pytest.approx(-log(EPS) / 3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_samples", [1, 6])
@pytest.mark.parametrize("n_clusters", [1, 3])
def test_certain_and_right_scores_zero(metric, n_samples, n_clusters):
    labels = np.arange(n_samples) % n_clusters
    score = metric(labels, np.eye(n_clusters)[labels])
    assert isinstance(score, float)
    assert str(score) == "0.0"


def test_certain_and_wrong_scores_worst():
    labels, probabilities = np.arange(6), np.eye(6)[[0] * 6]
    assert expected_calibration_error(labels, probabilities) == pytest.approx(5 / 6)
    assert brier_score(labels, probabilities) == pytest.approx(2 * 5 / 6)
    assert negative_log_likelihood(labels, probabilities) == pytest.approx(-log(EPS) * 5 / 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_likelihood_is_finite_in_every_precision(dtype):
    probabilities = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=dtype)
    loss = negative_log_likelihood([0, 0, 1, 1], probabilities)
    assert loss == pytest.approx(-log(np.finfo(dtype).eps) / 4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "as_container",
    [
        np.ndarray.tolist,
        np.asarray,
        pd.DataFrame,
        torch.tensor,
        lambda probabilities: probabilities.astype(np.float32),
    ],
    ids=["list", "array", "dataframe", "tensor", "float32"],
)
def test_any_container(metric, as_container):
    labels, probabilities = random_case(0, 50, 3, 3)
    score = metric(labels, as_container(probabilities))
    assert isinstance(score, float)
    assert score == pytest.approx(metric(labels, probabilities), rel=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_input_is_not_changed(metric):
    labels, probabilities = random_case(0, 20, 3, 3)
    before = probabilities.copy()
    metric(labels, probabilities)
    np.testing.assert_array_equal(probabilities, before)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("labels_true", "probabilities", "message"),
    [
        ([], np.empty((0, 2)), "0 sample"),
        ([0.0, np.nan], np.eye(2), "labels_true contains NaN"),
        ([0, 1], [[0.5, 0.5], [np.nan, 1]], "probabilities contains NaN"),
        ([0, 1], [[0.5, 0.5], [np.inf, 1]], "probabilities contains infinity"),
        (np.eye(2), np.eye(2), r"labels_true must be one-dimensional.*\(2, 2\)"),
        ([0, 1], [0.9, 0.8], r"shape \(n_samples, n_clusters\).*got shape \(2,\)"),
        ([0, 1], np.ones((2, 1, 1)), r"got shape \(2, 1, 1\)"),
        ([0, 1], np.eye(3), "one row per label; got 3 rows for the 2 labels in labels_true"),
        ([0, 1], [[1.5, -0.5], [0, 1]], r"must not be negative; got -0\.5.*softmax"),
        ([0, 1], [[0, 1], [0.5, 0.6]], r"sum to 1 \(within 0\.001\); row 1 sums to 1\.1\. Divide"),
    ],
)
def test_bad_input_is_named(metric, labels_true, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metric(labels_true, probabilities)


@pytest.mark.parametrize(
    "metric", [expected_calibration_error, maximum_calibration_error, reliability_curve]
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 0}, "n_bins must be an integer of at least 1; got 0"),
        ({"n_bins": 2.5}, "n_bins must be an integer of at least 1; got 2.5"),
        ({"strategy": "equal"}, r"strategy must be one of \('uniform', 'quantile'\); got 'equal'"),
    ],
)
def test_bad_bins_are_named(metric, options, message):
    with pytest.raises(ValueError, match=message):
        metric([0, 1], np.eye(2), **options)
