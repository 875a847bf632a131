"""Batches that do not fit into memory pass through a network in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skdeepcluster.numerics import entered_draws


def in_pieces(
    network: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, n_pieces: int
) -> Tensor:
    """Return ``forward(x)``, of which only one piece at a time is in memory.

    For the gradients each piece is computed anew, with the same random numbers. What follows, a
    loss that compares all samples of the batch, say, sees the whole. Batch normalisation alone sees
    the pieces.

    Parameters
    ----------
    network : nn.Module
        Whose buffers the second computation leaves as they are.
    forward : callable
        Maps each row for itself.
    x : Tensor of shape (batch, ...)
    n_pieces : int
        Every so many rows make a piece: a batch may consist of several views of the same samples.
    """
    rows = torch.arange(len(x), device=x.device)
    pieces = [rows[start::n_pieces] for start in range(min(n_pieces, len(x)))]
    if torch.is_grad_enabled():
        forward = partial(
            checkpoint,
            forward,
            use_reentrant=False,
            preserve_rng_state=False,  # of torch's global generators, from which nothing is drawn
            context_fn=partial(_contexts, network),
        )
    done = [forward(x[piece]) for piece in pieces]
    return torch.cat(done)[torch.cat(pieces).argsort()]


def _contexts(network: nn.Module) -> tuple[AbstractContextManager[None], ...]:
    """Return what is to be entered for the first and for the second computation."""
    draws = entered_draws()
    return nullcontext(), _second_time(
        network, nullcontext() if draws is None else draws.repeated()
    )


@contextmanager
def _second_time(network: nn.Module, draws: AbstractContextManager[object]) -> Iterator[None]:
    """Draw what was drawn the first time, and let no statistic count twice."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        with draws:
            yield
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
