"""The losses and the constraints of SeCu against slow numpy oracles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from skdeepcluster.objectives import center_loss, encoder_loss, entropy_cost, raised_duals
from tests.objectives.discrimination_helpers import (
    WIDTH,
    draw_labels,
    draw_unit,
    slow_center_gradient,
    slow_center_loss,
    slow_duals,
    slow_encoder_loss,
    slow_entropy,
    slow_entropy_cost,
)
from tests.objectives.oracle_helpers import draw, dtypes, seeds, sizes, softmax

shares = st.sampled_from([0.0, 0.2, 1.0])
temperatures = st.sampled_from([0.05, 0.5, 1.0])

# The centres -----------------------------------------------------------------------------------


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes)
def test_center_loss_equals_a_loop(seed, batch, n_clusters, dtype):
    logits, labels = draw(seed, batch, n_clusters), draw_labels(seed, batch, n_clusters)
    tensor, y = torch.tensor(logits, dtype=dtype), torch.tensor(labels)
    loss = center_loss(tensor, y)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_center_loss(logits, labels), rel=1e-5, abs=1e-6)
    assert loss.item() == pytest.approx(cross_entropy(tensor, y).item(), rel=1e-5, abs=1e-6)


@given(seed=seeds, batch=sizes, n_clusters=sizes, temperature=temperatures)
def test_centers_learn_as_in_k_means_with_hard_samples_weighing_more(
    seed, batch, n_clusters, temperature
):
    x, w = draw_unit(seed, batch), draw_unit(seed + 1, n_clusters)
    labels = draw_labels(seed, batch, n_clusters)
    centers, y = torch.tensor(w, requires_grad=True), torch.tensor(labels)
    # Those of other clusters would carry a gradient, too, were it let through.
    center_loss(torch.tensor(x) @ centers.T / temperature, y).backward()
    expected = slow_center_gradient(x, w, labels, temperature)
    # softplus is linear from 20 on, which is as much as 2e-9 off.
    np.testing.assert_allclose(centers.grad.numpy(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_only_cross_entropy_moves_centers_without_samples(seed):
    x, y = torch.tensor(draw_unit(seed, 8)), torch.tensor([1, 3] * 4)
    gradients = []
    for stable in (True, False):
        centers = torch.tensor(draw_unit(seed + 1, 5), requires_grad=True)
        logits = x @ centers.T / 0.5
        loss = center_loss(logits, y) if stable else cross_entropy(logits, y)
        loss.backward()
        gradients.append(centers.grad)
    ours, theirs = gradients
    without = [0, 2, 4]
    assert torch.equal(ours[without], torch.zeros(3, WIDTH, dtype=torch.float64))
    assert (theirs[without].norm(dim=1) > 1e-3).all()
    assert (ours[[1, 3]].norm(dim=1) > 1e-3).all()


def test_center_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0], [500.0, -500.0]], requires_grad=True)
    loss = center_loss(logits, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 500
    assert logits.grad.tolist() == [[0, 0], [0, -0.5]]


def test_one_center_has_nothing_to_learn():
    logits = torch.tensor([[3.0], [-2.0]], requires_grad=True)
    loss = center_loss(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0], [0]]


# The encoder -----------------------------------------------------------------------------------


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes, share=shares)
def test_encoder_loss_equals_a_loop(seed, batch, n_clusters, dtype, share):
    logits, other = draw(seed, batch, n_clusters), draw(seed + 1, batch, n_clusters)
    labels = draw_labels(seed, batch, n_clusters)
    loss = encoder_loss(
        torch.tensor(logits, dtype=dtype),
        torch.tensor(other, dtype=dtype),
        torch.tensor(labels),
        share,
    )
    assert loss.dtype == dtype
    expected = slow_encoder_loss(logits, other, labels, share)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seed=seeds, batch=sizes, n_clusters=sizes, share=shares)
def test_gradient_of_the_encoder_loss_is_the_difference(seed, batch, n_clusters, share):
    logits = torch.tensor(draw(seed, batch, n_clusters), requires_grad=True)
    other = torch.tensor(draw(seed + 1, batch, n_clusters), requires_grad=True)
    labels = draw_labels(seed, batch, n_clusters)
    encoder_loss(logits, other, torch.tensor(labels), share).backward()
    q = share * np.eye(n_clusters)[labels] + (1 - share) * softmax(other.detach().numpy())
    expected = (softmax(logits.detach().numpy()) - q) / batch
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-12)
    assert other.grad is None


def test_encoder_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = encoder_loss(logits, logits, torch.tensor([1, 1]), 0.25)
    loss.backward()
    assert loss.item() == 125
    assert torch.isfinite(logits.grad).all()


# The constraints -------------------------------------------------------------------------------


@given(
    seed=seeds,
    n_clusters=sizes,
    bound=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    rate=st.sampled_from([0.01, 0.1, 3.0]),
    dtype=dtypes,
)
def test_raised_duals_equal_a_loop_and_are_never_negative(seed, n_clusters, bound, rate, dtype):
    rng = np.random.default_rng(seed)
    duals = rng.exponential(0.1, size=n_clusters)
    counts = rng.poisson(1.5, size=n_clusters)
    counts[0] += 1
    before = torch.tensor(duals, dtype=dtype)
    raised = raised_duals(before, torch.tensor(counts, dtype=dtype), bound, rate)
    assert raised.dtype == dtype
    np.testing.assert_allclose(raised.numpy(), slow_duals(duals, counts, bound, rate), atol=1e-6)
    assert (raised >= 0).all()
    assert torch.equal(before, torch.tensor(duals, dtype=dtype))


def test_duals_by_hand():
    # With two clusters and r = .8, each is to hold .4 of the batch.
    duals = torch.tensor([0.0, 0.0])
    for expected in ([0, 0.1], [0, 0.2]):
        duals = raised_duals(duals, torch.tensor([7.0, 3.0]), 0.8, 1.0)
        assert duals.tolist() == pytest.approx(expected)
    # Enough of them again: it falls as it rose.
    duals = raised_duals(duals, torch.tensor([5.0, 5.0]), 0.8, 1.0)
    assert duals.tolist() == pytest.approx([0, 0.1])
    duals = raised_duals(duals, torch.tensor([2.0, 8.0]), 0.8, 1.0)
    assert duals.tolist() == pytest.approx([0.2, 0])


@given(seed=seeds, n_clusters=sizes, dtype=dtypes, crowded=st.booleans())
def test_entropy_cost_equals_a_loop(seed, n_clusters, dtype, crowded):
    # Sparse sizes have empty clusters among them, or are nothing but empty.
    counts = np.random.default_rng(seed).poisson(40 if crowded else 0.7, size=n_clusters)
    costs = entropy_cost(torch.tensor(counts, dtype=dtype))
    assert costs.dtype == dtype
    assert torch.isfinite(costs).all()
    np.testing.assert_allclose(costs.numpy(), slow_entropy_cost(counts.tolist()), atol=1e-4)


@given(seed=seeds, n_clusters=st.integers(2, 9))
def test_costs_differ_by_what_a_move_changes_in_n_times_the_entropy(seed, n_clusters):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, size=n_clusters)
    own, other = rng.permutation(n_clusters)[:2]
    costs = entropy_cost(torch.tensor(counts, dtype=torch.float64))
    before, after = counts.copy(), counts.copy()
    before[own] += 1
    after[other] += 1
    n = before.sum()
    change = slow_entropy(after.tolist(), n) - slow_entropy(before.tolist(), n)
    assert (costs[other] - costs[own]).item() == pytest.approx(n * change, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_6000_for_50000_samples_is_a_weight_of_012(seed):
    counts = np.random.default_rng(seed).multinomial(49_999, np.full(10, 0.1))
    costs = entropy_cost(torch.tensor(counts, dtype=torch.float64))
    moved = []
    for k in range(10):
        joined = [c + (j == k) for j, c in enumerate(counts)]
        moved.append(6000 * slow_entropy(joined, 50_000))
    ours, theirs = 0.12 * (costs - costs[0]).numpy(), np.array(moved) - moved[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("n", [1_800, 50_000, 1_300_000])
def test_single_precision_is_enough_for_the_entropy_cost(n):
    counts = np.random.default_rng(0).multinomial(n - 1, np.arange(1, 11) / 55)
    exact = entropy_cost(torch.tensor(counts, dtype=torch.float64))
    costs = entropy_cost(torch.tensor(counts, dtype=torch.float32))
    # As heads compute it. With the weight of .12 this is 2e-4 of a cosine.
    np.testing.assert_allclose(costs.numpy(), exact.numpy(), atol=2e-3)


def test_entropy_costs_of_many_rows_are_those_of_each():
    counts = torch.tensor(np.random.default_rng(0).poisson(2, size=(5, 4)), dtype=torch.float64)
    costs = entropy_cost(counts)
    for row, own in zip(costs, counts, strict=True):
        assert torch.equal(row, entropy_cost(own))
