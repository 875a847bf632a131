"""The one training loop. It knows phases and checkpoints, and no method."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from skdeepcluster._warnings import warn
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training._agreement import Agreement
from skdeepcluster.training._checkpoint import CheckpointFolder
from skdeepcluster.training._engine import get_fabric
from skdeepcluster.training._interrupt import graceful_interrupt
from skdeepcluster.training._phase import Phase, Plan
from skdeepcluster.training._processes import ONE_PROCESS, Processes
from skdeepcluster.training._progress import Progress
from skdeepcluster.training._randomness import draws_for, generator_for
from skdeepcluster.training._recovery import copy_state
from skdeepcluster.training._resuming import Resumption
from skdeepcluster.training._steps import Record, Steps

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
        self._computed: dict[str, Tensor] = {}
        self._agreement = Agreement(processes, device)
        state = checkpoint.load() if checkpoint and self._is_first else None
        if self._agreement.needed:
            self.seed, state = self._fabric.broadcast((self.seed, state))
        self._resumption = Resumption(self.phases, state)
        if state:
            self.seed = state["seed"]
            self.history = state["history"]
            self.n_skipped_steps = state["n_skipped_steps"]

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return what a function returned when it was first asked for under this name."""
        if name not in self._computed:
            self._computed[name] = compute()
        return self._computed[name]

    def aside(
        self, phases: Sequence[str], *, precision: str | None = None, verbose: int = 0
    ) -> Trainer:
        """Return a trainer for what is learned beside these phases: without checkpoints.

        From the same seed, and if nothing else is said in the same precision.
        """
        return Trainer(
            phases,
            device=self.device,
            precision=precision or self.precision,
            seed=self.seed,
            processes=self.processes,
            verbose=verbose,
        )

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator of its own for each purpose, the same after a resume."""
        return generator_for(self.seed, purpose)

    def draws(self, purpose: str) -> OwnDraws:
        """Return a context in which layers draw from this seed, not from torch's global state."""
        return draws_for(self.seed, purpose)

    def require_same(self, fingerprint: dict[str, str]) -> None:
        """Raise ValueError, in all processes, if they were not all given the same."""
        self._agreement.require_same(fingerprint)

    def agreed(self, values: Tensor) -> Tensor:
        """Return the first process's values, where each has computed them and may have rounded."""
        return self._agreement.first(values)

    def say(self, line: str) -> None:
        """Print a line, if anything is to be printed here."""
        if self.verbose > 0 and self._is_first:
            print(line, flush=True)

    def has_reached(self, name: str) -> bool:
        """Whether the checkpoint to resume from was written in this phase or a later one."""
        return self._resumption.has_reached(name)

    def has_passed(self, name: str) -> bool:
        """Whether the checkpoint to resume from was written in a later phase."""
        return self._resumption.has_passed(name)

    def restore(self, name: str, objective: nn.Module) -> None:
        """Load the objective's state if the checkpoint to resume from was written in this phase.

        :meth:`run` does it too; this is for what has to be computed from the objective before.
        """
        state = self._resumption.state_in(name)
        if state is not None:
            objective.load_state_dict(state["objective"])

    def run(self, phase: Phase) -> None:
        """Train until the epochs are over, the hook says stop or the user interrupts.

        Raises
        ------
        MemoryError
            If a batch does not fit into memory, not in pieces either.
        DivergenceError
            If the loss of an epoch or a parameter is not finite; the objective is then in the last
            good state.
        """
        self._runs[phase.name] += 1
        self.plans[phase.name] = phase.plan
        try:
            if not self.interrupted and not self.has_passed(phase.name):
                self._run(phase)
        finally:
            phase.objective.eval()

    def _run(self, phase: Phase) -> None:
        """Go through the epochs of a phase."""
        phase.objective.to(self.device)
        steps = Steps(phase, self._fabric, self.seed, self._agreement)
        first = self._resume(phase, steps)
        progress = Progress(phase, self.verbose if self._is_first else 0, first)
        good_state = copy_state(phase.objective)
        with (
            graceful_interrupt() as stop,
            _only_trained(phase.objective, steps.optimizer.param_groups),
            steps.pieces,
        ):
            for epoch in range(first, phase.epochs):
                started = time.perf_counter()
                with steps.draws:  # it may make something new to train on
                    phase.hook.begin(epoch)
                # Whatever was computed with a part of it since the last epoch, or before the first,
                # may have left that part in evaluation mode, and no flag of the whole tells.
                steps.objective.train()
                _announce_epoch(phase.objective, epoch / phase.epochs)
                state = copy_state(phase.objective)
                go_through = steps.epoch if steps.tried else steps.trial_epoch
                try:
                    record = go_through(epoch, progress)
                except DivergenceError:
                    phase.objective.load_state_dict(good_state)
                    raise
                finally:
                    self.n_skipped_steps += steps.take_skipped()
                # Only an epoch without trouble shows that the state it began with was good.
                good_state = state
                record["seconds"] = time.perf_counter() - started
                self.history.append(record)
                progress.epoch(record)
                told, asked = self._agreement.any(phase.hook.end(epoch), stop.requested)
                finished = told or epoch + 1 == phase.epochs
                self._save(phase, steps, int(phase.epochs) if finished else epoch + 1)
                if asked and not (finished and self._is_last(phase)):
                    self._interrupt(phase, epoch)
                if finished or self.interrupted:
                    progress.end(record)
                    break

    def _resume(self, phase: Phase, steps: Steps) -> int:
        """Take up the state of a checkpoint, if it is of this phase, and return the next epoch."""
        state = self._resumption.state_in(phase.name)
        if state is not None:
            steps.load_state(state)
        if self._agreement.needed:
            for tensor in phase.objective.state_dict().values():
                tensor.copy_(self.agreed(tensor))
        return 0 if state is None else int(state["next_epoch"])

    def _save(self, phase: Phase, steps: Steps, next_epoch: int) -> None:
        if self.checkpoint is None or not phase.resumable or not self._is_first:
            return
        self.checkpoint.save(
            {
                **steps.state(),
                "phase": phase.name,
                "next_epoch": next_epoch,
                "seed": self.seed,
                "history": self.history,
                "n_skipped_steps": self.n_skipped_steps,
            }
        )

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

    @functools.cached_property
    def _fabric(self) -> Fabric:
        return get_fabric(self.device, self.precision, self.processes)

    @property
    def _is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return not self._agreement.needed or self._fabric.is_global_zero


@contextmanager
def _only_trained(objective: nn.Module, groups: list[dict[str, Any]]) -> Iterator[None]:
    """Let nothing but the parameters of the groups ask for gradients, then put that back."""
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    others = [p for p in objective.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _announce_epoch(objective: Any, progress: float) -> None:
    if hasattr(objective, "begin_epoch"):
        objective.begin_epoch(progress)
