"""Where the channels of an image are, by its shape."""

import pytest

from skdeepcluster.data import channels_last

FIRST, LAST = (False, True), (True, True)
PROBABLY_FIRST, PROBABLY_LAST = (False, False), (True, False)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # one, three or four are channels
        ((3, 32, 32), FIRST),
        ((1, 8, 8), FIRST),
        ((4, 20, 30), FIRST),
        ((3, 32, 3), FIRST),
        ((3, 3, 3), FIRST),
        ((32, 32, 3), LAST),
        ((20, 30, 4), LAST),
        ((8, 8, 1), LAST),
        # images are square
        ((16, 16, 13), LAST),
        ((16, 16, 2), LAST),
        ((8, 8, 7), LAST),
        ((13, 16, 16), FIRST),
        ((2, 16, 16), FIRST),
        ((64, 8, 8), FIRST),
        ((9, 9, 200), PROBABLY_LAST),
        ((512, 1, 1), PROBABLY_FIRST),
        ((64, 4, 4), PROBABLY_FIRST),
        ((3, 3, 13), PROBABLY_LAST),
        ((4, 4, 3), LAST),
        # channels are few
        ((5, 20, 30), FIRST),
        ((20, 30, 5), PROBABLY_LAST),
        ((13, 17, 15), PROBABLY_FIRST),
        ((13, 13, 13), PROBABLY_FIRST),
    ],
    ids=str,
)
def test_channels(shape, expected):
    assert channels_last(shape) == expected
