"""CDC written slowly, sample by sample, and small objectives to train."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork
from skdeepcluster.objectives import CalibratedObjective

# Probabilities in steps of 1/64 have exact sums in every precision, many ties, zeros and ones.
STEPS = 64


def draw_steps(seed, batch, n_clusters, concentration=1.0):
    """Return rows of probabilities in whole steps; a low concentration gives zeros and ones."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_clusters, concentration), size=batch)
    return np.stack([rng.multinomial(STEPS, row / row.sum()) for row in shares]) / STEPS


def slow_targets(probabilities, regions):
    targets = np.empty_like(probabilities)
    for i, region in enumerate(regions):
        members = [probabilities[j] for j in range(len(regions)) if regions[j] == region]
        targets[i] = sum(members) / len(members)
    return targets


def slow_calibration_loss(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        log_sum = np.log(np.exp(row - row.max()).sum()) + row.max()
        for k, share in enumerate(target):
            total -= share * (row[k] - log_sum)
    return total / len(logits)


def slow_divergence(probabilities, prior):
    total = 0.0
    for k, share in enumerate(prior):
        marginal = sum(row[k] for row in probabilities) / len(probabilities)
        if marginal > 0:
            total += marginal * np.log(marginal / share)
    return total


def slow_candidates(prior, batch):
    # Python rounds halves to even, as torch does.
    return [min(max(round(share * batch), 1), batch) for share in prior]


def slow_selection(probabilities, n_candidates, owed):
    rows, labels, left = [], [], []
    for k, n in enumerate(n_candidates):
        ranked = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i][k], i))
        due = sum(probabilities[i][k] for i in ranked[:n]) + owed[k]
        n_kept = min(int(np.floor(due * (1 + 1e-6))), n)
        kept = [i for i in ranked[:n_kept] if np.argmax(probabilities[i]) == k]
        rows += kept
        labels += [k] * len(kept)
        left.append(min(max(due - len(kept), 0), 1))
    return rows, labels, left


class Encoder(nn.Module):
    """An encoder with running statistics, which show whether it was used in training mode."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))

    def forward(self, x):
        return self.layers(x)


def make_objective(n_clusters=3, n_regions=6, width=4, n=60, started=True, seed=0, **changes):
    parameters = {
        "n_hidden": 8,
        "proportional": True,
        "confidence_threshold": None,
        "entropy_weight": 1.0,
        "calibration_head": True,
        "stop_gradient": True,
        "fine_tune": False,
    }
    torch.manual_seed(seed)
    embedding = EmbeddingNetwork(Encoder(width), nn.Linear(width, width), width)
    objective = CalibratedObjective(
        ClusterModel(nn.Identity(), embedding, nn.Identity()),
        n_clusters=n_clusters,
        n_regions=n_regions,
        **{**parameters, **changes},
    )
    z = normalize(torch.randn(n, width), dim=1)
    if started:
        objective.start(z, *partitions(z, n_clusters, n_regions), torch.Generator())
        objective.copy_head()
        # Unequal heads, so that a test can tell which one was asked.
        if objective.calibration_head is not None:
            with torch.no_grad():
                objective.calibration_head.output.weight.mul_(1.5).add_(
                    torch.randn_like(objective.calibration_head.output.weight)
                )
    return objective, z


def partitions(z, n_clusters, n_regions):
    """Return partitions by angle, with clusters of unequal sizes and regions within clusters."""
    rank = torch.atan2(z[:, 1], z[:, 0]).argsort().argsort()
    share = rank.double() / len(z)
    return (share.square() * n_clusters).long(), (share * n_regions).long()


def batches(z):
    """Return a clean, a strong and a weak view of the first twenty samples."""
    clean = z[:20]
    return clean, clean + 0.3 * z[20:40], clean - 0.3 * z[40:60]


def reject_all(**changes):
    """Return an objective whose loss has no term but those of the calibration head."""
    return make_objective(confidence_threshold=1.0, **changes)


def gradients(module):
    return [p.grad for p in module.parameters()]


def is_untouched(module):
    return all(g is None or not g.any() for g in gradients(module))
