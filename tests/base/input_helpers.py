"""Input, good and spoiled, and the quickest estimator to try it on."""

import re

import numpy as np

from skdeepcluster import MiniClustering

GOOD = np.random.default_rng(0).normal(size=(24, 3)) + 4 * np.eye(3).repeat(8, axis=0)
PICTURES = np.random.default_rng(0).integers(0, 256, size=(12, 3, 8, 8), dtype=np.uint8)
QUICK = MiniClustering(3, random_state=0, pretraining=None, max_epochs=0, calibrate=False)


def with_entry(value, dtype=float):
    array = GOOD.astype(dtype)
    array[5, 1] = value
    return array


def pattern(message):
    """Return the regular expression of a message in which dots stand for anything."""
    return "(?s:.*)".join(map(re.escape, message.split("...")))
