"""The losses of CDC against slow numpy oracles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdeepcluster.objectives import calibration_loss, region_targets, size_divergence
from tests.objectives.calibrated_helpers import (
    draw_steps,
    slow_calibration_loss,
    slow_divergence,
    slow_targets,
)
from tests.objectives.oracle_helpers import draw, dtypes, seeds, sizes, softmax


@given(seed=seeds, batch=sizes, n_clusters=sizes, n_regions=sizes, dtype=dtypes)
def test_region_targets_equal_a_loop(seed, batch, n_clusters, n_regions, dtype):
    p = softmax(draw(seed, batch, n_clusters))
    regions = np.random.default_rng(seed).integers(n_regions, size=batch)
    targets = region_targets(torch.tensor(p, dtype=dtype), torch.tensor(regions), n_regions)
    assert targets.dtype == dtype
    assert targets.shape == (batch, n_clusters)
    np.testing.assert_allclose(targets.numpy(), slow_targets(p, regions), atol=1e-6)
    np.testing.assert_allclose(targets.sum(dim=1).numpy(), 1, rtol=1e-6)


def test_a_region_of_neighbors_that_disagree_is_unsure():
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    targets = region_targets(p, torch.tensor([4, 4, 2, 7]), 9)
    assert targets.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes, sure=st.booleans())
def test_calibration_loss_equals_a_loop(seed, batch, n_clusters, dtype, sure):
    logits = draw(seed, batch, n_clusters)
    targets = draw_steps(seed, batch, n_clusters, 0.01 if sure else 1.0)
    loss = calibration_loss(torch.tensor(logits, dtype=dtype), torch.tensor(targets, dtype=dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_calibration_loss(logits, targets), rel=1e-5, abs=1e-6)


def test_calibration_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = calibration_loss(logits, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    loss.backward()
    assert loss.item() == 250
    assert torch.isfinite(logits.grad).all()


@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_gradient_of_the_calibration_loss_is_the_difference(seed, batch, n_clusters):
    logits = torch.tensor(draw(seed, batch, n_clusters), requires_grad=True)
    targets = torch.tensor(draw_steps(seed, batch, n_clusters))
    calibration_loss(logits, targets).backward()
    expected = (logits.detach().softmax(dim=1) - targets) / batch
    assert torch.allclose(logits.grad, expected, atol=1e-12)


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes, sure=st.booleans())
def test_size_divergence_equals_a_loop(seed, batch, n_clusters, dtype, sure):
    p = draw_steps(seed, batch, n_clusters, 0.01 if sure else 1.0)
    prior = np.random.default_rng(seed).dirichlet(np.ones(n_clusters)) + 0.01
    prior /= prior.sum()
    loss = size_divergence(torch.tensor(p, dtype=dtype), torch.tensor(prior, dtype=dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_divergence(p, prior), abs=2e-6)
    assert loss.item() > -1e-6


@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_gradient_of_the_size_divergence_is_the_analytic_one(seed, batch, n_clusters):
    p = torch.tensor(softmax(draw(seed, batch, n_clusters)), requires_grad=True)
    prior = torch.tensor(softmax(draw(seed + 1, 1, n_clusters))[0])
    size_divergence(p, prior).backward()
    expected = ((p.detach().mean(dim=0) / prior).log() + 1) / batch
    assert torch.allclose(p.grad, expected.expand_as(p), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smallest", [0.0, 1e-45, 1e-38])
def test_the_divergence_of_a_cluster_that_nobody_expects_has_a_finite_gradient(smallest, dtype):
    p = torch.tensor([[1 - smallest, smallest]] * 4, dtype=dtype, requires_grad=True)
    loss = size_divergence(p, torch.tensor([0.5, 0.5], dtype=dtype))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)
    assert torch.isfinite(p.grad).all()
    # The empty cluster is drawn up, the full one down.
    assert (p.grad[:, 1] < 0).all()
    assert (p.grad[:, 0] > 0).all()


def test_logits_of_a_cluster_that_nobody_expects_have_a_finite_gradient():
    logits = torch.tensor([[0.0, -500.0], [0.0, -400.0]], requires_grad=True)
    size_divergence(logits.softmax(dim=1), torch.tensor([0.5, 0.5])).backward()
    assert torch.isfinite(logits.grad).all()


@given(seed=seeds, batch=sizes, n_clusters=st.integers(2, 9))
def test_size_divergence_is_least_at_the_expected_sizes(seed, batch, n_clusters):
    logits = torch.tensor(draw(seed, batch, n_clusters), requires_grad=True)
    prior = logits.detach().softmax(dim=1).mean(dim=0)
    loss = size_divergence(logits.softmax(dim=1), prior)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-12)
    other = torch.roll(prior, 1)
    assert size_divergence(logits.softmax(dim=1), other).item() > 0


@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_with_equal_sizes_the_divergence_is_the_negative_entropy_of_the_paper(
    seed, batch, n_clusters
):
    p = softmax(draw(seed, batch, n_clusters))
    marginal = p.mean(axis=0)
    uniform = torch.full((n_clusters,), 1 / n_clusters, dtype=torch.float64)
    expected = (marginal * np.log(marginal)).sum() + np.log(n_clusters)
    assert size_divergence(torch.tensor(p), uniform).item() == pytest.approx(expected, abs=1e-12)
