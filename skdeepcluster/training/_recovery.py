"""What can go wrong in an epoch: numbers that are not finite, and memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from skdeepcluster.networks import EmbeddingNetwork

# No parameter of a network that learns something comes near it.
LARGE_PARAMETER = 1e3


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module, as they are now."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def is_sound(
    objective: nn.Module, optimizer: torch.optim.Optimizer, views: Sequence[Tensor]
) -> bool:
    """Whether every parameter that is trained is finite, and so is the loss in evaluation mode.

    Batch normalisation hides in training what overflows as soon as it uses its running statistics.
    That takes large parameters: without any there is no need to look.
    """
    parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    # The largest entry of each, in one call, and one reading: on small networks it is done often.
    norms = torch._foreach_norm([p for p in parameters if p.numel()], torch.inf)
    largest = torch.stack(norms).max().item()
    if not math.isfinite(largest) or largest < LARGE_PARAMETER:
        return math.isfinite(largest)
    state = copy_state(objective)
    objective.eval()
    with torch.no_grad():
        loss, _ = objective(*views)
    objective.load_state_dict(state)
    return math.isfinite(loss.item())


# What else torch raises than its own error of memory: where the CPU's or MPS's is full, and where
# CUDA's is and a library, or memory that is pinned, asks the driver for some. A convolution says
# only that no way to compute it was left (torch's issue 108645), a library that it could not begin;
# where something else is the matter, the error ends the fit all the same.
FULL_MEMORY = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "_STATUS_ALLOC_FAILED",
    "_ALLOCATION_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute this computation",
)


def is_about_memory(error: BaseException) -> bool:
    """Whether memory has run out, for which torch has several kinds of error."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in FULL_MEMORY)


class Pieces:
    """In how many pieces the networks of an objective embed a batch: more, if it does not fit.

    As a context it leaves the networks as they were.

    Parameters
    ----------
    objective : nn.Module
    batch_size : int
        Samples in a batch.
    """

    def __init__(self, objective: nn.Module, batch_size: int) -> None:
        self.networks = [m for m in objective.modules() if isinstance(m, EmbeddingNetwork)]
        self.batch_size = batch_size
        self.count = 1

    def double(self) -> bool:
        """Embed in twice as many pieces from now on; return whether that is possible.

        Batch normalisation needs two samples in each.
        """
        if not self.networks or self.batch_size < 4 * self.count:
            return False
        self._set(2 * self.count)
        return True

    def __enter__(self) -> Self:
        """Begin with whole batches."""
        return self

    def __exit__(self, *error: object) -> None:
        """Embed whole batches again."""
        self._set(1)

    def _set(self, count: int) -> None:
        self.count = count
        for network in self.networks:
            network.n_pieces = count
