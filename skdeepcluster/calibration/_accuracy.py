"""What confidences say about a partition as a whole."""

import math

# How far accuracies lie from the mean confidence, in units of sqrt(c (1 - c) + FLOOR). Half of the
# families of benchmarks/tasks.py tell this much, and nine in ten of the others keep to it.
BELOW, ABOVE = 0.8, 0.35
FLOOR = 1e-3


def accuracy_interval(mean_confidence: float) -> tuple[float, float]:
    r"""Return what the accuracy of a partition lies between in nine of ten cases or more.

    .. math:: c - .8 \sqrt{c (1 - c) + .001}, \quad c + .35 \sqrt{c (1 - c) + .001}

    clipped to [0, 1]. It reaches further down than up: what all partitions of the data get wrong
    cannot be seen in them.

    Parameters
    ----------
    mean_confidence : float
        The mean c of the largest probabilities.

    Returns
    -------
    low, high : float
    """
    deviation = math.sqrt(mean_confidence * (1 - mean_confidence) + FLOOR)
    low, high = mean_confidence - BELOW * deviation, mean_confidence + ABOVE * deviation
    return max(low, 0.0), min(high, 1.0)
