"""What a caller has set around a call is kept out of it, and is there again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from skdeepcluster.numerics import SharedSetting

AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute as at the start of a program, whatever torch and numpy have been told since.

    People embed under ``no_grad`` or ``autocast`` and cluster in the same cell. All that is turned
    off here is the calling thread's own, but for the default type of numbers: where it is not
    float32, other threads see float32, too, until the call is over.
    """
    with ExitStack() as stack:
        # It switches gradients on, too, however they were switched off.
        stack.enter_context(torch.inference_mode(False))
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_default_dtype(torch.float32))
        stack.enter_context(np.errstate(all="warn", under="ignore"))
        yield


_default_dtype = SharedSetting(
    torch.get_default_dtype,
    torch.set_default_dtype,
    lambda dtype: torch.get_default_dtype() == dtype,
)
