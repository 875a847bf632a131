"""What the training loop calls before and after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class EpochHook(Protocol):
    """What to tell others before and after each epoch."""

    def begin(self, epoch: int) -> None:
        """Announce an epoch."""

    def end(self, epoch: int) -> bool:
        """Report a finished epoch; return True to stop the phase."""
        ...


class SilentHook:
    """An :class:`EpochHook` that tells nobody."""

    def begin(self, epoch: int) -> None:
        """Do nothing."""

    def end(self, epoch: int) -> bool:
        """Go on."""
        return False


class PeriodicHook:
    """A hook that does something before some of the epochs, evenly spread.

    Parameters
    ----------
    hook : EpochHook
        The one to be told about every epoch.
    epochs : int
        How many there will be.
    times : int
        Before how many of them to act, the first among them; all if there are not as many.
    act : callable
        Called without arguments.
    """

    def __init__(self, hook: EpochHook, epochs: int, times: int, act: Callable[[], None]) -> None:
        self.hook = hook
        self.epochs = epochs
        self.times = min(times, epochs)
        self.act = act

    def begin(self, epoch: int) -> None:
        """Announce the epoch, and act if it is time."""
        self.hook.begin(epoch)
        if epoch * self.times % self.epochs < self.times:
            self.act()

    def end(self, epoch: int) -> bool:
        """Pass on that the epoch is over."""
        return self.hook.end(epoch)
