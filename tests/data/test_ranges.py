"""Ranges of pixels: told apart, brought together, or refused."""

import re

import numpy as np
import pytest
import torch

from skdeepcluster.data import PixelRange, ResidentSource, ScaledSource, pixel_range, scale_to

BYTES = PixelRange(0, 250, True, True)
DARK_BYTES = PixelRange(0, 1, True, True)
UNIT = PixelRange(0, 0.98, False, False)
MASKS = PixelRange(0, 1, False, True)
FLOAT_BYTES = PixelRange(0, 255, False, True)
SIGNED = PixelRange(-1, 1, False, False)
NORMALIZED = PixelRange(-2.1, 2.6, False, False)
COUNTS = PixelRange(120, 175, False, True)
MANY_COUNTS = PixelRange(300, 4000, False, True)


@pytest.mark.parametrize(
    ("fitted", "found", "factor"),
    [
        (BYTES, BYTES, 1),
        (BYTES, DARK_BYTES, 1),
        (BYTES, UNIT, 255),
        (BYTES, MASKS, 255),
        (BYTES, FLOAT_BYTES, 1),
        (BYTES, PixelRange(-3.2, 257.9, False, False), 1),  # an overshoot of interpolation
        (DARK_BYTES, MASKS, 1),  # masks in both
        (UNIT, BYTES, 1 / 255),
        (UNIT, DARK_BYTES, 1 / 255),
        (UNIT, PixelRange(-0.02, 1.04, False, False), 1),
        (MASKS, DARK_BYTES, 1),
        (MASKS, BYTES, 1 / 255),
        (FLOAT_BYTES, BYTES, 1),
        (FLOAT_BYTES, MASKS, 1),  # a dark image may have nothing but zeros and ones
        (NORMALIZED, SIGNED, 1),
        (SIGNED, NORMALIZED, 1),
        (NORMALIZED, UNIT, 1),  # a bright image
        (COUNTS, MANY_COUNTS, 1),  # a brighter one
        (BYTES, PixelRange(-1e38, 1e38, False, False), 1),  # outliers, which belong to no scale
    ],
)
def test_what_has_a_common_range(fitted, found, factor):
    assert scale_to(fitted, found) == factor


@pytest.mark.parametrize(
    ("fitted", "found"),
    [
        (BYTES, SIGNED),
        (BYTES, NORMALIZED),
        (BYTES, MANY_COUNTS),
        (BYTES, PixelRange(-2000, 100, False, True)),
        (UNIT, SIGNED),
        (UNIT, FLOAT_BYTES),
        (UNIT, MANY_COUNTS),
        (NORMALIZED, BYTES),
        (SIGNED, FLOAT_BYTES),
        (COUNTS, UNIT),
        (FLOAT_BYTES, UNIT),
        (MANY_COUNTS, BYTES),
    ],
)
def test_what_has_none_is_refused(fitted, found):
    with pytest.raises(ValueError, match=re.escape(f"images of {found}, but")) as caught:
        scale_to(fitted, found)
    assert f"fitted on images of {fitted}." in str(caught.value)


def test_the_range_of_a_source():
    data = torch.zeros(300, 1, 2, 2)
    data[-1, 0, 0, 0], data[0, 0, 1, 1] = 7.0, -2.0
    assert pixel_range(ResidentSource(data)) == (-2.0, 7.0, False, True)
    assert pixel_range(ResidentSource(data + 0.5)) == (-1.5, 7.5, False, False)
    ones = torch.ones(3, 1, 2, 2, dtype=torch.uint8)
    assert pixel_range(ResidentSource(ones)) == DARK_BYTES._replace(low=1)


@pytest.mark.parametrize("factor", [255.0, 1 / 255])
def test_scaled_rows(factor):
    data = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
    source = ScaledSource(ResidentSource(data), factor)
    assert (len(source), source.sample_shape, source.resident) == (6, (1, 2, 2), True)
    rows = source.rows(torch.tensor([5, 0]))
    assert rows.dtype == torch.float32
    expected = data[[5, 0]].double().numpy() * factor
    np.testing.assert_array_equal(rows, expected.astype(np.float32))
