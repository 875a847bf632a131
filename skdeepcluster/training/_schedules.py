"""Learning-rate schedules: factors of the base rate as a function of the progress in [0, 1).

A schedule without state is the same after a resume as without one.
"""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Keep the base rate."""
    return 1.0


def cosine(progress: float) -> float:
    """Fall along a half cosine from the base rate to zero."""
    return _half_cosine(1.0, 0.0, progress)


def one_cycle(progress: float, warmup: float = 0.3) -> float:
    """Rise along a half cosine to the base rate, then fall along one to zero.

    Parameters
    ----------
    progress : float
        Share of the steps already taken.
    warmup : float, default=0.3
        Share of the steps spent rising from 1/25 of the base rate, as in Smith and Topin's
        super-convergence recipe.
    """
    if progress < warmup:
        return _half_cosine(1 / 25, 1.0, progress / warmup)
    return _half_cosine(1.0, 0.0, (progress - warmup) / (1 - warmup))


def delayed(rest: float, warmup: float) -> Schedule:
    """Return a schedule that rests at zero, rises in a line, and falls along a half cosine.

    Parameters
    ----------
    rest, warmup : float
        Shares of the steps at which the rise begins and ends, ``0 <= rest <= warmup < 1``.
    """

    def schedule(progress: float) -> float:
        if progress < rest:
            return 0.0
        if progress < warmup:
            return (progress - rest) / (warmup - rest)
        return _half_cosine(1.0, 0.0, (progress - warmup) / (1 - warmup))

    return schedule


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
