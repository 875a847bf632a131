"""The one training loop. It knows epochs, devices and checkpoints, and no method."""

from __future__ import annotations

import functools
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, distributed, nn

from skdeepcluster._warnings import warn
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training._engine import get_fabric
from skdeepcluster.training._hooks import EpochHook
from skdeepcluster.training._interrupt import graceful_interrupt
from skdeepcluster.training._processes import (
    ONE_PROCESS,
    Processes,
    average_gradients,
    shared_batches,
)
from skdeepcluster.training._progress import Progress
from skdeepcluster.training._schedules import Schedule, constant
from skdeepcluster.training._threads import intra_op_threads

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from skdeepcluster.training._checkpoint import CheckpointFolder

Record = dict[str, Any]
# Seeds of a trainer are drawn below this.
MAX_SEED = 2**31 - 1
# No parameter of a network that learns something comes near it.
LARGE_PARAMETER = 1e3


@dataclass
class Phase:
    """One stretch of training with one objective.

    Attributes
    ----------
    name : str
        Names the phase in the history, the checkpoints and the callbacks.
    objective : nn.Module
        ``objective(*views)`` returns the loss and a dict of scalars for the history. A scalar
        named ``"skipped"`` that is nonzero asks to leave the parameters as they are. Its
        ``begin_epoch(progress)``, if it has one, is called before each epoch with the share of the
        epochs that are over.
    views : callable
        ``views(index, generator)`` returns the tensors for the objective, on the device. If its
        ``resident`` is false, a thread makes the next ones while a batch is trained on.
    n_samples, batch_size, epochs : int
        Every epoch visits all samples in a new order, in equal batches; a remainder smaller than
        a batch is left to the next epochs.
    parameter_groups : list of dict
        As for a torch optimiser, each with its ``lr``; the first one's goes into the history.
    optimizer : callable
        Builds the optimiser from the groups; has a ``fused`` implementation.
    schedule : callable or sequence of callable
        Factor of the learning rates as a function of the progress; one for all groups, or one for
        each.
    hook : EpochHook
        Told about every epoch.
    accumulate : int
        Batches whose gradients are averaged before a step, for batches that do not fit. What is
        left at the end of an epoch makes a smaller step.
    resumable : bool
        Whether to write checkpoints. A short phase without them is done again after a resume.
    rates : str
        The parameters of the estimator that the learning rates come from, for error messages.
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
    schedule: Schedule | Sequence[Schedule] = constant
    accumulate: int = 1
    resumable: bool = True
    rates: str = "learning_rate"


class Plan(NamedTuple):
    """How long and how fast a phase trains."""

    epochs: int
    batch_size: int
    learning_rate: float


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
    processes : Processes, optional
        Those that fit together. The first one's seed and checkpoint count, and it alone writes
        and prints.
    verbose : int, default=0
        Print one line for each phase, and from 2 on one for each epoch, too.

    Attributes
    ----------
    history : list of dict
        One record per epoch: phase, epoch, number of epochs and batch size planned, the objective's
        scalars, learning rate, seconds.
    plans : dict of str to Plan
        What was planned for each phase run so far, by its name.
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
        processes: Processes = ONE_PROCESS,
        verbose: int = 0,
    ) -> None:
        self.phases = list(phases)
        self.device = device
        self.precision = precision
        self.seed = seed
        self.checkpoint = checkpoint
        self.processes = processes
        self.verbose = verbose
        self.history: list[Record] = []
        self.n_skipped_steps = 0
        self.interrupted = False
        self.plans: dict[str, Plan] = {}
        self._runs: Counter[str] = Counter()
        self._resumed = checkpoint.load() if checkpoint and self._is_first else None
        if processes.count > 1:
            self.seed, self._resumed = self._fabric.broadcast((self.seed, self._resumed))
        if self._resumed:
            if self._resumed["phase"] not in self.phases:
                raise ValueError(
                    f"The checkpoint was written in the {self._resumed['phase']}, which is no "
                    f"phase of this fit ({', '.join(self.phases)}). Use another checkpoint_dir."
                )
            self.seed = self._resumed["seed"]
            self.history = self._resumed["history"]
            self.n_skipped_steps = self._resumed["n_skipped_steps"]

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator of its own for each purpose, the same after a resume."""
        # Not hash(), which differs from process to process. The mixing is numpy's, because torch's
        # CPU generator looks at 32 bits of a seed only.
        entropy = np.random.SeedSequence([self.seed, zlib.crc32(purpose.encode())])
        return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))

    def draws(self, purpose: str) -> OwnDraws:
        """Return a context in which layers draw from this seed, not from torch's global state."""
        return OwnDraws(self.generator(purpose).initial_seed())

    def require_same(self, fingerprint: dict[str, str]) -> None:
        """Raise ValueError, in all processes, if they were not all given the same."""
        if self.processes.count == 1:
            return
        everywhere: list[Any] = [None] * self.processes.count
        distributed.all_gather_object(everywhere, fingerprint)
        items = set.union(*(set(found.items()) for found in everywhere))
        counts = Counter(name for name, _ in items)
        different = sorted(name for name, count in counts.items() if count > 1)
        if different:
            raise ValueError(
                f"The processes of this fit differ in: {', '.join(different)}. Give all of them "
                "the same X, in the same order, and the same parameters; seed what draws them."
            )

    def agreed(self, values: Tensor) -> Tensor:
        """Return the first process's values, where each has computed them and may have rounded."""
        if self.processes.count > 1:
            values = values.to(self.device).contiguous()
            distributed.broadcast(values, src=0)
        return values

    def say(self, line: str) -> None:
        """Print a line, if anything is to be printed here."""
        if self.verbose > 0 and self._is_first:
            print(line, flush=True)

    def has_reached(self, name: str) -> bool:
        """Whether the checkpoint to resume from was written in this phase or a later one."""
        return self._resumed is not None and (
            self.phases.index(self._resumed["phase"]) >= self.phases.index(name)
        )

    def has_passed(self, name: str) -> bool:
        """Whether the checkpoint to resume from was written in a later phase."""
        return self._resumed_in(name) is None and self.has_reached(name)

    def restore(self, name: str, objective: nn.Module) -> None:
        """Load the objective's state if the checkpoint to resume from was written in this phase.

        :meth:`run` does it too; this is for what has to be computed from the objective before.
        """
        state = self._resumed_in(name)
        if state is not None:
            objective.load_state_dict(state["objective"])

    def run(self, phase: Phase) -> None:
        """Train until the epochs are over, the hook says stop or the user interrupts.

        Raises
        ------
        DivergenceError
            If the loss of an epoch or a parameter is not finite; the objective is then in the last
            good state.
        """
        self._runs[phase.name] += 1
        rate = float(phase.parameter_groups[0]["lr"])
        batch_size = int(min(phase.batch_size, phase.n_samples))
        self.plans[phase.name] = Plan(int(phase.epochs), batch_size, rate)
        try:
            if not self.interrupted and not self.has_passed(phase.name):
                self._run(phase)
        finally:
            phase.objective.eval()

    def _run(self, phase: Phase) -> None:
        phase.objective.to(self.device)
        fabric = self._fabric
        generator = self.generator(phase.name)
        draws = self.draws(f"{phase.name} (layers)")
        optimizer = phase.optimizer(phase.parameter_groups, fused=True)
        for group in optimizer.param_groups:
            group["base_lr"] = float(group["lr"])  # a checkpoint takes no numpy scalars
        with (
            _only_trained(phase.objective, phase.parameter_groups),
            graceful_interrupt() as stop,
        ):
            # First, because it may convert the parameters to a wider type.
            objective, wrapped = fabric.setup(phase.objective, optimizer)
            first_epoch = self._restore(phase, fabric, optimizer, generator, draws)
            if self.processes.count > 1:
                for tensor in phase.objective.state_dict().values():
                    tensor.copy_(self.agreed(tensor))
            verbose = self.verbose if self._is_first else 0
            progress = Progress(phase, self.plans[phase.name], verbose, first_epoch)
            good_state = _copy_state(phase.objective)
            for epoch in range(first_epoch, phase.epochs):
                started = time.perf_counter()
                with draws:  # it may make something new to train on
                    phase.hook.begin(epoch)
                # Whatever was computed with a part of it since the last epoch, or before the first,
                # may have left that part in evaluation mode, and no flag of the whole tells.
                objective.train()
                _announce_epoch(phase.objective, epoch / phase.epochs)
                state = _copy_state(phase.objective)
                try:
                    with self._shared_batches(phase):
                        record = self._epoch(
                            fabric, phase, objective, wrapped, generator, draws, epoch, progress
                        )
                except DivergenceError:
                    phase.objective.load_state_dict(good_state)
                    raise
                except (MemoryError, RuntimeError) as error:
                    if not _is_about_memory(error):
                        raise
                    raise MemoryError(
                        f"The {phase.name} does not fit into the memory of {self.device}. Lower "
                        f"its batch_size={phase.batch_size}: half of it with accumulate="
                        f"{2 * phase.accumulate} takes as many samples per step. {error}"
                    ) from error
                # Only an epoch without trouble shows that the state it began with was good.
                good_state = state
                record["seconds"] = time.perf_counter() - started
                self.history.append(record)
                progress.epoch(record)
                told_to_stop, asked_to_stop = self._any(phase.hook.end(epoch), stop.requested)
                finished = told_to_stop or epoch + 1 == phase.epochs
                self._save(phase, fabric, optimizer, generator, draws, epoch, finished)
                if asked_to_stop and not (finished and self._is_last(phase)):
                    self._interrupt(phase, epoch)
                if finished or self.interrupted:
                    progress.end(record)
                    break

    def _epoch(
        self,
        fabric: Fabric,
        phase: Phase,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        draws: OwnDraws,
        epoch: int,
        progress: Progress,
    ) -> Record:
        order = torch.randperm(phase.n_samples, generator=generator)
        batch_size = min(phase.batch_size, phase.n_samples)
        n_batches = phase.n_samples // batch_size
        batches = torch.split(order[: n_batches * batch_size], batch_size)
        totals: dict[str, Tensor] = {}
        schedules = phase.schedule
        if callable(schedules):
            schedules = [schedules] * len(optimizer.param_groups)
        n_gathered = 0
        items = functools.partial(self.draws, f"{phase.name} (items of epoch {epoch})")
        for step, views in enumerate(_views_of(batches, phase, generator, items)):
            share = (epoch + step / n_batches) / phase.epochs
            for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
                group["lr"] = group["base_lr"] * schedule(share)
            with draws.where_needed(phase.objective):
                loss, scalars = objective(*views)
            # Reading the scalar waits for an accelerator, so only objectives that can reject a
            # whole batch report it.
            if "skipped" in scalars and self._any(bool(scalars["skipped"]))[0]:
                self.n_skipped_steps += 1
            else:
                if n_gathered == 0:
                    optimizer.zero_grad()
                with draws.none_expected():
                    fabric.backward(loss / phase.accumulate)
                n_gathered += 1
            if n_gathered == phase.accumulate or (n_gathered and step + 1 == n_batches):
                if self.processes.count > 1 and self.processes.strategy == "auto":
                    average_gradients(p for g in optimizer.param_groups for p in g["params"])
                optimizer.step()
                n_gathered = 0
            for name, value in {"loss": loss, **scalars}.items():
                totals[name] = totals.get(name, 0.0) + value.detach().float()
            progress.step(loss.detach())
        means = {name: (total / n_batches).item() for name, total in totals.items()}
        # The last step can spoil the network without a trace in the losses before it.
        with draws:  # some losses draw
            finite = math.isfinite(means["loss"]) and _is_sound(phase.objective, optimizer, views)
        if self._any(not finite)[0]:
            raise DivergenceError(
                f"Epoch {epoch + 1} of the {phase.name} ended with a loss of {means['loss']:.4g} "
                "and parameters or losses that are not finite. The network was restored to the "
                f"last state known to be good. Lower {phase.rates}, or look for extreme values in "
                "X."
            )
        return {
            "phase": phase.name,
            "epoch": epoch,
            "n_epochs": int(phase.epochs),
            "batch_size": batch_size,
            **means,
            "learning_rate": optimizer.param_groups[0]["lr"],
        }

    @functools.cached_property
    def _fabric(self) -> Fabric:
        return get_fabric(self.device, self.precision, self.processes)

    @property
    def _is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.processes.count == 1 or self._fabric.is_global_zero

    def _shared_batches(self, phase: Phase) -> AbstractContextManager[None]:
        """Share the work on batches, if that is possible."""
        count = self.processes.count
        share = count > 1 and min(phase.batch_size, phase.n_samples) % count == 0
        return shared_batches() if share else nullcontext()

    def _any(self, *said: bool) -> list[bool]:
        """Return what any of the processes has said."""
        if self.processes.count == 1:
            return list(said)
        votes = torch.tensor(said, dtype=torch.uint8, device=self.device)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def _is_last(self, phase: Phase) -> bool:
        """Whether no phase follows; several of them may have the same name."""
        name = self.phases[-1]
        return phase.name == name and self._runs[name] == self.phases.count(name)

    def _interrupt(self, phase: Phase, epoch: int) -> None:
        self.interrupted = True
        warn(
            f"Interrupted after epoch {epoch + 1} of {phase.epochs} of the {phase.name}; the model "
            "is usable as it is.",
            ConvergenceWarning,
        )

    def _save(
        self,
        phase: Phase,
        fabric: Fabric,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        draws: OwnDraws,
        epoch: int,
        finished: bool,
    ) -> None:
        if self.checkpoint is None or not phase.resumable or not self._is_first:
            return
        self.checkpoint.save(
            {
                "phase": phase.name,
                "next_epoch": int(phase.epochs) if finished else epoch + 1,
                "objective": phase.objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),  # the scale of 16-mixed
                "generator": generator.get_state(),
                "draws": draws.state(),
                "seed": self.seed,
                "history": self.history,
                "n_skipped_steps": self.n_skipped_steps,
            }
        )

    def _restore(
        self,
        phase: Phase,
        fabric: Fabric,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        draws: OwnDraws,
    ) -> int:
        """Take up the state of the checkpoint, if it is of this phase, and return the epoch."""
        state = self._resumed_in(phase.name)
        if state is None:
            return 0
        phase.objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        generator.set_state(state["generator"])
        draws.set_state(state["draws"])
        return int(state["next_epoch"])

    def _resumed_in(self, name: str) -> dict[str, Any] | None:
        """Return the checkpoint to resume from if it was written in this phase."""
        written_here = self._resumed is not None and self._resumed["phase"] == name
        return self._resumed if written_here else None


@contextmanager
def _only_trained(objective: nn.Module, groups: list[dict[str, Any]]) -> Iterator[None]:
    """Let nothing but the parameters of the groups ask for gradients, then put that back.

    DistributedDataParallel waits for the gradients of all that ask for them.
    """
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    others = [p for p in objective.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _is_about_memory(error: Exception) -> bool:
    """Whether memory has run out; on a CPU torch has no type for that."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "DefaultCPUAllocator" in str(error)


def _views_of(
    batches: Sequence[Tensor],
    phase: Phase,
    generator: torch.Generator,
    make_draws: Callable[[], OwnDraws],
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the views of some batches, made one ahead where samples have to be waited for.

    The random numbers are drawn in the same order either way, and all of them by the end. What the
    items of a Dataset draw, in a thread of their own, comes from what ``make_draws`` returns.
    """
    if getattr(phase.views, "resident", True):
        for index in batches:
            yield phase.views(index, generator)
        return
    draws = make_draws()

    def make(index: Tensor) -> tuple[Tensor, ...]:
        with draws:
            return phase.views(index, generator)

    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        1, initializer=intra_op_threads.set_here, initargs=(n_threads,)
    ) as pool:
        coming = pool.submit(make, batches[0])
        for index in batches[1:]:
            views, coming = coming.result(), pool.submit(make, index)
            yield views
        yield coming.result()


def _announce_epoch(objective: Any, progress: float) -> None:
    if hasattr(objective, "begin_epoch"):
        objective.begin_epoch(progress)


def _copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _is_sound(
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
    state = _copy_state(objective)
    objective.eval()
    with torch.no_grad():
        loss, _ = objective(*views)
    objective.load_state_dict(state)
    return math.isfinite(loss.item())
