"""The time that the operations of a step need at least, by what the device has been seen to do."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

WARMUP, TURNS = 5, 20
SIDE = {"cuda": 8192, "cpu": 2048}
WORDS = {"cuda": 2**30, "cpu": 2**26}  # more than any cache holds


class Rates(NamedTuple):
    """What a device does per second."""

    flop: float  # of a product of matrices
    bytes: float  # of a copy, read and written


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(act: Callable[[], Any], device: torch.device) -> float:
    """Return the mean time of some turns after a few that do not count."""
    for _ in range(WARMUP):
        act()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(TURNS):
        act()
    synchronize(device)
    return (time.perf_counter() - started) / TURNS


@cache
def measured_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Return the rates of a large product of matrices of a type, and of a large copy."""
    side, words = SIDE[device.type], WORDS[device.type]
    square = torch.randn(side, side, device=device).to(dtype)
    flop = 2 * side**3 / seconds_of(lambda: square @ square, device)
    source = torch.randn(words, device=device)
    target = torch.empty_like(source)
    return Rates(flop, 2 * 4 * words / seconds_of(lambda: target.copy_(source), device))


class Floor(TorchDispatchMode):
    """Adds up the seconds that operations take at least, one after the other.

    Each has to read its inputs and to write its outputs once, and to do its floating-point
    operations, of which only those of convolutions and products of matrices count; the slower of
    the two takes the time. Operations that were fused would need less.
    """

    def __init__(self, rates: Rates):
        super().__init__()
        self.rates = rates
        self.seconds = 0.0
        self._counter = FlopCounterMode(display=False)

    def __enter__(self) -> "Floor":
        self._counter.__enter__()  # around this mode, so that it has seen an operation when we ask
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._counter.__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        before = self._counter.get_total_flops()
        out = operation(*args, **(kwargs or {}))
        flop = self._counter.get_total_flops() - before
        if not (operation.is_view or "empty" in operation.name()):  # neither touches memory
            self.seconds += max(
                flop / self.rates.flop, n_bytes((args, kwargs, out)) / self.rates.bytes
            )
        return out


def n_bytes(tensors: Any) -> int:
    """Return how many bytes of memory the tensors in some nested containers read or write."""
    return sum(
        min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())  # may be expanded
        for leaf in tree_leaves(tensors)
        if torch.is_tensor(leaf)
    )


def floor_of(act: Callable[[], Tensor | None], rates: Rates) -> float:
    """Return the seconds that the operations of an act take at least."""
    with Floor(rates) as floor:
        act()
    return floor.seconds
