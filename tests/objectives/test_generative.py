"""GCC's losses against slow oracles, and what reaches which network."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, build_denoiser
from skdeepcluster.objectives import (
    GenerationObjective,
    GenerativeObjective,
    class_discrepancy,
    gaussian_kernels,
    mean_matching,
    metric_loss,
    reliability,
    size_divergence,
)

GENERATOR = torch.Generator().manual_seed(0)
REAL = normalize(torch.randn(9, 3, generator=GENERATOR, dtype=torch.float64), dim=1)
MADE = normalize(torch.randn(8, 3, generator=GENERATOR, dtype=torch.float64), dim=1)
REAL_LABELS = torch.tensor([0, 0, 1, 1, 1, 4, 4, 2, 2])  # none of 3
MADE_LABELS = torch.tensor([0, 1, 1, 2, 2, 3, 3, 3])  # none of 4
K = 5


def slow_kernel(u, v, width):
    squared = sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
    return np.mean([np.exp(-squared / (2.0**i * width)) for i in range(-2, 3)])


def slow_width(points):
    return np.mean([[((u - v) ** 2).sum() for v in points] for u in points])


def test_kernels():
    points = torch.cat([REAL, MADE]).numpy()
    width = slow_width(points)
    slow = [[slow_kernel(u, v, width) for v in points] for u in points]
    squared = torch.cdist(torch.from_numpy(points), torch.from_numpy(points)).square()
    np.testing.assert_allclose(gaussian_kernels(squared), slow)


def test_no_gradient_flows_through_the_width_of_the_kernels():
    squared = torch.cdist(REAL, REAL).square().requires_grad_()
    gaussian_kernels(squared).sum().backward()
    found = squared.detach()
    widths = [2.0**i * found.mean() for i in range(-2, 3)]
    slopes = sum(-torch.exp(-found / width) / width for width in widths) / 5
    torch.testing.assert_close(squared.grad, slopes)


def slow_discrepancy(A, B, width):
    def mean(P, Q):
        return np.mean([[slow_kernel(u, v, width) for v in Q] for u in P])

    return mean(A, A) + mean(B, B) - 2 * mean(A, B)


def test_class_discrepancy():
    real, made = REAL.numpy(), MADE.numpy()
    width = slow_width(np.concatenate([real, made]))
    within, between = [], []
    for k in range(K):
        for other in range(K):
            A, B = real[k == REAL_LABELS], made[other == MADE_LABELS]
            if len(A) and len(B):
                kind = within if k == other else between
                kind.append(slow_discrepancy(A, B, width))
    assert len(within) == 3
    found = class_discrepancy(REAL, REAL_LABELS, MADE, MADE_LABELS, K)
    assert found.item() == pytest.approx(np.mean(within) - np.mean(between), rel=1e-5)


def test_mean_matching():
    gaps = [
        ((REAL[k == REAL_LABELS].mean(dim=0) - MADE[k == MADE_LABELS].mean(dim=0)) ** 2).sum()
        for k in (0, 1, 2)
    ]
    found = mean_matching(REAL, REAL_LABELS, MADE, MADE_LABELS, K)
    assert found.item() == pytest.approx(np.mean(gaps), rel=1e-5)


@pytest.mark.parametrize("compare", [class_discrepancy, mean_matching])
def test_without_a_common_class_there_is_nothing_to_match(compare):
    z = REAL[:4].clone().requires_grad_()
    ones = torch.ones(4, dtype=torch.long)
    loss = compare(z, ones, MADE[:4], 2 * ones, K) if compare is mean_matching else None
    if compare is mean_matching:
        assert loss.item() == 0
    else:  # what is left is the discrepancy between the classes
        assert compare(z, ones, MADE[:4], 2 * ones, K).item() < 0


def test_metric_loss():
    z = torch.cat([REAL, MADE])
    labels = torch.cat([REAL_LABELS, MADE_LABELS])
    labels[-1] = 6  # alone
    weights = torch.rand(len(z), generator=GENERATOR, dtype=torch.float64)
    losses, counted = [], []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        total = sum(np.exp(float(z[i] @ z[j]) / 0.2) for j in others)
        positives = [j for j in others if labels[j] == labels[i]]
        if not positives:
            continue
        log_q = [np.log(np.exp(float(z[i] @ z[j]) / 0.2) / total) for j in positives]
        w = [weights[j].item() for j in positives]
        losses.append(-np.average(log_q, weights=w))
        counted.append(weights[i].item())
    assert len(losses) == len(z) - 1
    found = metric_loss(z, labels, weights, 0.2)
    assert found.item() == pytest.approx(np.average(losses, weights=counted))


def test_unreliable_samples_do_not_count():
    z = torch.cat([REAL, MADE]).requires_grad_()
    labels = torch.cat([REAL_LABELS, MADE_LABELS])
    weights = torch.cat([torch.ones(9), torch.zeros(8)]).double()
    metric_loss(z, labels, weights, 0.1).backward()
    # They are still among those that others are told apart from.
    assert metric_loss(z, labels, weights, 0.1) != metric_loss(REAL, REAL_LABELS, weights[:9], 0.1)
    alone = metric_loss(z, torch.arange(17), weights, 0.1)
    assert alone.item() == 0


def test_reliability_is_the_probability_of_the_own_condition():
    logits = torch.randn(6, 3, generator=GENERATOR, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    found = reliability(logits, labels)
    assert not found.requires_grad
    for i in range(6):
        p = np.exp(logits[i].detach().numpy())
        assert found[i].item() == pytest.approx(p[labels[i]] / p.sum(), rel=1e-5)


def objective(**changes):
    torch.manual_seed(0)
    embedding = EmbeddingNetwork(nn.Linear(4, 8), nn.BatchNorm1d(8), 8)
    model = ClusterModel(nn.Identity(), embedding, nn.Identity())
    parameters = {
        "sample_shape": (4,),
        "n_clusters": 3,
        "n_parts": 6,
        "ratio": 1.0,
        "n_generated": 30,
        "confidence_threshold": 0.0,
        "size_weight": 1.0,
        "generated_weight": 1.0,
        "discrepancy_weight": 1.0,
        "matching_weight": 1.0,
        "metric_weight": 0.1,
        "reliable": True,
        "guidance": 1.5,
    }
    parameters |= changes
    denoiser = build_denoiser((4,), 3) if parameters["ratio"] else None
    if denoiser is not None:
        nn.init.normal_(denoiser.output.weight)  # else all that is generated is the same
        for block in denoiser.blocks:
            nn.init.normal_(block.second.weight, std=0.05)  # for any label
    made = GenerativeObjective(model, denoiser, **parameters)
    made.remember_samples(20)
    made.begin_round(torch.arange(20) % 3)
    return made.train()


X = torch.randn(20, 4, generator=GENERATOR)
INDEX = torch.arange(12)


def test_clustering_and_generator_learn_from_their_own_losses_alone():
    whole = objective()
    torch.manual_seed(1)
    loss, scalars = whole(INDEX, X[:12], X[:12] + 0.1)
    loss.backward()
    encoder = [p.grad.clone() for p in whole.model.parameters()]
    denoiser = [p.grad.clone() for p in whole.diffusion.denoiser.parameters() if p.grad is not None]
    assert all(p.grad is None for p in whole.diffusion.average.parameters())
    assert set(scalars) == {"reliability", "denoising"}

    alone = objective()
    torch.manual_seed(1)
    torch.randint(30, (12,))  # the draw of generated samples comes first
    alone.denoise(X[:12], alone.labels[INDEX]).backward()
    expected = [p.grad for p in alone.diffusion.denoiser.parameters() if p.grad is not None]
    for found, wanted in zip(denoiser, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert all(p.grad is None for p in alone.model.parameters())
    assert any(gradient.abs().max() > 0 for gradient in encoder)


@pytest.mark.parametrize("reliable", [True, False])
def test_the_objective_is_the_sum_of_its_terms(reliable):
    whole = objective(
        ratio=1.5,
        confidence_threshold=0.4,
        size_weight=0.7,
        generated_weight=0.6,
        discrepancy_weight=0.5,
        matching_weight=0.4,
        metric_weight=0.3,
        reliable=reliable,
    )
    whole.prior.copy_(torch.tensor([0.2, 0.3, 0.5]))
    nn.init.normal_(whole.head.weight, std=0.5)
    first, second = X[:12], X[:12] + 1.5 * X[8:20]
    torch.manual_seed(1)
    loss, _ = whole(INDEX, first, second)
    torch.manual_seed(1)
    pick = torch.randint(30, (18,))
    denoising = whole.denoise(first, INDEX % 3)  # draws next

    labels, made_labels = INDEX % 3, pick % 3
    z, z_second, made = map(whole.model.embedding, (first, second, whole.generated[pick]))
    p, p_second, p_made = (whole.head(view).softmax(dim=1) for view in (z, z_second, made))
    sure = [i for i in range(12) if p[i].max() > 0.4]
    agreed = [i for i in sure if p[i].argmax() == p_second[i].argmax()]
    assert 0 < len(agreed) < len(sure) < 12
    own = p_made[torch.arange(18), made_labels]
    weights = torch.cat([torch.ones(12), own if reliable else torch.ones(18)])
    expected = (
        -sum(p_second[i, p[i].argmax()].log() for i in agreed) / len(agreed)
        + 0.7 * size_divergence(torch.cat([p, p_second]), whole.prior)
        - 0.6 * own.log().mean()
        + 0.5 * class_discrepancy(z, labels, made, made_labels, 3)
        + 0.4 * mean_matching(z, labels, made, made_labels, 3)
        + 0.3 * metric_loss(torch.cat([z, made]), torch.cat([labels, made_labels]), weights, 0.1)
        + denoising
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_head_starts_from_centers_and_the_prior_from_their_sizes():
    whole = objective()
    z = normalize(torch.randn(20, 8, generator=GENERATOR), dim=1)
    labels = torch.arange(20) // 12
    whole.start(z, labels, labels, GENERATOR)
    centers = normalize(torch.stack([z[labels == k].mean(dim=0) for k in range(2)]), dim=1)
    torch.testing.assert_close(whole.head(z)[:, :2], 30 * z @ centers.T, rtol=1e-4, atol=1e-4)
    # One sample more for each: there is none of the last.
    assert whole.prior.tolist() == pytest.approx([13 / 23, 9 / 23, 1 / 23])


def test_rates_of_head_encoder_and_generator():
    whole = objective()
    groups = whole.parameter_groups(0.1, 0.02)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.03, 0.02])
    parts = whole.head, whole.model.embedding, whole.diffusion.denoiser
    for group, part in zip(groups, parts, strict=True):
        assert list(map(id, group["params"])) == list(map(id, part.parameters()))


@pytest.mark.parametrize("at_once", [1, 28, 2**18])
def test_samples_of_all_clusters_are_generated_in_parts(at_once, monkeypatch):
    whole = objective()
    torch.manual_seed(3)
    noise = torch.randn(30, 4)
    expected = whole.diffusion.sample(noise, torch.arange(30) % 3)
    torch.manual_seed(3)
    monkeypatch.setattr("skdeepcluster.objectives._generative.GENERATED_AT_ONCE", at_once)
    whole.begin_round(whole.labels)
    torch.testing.assert_close(whole.generated, expected, rtol=1e-4, atol=1e-4)


class Echo(nn.Module):
    """A generator whose loss is what it was given."""

    def forward(self, clean, labels):
        return clean


def test_the_generator_gets_images_between_minus_one_and_one():
    whole = objective()
    whole.diffusion = Echo()
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(whole.denoise(images, INDEX[:2]), 2 * images - 1)
    torch.testing.assert_close(whole.denoise(X, INDEX), X)


def test_generated_samples_do_not_enter_the_statistics_of_the_encoder():
    whole = objective()
    before = whole.model.embedding.projector.running_mean.clone()
    whole(INDEX, X[:12], X[:12] + 0.1)
    assert torch.equal(whole.model.embedding.projector.running_mean, before)


def test_without_generator_there_is_none():
    whole = objective(ratio=0.0)
    assert whole.diffusion is None
    assert len(whole.generated) == 0
    loss, scalars = whole(INDEX, X[:12], X[:12] + 0.1)
    assert torch.isfinite(loss)
    assert not scalars
    assert len(whole.parameter_groups(1e-3, 1e-3)) == 2


@pytest.mark.parametrize("ratio", [1.0, 0.0])
def test_what_training_remembers_is_forgotten_in_the_end(ratio):
    whole = objective(ratio=ratio)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    assert whole.labels.tolist() == [i % 3 for i in range(20)]
    assert whole.generated.shape == (30 if ratio else 0, 4)
    for _ in range(2):  # it may be said twice
        whole.forget_samples()
        state = whole.state_dict()
        assert state.keys() == before.keys()
        for name in before.keys() - {"labels", "generated"}:
            assert torch.equal(state[name], before[name]), name
        assert whole.labels.shape == (0,)
        assert whole.generated.shape == (0, 4)
    whole.remember_samples(7)
    assert whole.labels.tolist() == [0] * 7


@pytest.mark.parametrize(
    "change",
    [
        {"size_weight": 0.0},
        {"generated_weight": 0.0},
        {"discrepancy_weight": 0.0},
        {"matching_weight": 0.0},
        {"metric_weight": 0.0},
        {"reliable": False},
        {"ratio": 2.0},
    ],
    ids=str,
)
def test_every_term_counts(change):
    losses = []
    for made in (objective(), objective(**change)):
        torch.manual_seed(1)
        losses.append(made(INDEX, X[:12], X[:12] + 0.1)[0].item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_the_generator_is_trained_on_the_clusters_as_they_are():
    whole = objective()
    generation = GenerationObjective(whole, 10)
    generation.begin_epoch(0.5)
    assert whole.diffusion.average.momentum == pytest.approx(1 - 1 / 6)
    torch.manual_seed(1)
    loss, _ = generation(INDEX, X[:12])
    torch.manual_seed(1)
    assert loss.item() == whole.denoise(X[:12], INDEX % 3).item()


def test_reorder():
    whole = objective()
    with torch.no_grad():
        whole.head.weight.normal_()
        whole.prior.copy_(torch.tensor([0.2, 0.3, 0.5]))
    z = normalize(torch.randn(5, 8), dim=1)
    before = whole.head(z)
    whole.reorder(torch.tensor([2, 0, 1]))
    torch.testing.assert_close(whole.head(z), before[:, [2, 0, 1]])
    torch.testing.assert_close(whole.prior, torch.tensor([0.5, 0.2, 0.3]))
