"""Where and how precisely to compute."""

from collections.abc import Sequence

import torch

# Before this, on MPS some operations are missing, and batch normalisation of images has wrong
# gradients (torch's issue 175189).
MPS_SINCE = "2.14"


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
        has_mps = torch.backends.mps.is_available() and torch.__version__ >= MPS_SINCE
        return torch.device("mps" if has_mps else "cpu")
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


# Below this side in pixels, products of bfloat16 on a CPU take longer than those of float32.
CPU_BFLOAT16_SIDE = 16


def choose_precision(precision: str, device: torch.device, sample_shape: Sequence[int]) -> str:
    """Resolve ``"auto"``: bfloat16 autocast for images where it is fast, else float32.

    The networks for feature arrays are too small to gain from it.
    """
    if precision != "auto":
        return precision
    images = len(sample_shape) == 3
    return "bf16-mixed" if images and _has_fast_bfloat16(device, sample_shape) else "32-true"


def _has_fast_bfloat16(device: torch.device, image_shape: Sequence[int]) -> bool:
    """Whether the device multiplies matrices of bfloat16 in hardware (on a CPU: AMX)."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # older versions of torch do not tell
    large = max(image_shape[1:]) >= CPU_BFLOAT16_SIDE
    return large and bool(torch.cpu.get_capabilities().get("amx_bf16"))
