"""The objective of SeCu: the sum of its parts, its heads, and what it remembers of samples."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from skdeepcluster.objectives import _discrimination, class_weights, info_nce
from tests.objectives.discrimination_helpers import (
    CONSTRAINTS,
    WIDTH,
    batch_of,
    draw_labels,
    draw_unit,
    make_objective,
    slow_head,
)
from tests.objectives.oracle_helpers import assert_equal_states, seeds, sizes

COMPOSITIONS = [
    {},
    {"constraint": None},
    {"constraint": "entropy", "entropy_weight": 0.5},
    {"neighbor_weight": 3.5},
    {"neighbor_weight": 1.0, "neighbor_temperature": 0.1, "label_share": 0.7},
    {"n_clusters": (2, 3, 3), "n_over_clusters": (6, 9)},
    {"n_clusters": (1,), "n_over_clusters": (1,)},
    {"n_clusters": (3,), "n_over_clusters": ()},
    {"n_clusters": (40,), "n_over_clusters": (50,)},
]


def train(objective, z, n_epochs=2, batch_size=20, rates=(0.05, 0.5)):
    """Train as the loop does."""
    optimizer = torch.optim.SGD(objective.parameter_groups(*rates), momentum=0.9)
    objective.train()
    for epoch in range(n_epochs):
        objective.begin_epoch(epoch / n_epochs)
        for index in torch.randperm(len(z)).split(batch_size):
            optimizer.zero_grad()
            objective(*batch_of(z, index))[0].backward()
            optimizer.step()
    return objective


@pytest.mark.parametrize("changes", COMPOSITIONS, ids=str)
def test_the_objective_is_the_mean_of_its_heads_and_the_contrast(changes):
    objective, z = make_objective(**changes)
    objective.train()
    for step in range(4):  # samples come again, some to heads that have seen them
        batch = batch_of(z, torch.randperm(60)[:20])
        if step % 2 == 0:
            objective.begin_epoch(step / 4)
        parts = copy.deepcopy(objective)
        z1, z2 = parts.model.embedding(torch.cat(batch[1:])).detach().chunk(2)
        results = [slow_head(head, batch[0], z1, z2) for head in parts.heads]
        expected = np.mean([result[0] for result in results])
        expected += (
            objective.neighbor_weight * info_nce(z1, z2, objective.neighbor_temperature).item()
        )
        loss, scalars = objective(*batch)
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        assert scalars.keys() == {"changed"}
        changed = np.mean([result[1] for result in results])
        assert scalars["changed"].item() == pytest.approx(changed)
        for head, (_, _, table, duals) in zip(objective.heads, results, strict=True):
            assert head.assignments.tolist() == table
            assert head.duals.tolist() == pytest.approx(duals, abs=1e-6)
            with torch.no_grad():
                head.head.weight.add_(0.1 * torch.randn_like(head.head.weight))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_contrast_is_computed_only_if_it_has_a_weight(weight, monkeypatch):
    calls = []

    def spy(first, second, temperature):
        calls.append(temperature)
        return info_nce(first, second, temperature)

    monkeypatch.setattr("skdeepcluster.objectives._discrimination.info_nce", spy)
    objective, z = make_objective(neighbor_weight=weight, neighbor_temperature=0.7)
    objective(*batch_of(z, range(20)))
    assert calls == [0.7] * int(weight)


def test_the_contrast_teaches_the_encoder_and_no_center():
    gradients = []
    for weight in (0.0, 5.0):
        objective, z = make_objective(neighbor_weight=weight)
        objective(*batch_of(z, range(20)))[0].backward()
        centers = [head.head.weight.grad for head in objective.heads]
        gradients.append((centers, objective.model.embedding.projector.weight.grad))
    (centers, projector), (centers_too, projector_too) = gradients
    for a, b in zip(centers, centers_too, strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(projector, projector_too, rtol=1e-2)


def test_everything_that_learns_is_reached():
    objective, z = make_objective((3, 4), (9,))
    objective(*batch_of(z, range(20)))[0].backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert all(head.head.weight.grad.any() for head in objective.heads)
    assert objective.model.embedding.projector.weight.grad.any()


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_heads_work_in_full_precision(constraint, monkeypatch):
    seen = []

    def spy_on(name):
        function = getattr(_discrimination, name)

        def spy(tensor, *others):
            seen.append((name, tensor.dtype, torch.is_autocast_enabled("cpu")))
            return function(tensor, *others)

        monkeypatch.setattr(f"skdeepcluster.objectives._discrimination.{name}", spy)

    names = ["center_loss", "encoder_loss"]
    names += {"size": ["raised_duals"], "entropy": ["entropy_cost"]}.get(constraint, [])
    for name in names:
        spy_on(name)
    objective, z = make_objective(constraint=constraint, neighbor_weight=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batch_of(z, range(20)))
    loss.backward()
    assert len(seen) == 2 * len(names)
    assert set(seen) == {(name, torch.float32, False) for name in names}
    assert torch.isfinite(loss)
    assert all(torch.isfinite(head.head.weight.grad).all() for head in objective.heads)


def test_the_precision_of_the_networks_changes_nothing_in_the_heads():
    # Networks without layers: all that autocast could change are the heads.
    expected, z = make_objective(learns=False, constraint="entropy")
    objective = copy.deepcopy(expected)
    batch = batch_of(z, range(20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batch)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected(*batch)[0])
    assert_equal_states(objective, expected)


def test_parameter_groups_hold_everything_that_learns_once():
    objective, _ = make_objective((2, 3), (6, 9))
    objective.select(1)
    groups = objective.parameter_groups(0.01, 1.2)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in objective.parameters()}
    assert [group["lr"] for group in groups] == [0.01, 1.2]
    encoder, centers = ({id(p) for p in group["params"]} for group in groups)
    assert encoder == {id(p) for p in objective.model.embedding.parameters()}
    assert centers == {id(head.head.weight) for head in objective.heads}


def test_centers_do_not_decay():
    objective, _ = make_objective()
    optimizer = torch.optim.SGD(objective.parameter_groups(0.1, 0.1), weight_decay=0.5)
    before = copy.deepcopy(objective.state_dict())
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for head in objective.heads:
        assert (head.head.weight.norm(dim=1) - 1).abs().max() < 1e-6
    name = "model.embedding.projector.weight"
    torch.testing.assert_close(objective.state_dict()[name], 0.95 * before[name])


def test_an_epoch_begins_for_every_head():
    objective, z = make_objective((2, 3), (6,))
    train(objective, z, n_epochs=1)
    for head in objective.heads:
        assert not torch.allclose(head.previous, head.head.centers)
    objective.begin_epoch(1.0)
    for head in objective.heads:
        torch.testing.assert_close(head.previous, head.head.centers.detach())
        # Of unit length again: a longer weight would learn more slowly.
        torch.testing.assert_close(head.head.weight.detach(), head.previous)
        assert not head.previous.requires_grad


def test_heads_stand_in_the_order_of_their_numbers():
    objective, _ = make_objective((4, 2, 2), (6, 9))
    assert [head.n_clusters for head in objective.heads] == [4, 2, 2, 6, 9]
    assert [head.n_clusters for head in objective.candidates] == [4, 2, 2]
    assert objective.selected_head is objective.heads[0]
    # Heads with the same number of clusters start apart.
    assert not torch.equal(objective.heads[1].head.weight, objective.heads[2].head.weight)


def test_the_model_predicts_with_the_selected_head():
    objective, z = make_objective((2, 3), (6,))
    objective.eval()
    for number in (1, 0):
        objective.select(number)
        assert objective.selected_head is objective.candidates[number]
        assert objective.model.head is objective.selected_head.head
        embedding = objective.model.embed(z)
        expected = embedding @ objective.candidates[number].head.centers.T / 0.05
        torch.testing.assert_close(objective.model(z), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_the_model_of_a_copy_predicts_with_the_copied_head(copied):
    objective, z = make_objective((2, 3), (6,))
    objective.eval()
    objective.select(1)
    other = copied(objective)
    assert other.selected == 1
    assert other.model.head is other.selected_head.head
    assert other.model.head is not objective.model.head
    assert torch.equal(other.model(z), objective.model(z))
    before = objective.model(z)
    train(other, z).eval()
    assert not torch.equal(other.model(z), before)
    other.select(0)
    assert torch.equal(objective.model(z), before)


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2], [1, 0, 2]])
def test_reorder_renumbers_the_clusters_of_the_selected_head(order):
    objective, z = make_objective((3, 3), (6,))
    train(objective, z).eval()
    objective.select(1)
    for head in objective.heads:
        head.duals.copy_(torch.arange(1.0, head.n_clusters + 1))
    before, old = copy.deepcopy(objective), objective.model(z)
    objective.reorder(torch.tensor(order))
    assert torch.equal(objective.model(z), old[:, order])
    head = objective.selected_head
    for name in ("previous", "duals"):
        assert torch.equal(getattr(head, name), getattr(before.selected_head, name)[order])
    for number in (0, 2):
        assert_equal_states(objective.heads[number], before.heads[number])


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("order", [[2, 0, 1], [1, 0, 2]])
def test_training_goes_on_the_same_in_any_order_of_the_clusters(order, constraint):
    objective, z = make_objective(constraint=constraint, label_share=0.9)
    train(objective, z, rates=(0.05, 0.1))
    objective.heads[0].assignments[:3] = -1  # not seen, in any order
    other = copy.deepcopy(objective)
    other.reorder(torch.tensor(order))
    for index in torch.arange(60).split(20):
        loss, scalars = objective(*batch_of(z, index))
        same_loss, same_scalars = other(*batch_of(z, index))
        assert same_loss.item() == pytest.approx(loss.item(), rel=1e-4)
        assert same_scalars["changed"].item() == pytest.approx(scalars["changed"].item())
    tables = [o.selected_head.assignments for o in (objective, other)]
    assert torch.equal(tables[0], torch.tensor(order)[tables[1]])


def test_a_finished_model_remembers_no_sample():
    n = 977
    objective, z = make_objective((3,), (6,), n=n)
    train(objective, z, n_epochs=1, batch_size=300).eval()
    assert any(n in tensor.shape for tensor in objective.state_dict().values())
    before, predicted = copy.deepcopy(objective.state_dict()), objective.model(z)
    size = len(pickle.dumps(objective))
    objective.forget_samples()
    state = objective.state_dict()
    assert state.keys() == before.keys()
    for name, tensor in state.items():
        assert n not in tensor.shape, name
        assert name.endswith("assignments") or torch.equal(tensor, before[name])
    assert len(pickle.dumps(objective)) < size - 2 * 8 * n + 100
    assert torch.equal(objective.model(z), predicted)
    objective.forget_samples()  # may be said twice
    objective.reorder(torch.tensor([2, 1, 0]))
    assert torch.equal(objective.model(z), predicted[:, [2, 1, 0]])


@pytest.mark.parametrize("n", [60, 41])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_training_goes_on_from_a_finished_model(constraint, n):
    objective, z = make_objective((2, 3), (6,), constraint=constraint)
    train(objective, z).select(1)
    objective.forget_samples()
    state = copy.deepcopy(objective.state_dict())
    fresh, _ = make_objective((2, 3), (6,), n=0, seed=1, constraint=constraint)
    fresh.select(1)
    fresh.load_state_dict(state)
    fresh.remember_samples(n)
    for name, tensor in fresh.state_dict().items():
        if name.endswith("assignments"):
            assert tensor.tolist() == [-1] * n
        else:
            assert torch.equal(tensor, state[name]), name
    train(fresh, z[:n], batch_size=n)
    assert all((head.assignments >= 0).all() for head in fresh.heads)


def test_a_finished_model_takes_back_its_own_state():
    objective, z = make_objective()
    train(objective, z)
    objective.forget_samples()
    state = copy.deepcopy(objective.state_dict())
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(1)
    objective.load_state_dict(state)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_state_of_a_checkpoint_survives_a_round_trip(constraint):
    changes = {"n_clusters": (2, 3), "constraint": constraint, "neighbor_weight": 1.0}
    objective, z = make_objective(**changes)
    train(objective, z)
    for head in objective.heads:
        assert head.duals.any() == (constraint == "size")
        assert (head.assignments >= 0).all()
    restored, _ = make_objective(seed=1, **changes)
    restored.load_state_dict(copy.deepcopy(objective.state_dict()))
    assert_equal_states(restored, objective)
    for o in (objective, restored):
        torch.manual_seed(0)
        train(o, z)
    assert_equal_states(restored, objective)


def test_a_state_of_other_samples_is_refused():
    objective, _ = make_objective(n=60)
    other, _ = make_objective(n=59)
    with pytest.raises(RuntimeError, match=r"size mismatch for all_heads\.0\.assignments"):
        other.load_state_dict(objective.state_dict())


@pytest.mark.parametrize("n_over_clusters", [(2, 4), ()])
def test_class_weights_by_hand(n_over_clusters):
    # The finest clusters lie along the axes; if there are no others they are the heads' own.
    objective, _ = make_objective((3, 4), n_over_clusters)
    with torch.no_grad():
        objective.heads[-1].head.weight.copy_(2 * torch.eye(4))
    over = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]
    labels = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    table = torch.tensor([[3, 3, 3, 1], [2, 0, 1, 0], [0, 0, 0, 0]])
    weights = objective.weigh_classes(torch.eye(4)[over], labels)
    assert torch.equal(weights, class_weights(table.double(), 0.3))
    # All four are occupied by the first cluster, one by the second and none by the third.
    assert weights.tolist() == [1, 4, 8]


@given(seed=seeds, n=st.integers(1, 30), n_clusters=sizes, n_over=sizes)
def test_class_weights_equal_a_loop_over_the_finest_clusters(seed, n, n_clusters, n_over):
    with torch.random.fork_rng():
        objective, _ = make_objective((n_clusters,), (7, n_over), learns=False)
    centers, z = draw_unit(seed, n_over), draw_unit(seed + 1, n)
    labels = draw_labels(seed, n, n_clusters)
    with torch.no_grad():
        objective.heads[-1].head.weight.copy_(torch.tensor(centers))
    weights = objective.weigh_classes(torch.tensor(z).float(), torch.tensor(labels))
    over = [int(np.argmax([row @ center for center in centers])) for row in z]
    for k in range(n_clusters):
        occupied = 0
        for j in range(n_over):
            members = [labels[i] for i in range(n) if over[i] == j]
            if members and members.count(k) / len(members) > 0.3:
                occupied += 1
        assert weights[k].item() == pytest.approx(n_over / max(occupied, 0.5))


def test_training_on_blobs_finds_them():
    torch.manual_seed(0)
    centers = normalize(torch.tensor([[1.0, 0, 0, 1], [-1, 0, 1, 0], [0, 1, -1, 0]]), dim=1)
    truth = torch.arange(90) % 3
    z = centers[truth] + 0.15 * torch.randn(90, WIDTH)
    objective, _ = make_objective(n=90, seed=2)
    train(objective, z, n_epochs=30, batch_size=30, rates=(0.02, 0.2)).eval()
    predicted = objective.model(z).argmax(dim=1)
    table = torch.zeros(3, 3)
    table.index_put_((truth, predicted), torch.ones(()), accumulate=True)
    assert table.max(dim=0).values.sum() == 90
    assert table.max(dim=1).values.sum() == 90
