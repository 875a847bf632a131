"""The contrastive losses against slow numpy oracles, and the promises of SimCLR and MoCo."""

import copy
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skdeepcluster.networks import EmbeddingNetwork
from skdeepcluster.objectives import (
    ContrastiveObjective,
    MoCoObjective,
    info_nce,
    nt_xent,
    queue_loss,
)

WIDTH = 5
sizes = st.integers(1, 8)
seeds = st.integers(0, 10**6)
temperatures = st.sampled_from([0.1, 0.5, 1.0])
oracle = settings(deadline=None, derandomize=True, max_examples=50)


def draw_unit(seed, *shape):
    rows = np.random.default_rng(seed).normal(size=(*shape, WIDTH))
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def slow_shares(z, others, temperature):
    """Return the softmax of one sample's similarities to others."""
    scores = np.array([np.exp(z @ other / temperature) for other in others])
    return scores / scores.sum()


def slow_info_nce(first, second, temperature):
    total = 0.0
    for a, b in ((first, second), (second, first)):
        for i in range(len(a)):
            total -= np.log(slow_shares(a[i], b, temperature)[i])
    return total / (2 * len(first))


def slow_nt_xent(first, second, temperature):
    both, n = [*first, *second], len(first)
    total = 0.0
    for i, z in enumerate(both):
        others = [j for j in range(2 * n) if j != i]
        shares = slow_shares(z, [both[j] for j in others], temperature)
        total -= np.log(shares[others.index((i + n) % (2 * n))])
    return total / (2 * n)


def slow_nt_xent_gradient(first, second, temperature):
    """The claim: a sample is drawn to its partner, and pushed from all by their shares."""
    both, n = np.concatenate([first, second]), len(first)
    gradient = np.zeros_like(both)
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        for j, share in zip(others, slow_shares(both[i], both[others], temperature), strict=True):
            pull = (share - (j == (i + n) % (2 * n))) / (2 * n * temperature)
            gradient[i] += pull * both[j]
            gradient[j] += pull * both[i]
    return gradient


def slow_queue_loss(queries, keys, queue, temperature):
    total = 0.0
    for q, k in zip(queries, keys, strict=True):
        total -= np.log(slow_shares(q, [k, *queue], temperature)[0])
    return total / len(queries)


def slow_queue_gradient(queries, keys, queue, temperature):
    gradient = np.zeros_like(queries)
    for i, (q, k) in enumerate(zip(queries, keys, strict=True)):
        own, *shares = slow_shares(q, [k, *queue], temperature)
        gradient[i] = (own - 1) * k + sum(p * u for p, u in zip(shares, queue, strict=True))
    return gradient / (len(queries) * temperature)


def make_network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU())
        return EmbeddingNetwork(backbone, nn.Linear(6, WIDTH), WIDTH)


def draw_views(seed, n=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 3, generator=generator).unbind()


def take_step(objective, seed, rate=0.1):
    """Train on one batch."""
    optimizer = torch.optim.SGD(objective.parameter_groups(rate))
    optimizer.zero_grad()
    objective(*draw_views(seed))[0].backward()
    optimizer.step()


def copies(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


# Batches that are their own negatives ----------------------------------------------------------


@oracle
@given(seed=seeds, batch=sizes, temperature=temperatures)
def test_info_nce_equals_a_loop(seed, batch, temperature):
    first, second = draw_unit(seed, 2, batch)
    loss = info_nce(torch.tensor(first), torch.tensor(second), temperature)
    assert loss.item() == pytest.approx(slow_info_nce(first, second, temperature), abs=1e-9)


@oracle
@given(seed=seeds, batch=sizes, temperature=temperatures)
def test_nt_xent_equals_a_loop(seed, batch, temperature):
    first, second = draw_unit(seed, 2, batch)
    loss = nt_xent(torch.tensor(first), torch.tensor(second), temperature)
    assert loss.item() == pytest.approx(slow_nt_xent(first, second, temperature), abs=1e-9)


@oracle
@given(seed=seeds, batch=sizes, temperature=temperatures)
def test_gradient_of_nt_xent(seed, batch, temperature):
    views = draw_unit(seed, 2, batch)
    first, second = (torch.tensor(view, requires_grad=True) for view in views)
    nt_xent(first, second, temperature).backward()
    expected = slow_nt_xent_gradient(*views, temperature)
    found = torch.cat([first.grad, second.grad]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


@oracle
@given(seed=seeds, batch=st.integers(2, 8), temperature=temperatures)
def test_nt_xent_has_the_negatives_of_info_nce_and_more(seed, batch, temperature):
    first, second = (torch.tensor(view) for view in draw_unit(seed, 2, batch))
    assert nt_xent(first, second, temperature) > info_nce(first, second, temperature)


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_one_pair_has_nothing_to_tell_apart(loss):
    first, second = (torch.tensor(view, requires_grad=True) for view in draw_unit(0, 2, 1))
    value = loss(first, second, 0.1)
    value.backward()
    assert value.item() == 0
    assert not first.grad.any()
    assert not second.grad.any()


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_the_loss_is_low_when_views_find_each_other(loss):
    z = torch.eye(6)
    assert loss(z, z, 0.1) < 0.01
    assert loss(z, z.roll(1, 0), 0.1) > 1


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_the_views_are_alike(loss):
    first, second = (torch.tensor(view) for view in draw_unit(0, 2, 6))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = loss(first, second, 0.5).item()
    assert loss(second, first, 0.5).item() == pytest.approx(expected)
    assert loss(first[order], second[order], 0.5).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_hardly_any_temperature_is_too_low(loss):
    first, second = (torch.tensor(view).float().requires_grad_() for view in draw_unit(0, 2, 6))
    value = loss(first, second, 1e-4)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(first.grad).all()


# SimCLR ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("both_kinds", "expected"), [(False, info_nce), (True, nt_xent)])
def test_the_objective_embeds_both_views_in_one_pass(both_kinds, expected):
    class Counting(nn.Linear):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return nn.functional.normalize(super().forward(x), dim=1)

    objective = ContrastiveObjective(Counting(3, 2), 0.5, both_kinds=both_kinds)
    first, second = torch.rand(4, 3), torch.rand(4, 3)
    loss, scalars = objective(first, second)
    loss.backward()
    assert Counting.calls == 1
    assert scalars == {}
    expected = expected(objective.embedding(first), objective.embedding(second), 0.5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_simclr_trains_and_keeps_its_network():
    network = make_network()
    objective = ContrastiveObjective(network, 0.5, both_kinds=True)
    (group,) = objective.parameter_groups(0.3)
    assert group["lr"] == 0.3
    assert {id(p) for p in group["params"]} == {id(p) for p in network.parameters()}
    assert objective.result is network


# A queue of negatives --------------------------------------------------------------------------


@oracle
@given(seed=seeds, batch=sizes, n_negatives=sizes, temperature=temperatures)
def test_queue_loss_equals_a_loop(seed, batch, n_negatives, temperature):
    queries, keys = draw_unit(seed, 2, batch)
    queue = draw_unit(seed + 1, n_negatives)
    loss = queue_loss(*map(torch.tensor, (queries, keys, queue)), temperature)
    expected = slow_queue_loss(queries, keys, queue, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


@oracle
@given(seed=seeds, batch=sizes, n_negatives=sizes, temperature=temperatures)
def test_queries_alone_learn_from_the_queue(seed, batch, n_negatives, temperature):
    arrays = *draw_unit(seed, 2, batch), draw_unit(seed + 1, n_negatives)
    queries, keys, queue = (torch.tensor(array, requires_grad=True) for array in arrays)
    queue_loss(queries, keys, queue, temperature).backward()
    expected = slow_queue_gradient(*arrays, temperature)
    np.testing.assert_allclose(queries.grad.numpy(), expected, atol=1e-9)
    assert keys.grad is None
    assert queue.grad is None


def test_the_queue_loss_is_low_when_a_query_finds_its_key():
    z, others = torch.eye(6)[:3], torch.eye(6)[3:]
    assert queue_loss(z, z, others, 0.1) < 0.01
    assert queue_loss(z, z.roll(1, 0), z, 0.1) > 1


# MoCo ------------------------------------------------------------------------------------------


def make_moco(queue_size=6, seed=0, **changes):
    parameters = {"temperature": 0.5, "momentum": 0.8, "final_momentum": 0.9, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MoCoObjective(make_network(seed), queue_size=queue_size, **parameters)


def from_oldest(objective):
    """Return the negatives in the order in which they will be replaced."""
    return objective.queue.roll(-int(objective.position), dims=0)


@oracle
@given(queue_size=sizes, batches=st.lists(sizes, max_size=6))
def test_the_oldest_negatives_are_replaced(queue_size, batches):
    objective = make_moco(queue_size)
    waiting = deque(objective.queue.tolist(), maxlen=queue_size)
    for seed, batch in enumerate(batches):
        keys = torch.tensor(draw_unit(seed, batch)).float()
        objective._enqueue(keys)
        waiting.extend(keys.tolist())
        assert from_oldest(objective).tolist() == list(waiting)


def test_a_batch_wraps_around_the_end_of_the_queue():
    objective = make_moco(5)
    a, b, c, d, e, f = torch.tensor(draw_unit(0, 6)).float()
    objective._enqueue(torch.stack([a, b, c]))
    objective._enqueue(torch.stack([d, e, f]))
    assert objective.queue.tolist() == torch.stack([f, b, c, d, e]).tolist()
    assert objective.position == 1


def test_keys_of_a_batch_become_negatives_of_the_next():
    objective = make_moco()
    for seed in range(3):
        with torch.no_grad():
            objective.embedding.projector.weight.mul_(-1)  # the teacher lags behind
        first, second = draw_views(seed)
        queue = objective.queue.clone()
        parts = copy.deepcopy(objective)
        parts.teacher.update(parts.embedding)
        queries, keys = parts.embedding(first), parts.teacher(second)
        expected = slow_queue_loss(
            *(tensor.detach().double().numpy() for tensor in (queries, keys, queue)), 0.5
        )
        loss, scalars = objective(first, second)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert scalars == {}
        assert torch.equal(from_oldest(objective)[-4:], keys)
        assert torch.equal(from_oldest(objective)[:2], parts.queue.roll(-4 * seed, dims=0)[4:])


def test_negatives_have_unit_length_from_the_start():
    objective = make_moco(50)
    for seed in range(3):
        take_step(objective, seed)
        torch.testing.assert_close(objective.queue.norm(dim=1), torch.ones(50))
    # Random directions, not one.
    assert make_moco(50).queue.mean(dim=0).norm() < 0.5


def test_the_queue_survives_a_checkpoint():
    objective = make_moco(7)
    for seed in range(3):
        take_step(objective, seed)
    assert objective.position == 12 % 7
    other = make_moco(7, seed=1)
    other.load_state_dict(objective.state_dict())
    for seed in range(3, 6):
        take_step(objective, seed)
        take_step(other, seed)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize("momentum", [0.0, 0.8, 1.0])
def test_the_teacher_of_moco_follows_at_the_next_batch(momentum):
    objective = make_moco(momentum=momentum)
    start = copies(objective.teacher)
    assert all(map(torch.equal, start, copies(objective.embedding)))
    take_step(objective, 0, rate=1.0)
    # The teacher has not seen that step yet.
    assert all(map(torch.equal, start, copies(objective.teacher)))
    student = copies(objective.embedding)
    assert not all(map(torch.equal, start, student))
    objective(*draw_views(1))
    for old, new, now in zip(start, student, objective.teacher.parameters(), strict=True):
        torch.testing.assert_close(now, old + (1 - momentum) * (new - old))


def test_the_momentum_of_moco_grows_in_a_line():
    objective = make_moco(momentum=0.6, final_momentum=1.0)
    assert objective.teacher.momentum == 0.6
    for progress, expected in [(0, 0.6), (0.25, 0.7), (0.5, 0.8), (1, 1.0), (0, 0.6)]:
        objective.begin_epoch(progress)
        assert objective.teacher.momentum == pytest.approx(expected)


def test_the_query_network_alone_is_trained():
    objective = make_moco()
    (group,) = objective.parameter_groups(0.3)
    assert group["lr"] == 0.3
    assert {id(p) for p in group["params"]} == {id(p) for p in objective.embedding.parameters()}
    objective(*draw_views(0))[0].backward()
    assert all(p.grad is not None for p in objective.embedding.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in objective.teacher.parameters())
    assert not objective.queue.requires_grad
    assert objective.result is objective.embedding


def test_moco_bears_lower_precision():
    objective = make_moco()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*draw_views(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert objective.queue.dtype == torch.float32
    torch.testing.assert_close(objective.queue.norm(dim=1), torch.ones(6))


def test_the_precision_of_the_networks_changes_nothing_in_the_losses():
    # Networks without layers: all that autocast could change are the losses.
    network = EmbeddingNetwork(nn.Identity(), nn.Identity(), 3)
    for make in (
        lambda: ContrastiveObjective(network, 0.5, both_kinds=True),
        lambda: ContrastiveObjective(network, 0.5, both_kinds=False),
        lambda: MoCoObjective(
            network, queue_size=6, temperature=0.5, momentum=0.8, final_momentum=0.9
        ),
    ):
        objective = make()
        expected = copy.deepcopy(objective)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = objective(*draw_views(0))
        assert torch.equal(loss, expected(*draw_views(0))[0])
