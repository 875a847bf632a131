"""Which axis of an image holds its channels."""

from __future__ import annotations

from collections.abc import Sequence

# Channels of grey, colour, and colour with transparency.
CHANNEL_COUNTS = (1, 3, 4)


def channels_last(shape: Sequence[int]) -> tuple[bool, bool]:
    """Tell from the shape of an image whether its last axis holds the channels.

    In this order: one, three or four of anything are channels; images are square; channels are
    fewer than half the pixels of a side.

    Parameters
    ----------
    shape : sequence of three int
        Either ``(channels, height, width)`` or ``(height, width, channels)``.

    Returns
    -------
    last : bool
        Whether it is the second.
    sure : bool
        False where the first could be meant as well.
    """
    first, middle, last = shape
    first_is_usual, last_is_usual = first in CHANNEL_COUNTS, last in CHANNEL_COUNTS
    square_before, square_after = first == middle != last, first != middle == last
    if first_is_usual and not square_before:
        return False, True
    if last_is_usual and not square_after:
        return True, True
    if square_before:
        return True, last < first and not first_is_usual
    if square_after:
        return False, not last_is_usual
    if 2 * first <= min(middle, last):
        return False, True
    return 2 * last <= min(first, middle), False
