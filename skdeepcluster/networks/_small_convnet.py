"""A small convolutional network: what a CPU can train on small images within a minute or two."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

# Channels of the layers.
WIDTHS = (32, 64, 128)
# Up to this side the first layer looks at every pixel.
SEEN_WHOLE = 16
# The side below which nothing is gained by halving once more.
LEAST_SIDE = 4


class SmallConvNet(nn.Sequential):
    """Three 3 x 3 convolutions with batch normalisation, and means over the four quarters.

    Parameters
    ----------
    sample_shape : sequence of int
        Channels, height and width of the images.
    """

    def __init__(self, sample_shape: Sequence[int]) -> None:
        channels, height, width = sample_shape
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((channels, *WIDTHS)):
            halve = max(height, width) > (LEAST_SIDE if layers else SEEN_WHOLE)
            layers += [
                nn.Conv2d(n_in, n_out, 3, 2 if halve else 1, 1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            ]
            if halve:
                height, width = (height + 1) // 2, (width + 1) // 2
        # Adaptive pooling, but with sizes that other runtimes can read.
        size = (height - height // 2, width - width // 2)
        step = (max(height // 2, 1), max(width // 2, 1))
        super().__init__(*layers, nn.AvgPool2d(size, step), nn.Flatten())
