"""The losses of MiniClustering against slow numpy oracles, and the objective's promises."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork
from skdeepcluster.objectives import (
    HeadFit,
    MiniObjective,
    alignment_loss,
    class_weights,
    marginal_loss,
    pseudo_labels,
    self_training_loss,
)
from tests.objectives.oracle_helpers import draw, seeds, sizes, softmax


@given(seed=seeds, batch=sizes, n_outputs=sizes, threshold=st.sampled_from([0.0, 0.3, 0.9, 0.99]))
def test_pseudo_labels_are_the_confident_argmax(seed, batch, n_outputs, threshold):
    logits = draw(seed, batch, n_outputs)
    labels, selected = pseudo_labels(torch.tensor(logits, requires_grad=True), threshold)
    p = softmax(logits)
    for i in range(batch):
        assert labels[i] == p[i].argmax()
        assert bool(selected[i]) == (p[i].max() > threshold)
    assert not labels.requires_grad


@given(seed=seeds, batch=sizes, n_outputs=sizes, weighted=st.booleans())
def test_self_training_loss_equals_a_loop(seed, batch, n_outputs, weighted):
    rng = np.random.default_rng(seed)
    logits = draw(seed, batch, n_outputs)
    labels = rng.integers(n_outputs, size=batch)
    selected = rng.random(batch) < 0.6
    weights = rng.uniform(0.1, 5, size=n_outputs) if weighted else np.ones(n_outputs)
    p = softmax(logits)
    total, mass = 0.0, 0.0
    for i in range(batch):
        if selected[i]:
            total -= weights[labels[i]] * np.log(p[i, labels[i]])
            mass += weights[labels[i]]
    loss = self_training_loss(
        torch.tensor(logits),
        torch.tensor(labels),
        torch.tensor(selected),
        torch.tensor(weights) if weighted else None,
    )
    assert loss.item() == pytest.approx(total / mass if mass else 0.0, abs=1e-9)


def test_only_ratios_of_weights_act():
    logits = torch.tensor(draw(0, 6, 3))
    labels, selected = torch.tensor([0, 1, 2, 0, 1, 2]), torch.ones(6, dtype=torch.bool)
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    loss = self_training_loss(logits, labels, selected, weights)
    assert torch.allclose(loss, self_training_loss(logits, labels, selected, 7 * weights))
    assert not torch.allclose(loss, self_training_loss(logits, labels, selected))


def test_an_empty_selection_gives_zero_loss_and_zero_gradient():
    logits = torch.tensor(draw(1, 4, 3), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    loss = self_training_loss(logits, labels, torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_rejected_sample_gets_no_gradient():
    logits = torch.tensor(draw(2, 3, 3), requires_grad=True)
    selected = torch.tensor([True, False, True])
    self_training_loss(logits, torch.tensor([0, 1, 2]), selected).backward()
    assert torch.equal(logits.grad[1], torch.zeros(3, dtype=torch.float64))
    assert logits.grad[0].abs().sum() > 0


@given(
    seed=seeds, n_clusters=sizes, n_mini=st.integers(1, 20), delta=st.sampled_from([0, 0.3, 0.5])
)
def test_class_weights_equal_a_loop(seed, n_clusters, n_mini, delta):
    table = np.random.default_rng(seed).poisson(1.5, size=(n_clusters, n_mini)).astype(float)
    weights = class_weights(torch.tensor(table), delta)
    for k in range(n_clusters):
        occupied = 0
        for j in range(n_mini):
            total = table[:, j].sum()
            if total and table[k, j] / total > delta:
                occupied += 1
        assert weights[k].item() == pytest.approx(n_mini / max(occupied, 0.5))


def test_large_classes_get_small_weights():
    # Cluster 0 fills three mini-clusters, cluster 1 one, cluster 2 none.
    table = torch.tensor([[9.0, 8.0, 7.0, 1.0], [1.0, 0.0, 0.0, 9.0], [0.0, 0.0, 1.0, 0.0]])
    assert class_weights(table, 0.3).tolist() == pytest.approx([4 / 3, 4.0, 8.0])
    assert torch.equal(class_weights(10 * table, 0.3), class_weights(table, 0.3))


@given(seed=seeds, batch=sizes, n_clusters=sizes, n_mini=st.integers(1, 30))
def test_alignment_loss_equals_a_loop(seed, batch, n_clusters, n_mini):
    # Both branches: the batch may be smaller or larger than the number of mini-clusters.
    p, q = softmax(draw(seed, batch, n_clusters)), softmax(draw(seed + 1, batch, n_mini))
    total = 0.0
    for i in range(batch):
        for j in range(batch):
            a = p[i] @ p[j] / np.linalg.norm(p[i]) / np.linalg.norm(p[j])
            b = q[i] @ q[j] / np.linalg.norm(q[i]) / np.linalg.norm(q[j])
            total += (a - b) ** 2
    loss = alignment_loss(torch.tensor(p), torch.tensor(q)).item()
    assert loss == pytest.approx(total / batch**2, abs=1e-12)


def test_alignment_loss_has_the_same_gradient_in_both_forms():
    p = torch.tensor(draw(3, 8, 3), requires_grad=True)
    q = torch.tensor(draw(4, 8, 5))
    alignment_loss(p.softmax(1), q.softmax(1)).backward()
    small, p.grad = p.grad, None
    wide = torch.cat([q.softmax(1), torch.zeros(8, 10, dtype=q.dtype)], dim=1)
    alignment_loss(p.softmax(1), wide).backward()
    assert torch.allclose(small, p.grad, atol=1e-12)


@given(seed=seeds, n_clusters=sizes)
def test_marginal_loss_is_the_divergence_when_nothing_runs_behind(seed, n_clusters):
    p, q = softmax(draw(seed, 2, n_clusters))
    expected = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
    loss = marginal_loss(torch.tensor(p), torch.tensor(p), torch.tensor(q))
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def make_objective(n_clusters=3, n_mini=6, width=4, **changes):
    embedding = EmbeddingNetwork(nn.Identity(), nn.Linear(width, width), width)
    parameters = {
        "confidence_threshold": 0.5,
        "occupancy_threshold": 0.3,
        "mini_weight": 1.0,
        "alignment_weight": 0.2,
        "marginal_weight": 0.0,
        "reweight": True,
        "fine_tune": False,
        "neighbor_views": False,
        "logit_scale": 10.0,
    }
    objective = MiniObjective(
        ClusterModel(nn.Identity(), embedding, nn.Identity()),
        n_clusters=n_clusters,
        n_mini_clusters=n_mini,
        **{**parameters, **changes},
    )
    torch.manual_seed(0)
    z = nn.functional.normalize(torch.randn(60, width), dim=1)
    labels, mini = torch.arange(60) % n_clusters, torch.arange(60) % n_mini
    objective.start(z, labels, mini, torch.Generator())
    return objective, z


def trained_parameters(objective):
    return [p for group in objective.parameter_groups(0.1) for p in group["params"]]


def test_the_objective_is_the_weighted_sum_of_its_terms():
    objective, z = make_objective(alignment_weight=0.7, mini_weight=2.0, marginal_weight=3.0)
    weak, strong = z[:20], z[20:40]
    loss, scalars = objective(weak, strong)
    t_weak, t_strong = objective.target_head(weak), objective.target_head(strong)
    m_weak, m_strong = objective.mini_head(weak), objective.mini_head(strong)
    labels, selected = pseudo_labels(t_weak, 0.5)
    mini, mini_selected = pseudo_labels(m_weak, 0.5)
    weights = class_weights(objective.table, 0.3)
    marginal = torch.cat([t_weak, t_strong]).softmax(1).mean(0)
    expected = (
        self_training_loss(t_strong, labels, selected, weights)
        + 2 * self_training_loss(m_strong, mini, mini_selected)
        + 0.7 * alignment_loss(t_weak.softmax(1), m_weak.softmax(1))
        + 3 * marginal_loss(marginal, objective.marginal, objective.prior)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert scalars["selected"].item() == pytest.approx(selected.float().mean().item())


def uneven_objective(**changes):
    """Return an objective of its first term alone, whose clusters occupy 5, 2 and 1 of 8 minis."""
    terms = {"mini_weight": 0.0, "alignment_weight": 0.0, "confidence_threshold": 0.7}
    objective, z = make_objective(n_mini=8, **terms, **changes)
    mini = torch.arange(60) % 8
    objective.start(z, torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])[mini], mini, torch.Generator())
    return objective, z


def slow_weights(table, batch_labels, batch_mini, rate, delta=0.3):
    """Return the class weights by the running table, once a batch has moved it."""
    table = (1 - rate) * table
    for k, j in zip(batch_labels, batch_mini, strict=True):
        table[k, j] += rate / len(batch_labels)
    occupied = [
        sum(table[k, j] > delta * table[:, j].sum() for j in range(table.shape[1]))
        for k in range(len(table))
    ]
    return np.array([table.shape[1] / max(n, 0.5) for n in occupied])


@pytest.mark.parametrize("reweight", [True, False])
def test_the_loss_and_its_gradient_weigh_classes_by_the_running_table(reweight, monkeypatch):
    monkeypatch.setattr(MiniObjective, "TABLE_RATE", 0.6)  # one batch shows
    objective, z = uneven_objective(reweight=reweight)
    weak, strong = z[:24], z[24:48]
    p_weak, p_strong = (softmax(objective.target_head(v).detach().numpy()) for v in (weak, strong))
    labels, selected = p_weak.argmax(axis=1), p_weak.max(axis=1) > 0.7
    mini = objective.mini_head(weak).argmax(dim=1).numpy()
    table = objective.table.double().numpy()
    w, before = (slow_weights(table, labels, mini, rate) for rate in (0.6, 0.0))
    assert len(set(w)) == 3
    assert not np.allclose(w / w[0], before / before[0])
    assert set(labels[selected]) == {0, 1, 2}
    assert 0 < selected.sum() < 24
    w = w if reweight else np.ones(3)

    loss, total, gradient = 0.0, 0.0, np.zeros((3, 4))
    for i in range(24):
        if selected[i]:
            loss -= w[labels[i]] * np.log(p_strong[i, labels[i]])
            total += w[labels[i]]
            # Of the cross-entropy, by the weights of the head.
            pull = p_strong[i] - np.eye(3)[labels[i]]
            gradient += w[labels[i]] * np.outer(pull, strong[i].numpy())
    found, _ = objective(weak, strong)
    found.backward()
    assert found.item() == pytest.approx(loss / total, rel=1e-5)
    np.testing.assert_allclose(objective.target_head.weight.grad, gradient / total, atol=1e-6)


def test_pseudo_labels_carry_no_gradient_to_the_weak_view():
    objective, z = make_objective(alignment_weight=0.0)
    weak = z[:10].clone().requires_grad_()
    strong = z[10:20].clone().requires_grad_()
    objective(weak, strong)[0].backward()
    assert weak.grad is None or torch.equal(weak.grad, torch.zeros_like(weak))
    assert strong.grad.abs().sum() > 0


@pytest.mark.parametrize("fine_tune", [True, False])
def test_only_a_fine_tuned_embedding_is_trained(fine_tune):
    objective, z = make_objective(fine_tune=fine_tune)
    objective.train()
    objective(z[:10], z[10:20])[0].backward()
    trained = {id(p) for p in trained_parameters(objective)}
    embedding = list(objective.model.embedding.parameters())
    assert all((id(p) in trained) == fine_tune for p in embedding)
    assert all((p.grad is not None) == fine_tune for p in embedding)
    assert objective.model.embedding.training == fine_tune


def test_a_batch_without_a_confident_sample_is_marked():
    objective, z = make_objective(confidence_threshold=0.999999)
    _, scalars = objective(z[:10], z[10:20])
    assert bool(scalars["skipped"])
    assert scalars["selected"].item() == 0


def test_neighbors_that_disagree_are_left_out():
    objective, z = make_objective(neighbor_views=True, confidence_threshold=0.0)
    _, scalars = objective(z[:20], z[20:40])
    agree = objective.target_head(z[:20]).argmax(1) == objective.target_head(z[20:40]).argmax(1)
    assert scalars["selected"].item() == pytest.approx(agree.float().mean().item())
    assert 0 < agree.sum() < 20


def test_the_table_remembers_more_than_one_batch():
    objective, z = make_objective(n_clusters=5, n_mini=10)
    before = objective.table.clone()
    objective(z[:2], z[2:4])  # a batch smaller than the number of clusters
    assert torch.all(objective.table >= before * (1 - objective.TABLE_RATE) - 1e-7)
    assert torch.isfinite(class_weights(objective.table, 0.3)).all()


def test_the_running_mean_prediction_moves_by_a_tenth():
    objective, z = make_objective(marginal_weight=1.0)
    before = objective.marginal.numpy().copy()
    weak, strong = (softmax(objective.target_head(v).detach().numpy()) for v in (z[:20], z[20:40]))
    batch = (weak.sum(axis=0) + strong.sum(axis=0)) / 40
    objective(z[:20], z[20:40])
    np.testing.assert_allclose(objective.marginal, 0.9 * before + 0.1 * batch, rtol=1e-5)
    assert np.abs(batch - before).max() > 0.01


@pytest.mark.parametrize(
    ("switch", "absent"),
    [({"mini_weight": 0.0}, "mini_head"), ({"reweight": False}, None)],
)
def test_terms_can_be_switched_off(switch, absent):
    objective, z = make_objective(alignment_weight=0.0, **switch)
    table = objective.table.clone()
    objective(z[:10], z[10:20])[0].backward()
    if absent:
        assert all(p.grad is None for p in getattr(objective, absent).parameters())
    else:
        assert torch.equal(objective.table, table)


def test_the_precision_of_the_networks_changes_nothing_in_the_heads():
    # The embedding is given: all that autocast could change are heads and losses.
    expected, z = make_objective(marginal_weight=1.0)
    objective = copy.deepcopy(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(z[:20], z[20:40])
    assert torch.equal(loss, expected(z[:20], z[20:40])[0])


def test_one_cluster_and_duplicates_are_finite():
    objective, z = make_objective(n_clusters=1, n_mini=1)
    loss, _ = objective(z[:1].expand(8, -1), z[:1].expand(8, -1))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in trained_parameters(objective))


def test_reorder_renumbers_the_clusters():
    objective, z = make_objective()
    order = torch.tensor([2, 0, 1])
    before, table = objective.target_head(z), objective.table.clone()
    objective.reorder(order)
    assert torch.equal(objective.target_head(z), before[:, order])
    assert torch.equal(objective.table, table[order])


def test_the_heads_start_as_nearest_centers():
    objective, z = make_objective()
    labels = torch.arange(60) % 3
    centers = torch.stack([z[labels == k].mean(0) for k in range(3)])
    cosines = z @ nn.functional.normalize(centers, dim=1).T
    assert torch.allclose(objective.target_head(z), 10 * cosines, atol=1e-5)


def test_the_statistics_start_as_those_of_all_samples():
    objective, z = make_objective()
    labels, mini = torch.arange(60) // 40, torch.arange(60) % 6  # none in the last cluster
    objective.start(z, labels, mini, torch.Generator())
    for k in range(3):
        for j in range(6):
            count = ((labels == k) & (mini == j)).sum().item()
            assert objective.table[k, j].item() == pytest.approx(count / 60)
    # One sample more for each.
    assert objective.prior.tolist() == pytest.approx([41 / 63, 21 / 63, 1 / 63])
    assert torch.equal(objective.marginal, objective.prior)


def test_class_weights_of_all_samples_are_those_of_their_table():
    objective, z = make_objective(occupancy_threshold=0.4)
    labels = torch.arange(60) % 5 // 2
    mini = objective.mini_head(z).argmax(dim=1)
    weights = objective.weigh_classes(z, labels)
    shares = np.array(
        [[(labels[mini == j] == k).float().mean() for j in range(6)] for k in (0, 1, 2)]
    )
    occupied = (shares > 0.4).sum(axis=1)
    assert (occupied < (shares > 0).sum(axis=1)).any()
    np.testing.assert_allclose(weights, 6 / np.maximum(occupied, 0.5))


def test_fitting_a_head_is_cross_entropy():
    head = nn.Linear(4, 3).double()
    z, labels = torch.tensor(draw(5, 6, 4)), torch.tensor([0, 1, 2, 2, 1, 0])
    p = softmax(head(z).detach().numpy())
    expected = -np.mean([np.log(p[i, k]) for i, k in enumerate(labels)])
    loss, scalars = HeadFit(head)(z, labels)
    assert loss.item() == pytest.approx(expected)
    assert scalars == {}
