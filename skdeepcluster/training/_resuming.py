"""Where a fit goes on that was cut short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

State = dict[str, Any]


class Resumption:
    """What a checkpoint says about the phases of a fit.

    Parameters
    ----------
    phases : sequence of str
        Names of the phases in their order.
    state : dict or None
        The checkpoint to resume from, if there is one.

    Raises
    ------
    ValueError
        If it was written in a phase that this fit lacks.
    """

    def __init__(self, phases: Sequence[str], state: State | None) -> None:
        if state is not None and state["phase"] not in phases:
            raise ValueError(
                f"The checkpoint was written in the {state['phase']}, which is no "
                f"phase of this fit ({', '.join(phases)}). Use another checkpoint_dir."
            )
        self.phases = list(phases)
        self.state = state

    def has_reached(self, name: str) -> bool:
        """Whether the checkpoint was written in this phase or a later one."""
        return self.state is not None and (
            self.phases.index(self.state["phase"]) >= self.phases.index(name)
        )

    def has_passed(self, name: str) -> bool:
        """Whether the checkpoint was written in a later phase."""
        return self.state_in(name) is None and self.has_reached(name)

    def state_in(self, name: str) -> State | None:
        """Return the checkpoint if it was written in this phase."""
        written_here = self.state is not None and self.state["phase"] == name
        return self.state if written_here else None
