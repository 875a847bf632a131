"""R-DC's losses and filters against slow oracles, and which part each gradient reaches."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, build_critic, build_decoder
from skdeepcluster.numerics import nearest_neighbors
from skdeepcluster.objectives import (
    InterpolationObjective,
    ProximityObjective,
    critic_loss,
    edge_filter,
    interpolate,
    nearly_real,
    neighbor_means,
    neighbor_medoids,
    point_filter,
    proximity_loss,
    realism_loss,
    reconstruction_loss,
)
from skdeepcluster.objectives._proximity import lower_quantile


def unit(n=12, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def test_losses_of_the_first_phase():
    rng = np.random.default_rng(0)
    x, decoded = rng.normal(size=(2, 5, 4))
    on_mixed, on_real = rng.normal(size=(2, 5))
    shares = rng.uniform(0, 0.5, size=5)
    slow = sum((x[i, j] - decoded[i, j]) ** 2 for i in range(5) for j in range(4)) / 20
    tensors = [torch.from_numpy(a) for a in (x, decoded, on_mixed, shares, on_real)]
    assert reconstruction_loss(*tensors[:2]).item() == pytest.approx(slow)
    slow = sum((on_mixed[i] - shares[i]) ** 2 for i in range(5)) / 5
    slow += sum(on_real[i] ** 2 for i in range(5)) / 5
    assert critic_loss(*tensors[2:]).item() == pytest.approx(slow)
    assert realism_loss(tensors[2]).item() == pytest.approx(np.mean(on_mixed**2))
    np.testing.assert_allclose(nearly_real(*tensors[:2]), decoded + 0.2 * (x - decoded))


def test_interpolations_lie_between_a_code_and_its_partner_nearer_to_the_code():
    z, shares = unit(6), torch.linspace(0, 0.5, 6, dtype=torch.float64)
    mixed = interpolate(z, shares).numpy()
    for i in range(6):
        point = (1 - shares[i]) * z[i] + shares[i] * z[5 - i]
        np.testing.assert_allclose(mixed[i], point / point.norm())
    np.testing.assert_allclose(mixed[0], z[0])


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.7])
def test_filters_against_slow_ones(quantile):
    codes, k = unit(30), 4
    distances, neighbors = nearest_neighbors(codes, k)
    d, nb = distances.numpy(), neighbors.tolist()
    threshold = sorted(d.flatten())[math.ceil(quantile * d.size) - 1]
    edges = np.zeros((30, k), dtype=bool)
    for i in range(30):
        for j in range(k):
            edges[i, j] = d[i, j] <= threshold and i in nb[nb[i][j]]
    found = edge_filter(distances, neighbors, quantile)
    np.testing.assert_array_equal(found, edges)

    expected = [edges[i].sum() >= max(1, (1 - quantile) * k / 2) for i in range(30)]
    passed = point_filter(found, quantile)
    np.testing.assert_array_equal(passed, expected)
    assert 0 < passed.sum() < 30


def test_everything_passes_in_the_end():
    distances, neighbors = nearest_neighbors(unit(30), 4)
    edges = edge_filter(distances, neighbors, 1.0)
    assert edges.all()
    assert point_filter(edges, 1.0).all()


def test_without_edges_no_sample_passes():
    edges = torch.zeros(5, 2, dtype=torch.bool)
    for quantile in (0.5, 1.0):
        assert not point_filter(edges, quantile).any()


def test_quantiles_of_more_numbers_than_torch_takes():
    values = torch.arange(2**24 + 10, dtype=torch.float32).flip(0)
    assert lower_quantile(values, 0.5) == 2**23 + 4
    assert lower_quantile(values[-4:], 0.01) == 0


def test_centroids_against_slow_ones():
    codes = unit(15)
    distances, neighbors = nearest_neighbors(codes, 4)
    edges = edge_filter(distances, neighbors, 0.6)
    assert 0 < edges.sum() < edges.numel()
    means, medoids = (
        neighbor_means(codes, neighbors, edges),
        neighbor_medoids(codes, neighbors, edges),
    )
    for i in range(15):
        members = [i] + [int(j) for j, passed in zip(neighbors[i], edges[i], strict=True) if passed]
        mean = sum(codes[j] for j in members)
        np.testing.assert_allclose(means[i], mean / mean.norm())
        costs = [sum((codes[j] - codes[m]).norm().item() for m in members) for j in members]
        np.testing.assert_allclose(medoids[i], codes[members[int(np.argmin(costs))]])


def test_proximity_loss():
    z, c = unit(6, seed=1), unit(6, seed=2)
    moved = torch.tensor([True, False, True, True, False, True])
    slow = sum(float((z[i] - c[i]).square().sum()) for i in range(6) if moved[i]) / 6
    assert proximity_loss(z, c, moved).item() == pytest.approx(slow)


def networks():
    torch.manual_seed(0)
    embedding = EmbeddingNetwork(nn.Linear(4, 8), nn.Linear(8, 3), 3)
    return embedding, build_decoder(3, (4,)), build_critic((4,))


def gradients(parameters):
    return [None if p.grad is None else p.grad.clone() for p in parameters]


def test_critic_and_auto_encoder_learn_from_their_own_losses_alone():
    embedding, decoder, critic = networks()
    objective = InterpolationObjective(embedding, decoder, critic, nn.Identity(), 0.5)
    x = torch.randn(8, 4)
    torch.manual_seed(1)
    loss, scalars = objective(x)
    loss.backward()
    found = (
        gradients(critic.parameters()),
        gradients([*embedding.parameters(), *decoder.parameters()]),
    )
    objective.zero_grad(set_to_none=True)

    torch.manual_seed(1)
    codes = embedding(x)
    decoded = decoder(codes)
    shares = torch.rand(8) / 2
    mixed = decoder(interpolate(codes, shares))
    realism = realism_loss(critic(mixed))
    (reconstruction_loss(x, decoded) + 0.5 * realism).backward()
    autoencoder = gradients([*embedding.parameters(), *decoder.parameters()])
    objective.zero_grad(set_to_none=True)
    both = torch.cat([mixed, nearly_real(x, decoded)]).detach()
    on_mixed, on_real = critic(both).chunk(2)
    critic_loss(on_mixed, shares, on_real).backward()
    for got, expected in zip(found, (gradients(critic.parameters()), autoencoder), strict=True):
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert scalars["realism"].item() == pytest.approx(realism.item())


def test_without_a_critic_it_is_an_auto_encoder():
    embedding, decoder, _ = networks()
    objective = InterpolationObjective(embedding, decoder, None, nn.Identity(), 0.0)
    x = torch.randn(8, 4)
    loss, scalars = objective(x)
    assert loss.item() == pytest.approx(reconstruction_loss(x, decoder(embedding(x))).item())
    assert set(scalars) == {"reconstruction"}


def proximity_objective(**changes):
    embedding, decoder, _ = networks()
    model = ClusterModel(nn.Identity(), embedding, nn.Identity())
    parameters = {
        "n_clusters": 2,
        "n_regions": 4,
        "n_neighbors": 3,
        "filters": "both",
        "medoids": False,
        "code_weight": 2.0,
    }
    return ProximityObjective(model, decoder, nn.Identity(), **{**parameters, **changes})


def test_moved_samples_have_centroids_as_targets_and_the_others_themselves():
    objective = proximity_objective()
    objective.remember_samples(20)
    objective.quantile.fill_(0.2)
    objective.refresh(unit(20).float(), 0.1)
    decoder = objective.target_decoder
    with torch.no_grad():
        for parameter in objective.decoder.parameters():
            parameter.add_(0.1)  # targets are decoded as before, after a refresh, too
    objective.refresh(unit(20).float(), 0.1)
    x, index = torch.randn(8, 4), torch.arange(5, 13)
    objective.train()
    assert not decoder.training
    loss, scalars = objective(index, x)
    moved = objective.moved[index]
    assert 0 < moved.sum() < 8
    decoded = objective.decoder(objective.model.embedding(x))
    targets = decoder(objective.centroids[index])
    slow = 0.0
    codes = objective.model.embedding(x)
    for i in range(8):
        target = targets[i] if moved[i] else x[i]
        slow += (decoded[i] - target).square().mean().item() / 8
        if moved[i]:
            distance = (codes[i] - objective.centroids[index[i]]).square().sum().item()
            slow += 2.0 * distance / 8
    assert loss.item() == pytest.approx(slow, rel=1e-5)
    assert scalars["moved"].item() == pytest.approx(moved.float().mean().item())
    loss.backward()
    assert all(parameter.grad is None for parameter in decoder.parameters())
    objective.fix_targets()
    torch.testing.assert_close(objective.decoder.state_dict(), decoder.state_dict())


def test_filters_relax_only_when_the_share_of_moving_samples_has_stopped_growing():
    objective = proximity_objective()
    objective.remember_samples(40)
    codes = unit(40).float()
    quantiles, shares = [], []
    for _ in range(16):
        objective.refresh(codes, 0.1)
        quantiles.append(objective.quantile.item())
        shares.append(objective.moved.float().mean().item())
    for before, quantile, last, share in zip(
        [0.5, *quantiles], quantiles, [0.0, *shares], shares, strict=False
    ):
        expected = before if share - last >= objective.GROWTH else min(before + 0.1, 1.0)
        assert quantile == pytest.approx(expected)
    assert shares[0] < 0.8
    assert shares[-1] == 1.0


def test_without_filters_all_samples_move_at_once():
    objective = proximity_objective(filters=None)
    objective.remember_samples(40)
    objective.refresh(unit(40).float(), 0.1)
    assert objective.moved.all()


def test_the_edge_filter_alone_moves_all_that_have_an_edge():
    objective = proximity_objective(filters="edge", n_neighbors=9)
    objective.remember_samples(40)
    codes = unit(40).float()
    objective.refresh(codes, 0.1)
    edges = edge_filter(*nearest_neighbors(codes, 9), 0.5)
    np.testing.assert_array_equal(objective.moved, edges.any(dim=1))
    assert not objective.moved.all()
    assert point_filter(edges, 0.5).sum() < objective.moved.sum()


def test_what_training_remembers_is_forgotten_in_the_end():
    objective = proximity_objective()
    new = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    objective.remember_samples(40)
    objective.fix_targets()
    for _ in range(3):
        objective.refresh(unit(40).float(), 0.1)
    assert objective.quantile > objective.FIRST_QUANTILE
    assert objective.share > 0
    assert objective.moved.shape == (40,)
    for _ in range(2):  # it may be said twice
        objective.forget_samples()
        state = objective.state_dict()
        assert state.keys() == new.keys()
        for name, tensor in new.items():
            assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(("medoids", "find"), [(False, neighbor_means), (True, neighbor_medoids)])
def test_centroids_are_means_or_medoids(medoids, find):
    objective = proximity_objective(medoids=medoids)
    objective.remember_samples(40)
    codes = unit(40).float()
    objective.refresh(codes, 0.1)
    distances, neighbors = nearest_neighbors(codes, 3)
    edges = edge_filter(distances, neighbors, 0.5)
    torch.testing.assert_close(objective.centroids, find(codes, neighbors, edges))


def test_there_are_no_clusters_before_the_codes_are_divided():
    objective = proximity_objective()
    for _ in range(2):
        assert not any(parameter.any() for parameter in objective.head.parameters())
        objective.divide(unit(2).float(), unit(4, seed=1).float())
        assert all(parameter.all() for parameter in objective.head.parameters())
        objective.forget_clusters()


def test_the_head_is_the_rule_of_the_nearest_center():
    objective = proximity_objective()
    centers = torch.tensor([[0.2], [0.9]]) * unit(2).float()
    objective.divide(centers, unit(4, seed=1).float())
    z = unit(50, seed=2).float()
    distances = torch.cdist(z, centers)
    np.testing.assert_array_equal(objective.head(z).argmax(dim=1), distances.argmin(dim=1))
    weights = objective.weigh_classes(z, distances.argmin(dim=1))
    assert weights.shape == (2,)
    objective.reorder(torch.tensor([1, 0]))
    np.testing.assert_array_equal(objective.head(z).argmax(dim=1), 1 - distances.argmin(dim=1))
