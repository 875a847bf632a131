"""What there is to train: a phase, and how long and fast it was planned to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skdeepcluster.training._hooks import EpochHook
from skdeepcluster.training._schedules import Schedule, constant

Views = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]


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
    resumable : bool
        Whether to write checkpoints. A short phase without them is done again after a resume.
    rates : str
        The parameters of the estimator that the learning rates come from, for error messages.
    """

    name: str
    objective: nn.Module
    views: Views
    n_samples: int
    batch_size: int
    epochs: int
    parameter_groups: list[dict[str, Any]]
    optimizer: Callable[..., torch.optim.Optimizer]
    hook: EpochHook
    schedule: Schedule | Sequence[Schedule] = constant
    resumable: bool = True
    rates: str = "learning_rate"

    @property
    def plan(self) -> Plan:
        """How long and how fast the phase trains."""
        rate = float(self.parameter_groups[0]["lr"])
        return Plan(int(self.epochs), int(min(self.batch_size, self.n_samples)), rate)


class Plan(NamedTuple):
    """How long and how fast a phase trains."""

    epochs: int
    batch_size: int
    learning_rate: float
