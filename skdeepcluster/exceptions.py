"""Errors of our own."""

__all__ = ["DivergenceError"]


def __dir__() -> list[str]:
    return __all__


class DivergenceError(FloatingPointError):
    """A loss or a parameter was not finite; the network is back in its last good state."""
