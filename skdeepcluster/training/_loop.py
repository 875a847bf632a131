"""The one training loop. It knows epochs, devices and checkpoints, and no method."""

from __future__ import annotations

import math
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from skdeepcluster.training._interrupt import graceful_interrupt
from skdeepcluster.training._schedules import Schedule, constant

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from skdeepcluster.training._checkpoint import CheckpointFolder

Record = dict[str, Any]


class DivergenceError(FloatingPointError):
    """A loss was not finite; the network was restored to the last epoch that was."""


class EpochHook(Protocol):
    """What to tell others before and after each epoch."""

    def begin(self, epoch: int) -> None:
        """Announce an epoch."""

    def end(self, epoch: int) -> bool:
        """Report a finished epoch; return True to stop the phase."""
        ...


@dataclass
class Phase:
    """One stretch of training with one objective.

    Attributes
    ----------
    name : str
        Names the phase in the history, the checkpoints and the callbacks.
    objective : nn.Module
        ``objective(*views)`` returns the loss and a dict of scalars for the history. A scalar
        named ``"skipped"`` that is nonzero asks to leave the parameters as they are.
    views : callable
        ``views(index, generator)`` returns the tensors for the objective, on the device.
    n_samples, batch_size, epochs : int
        Every epoch visits all samples in a new order, in equal batches; a remainder smaller than
        a batch is left to the next epochs.
    parameter_groups : list of dict
        As for a torch optimiser, each with its ``lr``.
    optimizer : callable
        Builds the optimiser from the groups; has a ``fused`` implementation.
    schedule : callable
        Factor of the learning rates as a function of the progress.
    hook : EpochHook
        Told about every epoch.
    """

    name: str
    objective: nn.Module
    views: Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
    n_samples: int
    batch_size: int
    epochs: int
    parameter_groups: list[dict[str, Any]]
    optimizer: Callable[..., torch.optim.Optimizer]
    hook: EpochHook
    schedule: Schedule = constant


class Trainer:
    """Runs phases one after the other, on one device, from one seed.

    Parameters
    ----------
    phases : sequence of str
        Names of the phases in the order in which they will be run.
    device : torch.device
        Where to compute.
    precision : str
        A precision of Lightning Fabric, for example ``"32-true"`` or ``"bf16-mixed"``.
    seed : int
        Source of all randomness; torch's global generator is left as it was found.
    checkpoint : CheckpointFolder, optional
        Where to write after every epoch, and what to resume from.
    verbose : int, default=0
        Print one line per epoch if positive.

    Attributes
    ----------
    history : list of dict
        One record per epoch: phase, epoch, the objective's scalars, learning rate, seconds.
    n_skipped_steps : int
        Batches that asked to leave the parameters as they were.
    interrupted : bool
        Whether Ctrl-C ended a phase early; later phases are then left out.
    """

    def __init__(
        self,
        phases: Sequence[str],
        *,
        device: torch.device,
        precision: str,
        seed: int,
        checkpoint: CheckpointFolder | None = None,
        verbose: int = 0,
    ) -> None:
        self.phases = list(phases)
        self.device = device
        self.precision = precision
        self.seed = seed
        self.checkpoint = checkpoint
        self.verbose = verbose
        self.history: list[Record] = []
        self.n_skipped_steps = 0
        self.interrupted = False
        self._resumed = checkpoint.load() if checkpoint else None
        if self._resumed:
            self.seed = self._resumed["seed"]
            self.history = self._resumed["history"]
            self.n_skipped_steps = self._resumed["n_skipped_steps"]

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator of its own for each purpose, the same after a resume."""
        # Not hash(), which differs from process to process. The mixing is numpy's, because torch's
        # CPU generator looks at 32 bits of a seed only.
        entropy = np.random.SeedSequence([self.seed, zlib.crc32(purpose.encode())])
        return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))

    def has_reached(self, name: str) -> bool:
        """Whether the checkpoint to resume from was written in this phase or a later one."""
        return self._resumed is not None and (
            self.phases.index(self._resumed["phase"]) >= self.phases.index(name)
        )

    def has_passed(self, name: str) -> bool:
        """Whether the checkpoint to resume from was written in a later phase."""
        return (
            self.has_reached(name)
            and self._resumed is not None
            and (self._resumed["phase"] != name)
        )

    def run(self, phase: Phase) -> None:
        """Train until the epochs are over, the hook says stop or the user interrupts.

        Raises
        ------
        DivergenceError
            If the loss of an epoch is not finite; the objective is then in the last good state.
        """
        if self.interrupted or self.has_passed(phase.name):
            return
        fabric = _fabric(self.device, self.precision)
        generator = self.generator(phase.name)
        optimizer = phase.optimizer(phase.parameter_groups, fused=True)
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
        with (
            _own_global_generator(self.device, self.generator(f"{phase.name} (global)")),
            graceful_interrupt() as stop,
        ):
            epochs = range(phase.epochs)
            if self.has_reached(phase.name):
                epochs = self._restore(phase, optimizer, generator)
            objective, wrapped = fabric.setup(phase.objective, optimizer)
            objective.train()
            for epoch in epochs:
                phase.hook.begin(epoch)
                record = self._epoch(fabric, phase, objective, wrapped, generator, epoch)
                self.history.append(record)
                if self.verbose > 0:
                    print(_describe(record, phase.epochs))
                finished = phase.hook.end(epoch) or epoch + 1 == phase.epochs
                self._save(phase, optimizer, generator, epoch, finished)
                if finished:
                    break
                if stop.requested:
                    self._interrupt(phase, epoch)
                    break
        phase.objective.eval()

    def _epoch(
        self,
        fabric: Fabric,
        phase: Phase,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        epoch: int,
    ) -> Record:
        started = time.perf_counter()
        good_state = {k: v.clone() for k, v in phase.objective.state_dict().items()}
        order = torch.randperm(phase.n_samples, generator=generator)
        batch_size = min(phase.batch_size, phase.n_samples)
        n_batches = phase.n_samples // batch_size
        totals: dict[str, Tensor] = {}
        for step in range(n_batches):
            factor = phase.schedule((epoch + step / n_batches) / phase.epochs)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            index = order[step * batch_size : (step + 1) * batch_size]
            loss, scalars = objective(*phase.views(index, generator))
            optimizer.zero_grad()
            fabric.backward(loss)
            # Reading the scalar waits for an accelerator, so only objectives that can reject a
            # whole batch report it.
            if "skipped" not in scalars or not bool(scalars["skipped"]):
                optimizer.step()
            for name, value in {"loss": loss, **scalars}.items():
                totals[name] = totals.get(name, 0.0) + value.detach().float()
        means = {name: (total / n_batches).item() for name, total in totals.items()}
        if not math.isfinite(means["loss"]):
            phase.objective.load_state_dict(good_state)
            raise DivergenceError(
                f"The loss of epoch {epoch} of the {phase.name} is {means['loss']}. The network was "
                "restored to the epoch before. Lower learning_rate, or look for extreme values in "
                "X."
            )
        self.n_skipped_steps += round(means.get("skipped", 0.0) * n_batches)
        rates = [group["lr"] for group in optimizer.param_groups]
        seconds = time.perf_counter() - started
        return {
            "phase": phase.name,
            "epoch": epoch,
            **means,
            "learning_rate": max(rates),
            "seconds": seconds,
        }

    def _interrupt(self, phase: Phase, epoch: int) -> None:
        self.interrupted = True
        warnings.warn(
            f"Interrupted after epoch {epoch + 1} of {phase.epochs} of the {phase.name}; the model "
            "is usable as it is.",
            ConvergenceWarning,
            stacklevel=2,
        )

    def _save(
        self,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        epoch: int,
        finished: bool,
    ) -> None:
        if self.checkpoint is None:
            return
        self.checkpoint.save(
            {
                "phase": phase.name,
                "next_epoch": phase.epochs if finished else epoch + 1,
                "objective": phase.objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "global_generators": _global_states(self.device),
                "seed": self.seed,
                "history": self.history,
                "n_skipped_steps": self.n_skipped_steps,
            }
        )

    def _restore(
        self, phase: Phase, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> range:
        state = self._resumed
        if state is None:
            raise RuntimeError("There is no checkpoint to restore from.")
        phase.objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        _set_global_states(self.device, state["global_generators"])
        return range(state["next_epoch"], phase.epochs)


def _fabric(device: torch.device, precision: str) -> Fabric:
    # Imported here: it takes seconds, and whoever only predicts never needs it.
    from lightning_fabric import Fabric

    devices: Any = [device.index] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, precision=precision)  # type: ignore[arg-type]


@contextmanager
def _own_global_generator(device: torch.device, generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global generators (dropout in a user's backbone), then put them back."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    forked = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def _global_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_global_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _describe(record: Record, n_epochs: int) -> str:
    scalars = ", ".join(
        f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, float)
    )
    return f"{record['phase']} {record['epoch'] + 1}/{n_epochs}: {scalars}"
