"""BYOL's loss against a slow numpy oracle, and what its teacher and its predictor do."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skdeepcluster.networks import EmbeddingNetwork
from skdeepcluster.objectives import BYOLObjective, regression_loss

WIDTH = 4
sizes = st.integers(1, 9)
seeds = st.integers(0, 10**6)
scales = st.sampled_from([1e-3, 1.0, 1e3])
oracle = settings(deadline=None, derandomize=True, max_examples=50)


def draw(seed, n):
    return np.random.default_rng(seed).normal(size=(n, WIDTH))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_regression_loss(predictions, targets):
    total = 0.0
    for q, z in zip(predictions, targets, strict=True):
        length = math.sqrt(sum(x * x for x in q))
        total += sum((a / length - b) ** 2 for a, b in zip(q, z, strict=True))
    return total / len(predictions)


def slow_gradient(predictions, targets):
    """The claim: a prediction turns towards its target, and its length does not matter."""
    gradient = np.zeros_like(predictions)
    for i, (q, z) in enumerate(zip(predictions, targets, strict=True)):
        length = np.linalg.norm(q)
        along = (q @ z) / length**2 * q
        gradient[i] = -2 * (z - along) / (length * len(predictions))
    return gradient


class Counting(nn.Linear):
    """A layer that counts the batches that it has seen."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.n_batches += 1
        return super().forward(x)


def make_objective(seed=0, momentum=0.8):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = nn.Sequential(Counting(3, 6), nn.BatchNorm1d(6), nn.ReLU())
        network = EmbeddingNetwork(backbone, nn.Linear(6, WIDTH), WIDTH)
        return BYOLObjective(network, hidden_dim=5, momentum=momentum)


def draw_views(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 3, generator=generator).unbind()


def take_step(objective, seed, rate=0.1):
    """Train on one batch."""
    optimizer = torch.optim.SGD(objective.parameter_groups(rate))
    optimizer.zero_grad()
    loss, _ = objective(*draw_views(seed))
    loss.backward()
    optimizer.step()


def copies(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


# The loss --------------------------------------------------------------------------------------


@oracle
@given(seed=seeds, batch=sizes, scale=scales)
def test_regression_loss_equals_a_loop(seed, batch, scale):
    predictions, targets = scale * draw(seed, batch), unit(draw(seed + 1, batch))
    loss = regression_loss(torch.tensor(predictions), torch.tensor(targets))
    assert loss.item() == pytest.approx(slow_regression_loss(predictions, targets), abs=1e-6)


@oracle
@given(seed=seeds, batch=sizes, scale=scales)
def test_predictions_alone_learn_and_by_turning(seed, batch, scale):
    arrays = scale * draw(seed, batch), unit(draw(seed + 1, batch))
    predictions, targets = (torch.tensor(array, requires_grad=True) for array in arrays)
    regression_loss(predictions, targets).backward()
    expected = slow_gradient(*arrays)
    np.testing.assert_allclose(predictions.grad.numpy(), expected, atol=1e-5 / scale)
    assert targets.grad is None


def test_the_loss_runs_from_zero_to_four():
    z = torch.eye(4)
    assert regression_loss(3 * z, z).item() == 0
    assert regression_loss(-z, z).item() == 4
    assert regression_loss(z.roll(1, 0), z).item() == 2


def test_a_prediction_of_length_zero_is_finite():
    predictions = torch.zeros(2, WIDTH, requires_grad=True)
    loss = regression_loss(predictions, torch.eye(WIDTH)[:2])
    loss.backward()
    assert loss.item() == 2
    assert torch.isfinite(predictions.grad).all()


def test_lengths_are_taken_in_full_precision():
    predictions = torch.tensor([[300.0, 400.0]], dtype=torch.float16)
    assert regression_loss(predictions, torch.tensor([[0.6, 0.8]])).item() == pytest.approx(0)


# Who predicts what -----------------------------------------------------------------------------


class Turn(nn.Module):
    """Predicts the next axis."""

    def forward(self, x):
        return x.roll(1, dims=1)


def on_axes():
    """Return an objective without layers: what is embedded where can be read off a sample."""
    network = EmbeddingNetwork(nn.Identity(), nn.Identity(), WIDTH)
    objective = BYOLObjective(network, hidden_dim=5, momentum=0.8)
    objective.predictor = Turn()
    return objective


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # The first view predicts the second, which predicts another axis than the first's.
        ([0, 0], [1, 1], (0 + 2) / 2),
        ([1, 1], [0, 0], (2 + 0) / 2),
        # Each predicts what follows itself, so nothing is left to learn from the same view.
        ([0, 1], [0, 1], 2),
        # A view of one sample does not predict that of another.
        ([0, 1], [2, 1], 2),
        ([0, 1], [1, 2], (0 + 2) / 2),
    ],
)
def test_each_view_predicts_the_other_view_of_the_same_sample(first, second, expected):
    axes = torch.eye(WIDTH)
    loss, scalars = on_axes()(axes[first], axes[second])
    assert loss.item() == pytest.approx(expected)
    assert scalars == {}


def test_the_target_is_the_teachers():
    objective = on_axes()
    objective.teacher.network.projector = Turn()
    axes = torch.eye(WIDTH)
    # What the predictor says is what the teacher says of the same view, not of the next.
    assert objective(axes[[0, 1]], axes[[0, 1]])[0].item() == pytest.approx(0)
    assert objective(axes[[0, 0]], axes[[1, 1]])[0].item() == pytest.approx(2)


@pytest.mark.parametrize("training", [True, False])
def test_the_objective_equals_a_loop(training):
    objective = make_objective().train(training)
    for seed in range(3):
        parts = copy.deepcopy(objective)
        parts.teacher.update(parts.embedding)
        first, second = draw_views(seed)
        both = torch.cat([first, second])
        predictions = parts.predictor(parts.embedding(both)).detach().double().numpy()
        targets = parts.teacher(both).detach().double().numpy()
        expected = slow_regression_loss(predictions[:6], targets[6:])
        expected += slow_regression_loss(predictions[6:], targets[:6])
        assert objective(first, second)[0].item() == pytest.approx(expected / 2, rel=1e-5)
        take_step(objective, seed)


def test_both_views_go_through_each_network_in_one_pass():
    objective = make_objective()
    objective(*draw_views(0))
    for network in (objective.embedding, objective.teacher.network):
        assert network.backbone[0].n_batches == 1


# The teacher -----------------------------------------------------------------------------------


def test_the_teacher_starts_as_a_copy():
    objective = make_objective()
    theirs = objective.teacher.network.state_dict()
    for name, tensor in objective.embedding.state_dict().items():
        assert torch.equal(tensor, theirs[name])
        assert tensor.data_ptr() != theirs[name].data_ptr()


@pytest.mark.parametrize("momentum", [0.0, 0.8, 1.0])
def test_the_teacher_follows_at_the_next_batch(momentum):
    objective = make_objective(momentum=momentum)
    start = copies(objective.teacher)
    take_step(objective, 0, rate=1.0)
    # The teacher has not seen that step yet.
    assert all(map(torch.equal, start, copies(objective.teacher)))
    student = copies(objective.embedding)
    assert not all(map(torch.equal, start, student))
    objective(*draw_views(1))
    for old, new, now in zip(start, student, objective.teacher.parameters(), strict=True):
        torch.testing.assert_close(now, old + (1 - momentum) * (new - old))
    assert all(map(torch.equal, student, copies(objective.embedding)))


def test_the_momentum_rises_to_one_along_a_half_cosine():
    objective = make_objective(momentum=0.6)
    assert objective.teacher.momentum == 0.6
    for progress, expected in [(0, 0.6), (1 / 3, 0.7), (0.5, 0.8), (2 / 3, 0.9), (1, 1), (0, 0.6)]:
        objective.begin_epoch(progress)
        assert objective.teacher.momentum == pytest.approx(expected)


def test_what_is_kept_is_the_teacher():
    objective = make_objective()
    take_step(objective, 0)
    objective(*draw_views(1))
    assert objective.result is objective.teacher.network
    assert not all(map(torch.equal, copies(objective.result), copies(objective.embedding)))
    objective.eval()
    x = draw_views(2)[0]
    assert torch.equal(objective.result(x), objective.teacher(x))


def test_no_gradient_reaches_the_teacher():
    objective = make_objective()
    objective(*draw_views(0))[0].backward()
    assert not any(p.requires_grad or p.grad is not None for p in objective.teacher.parameters())
    for name, parameter in objective.named_parameters():
        if not name.startswith("teacher"):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    assert objective.embedding.projector.weight.grad.any()
    assert objective.predictor[-1].weight.grad.any()


def test_the_predictor_learns_ten_times_as_fast():
    objective = make_objective()
    encoder, predictor = objective.parameter_groups(0.03)
    assert encoder["lr"] == 0.03
    assert predictor["lr"] == pytest.approx(0.3)
    assert {id(p) for p in encoder["params"]} == {id(p) for p in objective.embedding.parameters()}
    assert {id(p) for p in predictor["params"]} == {id(p) for p in objective.predictor.parameters()}


def test_everything_survives_a_checkpoint():
    objective, other = make_objective(), make_objective(seed=1)
    for seed in range(3):
        take_step(objective, seed)
    other.load_state_dict(objective.state_dict())
    for seed in range(3, 6):
        for each in (objective, other):
            each.begin_epoch(seed / 6)
            take_step(each, seed)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_networks_may_compute_in_lower_precision():
    objective = make_objective()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*draw_views(0))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in objective.predictor.parameters())
