"""What a fit prints: a line for each phase, before a long one how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from skdeepcluster.training._phase import Phase

# The first step does what the others need not do again; the next few tell how long one takes.
UNUSUAL_STEPS = 1
TIMED_STEPS = 3
# Seconds that nobody minds waiting for without having been told.
SHORT = 10.0
# What is no result of a phase but was known before.
KNOWN = ("epoch", "n_epochs", "batch_size", "learning_rate", "seconds")


class Progress:
    """Prints what happens in one phase.

    Parameters
    ----------
    phase : Phase
    verbose : int
        0 prints nothing, 1 a line for the phase, 2 a line for each epoch besides.
    first_epoch : int
        The epoch that a resumed phase goes on with; counted from zero.
    """

    def __init__(self, phase: Phase, verbose: int, first_epoch: int) -> None:
        self.name = phase.name
        self.plan = phase.plan
        self.verbose = verbose
        self.n_batches = phase.n_samples // self.plan.batch_size
        self.n_steps = (self.plan.epochs - first_epoch) * self.n_batches
        self.n_done = 0
        self.began = time.perf_counter()

    def step(self, loss: Tensor) -> None:
        """Note that a step was taken; after a few of them, announce a long phase."""
        self.n_done += 1
        if self.verbose == 0 or self.n_done not in (UNUSUAL_STEPS, UNUSUAL_STEPS + TIMED_STEPS):
            return
        loss.item()  # an accelerator has only been told to take it
        now = time.perf_counter()
        if self.n_done == UNUSUAL_STEPS:
            self.timed_from = now
        else:
            seconds = (self.n_steps - self.n_done) * (now - self.timed_from) / TIMED_STEPS
            if seconds > SHORT:
                print(f"{self}, about {duration(seconds)} to go", flush=True)

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the record of an epoch."""
        if self.verbose > 1:
            number = f"{record['epoch'] + 1}/{self.plan.epochs}"
            print(
                f"{self.name} {number}: {results(record)}, {duration(record['seconds'])}",
                flush=True,
            )

    def end(self, record: dict[str, Any]) -> None:
        """Print how long the phase took and how its last epoch ended."""
        if self.verbose > 0:
            took = duration(time.perf_counter() - self.began)
            print(f"{self}: {took}, {results(record)}", flush=True)

    def __str__(self) -> str:
        """Say what is done in the phase."""
        epochs, size, rate = self.plan
        return (
            f"{self.name}: {epochs} epoch{'s' if epochs != 1 else ''} of {self.n_batches} x {size} "
            f"samples, learning rate {rate:.2g}"
        )


class Countdown:
    """Prints how long a single pass over the samples will take, if that is long, and took.

    Parameters
    ----------
    name : str
        What is done.
    n_samples : int
        How many samples there are.
    say : callable
        Prints a line.
    """

    def __init__(self, name: str, n_samples: int, say: Callable[[str], None]) -> None:
        self.name = name
        self.n_samples = n_samples
        self.say = say
        self.announced = False
        self.began = time.perf_counter()

    def __call__(self, n_done: int) -> None:
        """Note that so many samples are done."""
        took = time.perf_counter() - self.began
        to_go = took * (self.n_samples / n_done - 1)
        if n_done == self.n_samples:
            self.say(f"{self.name}: {duration(took)}")
        elif not self.announced and to_go > SHORT:
            self.say(f"{self.name}, about {duration(to_go)} to go")
        self.announced = True


def results(record: dict[str, Any]) -> str:
    """Return the scalars of a record as text."""
    return ", ".join(
        f"{name} {value:.4g}"
        for name, value in record.items()
        if isinstance(value, float) and name not in KNOWN
    )


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
