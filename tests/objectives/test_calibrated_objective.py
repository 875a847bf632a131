"""The objective of CDC: the sum of its terms, and what reaches which network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from skdeepcluster.networks import PrototypePerceptron
from skdeepcluster.objectives import size_divergence
from tests.objectives.calibrated_helpers import (
    batches,
    gradients,
    is_untouched,
    make_objective,
    partitions,
    reject_all,
    slow_calibration_loss,
    slow_candidates,
    slow_divergence,
    slow_selection,
    slow_targets,
)
from tests.objectives.oracle_helpers import assert_equal_states, softmax

COMPOSITIONS = [
    {},
    {"entropy_weight": 0.0},
    {"entropy_weight": 3.5},
    {"proportional": False},
    {"calibration_head": False},
    {"confidence_threshold": 0.6},
    {"confidence_threshold": 0.6, "calibration_head": False},
    {"confidence_threshold": 1.0},
    {"confidence_threshold": 1.0, "calibration_head": False},
    {"fine_tune": True},
    {"fine_tune": True, "stop_gradient": False},
    {"n_clusters": 1, "n_regions": 1},
    {"n_clusters": 40, "n_regions": 50},
]


def slow_cross_entropy(logits, rows, labels):
    p = softmax(logits)
    return -sum(np.log(p[i, k]) for i, k in zip(rows, labels, strict=True)) / len(rows)


def hand_composed(objective, clean, strong, weak=None):
    """Return the loss and the selection of a batch, term by term and sample by sample."""
    parts = copy.deepcopy(objective)  # a pass through a head moves its running statistics
    embed = parts.model.embedding if parts.fine_tune else nn.Identity()

    def logits(head, view):
        return head(embed(view)).detach().double().numpy()

    judge = parts.calibration_head or parts.clustering_head
    prior = parts.prior.double().numpy()
    total = 0.0
    if parts.calibration_head is not None:
        centers = parts.regions.centers.double().numpy()
        z = embed(clean).detach().double().numpy()
        regions = [np.square(centers - row).sum(axis=1).argmin() for row in z]
        targets = slow_targets(softmax(logits(parts.clustering_head, clean)), regions)
        judged = logits(parts.calibration_head, clean)
        total += slow_calibration_loss(judged, targets)
        total += parts.entropy_weight * slow_divergence(softmax(judged), prior)
    judged = softmax(logits(judge, clean if weak is None else weak))
    if parts.confidence_threshold is not None:
        rows = [i for i, row in enumerate(judged) if row.max() > parts.confidence_threshold]
        labels, owed = [judged[i].argmax() for i in rows], parts.owed.numpy()
    else:
        n_candidates = slow_candidates(prior, len(clean))
        rows, labels, owed = slow_selection(judged, n_candidates, parts.owed.double().numpy())
    if rows:
        total += slow_cross_entropy(logits(parts.clustering_head, strong), rows, labels)
    return total, rows, owed


def is_trained(module):
    return all(g is not None and g.any() for g in gradients(module))


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("changes", COMPOSITIONS, ids=str)
def test_the_objective_is_the_sum_of_its_terms(changes, n_views):
    objective, z = make_objective(**changes)
    objective.train()
    for _ in range(3):  # what is owed and the regions go from batch to batch
        views = batches(z)[:n_views]
        expected, rows, owed = hand_composed(objective, *views)
        loss, scalars = objective(*views)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert scalars["selected"].item() == pytest.approx(len(rows) / 20)
        # A calibration head learns from every batch, so none is to be left out.
        assert ("skipped" in scalars) == (objective.calibration_head is None)
        if "skipped" in scalars:
            assert scalars["skipped"].item() == (not rows)
        np.testing.assert_allclose(objective.owed.numpy(), owed, atol=1e-4)
        z = z.roll(7, dims=0)


def test_the_weak_view_alone_gives_the_pseudo_labels():
    objective, z = make_objective(calibration_head=False, confidence_threshold=0.0)
    objective.eval()
    clean, strong, weak = batches(z)
    head = objective.clustering_head
    for view, loss in ((clean, objective(clean, strong)), (weak, objective(clean, strong, weak))):
        labels = head(view).argmax(dim=1)
        expected = nn.functional.cross_entropy(head(strong), labels)
        assert loss[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert (head(clean).argmax(dim=1) != head(weak).argmax(dim=1)).any()


def test_a_fixed_threshold_leaves_what_is_owed_alone():
    objective, z = make_objective(confidence_threshold=0.5)
    objective.owed.fill_(0.4)
    objective(*batches(z))
    assert (objective.owed == 0.4).all()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_divergence_is_computed_only_if_it_has_a_weight(weight, monkeypatch):
    calls = []

    def spy(probabilities, prior):
        calls.append(probabilities)
        return size_divergence(probabilities, prior)

    monkeypatch.setattr("skdeepcluster.objectives._calibrated.size_divergence", spy)
    objective, z = make_objective(entropy_weight=weight)
    objective(*batches(z))
    assert len(calls) == weight


@pytest.mark.parametrize("calibration_head", [True, False])
def test_the_precision_of_the_networks_changes_nothing_in_the_heads(calibration_head):
    # The embedding is given: all that autocast could change are heads and losses.
    expected, z = make_objective(calibration_head=calibration_head)
    objective = copy.deepcopy(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batches(z))
    assert torch.equal(loss, expected(*batches(z))[0])


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_calibration_loss_reaches_the_encoder_only_if_it_may(stop_gradient, n_views):
    objective, z = reject_all(fine_tune=True, stop_gradient=stop_gradient)
    objective.train()
    loss, scalars = objective(*batches(z)[:n_views])
    loss.backward()
    assert scalars["selected"].item() == 0
    assert is_trained(objective.calibration_head)
    assert is_untouched(objective.clustering_head)
    if stop_gradient:
        assert is_untouched(objective.model.embedding)
    else:
        # A bias before batch normalisation has no effect, so not every parameter counts.
        assert objective.model.embedding.projector.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("term", ["calibration", "divergence"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_both_terms_of_the_calibration_head_stop_before_the_clean_view(stop_gradient, term):
    objective, z = reject_all(fine_tune=True, stop_gradient=stop_gradient, entropy_weight=0.0)
    objective.eval()
    clean = z[:20].clone().requires_grad_()
    if term == "divergence":
        # The one term less the other: what a weight of one adds.
        other = copy.deepcopy(objective)
        other.entropy_weight = 1.0
        loss = other(clean, z[20:40])[0] - objective(clean, z[20:40])[0]
    else:
        loss, _ = objective(clean, z[20:40])
    loss.backward()
    reached = clean.grad is not None and bool(clean.grad.abs().max() > 1e-5)
    assert reached == (not stop_gradient)


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("fine_tune", [True, False])
def test_the_clustering_loss_never_trains_the_calibration_head(fine_tune, n_views):
    # The same batch, with and without a selection: what differs is the gradient of L_clu.
    with_selection, z = make_objective(fine_tune=fine_tune)
    without, _ = reject_all(fine_tune=fine_tune)
    without.load_state_dict(with_selection.state_dict())
    for objective in (with_selection, without):
        objective.train()
        loss, scalars = objective(*batches(z)[:n_views])
        loss.backward()
        assert (scalars["selected"].item() == 0) == (objective is without)
    for a, b in zip(
        gradients(with_selection.calibration_head),
        gradients(without.calibration_head),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert is_trained(with_selection.clustering_head)
    assert is_untouched(without.model.embedding)
    trained = with_selection.model.embedding.projector.weight.grad
    assert (trained is not None and bool(trained.abs().max() > 1e-4)) == fine_tune


@pytest.mark.parametrize(
    "changes",
    [{}, {"calibration_head": False}, {"calibration_head": False, "stop_gradient": False}],
    ids=str,
)
def test_gradients_flow_through_the_strong_view_only(changes):
    objective, z = make_objective(fine_tune=True, **changes)
    clean, strong, weak = (view.clone().requires_grad_() for view in batches(z))
    objective(clean, strong, weak)[0].backward()
    assert clean.grad is None
    assert weak.grad is None
    assert strong.grad.abs().sum() > 0


@pytest.mark.parametrize("fine_tune", [True, False])
def test_only_a_fine_tuned_embedding_changes(fine_tune):
    objective, z = make_objective(fine_tune=fine_tune)
    groups = objective.parameter_groups(0.01)
    optimizer = torch.optim.Adam(groups)
    before = copy.deepcopy(objective.state_dict())
    objective.eval()
    for _ in range(3):
        objective.train()
        assert objective.clustering_head.training
        assert all(m.training == fine_tune for m in objective.model.embedding.modules())
        optimizer.zero_grad()
        objective(*batches(z))[0].backward()
        optimizer.step()
    after = objective.state_dict()
    for name in before:
        if name.startswith("model.embedding") and not name.endswith(".taught"):
            changed = not torch.equal(before[name], after[name])
            assert changed == fine_tune, name
    for name in ("clustering_head.hidden.weight", "calibration_head.output.weight"):
        assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize("calibration_head", [True, False])
@pytest.mark.parametrize("fine_tune", [True, False])
def test_parameter_groups_hold_everything_that_learns_once(fine_tune, calibration_head):
    objective, _ = make_objective(fine_tune=fine_tune, calibration_head=calibration_head)
    groups = objective.parameter_groups(0.01)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    frozen = set() if fine_tune else {id(p) for p in objective.model.embedding.parameters()}
    assert set(grouped) == {id(p) for p in objective.parameters()} - frozen
    assert [group["lr"] for group in groups] == [0.01, 0.005][: len(groups)]


@pytest.mark.parametrize("calibration_head", [True, False])
def test_a_batch_without_a_selection_is_marked_and_comes_due_later(calibration_head):
    # A batch of two, of which eight clusters of equal sizes may propose one sample each.
    objective, z = make_objective(
        n_clusters=8, n_regions=8, proportional=False, calibration_head=calibration_head
    )
    judge = objective.calibration_head or objective.clustering_head
    with torch.no_grad():
        for parameter in judge.output.parameters():
            parameter.zero_()
    objective.eval()
    for _ in range(7):
        loss, scalars = objective(z[:2], z[2:4])
        # The calibration head learns from it all the same.
        assert scalars.get("skipped", 0) == (not calibration_head)
        assert scalars["selected"].item() == 0
        assert torch.isfinite(loss)
    assert objective.owed.tolist() == pytest.approx([7 / 8] * 8)
    _, scalars = objective(z[:2], z[2:4])
    assert scalars.get("skipped", 0) == 0
    # All are equally likely, and such samples belong to the first cluster.
    assert scalars["selected"].item() == 0.5
    assert objective.owed.tolist() == pytest.approx([0] + [1] * 7, abs=1e-6)


@pytest.mark.parametrize("fine_tune", [True, False])
@pytest.mark.parametrize("n_clusters", [1, 3])
def test_duplicates_are_finite(n_clusters, fine_tune):
    objective, z = make_objective(n_clusters=n_clusters, n_regions=n_clusters, fine_tune=fine_tune)
    objective.train()
    same = z[:1].expand(8, -1)
    loss, _ = objective(same, same, same)
    loss.backward()
    assert torch.isfinite(loss)
    trained = [p for group in objective.parameter_groups(0.1) for p in group["params"]]
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in trained)
    assert all(torch.isfinite(buffer).all() for buffer in objective.buffers())


@pytest.mark.parametrize("proportional", [True, False])
def test_start_sets_regions_prior_and_clustering_head(proportional):
    objective, z = make_objective(started=False, proportional=proportional)
    calibration = copy.deepcopy(objective.calibration_head.state_dict())
    labels, regions = partitions(z, 3, 6)
    objective.start(z, labels, regions, torch.Generator().manual_seed(3))
    for r in range(6):
        members = [z[i] for i in range(60) if regions[i] == r]
        assert torch.allclose(objective.regions.centers[r], sum(members) / len(members), atol=1e-6)
    counts = [sum(labels == k).item() + 1 for k in range(3)]
    expected = [c / 63 for c in counts] if proportional else [1 / 3] * 3
    assert objective.prior.tolist() == pytest.approx(expected)
    assert len(set(counts)) == 3
    head = PrototypePerceptron(4, 8, 3)
    head.start_from(z, labels, torch.Generator().manual_seed(3))
    assert_equal_states(objective.clustering_head, head)
    assert objective.model.head is objective.clustering_head
    for name, tensor in objective.calibration_head.state_dict().items():
        assert torch.equal(tensor, calibration[name])


def test_a_cluster_without_samples_is_still_expected():
    objective, z = make_objective(started=False)
    labels = torch.zeros(60, dtype=torch.long)
    objective.start(z, labels, partitions(z, 3, 6)[1], torch.Generator())
    assert objective.prior.tolist() == pytest.approx([61 / 63, 1 / 63, 1 / 63])


def test_without_a_partition_the_heads_are_left_as_they_are():
    objective, z = make_objective(started=False)
    before = copy.deepcopy(objective.state_dict())
    objective.start(z, None, partitions(z, 3, 6)[1], torch.Generator())
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name != "regions.centers"), name


def test_copied_heads_are_equal_but_not_the_same():
    objective, z = make_objective()
    heads = objective.clustering_head, objective.calibration_head
    assert not torch.equal(heads[0](z), heads[1](z))
    before = copy.deepcopy(heads[0].state_dict())
    objective.copy_head()
    assert_equal_states(*heads)
    objective.eval()
    assert torch.equal(heads[0](z), heads[1](z))
    with torch.no_grad():
        for tensor in [*heads[1].parameters(), *heads[1].buffers()]:
            tensor.add_(1)
    for name, tensor in heads[0].state_dict().items():
        assert torch.equal(tensor, before[name])


def test_one_head_is_copied_nowhere():
    objective, _ = make_objective(calibration_head=False)
    before = copy.deepcopy(objective.state_dict())
    objective.copy_head()
    assert objective.calibration_head is None
    assert all(torch.equal(before[name], t) for name, t in objective.state_dict().items())


@pytest.mark.parametrize("calibration_head", [True, False])
@pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2], [1, 0, 2]])
def test_reorder_renumbers_the_clusters(order, calibration_head):
    objective, z = make_objective(calibration_head=calibration_head)
    objective.eval()
    objective.owed.copy_(torch.tensor([0.1, 0.2, 0.3]))
    heads = [objective.clustering_head]
    if calibration_head:
        heads.append(objective.calibration_head)
    with torch.no_grad():
        for head in heads:
            head.output.bias.copy_(torch.randn(3))
    before = [head(z) for head in heads]
    prior, owed, model = objective.prior.clone(), objective.owed.clone(), objective.model.head(z)
    regions = objective.regions.centers.clone()
    objective.reorder(torch.tensor(order))
    for head, logits in zip(heads, before, strict=True):
        assert torch.equal(head(z), logits[:, order])
    assert torch.equal(objective.model.head(z), model[:, order])
    assert torch.equal(objective.prior, prior[order])
    assert torch.equal(objective.owed, owed[order])
    assert torch.equal(objective.regions.centers, regions)


def test_the_same_batch_has_the_same_loss_in_any_order_of_the_clusters():
    objective, z = make_objective()
    objective.eval()
    other = copy.deepcopy(objective)
    other.reorder(torch.tensor([2, 0, 1]))
    assert other(*batches(z))[0].item() == pytest.approx(objective(*batches(z))[0].item(), rel=1e-5)


@pytest.mark.parametrize("calibration_head", [True, False])
def test_the_state_survives_a_round_trip(calibration_head):
    changes = {"calibration_head": calibration_head, "fine_tune": True}
    objective, z = make_objective(**changes)
    objective.train()
    for shift in (0, 5):
        objective(*batches(z.roll(shift, dims=0)))
    assert objective.owed.any()
    restored, _ = make_objective(started=False, seed=1, **changes)
    restored.load_state_dict(copy.deepcopy(objective.state_dict()))
    assert_equal_states(restored, objective)
    assert {"prior", "owed", "regions.centers"} <= objective.state_dict().keys()
    restored.train()
    assert torch.equal(restored(*batches(z))[0], objective(*batches(z))[0])
    assert_equal_states(restored, objective)


def test_training_on_blobs_finds_them_and_lowers_the_confidence_where_they_meet():
    # Two pairs of clouds that overlap within a pair: four clusters, of which none is sure of the
    # samples in the middle of a pair.
    torch.manual_seed(0)
    centers = torch.tensor([[1.0, 0.35], [1.0, -0.35], [-1.0, 0.35], [-1.0, -0.35]])
    truth = torch.arange(400) % 4
    z = normalize(centers[truth] + 0.25 * torch.randn(400, 2), dim=1)
    objective, _ = make_objective(4, 24, width=2, started=False, n_hidden=32)
    angle = torch.atan2(z[:, 1], z[:, 0])
    regions = (angle.argsort().argsort() * 24 // 400).long()
    objective.start(z, torch.cdist(z, centers).argmin(dim=1), regions, torch.Generator())
    objective.copy_head()
    optimizer = torch.optim.Adam(objective.parameter_groups(1e-3))
    objective.train()
    for _ in range(30):
        order = torch.randperm(400)[:200]
        optimizer.zero_grad()
        objective(z[order], normalize(z[order] + 0.1 * torch.randn(200, 2), dim=1))[0].backward()
        optimizer.step()
    objective.eval()
    p = objective.calibration_head(z).softmax(dim=1)
    predicted = objective.clustering_head(z).argmax(dim=1)
    assert (predicted == torch.cdist(z, centers).argmin(dim=1)).float().mean() > 0.95
    confidence = p.max(dim=1).values
    in_the_middle = z[:, 1].abs() < 0.1
    assert confidence[in_the_middle].mean() < confidence[~in_the_middle].mean() - 0.1
