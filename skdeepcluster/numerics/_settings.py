"""Settings of the whole process that a call needs otherwise for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
    """

    def __init__(self, get: Callable[[], Any], set: Callable[[Any], object]) -> None:
        self._get = get
        self._set = set
        self._lock = threading.Lock()
        self._n_users = 0

    @property
    def in_use(self) -> bool:
        """Whether a call has set it, maybe in another thread."""
        return self._n_users > 0

    @contextmanager
    def __call__(self, value: Any) -> Iterator[None]:
        """Have this value for a while."""
        with self._lock:
            if self._n_users == 0:
                self._found = self._get()
                self._set(value)
            self._n_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if self._n_users == 0:
                    self._set(self._found)


@contextmanager
def full_digits() -> Iterator[None]:
    """Let products of float32 keep all digits, whatever the user allows; also a decorator.

    :func:`torch.set_float32_matmul_precision` and the TF32 flags are the user's, and networks train
    by them. But distances are differences of large numbers: with ten bits, as TF32 has, neighbours
    and clusters are others.
    """
    with _exact(True) if _rounding_is_allowed() else nullcontext():
        yield


def _rounding_is_allowed() -> bool:
    if _exact.in_use:  # by another thread, which will allow it again
        return True
    if not hasattr(torch.backends, "fp32_precision"):  # torch before 2.9
        return torch.get_float32_matmul_precision() != "highest"
    return any(backend.fp32_precision not in ("ieee", "none") for backend in _backends())


def _backends() -> list[Any]:
    """Return torch's switches for matrix products, on CPUs and on CUDA."""
    mkldnn: Any = torch.backends.mkldnn  # whose type does not know what it has
    return [mkldnn.matmul, torch.backends.cuda.matmul]


def _precisions() -> Any:
    if not hasattr(torch.backends, "fp32_precision"):
        return torch.get_float32_matmul_precision()
    # What equals the setting of all backends was taken from there, as far as anyone can tell.
    general = torch.backends.fp32_precision
    found = [backend.fp32_precision for backend in _backends()]
    return ["none" if precision == general else precision for precision in found]


def _set_precisions(wanted: Any) -> None:
    if not hasattr(torch.backends, "fp32_precision"):
        torch.set_float32_matmul_precision("highest" if wanted is True else wanted)
        return
    for number, backend in enumerate(_backends()):
        backend.fp32_precision = "ieee" if wanted is True else wanted[number]


_exact = SharedSetting(_precisions, _set_precisions)
