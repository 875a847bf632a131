"""How many CPU threads compute, inside torch and beside it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from skdeepcluster.numerics import SharedSetting

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class IntraOpThreads:
    """Contexts in which operations of this thread use a number of CPU threads, and no others do.

    torch keeps the number for each thread, but a new one begins with what any has set last: a
    thread of the user's own, or the next fit beside this one, would compute with our number for as
    long as it lives. So a passing thread puts back what new ones begin with.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._for_new_threads = 0

    @contextmanager
    def __call__(self, n_threads: int) -> Iterator[None]:
        """Use this many threads inside an operation, then as many as before."""
        with self._lock:
            previous = torch.get_num_threads()  # asking makes it this thread's own
            if self._n_users == 0:
                self._for_new_threads = previous
            self._n_users += 1
            self._set(n_threads)
        try:
            yield
        finally:
            with self._lock:
                self._set(previous)
                self._n_users -= 1

    def count(self) -> int:
        """Return how many this thread uses."""
        with self._lock:  # a new thread is not to begin while another's number is being set
            return torch.get_num_threads()

    def set_here(self, n_threads: int) -> None:
        """Use this many in a thread that ends before the contexts around it do."""
        with self._lock:
            self._set(n_threads)

    def _set(self, n_threads: int) -> None:
        if torch.get_num_threads() == n_threads:
            return
        torch.set_num_threads(n_threads)
        passing = threading.Thread(target=torch.set_num_threads, args=(self._for_new_threads,))
        passing.start()
        passing.join()


intra_op_threads = IntraOpThreads()


@contextmanager
def threads_beside_torch(n_threads: int) -> Iterator[None]:
    """Hold the pools of BLAS libraries and other OpenMP runtimes to this number, then let go.

    Threads of theirs that wait for work take the cores from torch's.
    """
    with _blas_threads(n_threads), _pools("openmp").limit(limits=n_threads):
        yield


@functools.cache  # to look through all libraries takes milliseconds, and few come later
def _pools(user_api: str) -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api=user_api)


def _find_blas_threads() -> list[tuple[Any, int]]:
    return [(library, library.num_threads) for library in _pools("blas").lib_controllers]


def _set_blas_threads(wanted: int | list[tuple[Any, int]]) -> None:
    """Set all libraries to at most a number, or each to its own."""
    if isinstance(wanted, int):
        wanted = [(library, min(found, wanted)) for library, found in _find_blas_threads()]
    for library, n_threads in wanted:
        library.set_num_threads(n_threads)


_blas_threads = SharedSetting(
    _find_blas_threads,
    _set_blas_threads,
    lambda wanted: all(found <= wanted for _, found in _find_blas_threads()),
)
