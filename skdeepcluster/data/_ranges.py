"""The range of pixels: bytes from 0 to 255, floats from 0 to 1, or whatever a camera gives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from skdeepcluster.data._sources import Source, rows_in_block
from skdeepcluster.numerics import evenly_spaced

# Images from which a range is taken. It tells scales apart, which differ by a factor of hundreds.
RANGE_ROWS = 256
BYTE = 255.0
# Pixels that were divided by their deviation stay below this; bytes and raw counts do not.
NORMALIZED = 10.0
# No scale of images goes beyond 16 bits; what does is an outlier, which gets an answer like others.
LARGEST = 2.0**16
# How far interpolation overshoots, as a share of the range.
OVERSHOOT = 0.25


class PixelRange(NamedTuple):
    """Smallest and largest value of some images, and how they are stored."""

    low: float
    high: float
    is_bytes: bool
    """Whether the type is uint8."""
    is_whole: bool
    """Whether all values are whole numbers."""

    @property
    def is_unit(self) -> bool:
        """Whether all values lie between 0 and 1."""
        return self.low >= 0 and self.high <= 1

    @property
    def size(self) -> float:
        """The largest absolute value."""
        return max(-self.low, self.high)

    def __str__(self) -> str:
        """Return type and values as an error names them."""
        kind = "uint8" if self.is_bytes else "numbers"
        return f"{kind} from {self.low:.4g} to {self.high:.4g}"


class ScaledSource:
    """The rows of another source times a number, in float32.

    Parameters
    ----------
    source : Source
        The other source.
    factor : float
        The number.
    """

    def __init__(self, source: Source, factor: float) -> None:
        self.source = source
        self.factor = factor
        self.sample_shape = source.sample_shape
        self.device = source.device
        self.resident = source.resident

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.source)

    def rows(self, index: Tensor) -> Tensor:
        """Return scaled rows by number."""
        rows = self.source.rows(index).float()
        # Divided where that is meant: the reciprocal of 255 is not exact.
        return rows * self.factor if self.factor >= 1 else rows / (1 / self.factor)


def pixel_range(source: Source) -> PixelRange:
    """Return the range of at most 256 images, spread evenly over the source."""
    index = evenly_spaced(len(source), RANGE_ROWS)
    low, high, is_bytes, is_whole = torch.inf, -torch.inf, False, True
    for part in torch.split(index, rows_in_block(source.sample_shape, 32)):
        rows = source.rows(part)
        is_bytes = rows.dtype == torch.uint8
        low, high = min(low, rows.min().item()), max(high, rows.max().item())
        is_whole = is_whole and (is_bytes or bool((rows == rows.round()).all()))
    return PixelRange(float(low), float(high), is_bytes, is_whole)


def scale_to(fitted: PixelRange, found: PixelRange) -> float:
    """Return the factor that brings images to the range of those that a model was fitted on.

    It is not 1 only where bytes meet floats from 0 to 1. What is on another scale for sure is
    refused; what may just be brighter or darker is left as it is.

    Parameters
    ----------
    fitted, found : PixelRange
        Of the images in ``fit``, and of the others.

    Raises
    ------
    ValueError
        If the two are on different scales, and nothing says how to get from one to the other.
    """
    if fitted.is_bytes and found.is_bytes:
        return 1.0
    if fitted.is_bytes and fitted.high > 1 and found.is_unit:
        return BYTE
    if found.is_bytes and fitted.is_unit:
        is_mask = fitted.is_whole and found.high <= 1  # zeros and ones in both
        return 1.0 if is_mask else 1 / BYTE
    if _on_another_scale(fitted, found):
        raise ValueError(
            f"X has images of {found}, but the model was fitted on images of {fitted}. Bring them "
            "to the range of those in fit; only uint8 and floats from 0 to 1 are brought together."
        )
    return 1.0


def _on_another_scale(fitted: PixelRange, found: PixelRange) -> bool:
    if found.size > LARGEST:
        return False
    if fitted.is_bytes and fitted.high > 1:
        is_normalized = found.low < 0 and found.size <= NORMALIZED
        slack = OVERSHOOT * BYTE
        return is_normalized or found.low < -slack or found.high > BYTE + slack
    if found.is_bytes:
        return fitted.high > (1 + OVERSHOOT) * BYTE or (
            fitted.size <= NORMALIZED and found.high > 2 * NORMALIZED
        )
    if fitted.is_unit:
        return found.low < -2 * OVERSHOOT or found.high > NORMALIZED
    if fitted.size <= NORMALIZED:
        return found.size > 2 * NORMALIZED
    # Raw counts, of which a dark image may have few: but not fractions of one.
    return found.is_unit and not found.is_whole and fitted.size > 2 * NORMALIZED
