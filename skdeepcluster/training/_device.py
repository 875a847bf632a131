"""Where and how precisely to compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve ``"auto"`` to the best device there is: CUDA, else MPS, else the CPU.

    Raises
    ------
    ValueError
        If the device named is not one that torch knows, or is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device={device!r} cannot be used here: {str(error).splitlines()[0]} "
            "Use device='auto' or 'cpu'."
        ) from error
    if resolved.type == "meta":
        raise ValueError("device='meta' holds no data. Use device='auto' or 'cpu'.")
    if str(resolved) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return resolved


def choose_precision(precision: str, device: torch.device, *, images: bool) -> str:
    """Resolve ``"auto"``: bfloat16 autocast for images on CUDA devices that have it, else float32.

    The networks for feature arrays are too small to gain from it.
    """
    if precision != "auto":
        return precision
    gains = images and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if gains else "32-true"


@contextmanager
def intra_op_threads(n_threads: int) -> Iterator[None]:
    """Use this many CPU threads inside an operation, then restore the number there was."""
    previous = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
