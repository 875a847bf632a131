"""The regions of CDC: targets of the calibration head, class weights, and how they follow."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdeepcluster.objectives import _calibrated, _regions, calibration_loss, size_divergence
from skdeepcluster.objectives._regions import Regions
from tests.objectives.calibrated_helpers import (
    batches,
    is_untouched,
    make_objective,
    reject_all,
    slow_targets,
)
from tests.objectives.oracle_helpers import seeds, sizes


@pytest.mark.parametrize("fine_tune", [True, False])
def test_regions_and_targets_are_found_in_full_precision(fine_tune, monkeypatch):
    seen = []

    def spy_on(module, name):
        function = getattr(module, name)

        def spy(tensor, *others):
            seen.append((name, tensor.dtype, torch.is_autocast_enabled("cpu")))
            return function(tensor, *others)

        monkeypatch.setattr(module, name, spy)

    spy_on(_regions, "nearest_center")
    spy_on(_calibrated, "region_targets")
    objective, z = make_objective(fine_tune=fine_tune)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batches(z))
    loss.backward()
    names = ["nearest_center", "region_targets"]
    assert seen == [(name, torch.float32, False) for name in names]
    assert objective.regions.centers.dtype == torch.float32
    assert torch.isfinite(loss)


def test_region_targets_carry_no_gradient():
    objective, z = reject_all(stop_gradient=False)
    objective.eval()
    clean = z[:20].clone().requires_grad_()
    objective(clean, z[20:40])[0].backward()
    # By hand, with targets that are numbers.
    head, copied = objective.calibration_head, z[:20].clone().requires_grad_()
    regions = torch.cdist(z[:20], objective.regions.centers).argmin(dim=1)
    targets = slow_targets(
        objective.clustering_head(z[:20]).softmax(dim=1).detach().numpy(), regions.tolist()
    )
    loss = calibration_loss(head(copied), torch.tensor(targets))
    (loss + size_divergence(head(copied).softmax(dim=1), objective.prior)).backward()
    assert torch.allclose(clean.grad, copied.grad, atol=1e-6)
    assert is_untouched(objective.clustering_head)


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_regions_follow_an_encoder_that_moves(rate, monkeypatch):
    monkeypatch.setattr(Regions, "FOLLOWING_RATE", rate)
    objective, z = make_objective(fine_tune=True, n_regions=10)
    objective.eval()
    before = objective.regions.centers.clone()
    before[3] = 100.0  # nothing is near this one
    objective.regions.centers.copy_(before)
    objective(z[:20], z[20:40])
    embedded = objective.model.embedding(z[:20]).detach()
    regions = torch.cdist(embedded, before).argmin(dim=1)
    for r in range(10):
        members = embedded[regions == r]
        expected = (
            before[r] + rate * (members.mean(dim=0) - before[r]) if len(members) else before[r]
        )
        assert torch.allclose(objective.regions.centers[r], expected, atol=1e-6)
    assert 3 not in regions
    assert torch.equal(objective.regions.centers[3], before[3])
    assert not torch.equal(objective.regions.centers, before)
    assert not objective.regions.centers.requires_grad


@pytest.mark.parametrize(
    "changes", [{"fine_tune": False}, {"fine_tune": True, "calibration_head": False}]
)
def test_regions_stay_where_nothing_moves_or_needs_them(changes):
    objective, z = make_objective(**changes)
    objective.train()
    before = objective.regions.centers.clone()
    objective(*batches(z))
    assert torch.equal(objective.regions.centers, before)


@given(seed=seeds, n=st.integers(1, 30), n_clusters=sizes, n_regions=sizes)
def test_class_weights_equal_a_loop_over_the_regions(seed, n, n_clusters, n_regions):
    with torch.random.fork_rng():
        objective, _ = make_objective(n_clusters, n_regions, started=False)
    rng = np.random.default_rng(seed)
    centers, z = rng.normal(size=(n_regions, 4)), rng.normal(size=(n, 4))
    labels = rng.integers(n_clusters, size=n)
    objective.regions.centers.copy_(torch.tensor(centers))
    weights = objective.weigh_classes(torch.tensor(z).float(), torch.tensor(labels))
    regions = [np.square(centers - row).sum(axis=1).argmin() for row in z]
    for k in range(n_clusters):
        occupied = 0
        for j in range(n_regions):
            members = [labels[i] for i in range(n) if regions[i] == j]
            if members and members.count(k) / len(members) > 0.3:
                occupied += 1
        assert weights[k].item() == pytest.approx(n_regions / max(occupied, 0.5))
