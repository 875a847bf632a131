"""The refinement of SeCu: the mean over heads of self-labelling, and whom it teaches."""

import copy

import numpy as np
import pytest
import torch

from skdeepcluster.objectives import RefinementObjective
from tests.objectives.discrimination_helpers import batch_of, make_objective
from tests.objectives.oracle_helpers import softmax


def make_refinement(threshold, monkeypatch, **changes):
    monkeypatch.setattr(RefinementObjective, "CONFIDENCE_THRESHOLD", threshold)
    changes = {"n_clusters": (2, 3), "temperature": 0.5, **changes}
    objective, z = make_objective(**changes)
    objective.select(1)
    _, first, second = batch_of(z, range(20))
    return RefinementObjective(objective), objective, first, second


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("n_clusters", [(1,), (2, 3), (5, 5, 2)])
def test_refinement_is_the_mean_cross_entropy_on_confident_labels(
    n_clusters, threshold, monkeypatch
):
    refinement, objective, first, second = make_refinement(
        threshold, monkeypatch, n_clusters=(*n_clusters, 4), n_over_clusters=(6,)
    )
    parts = copy.deepcopy(objective)
    z1, z2 = parts.model.embedding(torch.cat([first, second])).detach().double().chunk(2)
    losses, shares = [], []
    for head in parts.candidates:
        w = head.head.centers.detach().double().numpy()
        p1, p2 = softmax(z1.numpy() @ w.T / 0.5), softmax(z2.numpy() @ w.T / 0.5)
        rows = [i for i in range(20) if max(p1[i]) > threshold]
        total = -sum(np.log(p2[i, p1[i].argmax()]) for i in rows)
        losses.append(total / len(rows) if rows else 0.0)
        shares.append(len(rows) / 20)
    loss, scalars = refinement(first, second)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert scalars["selected"].item() == pytest.approx(np.mean(shares))
    assert scalars["skipped"].item() == 0


def test_only_very_confident_labels_are_learned():
    assert RefinementObjective.CONFIDENCE_THRESHOLD == 0.99


def test_a_batch_of_which_nobody_is_confident_is_skipped(monkeypatch):
    refinement, _, first, second = make_refinement(1.0, monkeypatch)
    loss, scalars = refinement(first, second)
    loss.backward()
    assert loss.item() == 0
    assert scalars["selected"].item() == 0
    assert bool(scalars["skipped"])
    assert not any(p.grad.any() for p in refinement.parameters())


def test_one_confident_head_is_enough(monkeypatch):
    refinement, objective, first, second = make_refinement(0.99, monkeypatch)
    # Of only two clusters, at a low temperature.
    objective.candidates[0].head.temperature = 1e-3
    objective.candidates[1].head.temperature = 100.0
    loss, scalars = refinement(first, second)
    loss.backward()
    assert 0 < scalars["selected"].item() <= 0.5
    assert not bool(scalars["skipped"])
    assert not objective.candidates[1].head.weight.grad.any()


def test_refinement_trains_the_encoder_and_the_heads_to_choose_from(monkeypatch):
    refinement, objective, first, second = make_refinement(0.3, monkeypatch)
    trained = {id(p) for p in refinement.parameters()}
    expected = [objective.model.embedding, *(head.head for head in objective.candidates)]
    assert trained == {id(p) for module in expected for p in module.parameters()}
    before = copy.deepcopy(objective.state_dict())
    optimizer = torch.optim.Adam(refinement.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        refinement(first, second)[0].backward()
        optimizer.step()
    after = objective.state_dict()
    for name in ("model.embedding.projector.weight", "all_heads.0.head.weight"):
        assert not torch.equal(before[name], after[name])
    # The model predicts with what was refined, and nothing else has changed.
    assert torch.equal(after["model.head.weight"], after["all_heads.1.head.weight"])
    assert torch.equal(after["all_heads.2.head.weight"], before["all_heads.2.head.weight"])
    for name in before:
        if not name.startswith("model") and not name.endswith("weight"):
            assert torch.equal(after[name], before[name]), name


def test_the_confident_view_gets_no_gradient(monkeypatch):
    refinement, _, first, second = make_refinement(0.0, monkeypatch)
    refinement.eval()  # batch normalisation would let one view see the other
    first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
    refinement(first, second)[0].backward()
    assert not first.grad.any()
    assert second.grad.any()
