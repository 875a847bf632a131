"""A slowly moving copy of a network."""

import copy

import torch
from torch import Tensor, nn


class EMATeacher(nn.Module):
    """An exponential moving average of a network's parameters, for stable targets.

    Parameters
    ----------
    student : nn.Module
        The network to follow; copied, not kept.
    momentum : float
        Share of the old average kept at each update, in [0, 1].
    """

    def __init__(self, student: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the average towards the student; counters and other integer buffers are copied."""
        averages, currents = [], []
        for average, current in zip(
            self._tensors(self.network), self._tensors(student), strict=True
        ):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current.to(average.dtype))
            else:
                average.copy_(current)
        # All in one call: a network has hundreds of small tensors.
        if averages:
            torch._foreach_lerp_(averages, currents, 1 - self.momentum)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the averaged network's output; no gradient flows into it."""
        output: Tensor = self.network(*inputs)
        return output

    @staticmethod
    def _tensors(module: nn.Module) -> list[Tensor]:
        return [*module.parameters(), *module.buffers()]
