"""Settings of the whole process that a call needs otherwise for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class SharedSetting:
    """A setting of the process that several calls at a time want alike.

    The first of them sets it and the last puts it back: each for itself would take the setting of
    another for the user's.

    Parameters
    ----------
    get, set : callable
        Read and change the setting.
    suits : callable
        Whether it need not be changed for a value, as long as nobody has changed it.
    """

    def __init__(
        self,
        get: Callable[[], Any],
        set: Callable[[Any], object],
        suits: Callable[[Any], bool],
    ) -> None:
        self._get = get
        self._set = set
        self._suits = suits
        self._lock = threading.Lock()
        self._n_users = 0

    @contextmanager
    def __call__(self, value: Any) -> Iterator[None]:
        """Have this value for a while."""
        with self._lock:
            joins = self._n_users > 0 or not self._suits(value)
            if joins:
                if self._n_users == 0:
                    self._found = self._get()
                    self._set(value)
                self._n_users += 1
        try:
            yield
        finally:
            if joins:
                with self._lock:
                    self._n_users -= 1
                    if self._n_users == 0:
                        self._set(self._found)


@contextmanager
def full_digits() -> Iterator[None]:
    """Let products of float32 keep all digits, whatever the user allows; also a decorator.

    :func:`torch.set_float32_matmul_precision` and the TF32 flags are the user's, and networks train
    by them. But distances are differences of large numbers: with ten bits, as TF32 has, neighbours
    and clusters are others. The flags belong to the process, so that what other threads multiply
    meanwhile keeps its digits, too.
    """
    with _precisions(EXACT):
        yield


EXACT = "ieee"


def _switches() -> list[Any]:
    """Return torch's switches for matrix products, on CPUs and on CUDA."""
    mkldnn: Any = torch.backends.mkldnn  # whose type does not know what it has
    return [mkldnn.matmul, torch.backends.cuda.matmul]


if hasattr(torch.backends, "fp32_precision"):

    def _get_precisions() -> list[str]:
        # What equals the setting of all backends was taken from there, as far as anyone can tell.
        backends: Any = torch.backends  # whose type does not know it
        general = backends.fp32_precision
        found = [switch.fp32_precision for switch in _switches()]
        return ["none" if precision == general else precision for precision in found]

    def _set_precisions(wanted: str | list[str]) -> None:
        for number, switch in enumerate(_switches()):
            switch.fp32_precision = wanted if isinstance(wanted, str) else wanted[number]

    def _are_exact(_: str) -> bool:
        return all(switch.fp32_precision in (EXACT, "none") for switch in _switches())

    _precisions = SharedSetting(_get_precisions, _set_precisions, _are_exact)

else:  # torch before 2.9

    def _set_precision(wanted: str) -> None:
        torch.set_float32_matmul_precision("highest" if wanted == EXACT else wanted)

    _precisions = SharedSetting(
        torch.get_float32_matmul_precision,
        _set_precision,
        lambda _: torch.get_float32_matmul_precision() == "highest",
    )
