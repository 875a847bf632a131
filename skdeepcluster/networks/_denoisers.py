"""Networks that tell a sample from the noise that was added to it, given its cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, silu

# Of the sines and cosines that describe a time.
N_FREQUENCIES = 32
LONGEST_PERIOD = 1e4
FEATURE_WIDTH = 128
FEATURE_BLOCKS = 3
# Channels of a U-Net at each size, which halves from one to the next.
IMAGE_CHANNELS = (32, 64, 128)
NORM_GROUPS = 8


def build_denoiser(sample_shape: Sequence[int], n_classes: int) -> nn.Module:
    """Return a network that estimates clean samples: ``network(noisy, time, labels)``.

    Parameters
    ----------
    sample_shape : sequence of int
        ``(n_features,)`` for a residual perceptron, ``(channels, height, width)`` for a U-Net.
    n_classes : int
        Labels are below it, or equal to it: any class.
    """
    if len(sample_shape) == 1:
        return ResidualDenoiser(sample_shape[0], n_classes, FEATURE_WIDTH, FEATURE_BLOCKS)
    return UNetDenoiser(sample_shape[0], n_classes, IMAGE_CHANNELS)


class Condition(nn.Module):
    """Describe time and class by one vector.

    Parameters
    ----------
    n_classes : int
        The label of this number means any class.
    width : int
        Length of the vector.
    """

    frequencies: Tensor

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        exponents = torch.linspace(0, -math.log(LONGEST_PERIOD), N_FREQUENCIES)
        self.register_buffer("frequencies", exponents.exp())
        self.time = nn.Sequential(
            nn.Linear(2 * N_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(n_classes + 1, width)

    def forward(self, time: Tensor, labels: Tensor) -> Tensor:
        """Return (batch, width), for whole numbers of steps and labels."""
        angles = time[:, None] * self.frequencies
        both = torch.cat([angles.sin(), angles.cos()], dim=1)
        return silu(self.time(both) + self.label(labels))


class ResidualBlock(nn.Module):
    """Two linear layers beside the identity, shifted by the condition.

    Parameters
    ----------
    width : int
        Number of units.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.shift = nn.Linear(width, width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """Return (batch, width)."""
        shifted = self.first(self.norm(hidden)) + self.shift(condition)
        residual: Tensor = hidden + self.second(silu(shifted))
        return residual


class ResidualDenoiser(nn.Module):
    """A perceptron for feature vectors.

    Parameters
    ----------
    n_features, n_classes : int
        Of the samples.
    width, n_blocks : int
        Of the residual blocks.
    """

    def __init__(self, n_features: int, n_classes: int, width: int, n_blocks: int) -> None:
        super().__init__()
        self.condition = Condition(n_classes, width)
        self.input = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(n_blocks))
        self.output = nn.Linear(width, n_features)
        nn.init.zeros_(self.output.weight)

    def forward(self, noisy: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """Return the clean samples as estimated."""
        condition = self.condition(time, labels)
        hidden = self.input(noisy)
        for block in self.blocks:
            hidden = block(hidden, condition)
        clean: Tensor = self.output(silu(hidden))
        return clean


class ConvolutionBlock(nn.Module):
    """Two convolutions beside a shortcut, shifted by the condition.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of channels.
    width : int
        Length of the condition.
    """

    def __init__(self, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1)
        )
        self.shift = nn.Linear(width, n_out)
        self.second = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, n_out), nn.SiLU(), nn.Conv2d(n_out, n_out, 3, padding=1)
        )
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return (batch, n_out, height, width)."""
        hidden = self.first(images) + self.shift(condition)[:, :, None, None]
        residual: Tensor = self.shortcut(images) + self.second(hidden)
        return residual


class UNetDenoiser(nn.Module):
    """A small U-Net for images.

    Parameters
    ----------
    n_channels, n_classes : int
        Of the images.
    widths : sequence of int
        Numbers of channels at full size, half of it, and so on.
    """

    def __init__(self, n_channels: int, n_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        deepest = widths[-1]
        self.condition = Condition(n_classes, deepest)
        self.input = nn.Conv2d(n_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            ConvolutionBlock(previous, width, deepest)
            for previous, width in zip([widths[0], *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            ConvolutionBlock(width + below, width, deepest)
            for width, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.output = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], n_channels, 3, padding=1),
        )
        self.divisor = 2 ** (len(widths) - 1)

    def forward(self, noisy: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """Return the clean images as estimated."""
        condition = self.condition(time, labels)
        height, width = noisy.shape[2:]
        padded = pad(noisy, (0, -width % self.divisor, 0, -height % self.divisor))
        hidden = self.input(padded)
        skipped: list[Tensor] = []
        for number, block in enumerate(self.down):
            if number:
                skipped.append(hidden)
                hidden = nn.functional.avg_pool2d(hidden, 2)
            hidden = block(hidden, condition)
        for block in self.up:
            larger = torch.cat([interpolate(hidden, scale_factor=2.0), skipped.pop()], dim=1)
            hidden = block(larger, condition)
        clean: Tensor = self.output(hidden)
        return clean[:, :, :height, :width]
