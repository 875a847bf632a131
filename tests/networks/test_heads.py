"""Heads that start as the nearest-centre rule."""

import pytest
import torch
from torch.nn.functional import normalize

from skdeepcluster.networks import PrototypeHead


def random_rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_started_head_is_the_nearest_center_rule(scale):
    centers, z = random_rows(7, 5), normalize(random_rows(100, 5, seed=1), dim=1)
    head = PrototypeHead(5, 7)
    head.start_from(centers, scale)
    logits = head(z)
    torch.testing.assert_close(logits, scale * z @ normalize(centers, dim=1).T)
    nearest = torch.cdist(z, normalize(centers, dim=1)).argmin(dim=1)
    assert torch.equal(logits.argmax(dim=1), nearest)


def test_confidence_grows_with_the_scale():
    centers, z = random_rows(7, 5), normalize(random_rows(100, 5, seed=1), dim=1)
    head = PrototypeHead(5, 7)
    confidences = []
    for scale in (1, 10, 100):
        head.start_from(centers, scale)
        confidences.append(head(z).softmax(dim=1).max(dim=1).values.mean().item())
    assert confidences == sorted(confidences)
    assert confidences[0] < 0.5 < 0.95 < confidences[2]


def test_start_keeps_the_parameters_trainable_and_the_centers_as_they_are():
    centers = random_rows(3, 4).requires_grad_()
    before = centers.detach().clone()
    head = PrototypeHead(4, 3)
    weight = head.weight
    head.start_from(centers, 5.0)
    assert head.weight is weight
    assert weight.requires_grad
    assert weight.grad_fn is None
    assert not head.bias.any()
    assert torch.equal(centers.detach(), before)
    torch.testing.assert_close(weight.norm(dim=1), torch.full((3,), 5.0))


def test_a_center_of_zero_gets_neutral_logits():
    head = PrototypeHead(4, 2)
    head.start_from(torch.stack([torch.zeros(4), torch.ones(4)]), 10.0)
    assert not head(random_rows(5, 4))[:, 0].any()
