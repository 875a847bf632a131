"""What the processes of a fit have to agree on; one alone agrees with itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, distributed

from skdeepcluster.training._processes import Processes


class Agreement:
    """Asks all processes of a fit.

    Parameters
    ----------
    processes : Processes
    device : torch.device
        Where this process computes: what is exchanged has to lie there.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self.processes = processes
        self.device = device

    @property
    def needed(self) -> bool:
        """Whether there is more than one process."""
        return self.processes.count > 1

    def require_same(self, fingerprint: dict[str, str]) -> None:
        """Raise ValueError, in all processes, if they were not all given the same."""
        if not self.needed:
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

    def first(self, values: Tensor) -> Tensor:
        """Return the first process's values, where each has computed them and may have rounded."""
        if self.needed:
            values = values.to(self.device).contiguous()
            distributed.broadcast(values, src=0)
        return values

    def any(self, *said: bool) -> list[bool]:
        """Return, for each thing, whether any of the processes has said it."""
        if not self.needed:
            return list(said)
        votes = torch.tensor(said, dtype=torch.uint8, device=self.device)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]
