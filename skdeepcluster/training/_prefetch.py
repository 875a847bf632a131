"""Views made one batch ahead, where samples have to be waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import torch
from torch import Tensor

from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training._phase import Views
from skdeepcluster.training._threads import intra_op_threads


def views_of(
    batches: Sequence[Tensor],
    views: Views,
    generator: torch.Generator,
    make_draws: Callable[[], OwnDraws],
    device: torch.device,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the views of some batches.

    The random numbers are drawn in the same order whether or not a thread makes them, and all of
    them by the end. What the items of a Dataset draw, in a thread of their own, comes from what
    ``make_draws`` returns. The thread works on the caller's stream of the device: another's views
    could be used before they are there.
    """
    if getattr(views, "resident", True):
        for index in batches:
            yield views(index, generator)
        return
    draws = make_draws()
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def make(index: Tensor) -> tuple[Tensor, ...]:
        with draws, nullcontext() if stream is None else torch.cuda.stream(stream):
            return views(index, generator)

    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        1, initializer=intra_op_threads.set_here, initargs=(n_threads,)
    ) as pool:
        coming = pool.submit(make, batches[0])
        for index in batches[1:]:
            made, coming = coming.result(), pool.submit(make, index)
            yield made
        yield coming.result()
