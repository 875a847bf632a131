"""How wide a floating-point number may be."""

import torch

# Apple's; torch raises where it is asked for one there.
WITHOUT_DOUBLES = {"mps"}


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return the most precise type for long sums that a device has."""
    return torch.float32 if device.type in WITHOUT_DOUBLES else torch.float64
