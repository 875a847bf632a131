"""The small network takes images of any size, and is the default where others would be slow."""

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from skdeepcluster.networks import default_image_backbone
from skdeepcluster.networks._small_convnet import SmallConvNet


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 32, 32), (2, 28, 28), (4, 1, 1), (1, 5, 40), (3, 64, 3), (1, 17, 16)]
)
def test_it_averages_over_the_quarters_of_images_of_any_size(shape):
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    *convolutions, pool, flatten = SmallConvNet(shape).eval()
    with torch.no_grad():
        maps = nn.Sequential(*convolutions)(images)
        size = tuple(min(side, 2) for side in maps.shape[2:])
        expected = adaptive_avg_pool2d(maps, size).flatten(1)
        torch.testing.assert_close(flatten(pool(maps)), expected)


@pytest.mark.parametrize(("side", "left"), [(8, 4), (16, 4), (28, 4), (64, 8)])
def test_large_images_are_halved_more_often(side, left):
    *convolutions, _, _ = SmallConvNet((1, side, side))
    maps = nn.Sequential(*convolutions)(torch.zeros(2, 1, side, side))
    assert maps.shape == (2, 128, left, left)


@pytest.mark.parametrize(
    ("shape", "device", "pretrained", "expected"),
    [
        ((3, 64, 64), "cpu", False, "small_convnet"),
        ((3, 64, 65), "cpu", False, "resnet18"),
        ((1, 8, 8), "cuda", False, "resnet18"),
        ((1, 8, 8), "mps", False, "resnet18"),
        ((1, 8, 8), "cpu", True, "resnet18"),
        ((1, 8, 8), "cpu", "weights.pth", "resnet18"),
    ],
)
def test_the_default_is_small_where_a_larger_one_would_be_slow(shape, device, pretrained, expected):
    assert default_image_backbone(shape, torch.device(device), pretrained) == expected
