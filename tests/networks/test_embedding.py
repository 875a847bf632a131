"""Standardisation, perceptrons, and the way from samples to logits."""

import pickle

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from skdeepcluster.networks import (
    ClusterModel,
    EmbeddingNetwork,
    FrozenBackbone,
    PrototypeHead,
    Standardize,
    multilayer_perceptron,
)


def random_batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Standardize -----------------------------------------------------------------------------------


def test_standardize_shifts_and_scales():
    mean, scale = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([2.0, 0.5, 1.0])
    x = random_batch(5, 3)
    assert torch.equal(Standardize(mean, scale)(x), (x - mean) / scale)


def test_standardize_broadcasts_over_images_and_takes_bytes():
    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    out = Standardize(torch.zeros(3, 1, 1), torch.tensor(255.0))(images)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, images.float() / 255)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e4])
def test_constant_input_maps_to_zero(value):
    standardize = Standardize(torch.full((2,), value), torch.zeros(2))
    assert not standardize(torch.full((3, 2), value)).any()


def test_a_scale_that_single_precision_reads_as_zero_is_one():
    scale = torch.tensor([1e-46, 1e-45, 1e39], dtype=torch.float64)
    standardize = Standardize(torch.zeros(3), scale)
    smallest = torch.tensor([[1e-45, 1e-45, 0.0]])
    assert torch.equal(standardize(smallest), torch.tensor([[1e-45, 1.0, 0.0]]))


@pytest.mark.parametrize("scale", [1e-45, 1.0, 3e38])
def test_finite_input_stays_finite(scale):
    limit = torch.finfo(torch.float32).max
    standardize = Standardize(torch.tensor(-limit), torch.tensor(scale))
    out = standardize(torch.tensor([[-limit], [0.0], [limit]]))
    assert out.isfinite().all()
    assert (out.diff(dim=0) >= 0).all()
    assert out[0] == 0


def test_statistics_are_single_precision_and_travel_with_the_module():
    standardize = Standardize(
        torch.ones(2, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    )
    assert {name: t.dtype for name, t in standardize.state_dict().items()} == {
        "mean": torch.float32,
        "scale": torch.float32,
        "remainder": torch.float32,
    }
    assert not list(standardize.parameters())
    copy = pickle.loads(pickle.dumps(standardize))
    assert torch.equal(copy(torch.ones(1, 2)), torch.zeros(1, 2))


@pytest.mark.parametrize("offset", [1.7e9, -2460000.5, 1e11])
def test_large_offsets_are_taken_off_in_the_precision_that_came(offset):
    deviations = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = offset + deviations
    exact = x - x.mean(dim=0)  # what double precision has kept of the deviations
    standardize = Standardize(x.mean(dim=0), torch.tensor(0.5))
    standardized = standardize(x)
    assert standardized.dtype == torch.float32
    torch.testing.assert_close(standardized, (exact / 0.5).float(), rtol=1e-5, atol=2e-3)
    torch.testing.assert_close(standardize.inverse(standardized.double()), x, rtol=0, atol=1e-3)


def test_a_remainder_of_the_mean_that_nobody_sees_changes_no_digit():
    X = torch.from_numpy(load_digits().data)
    standardize = Standardize(X.mean(dim=0), X.std())
    assert not standardize.remainder.any()
    assert torch.equal(standardize(X), standardize(X.float()))


# multilayer_perceptron -------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [[3, 2], [3, 5, 2], [3, 5, 4, 6, 2]])
def test_perceptron_layers(widths):
    network = multilayer_perceptron(widths)
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == widths[:-1]
    assert [layer.out_features for layer in linear] == widths[1:]
    assert [layer.bias is None for layer in linear] == [True] * (len(widths) - 2) + [False]
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in network) == len(widths) - 2
    assert isinstance(network[-1], nn.Linear)
    assert network(random_batch(4, 3)).shape == (4, 2)


# EmbeddingNetwork and ClusterModel -------------------------------------------------------------


def test_embeddings_have_unit_length():
    embedding = EmbeddingNetwork(nn.Conv2d(1, 2, 3), nn.Linear(2 * 4, 5), 5)
    z = embedding(random_batch(6, 1, 4, 4))
    assert z.shape == (6, 5)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6))


def test_lengths_are_taken_in_single_precision():
    embedding = EmbeddingNetwork(nn.Identity(), nn.Linear(3, 4), 4).bfloat16()
    z = embedding(random_batch(6, 3).bfloat16())
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6))


def test_a_zero_vector_has_a_finite_embedding_and_gradient():
    embedding = EmbeddingNetwork(nn.Identity(), nn.Linear(3, 4, bias=False), 4)
    z = embedding(torch.zeros(2, 3))
    z.sum().backward()
    assert not z.any()
    assert embedding.projector.weight.grad.isfinite().all()


def test_model_goes_from_raw_samples_to_logits():
    prepare = Standardize(torch.ones(3), torch.tensor(2.0))
    embedding = EmbeddingNetwork(nn.Identity(), nn.Linear(3, 4), 4)
    model = ClusterModel(prepare, embedding, PrototypeHead(4, 6))
    x = random_batch(5, 3)
    assert torch.equal(model.embed(x), embedding((x - 1) / 2))
    assert torch.equal(model(x), model.head(model.embed(x)))
    assert model(x).shape == (5, 6)


@pytest.mark.parametrize(
    ("shape", "least_side", "expected"),
    [((4, 4), 0, (4, 4)), ((4, 9), 12, (8, 18)), ((9, 4), 9, (14, 6)), ((9, 8), 8, (9, 8))],
)
def test_small_images_are_enlarged_for_a_frozen_backbone(shape, least_side, expected):
    seen = []

    class Look(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images.mean((2, 3))

    frozen = FrozenBackbone(nn.Identity(), Look(), 3, least_side)
    ramp = torch.linspace(0, 1, shape[0])[None, None, :, None].expand(2, 3, *shape)
    means = frozen(ramp)
    (images,) = seen
    assert images.shape == (2, 3, *expected)
    torch.testing.assert_close(means, torch.full((2, 3), 0.5), atol=0.02, rtol=0)
    assert images.aminmax() == ramp.aminmax()
    assert (images.diff(dim=2) >= 0).all()


def test_a_frozen_backbone_makes_vectors_and_learns_nothing():
    layers = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1))
    images = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    frozen = FrozenBackbone(Standardize(torch.tensor(0.5), torch.tensor(0.1)), layers, 3)
    features = frozen(images)
    assert (features.shape, features.dtype) == ((5, 3), torch.float32)
    expected = layers.eval()((images.float() - 0.5) / 0.1).flatten(1)
    torch.testing.assert_close(features, expected)
    assert not features.requires_grad
    assert layers[1].num_batches_tracked == 0
