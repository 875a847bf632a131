"""Tell scikit-learn's callbacks what happens during a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.callback import CallbackContext

from skdeepcluster.exceptions import DivergenceError

# Builds what a copy of the estimator needs to predict, as if fit had stopped now.
Attributes = Callable[[], dict[str, Any]]


class CallbackReport:
    """The tree of tasks of one fit: phases, and epochs below them.

    Parameters
    ----------
    estimator : object
        The estimator being fitted; has scikit-learn's ``CallbackSupportMixin``.
    X, y : object
        What the user passed to ``fit``; handed through to the callbacks and nowhere else.
    n_phases : int
        Number of phases to come.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, n_phases: int) -> None:
        self.estimator = estimator
        self.data = {"X": X, "y": y}
        self.root = estimator._init_callback_context(max_subtasks=n_phases)
        self.root.call_on_fit_task_begin(estimator=estimator, **self.data)

    @contextmanager
    def phase(
        self, name: str, n_epochs: int, attributes: Attributes | None = None
    ) -> Iterator[EpochReport]:
        """Announce a phase, give the hook for its epochs, and report its end, also a failed one's.

        Without ``attributes`` there is nothing to predict with yet, and callbacks are told so.
        """
        context = self.root.subcontext(name, max_subtasks=n_epochs)
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        try:
            yield EpochReport(self, context, attributes)
        except (DivergenceError, MemoryError):  # after which some fits go on
            context.call_on_fit_task_end(estimator=self.estimator, **self.data)
            raise
        context.call_on_fit_task_end(estimator=self.estimator, **self.data)

    def finish(self, attributes: Attributes) -> None:
        """Report the end of the fit."""
        self.root.call_on_fit_task_end(
            estimator=self.estimator, **self.data, reconstruction_attributes=attributes
        )


class EpochReport:
    """One phase of a :class:`CallbackReport`, as the training loop's hook."""

    def __init__(
        self, report: CallbackReport, context: CallbackContext, attributes: Attributes | None
    ) -> None:
        self.report = report
        self.context = context
        self.attributes = attributes

    def begin(self, epoch: int) -> None:
        """Announce an epoch."""
        self.epoch_context = self.context.subcontext("epoch")
        self.epoch_context.call_on_fit_task_begin(
            estimator=self.report.estimator, **self.report.data
        )

    def end(self, epoch: int) -> bool:
        """Report a finished epoch; a callback may ask to stop the phase."""
        return bool(
            self.epoch_context.call_on_fit_task_end(
                estimator=self.report.estimator,
                **self.report.data,
                reconstruction_attributes=self.attributes,
            )
        )
