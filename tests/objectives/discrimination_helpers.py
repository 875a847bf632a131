"""SeCu written slowly, sample by sample, and small objectives to train."""

import numpy as np
import torch
from torch import nn

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork
from skdeepcluster.objectives import DiscriminationObjective
from tests.objectives.oracle_helpers import draw, softmax

WIDTH = 4
CONSTRAINTS = [None, "size", "entropy"]
STATE = {
    "constraint": "size",
    "lower_bound": 0.9,
    "entropy_weight": 0.12,
    "label_share": 0.2,
    "temperature": 0.05,
}


def draw_unit(seed, n, width=WIDTH):
    rows = draw(seed, n, width)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw_labels(seed, n, n_clusters):
    return np.random.default_rng(seed).integers(n_clusters, size=n)


def slow_log_sum(row):
    return np.log(sum(np.exp(x - max(row)) for x in row)) + max(row)


def slow_center_loss(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total -= row[label] - slow_log_sum(row)
    return total / len(logits)


def slow_center_gradient(x, centers, labels, temperature):
    """The claim: k-means in which each sample weighs as much as its cluster is in doubt."""
    gradient = np.zeros_like(centers)
    p = softmax(x @ centers.T / temperature)
    for k in range(len(centers)):
        for i in range(len(x)):
            if labels[i] == k:
                gradient[k] -= (1 - p[i, k]) * x[i] / (len(x) * temperature)
    return gradient


def slow_encoder_loss(logits, other_logits, labels, label_share):
    total = 0.0
    targets = softmax(other_logits)
    for row, target, label in zip(logits, targets, labels, strict=True):
        log_sum = slow_log_sum(row)
        for k in range(len(row)):
            q = label_share * (k == label) + (1 - label_share) * target[k]
            total -= q * (row[k] - log_sum)
    return total / len(logits)


def slow_duals(duals, counts, lower_bound, rate):
    raised = []
    for dual, count in zip(duals, counts, strict=True):
        raised.append(max(0, dual + rate * (lower_bound / len(duals) - count / sum(counts))))
    return raised


def slow_entropy(counts, n):
    """The sum of p log p, with an empty cluster adding nothing."""
    return sum(c / n * np.log(c / n) for c in counts if c)


def slow_entropy_cost(counts):
    n = sum(counts) + 1
    costs = []
    for k in range(len(counts)):
        joined = [c + (j == k) for j, c in enumerate(counts)]
        costs.append(n * (slow_entropy(joined, n) - slow_entropy(counts, n)))
    return costs


def slow_head(head, index, first, second):
    """Return the loss of a batch and what is remembered afterwards, sample by sample."""
    w = head.head.weight.detach().double().numpy()
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    previous, duals = head.previous.double().numpy(), head.duals.double().numpy()
    first, second = (view.detach().double().numpy() for view in (first, second))
    last, n_clusters, t = head.assignments.tolist(), head.n_clusters, head.temperature
    labels, known, table = [], [], list(last)
    for i, a, b in zip(index.tolist(), first, second, strict=True):
        scores = [(a @ w[k] + b @ w[k]) / 2 for k in range(n_clusters)]
        if head.constraint == "size":
            scores = [score + duals[k] for k, score in enumerate(scores)]
        if head.constraint == "entropy":
            others = [0] * n_clusters
            for j, label in enumerate(last):
                if j != i and label >= 0:
                    others[label] += 1
            costs = slow_entropy_cost(others)
            scores = [score - head.entropy_weight * costs[k] for k, score in enumerate(scores)]
        labels.append(int(np.argmax(scores)))
        known.append(last[i] if last[i] >= 0 else labels[-1])
        table[i] = labels[-1]
    both = np.concatenate([first, second])
    swapped = np.concatenate([second, first])
    loss = slow_center_loss(both @ w.T / t, labels * 2)
    loss += slow_encoder_loss(
        both @ previous.T / t, swapped @ previous.T / t, known * 2, head.label_share
    )
    if head.constraint == "size":
        rate = 0.01 * n_clusters
        counts = [labels.count(k) for k in range(n_clusters)]
        duals = slow_duals(duals, counts, head.lower_bound, rate)
    changed = np.mean([a != last[i] for a, i in zip(labels, index.tolist(), strict=True)])
    return loss, changed, table, list(duals)


class Encoder(nn.Module):
    """An encoder with running statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))

    def forward(self, x):
        return self.layers(x)


def make_objective(n_clusters=(3,), n_over_clusters=(6,), n=60, seed=0, learns=True, **changes):
    parameters = {**STATE, "neighbor_weight": 0.0, "neighbor_temperature": 0.3}
    torch.manual_seed(seed)
    layers = (Encoder(), nn.Linear(WIDTH, WIDTH)) if learns else (nn.Identity(), nn.Identity())
    objective = DiscriminationObjective(
        ClusterModel(nn.Identity(), EmbeddingNetwork(*layers, WIDTH), nn.Identity()),
        n_clusters=n_clusters,
        n_over_clusters=n_over_clusters,
        **{**parameters, **changes},
    )
    objective.remember_samples(n)
    return objective, torch.randn(n, WIDTH)


def batch_of(z, index):
    """Return a batch as IndexedViews make it."""
    index = torch.as_tensor(index)
    noise = 0.2 * z.roll(1, dims=0)
    return index, z[index] + noise[index], z[index] - noise[index]
