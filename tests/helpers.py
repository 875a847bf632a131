"""What tests of many rooms need."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def seeded(seed=0):
    """A generator of its own for every test."""
    return torch.Generator().manual_seed(seed)


class MostMade(TorchDispatchMode):
    """Notes how many entries the largest tensor has that is made meanwhile; views are not made."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor) and not made._is_view():
                self.entries = max(self.entries, made.numel())
        return result
