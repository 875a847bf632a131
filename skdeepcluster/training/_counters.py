"""The counters of batch normalisation, which hardly anything reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # what all kinds of it have in common

from skdeepcluster.numerics import sent


@contextmanager
def counted_on_host(objective: nn.Module) -> Iterator[None]:
    """Keep the counters of batches off an accelerator, which adds one to each in every step.

    There it would be a launch for every layer: as many as for the normalisation itself.
    """
    there = [
        (layer, layer.num_batches_tracked)
        for layer in objective.modules()
        if isinstance(layer, _NormBase)
        and layer.num_batches_tracked is not None
        and layer.num_batches_tracked.device.type != "cpu"
    ]
    if not there:
        yield
        return
    layers, counters = zip(*there, strict=True)
    # All of them at once: the host has to wait for what it reads.
    for layer, counter in zip(layers, torch.stack(counters).cpu(), strict=True):
        layer.num_batches_tracked = counter
    try:
        yield
    finally:
        counted = torch.stack([layer.num_batches_tracked for layer in layers])
        torch._foreach_copy_(counters, sent(counted, counters[0].device).unbind())
        for layer, counter in there:
            layer.num_batches_tracked = counter
