"""Copies from the host to a device."""

import torch
from torch import Tensor

# Bytes that go to CUDA along with the command to copy them. For more, from memory that is not
# pinned, the driver may let the host wait until the device has done all that it was asked for.
SENT_ALONG = 2**16


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, to CUDA without making the host wait.

    On MPS the host has to wait: until the copy is made nobody keeps what is copied from being
    overwritten (torch's issue 189690).

    Parameters
    ----------
    tensor : Tensor
    device : torch.device

    Returns
    -------
    there : Tensor
        The tensor itself, if it is there.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor.pin_memory() if tensor.nbytes > SENT_ALONG else tensor
    return pinned.to(device, non_blocking=True)
