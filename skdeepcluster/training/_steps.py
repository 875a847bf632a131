"""A phase under way: what happens in an epoch, and in a step."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skdeepcluster._warnings import warn
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.training._agreement import Agreement
from skdeepcluster.training._counters import counted_on_host
from skdeepcluster.training._phase import Phase
from skdeepcluster.training._prefetch import views_of
from skdeepcluster.training._processes import average_gradients, shared_batches
from skdeepcluster.training._progress import Progress
from skdeepcluster.training._randomness import draws_for, generator_for
from skdeepcluster.training._recovery import Pieces, is_about_memory, is_sound
from skdeepcluster.training._resuming import State

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Record = dict[str, Any]


class Steps:
    """Trains the objective of a phase, an epoch at a time.

    Parameters
    ----------
    phase : Phase
    fabric : Fabric
        Knows device and precision.
    seed : int
        Source of all randomness.
    agreement : Agreement
        With the other processes, if there are any.

    Attributes
    ----------
    pieces : Pieces
        In how many pieces batches are embedded; as long as it is entered.
    tried : bool
        Whether a step has been taken, so that the memory it needs could be had.
    """

    def __init__(self, phase: Phase, fabric: Fabric, seed: int, agreement: Agreement) -> None:
        self.phase = phase
        self.fabric = fabric
        self.seed = seed
        self.agreement = agreement
        self.n_skipped = 0
        self.tried = False
        self.generator = generator_for(seed, phase.name)
        self.draws = draws_for(seed, f"{phase.name} (layers)")
        self.pieces = Pieces(phase.objective, phase.plan.batch_size)
        # A fused SGD that is told by 16-mixed to skip its first step leaves its momentum unset.
        scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        self.bare_optimizer = phase.optimizer(phase.parameter_groups, fused=not scaled)
        for group in self.bare_optimizer.param_groups:
            group["base_lr"] = float(group["lr"])  # a checkpoint takes no numpy scalars
        # It may convert the parameters to a wider type.
        self.objective, self.optimizer = fabric.setup(phase.objective, self.bare_optimizer)

    def state(self) -> State:
        """Return what a checkpoint has to hold to go on from here."""
        return {
            "objective": self.phase.objective.state_dict(),
            "optimizer": self.bare_optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the scale of 16-mixed
            "generator": self.generator.get_state(),
            "draws": self.draws.state(),
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.phase.objective.load_state_dict(state["objective"])
        self.bare_optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.generator.set_state(state["generator"])
        self.draws.set_state(state["draws"])

    def trial_epoch(self, number: int, progress: Progress) -> Record:
        """Go through an epoch as often as it takes to find out how a batch fits into memory.

        Raises
        ------
        MemoryError, DivergenceError
            See :meth:`epoch`.
        """
        begin = copy.deepcopy(self.state())
        while True:
            try:
                return self.epoch(number, progress)
            except MemoryError:
                # What one process does alone, the others would wait for.
                if self.agreement.needed or not self.pieces.double():
                    raise
            # Here, where no error holds any more what had been computed.
            if self.fabric.device.type == "cuda":
                torch.cuda.empty_cache()
            self.load_state(copy.deepcopy(begin))
            self.n_skipped = 0
            warn(
                f"The {self.phase.name} does not fit into the memory of {self.fabric.device} with "
                f"batch_size={self.pieces.batch_size}: each batch is embedded in "
                f"{self.pieces.count} pieces, twice. Batch normalisation sees the pieces; the loss "
                "is that of the whole. A lower batch_size is faster."
            )

    def epoch(self, number: int, progress: Progress) -> Record:
        """Visit all samples in a new order, and return what the history says of it.

        Raises
        ------
        MemoryError
            If a batch does not fit into memory.
        DivergenceError
            If the loss or a parameter is not finite afterwards.
        """
        phase, (epochs, batch_size, _) = self.phase, self.phase.plan
        order = torch.randperm(phase.n_samples, generator=self.generator)
        n_batches = phase.n_samples // batch_size
        batches = torch.split(order[: n_batches * batch_size], batch_size)
        items = functools.partial(draws_for, self.seed, f"{phase.name} (items of epoch {number})")
        totals: dict[str, Tensor] = {}
        counters = counted_on_host(phase.objective)
        with self._shared_batches(batch_size), self._explained_memory(), counters:
            made = views_of(batches, phase.views, self.generator, items, self.fabric.device)
            for step, views in enumerate(made):
                self._set_rates((number + step / n_batches) / epochs)
                scalars = self._step(views)
                for name, value in scalars.items():
                    totals[name] = totals.get(name, 0.0) + value.detach().float()
                progress.step(scalars["loss"].detach())
        means = {name: (total / n_batches).item() for name, total in totals.items()}
        self._require_sound(number, means["loss"], views)
        return {
            "phase": phase.name,
            "epoch": number,
            "n_epochs": epochs,
            "batch_size": batch_size,
            **means,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def take_skipped(self) -> int:
        """Return how many batches were skipped since this was last asked."""
        n_skipped, self.n_skipped = self.n_skipped, 0
        return n_skipped

    def _step(self, views: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Take one step down the gradient of a batch, and return its loss and scalars."""
        with self.draws.where_needed(self.phase.objective):
            loss, scalars = self.objective(*views)
        # Reading the scalar waits for an accelerator, so only objectives that can reject a whole
        # batch report it.
        if "skipped" in scalars and self.agreement.any(bool(scalars["skipped"]))[0]:
            self.n_skipped += 1
        else:
            self.optimizer.zero_grad()
            with self.draws.none_expected():
                self.fabric.backward(loss)
            if self.agreement.needed:
                average_gradients(p for g in self.optimizer.param_groups for p in g["params"])
            self.optimizer.step()
            self.tried = True
        return {"loss": loss, **scalars}

    def _set_rates(self, progress: float) -> None:
        """Set the learning rates to what the schedules say of this share of the phase."""
        groups, schedules = self.optimizer.param_groups, self.phase.schedule
        if callable(schedules):
            schedules = [schedules] * len(groups)
        for group, schedule in zip(groups, schedules, strict=True):
            group["lr"] = group["base_lr"] * schedule(progress)

    def _require_sound(self, number: int, loss: float, views: Sequence[Tensor]) -> None:
        """Raise DivergenceError if the loss or a parameter is not finite."""
        # The last step can spoil the network without a trace in the losses before it.
        with self.draws:  # some losses draw
            finite = math.isfinite(loss) and is_sound(self.phase.objective, self.optimizer, views)
        if self.agreement.any(not finite)[0]:
            raise DivergenceError(
                f"Epoch {number + 1} of the {self.phase.name} ended with a loss of {loss:.4g} "
                "and parameters or losses that are not finite. The network was restored to the "
                f"last state known to be good. Lower {self.phase.rates}, or look for extreme "
                "values in X."
            )

    def _shared_batches(self, batch_size: int) -> AbstractContextManager[None]:
        """Share the work on batches, if that is possible."""
        share = self.agreement.needed and batch_size % self.agreement.processes.count == 0
        return shared_batches() if share else nullcontext()

    @contextmanager
    def _explained_memory(self) -> Iterator[None]:
        """Say what to do when memory has run out."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_about_memory(error):
                raise
            raise MemoryError(
                f"The {self.phase.name} does not fit into the memory of {self.fabric.device}. "
                f"Lower its batch_size={self.pieces.batch_size}. {error}"
            ) from error
