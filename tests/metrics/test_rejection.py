"""Rejection scores against loops over pairs, thresholds and all orders of tied samples."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning

from skdeepcluster.metrics import (
    area_under_risk_coverage,
    clustering_accuracy,
    failure_auroc,
    false_positive_rate_at_95_recall,
    rejection_curve,
)

UNDEFINED_IF_ONE_SIDED = [failure_auroc, false_positive_rate_at_95_recall]
METRICS = [*UNDEFINED_IF_ONE_SIDED, area_under_risk_coverage]


def two_clusters(confidence, correct):
    """Labels and probabilities with the given confidences, right where `correct` says so.

    The true class is 0 or 1 in turn where the prediction is right and a class of its own, which is
    left without a cluster, where it is wrong. Each cluster starts with as many right samples as
    there are wrong ones, at confidence 1, so that the matching is never in doubt.
    """
    n_anchors = len(confidence)
    confidence = np.array([1.0] * 2 * n_anchors + list(confidence))
    correct = np.array([True] * 2 * n_anchors + list(correct))
    found = np.arange(len(confidence)) % 2
    labels = np.where(correct, found, 2)
    probabilities = np.empty((len(confidence), 2))
    rows = np.arange(len(confidence))
    probabilities[rows, found], probabilities[rows, 1 - found] = confidence, 1 - confidence
    return labels, probabilities, confidence, correct


# Few values, so that ties are common.
samples = st.lists(
    st.tuples(st.sampled_from([0.55, 0.6, 0.75, 0.9, 1.0]), st.booleans()), min_size=1, max_size=12
)


@settings(deadline=None, derandomize=True)
@given(samples.filter(lambda drawn: not all(right for _, right in drawn)))
def test_pairs_and_thresholds_one_by_one(drawn):
    labels, probabilities, confidence, correct = two_clusters(*zip(*drawn, strict=True))
    right, wrong = confidence[correct], confidence[~correct]

    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert failure_auroc(labels, probabilities) == pytest.approx(sum(pairs) / len(pairs))

    for threshold in sorted(set(confidence), reverse=True):
        if 100 * sum(right >= threshold) >= 95 * len(right):
            break
    rate = sum(wrong >= threshold) / len(wrong)
    assert false_positive_rate_at_95_recall(labels, probabilities) == pytest.approx(rate)


def area_of_order(correct):
    errors = [1 - sum(correct[:i]) / i for i in range(1, len(correct) + 1)]
    return sum(errors) / len(errors)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([0.6, 0.7, 0.8]), st.booleans()), min_size=2, max_size=6))
def test_area_is_the_mean_over_all_orders_of_ties(drawn):
    confidence, correct = zip(*drawn, strict=True)
    # Each wrong sample is a class of its own, so two of one class are enough to win the cluster.
    assume(sum(correct) >= 2)
    labels = [0 if right else i + 1 for i, right in enumerate(correct)]
    probabilities = [[c, 1 - c] for c in confidence]

    orders = [
        order
        for order in permutations(range(len(drawn)))
        if all(confidence[a] >= confidence[b] for a, b in pairwise(order))
    ]
    areas = [area_of_order([correct[i] for i in order]) for order in orders]
    area = area_under_risk_coverage(labels, probabilities)
    assert area == pytest.approx(sum(areas) / len(areas), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, derandomize=True)
@given(drawn=samples, seed=st.integers(0, 99))
def test_cluster_numbers_and_row_order_do_not_matter(metric, drawn, seed):
    drawn = [*drawn, (0.6, False)]
    labels, probabilities, *_ = two_clusters(*zip(*drawn, strict=True))
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(labels)), rng.permutation(2)
    score = metric(np.array(["c", "a", "b"])[labels][rows], probabilities[rows][:, columns])
    assert score == pytest.approx(metric(labels, probabilities), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_only_the_order_of_confidence_matters(metric):
    labels, probabilities, *_ = two_clusters(
        [0.6, 0.7, 0.8, 0.9, 0.7], [False, True, False, True, True]
    )
    sharper = np.square(probabilities)
    sharper /= sharper.sum(axis=1, keepdims=True)
    assert metric(labels, sharper) == pytest.approx(metric(labels, probabilities))


def test_perfect_separation():
    labels, probabilities, *_ = two_clusters([0.6, 0.6, 0.9], [False, False, True])
    assert failure_auroc(labels, probabilities) == 1
    assert false_positive_rate_at_95_recall(labels, probabilities) == 0
    # Seven right samples first, then the two wrong ones.
    assert area_under_risk_coverage(labels, probabilities) == pytest.approx((1 / 8 + 2 / 9) / 9)


def test_equal_confidence_tells_nothing():
    labels, probabilities = [0] * 6 + [1, 2], np.full((8, 2), [0.7, 0.3])
    assert failure_auroc(labels, probabilities) == 0.5
    assert false_positive_rate_at_95_recall(labels, probabilities) == 1
    assert area_under_risk_coverage(labels, probabilities) == pytest.approx(2 / 8)
    _, accuracy = rejection_curve(labels, probabilities)
    np.testing.assert_allclose(accuracy, 6 / 8)


def test_five_percent_of_the_right_samples_may_fall_below():
    # 100 right samples, of which the lowest five may be given up, and the wrong one among them.
    confidence = np.linspace(0.55, 0.95, 101)
    correct = np.ones(101, dtype=bool)
    for position, rate in [(5, 0.0), (6, 1.0)]:
        wrong_at = correct.copy()
        wrong_at[position] = False
        labels = np.where(wrong_at, 0, 1)
        probabilities = np.column_stack([confidence, 1 - confidence])
        assert false_positive_rate_at_95_recall(labels, probabilities) == rate


@pytest.mark.parametrize("n_clusters", [1, 3])
@pytest.mark.parametrize("n_samples", [1, 7])
def test_all_right(n_samples, n_clusters):
    labels = np.arange(n_samples) % n_clusters
    probabilities = np.eye(n_clusters)[labels]
    assert str(area_under_risk_coverage(labels, probabilities)) == "0.0"
    for metric in UNDEFINED_IF_ONE_SIDED:
        with pytest.warns(UndefinedMetricWarning, match=f"{metric.__name__}.*are right") as record:
            assert np.isnan(metric(labels, probabilities))
        assert record[0].filename == __file__


def test_one_cluster():
    labels, probabilities = [0, 0, 0, 1], np.ones((4, 1))
    assert failure_auroc(labels, probabilities) == 0.5
    assert false_positive_rate_at_95_recall(labels, probabilities) == 1
    assert area_under_risk_coverage(labels, probabilities) == pytest.approx(1 / 4)


def test_the_curve_ends_in_the_clustering_accuracy():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(4, size=90), rng.dirichlet(np.ones(6), size=90)
    coverage, accuracy = rejection_curve(labels, probabilities)
    np.testing.assert_allclose(coverage, np.arange(1, 91) / 90)
    assert accuracy[-1] == pytest.approx(clustering_accuracy(labels, probabilities.argmax(axis=1)))
    risk_area = area_under_risk_coverage(labels, probabilities)
    assert risk_area == pytest.approx(1 - accuracy.mean())


@pytest.mark.parametrize("metric", [*METRICS, rejection_curve])
@pytest.mark.parametrize(
    ("labels_true", "probabilities", "message"),
    [
        ([0, 1], [0.9, 0.8], r"got shape \(2,\)"),
        ([0, 1], np.eye(3), "one row per label"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.6]], "sum to 1"),
    ],
)
def test_bad_input_is_named(metric, labels_true, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metric(labels_true, probabilities)
