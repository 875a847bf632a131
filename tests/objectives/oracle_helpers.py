"""What the slow oracles of several methods are made of."""

import numpy as np
import torch
from hypothesis import strategies as st

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(scale=3, size=shape)


def assert_equal_states(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
