"""What tests of many rooms need."""

import torch


def seeded(seed=0):
    """A generator of its own for every test."""
    return torch.Generator().manual_seed(seed)
