"""The engine: Lightning Fabric, which knows devices, precisions and processes."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import torch

from skdeepcluster.training._processes import ONE_PROCESS, Processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_lock = threading.Lock()


def get_fabric(device: torch.device, precision: str, processes: Processes = ONE_PROCESS) -> Fabric:
    """Return an engine: one for all fits, unless it has a state, as the scale of 16-mixed is.

    Parameters
    ----------
    device : torch.device
        Where this process computes.
    precision : str
        A precision of Lightning Fabric.
    processes : Processes, optional
        Those that fit together; they find each other here.
    """
    make = _make_fabric.__wrapped__ if precision == "16-mixed" else _make_fabric
    with _lock:  # the environment is everybody's
        return make(device, precision, processes)


@functools.cache  # making one looks through all packages that are installed
def _make_fabric(device: torch.device, precision: str, processes: Processes) -> Fabric:
    # Imported here: it takes seconds, and whoever only predicts never needs it. The import sets
    # environment variables (one of them makes every step ask the driver for devices).
    environment = dict(os.environ)
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision
    from lightning_fabric.strategies.ddp import DDPStrategy

    for name in os.environ.keys() - environment.keys():
        del os.environ[name]

    class Autocast(MixedPrecision):
        """Mixed precision that leaves it to the layers to round their input."""

        def convert_input(self, data: Any) -> Any:
            return data

    how: dict[str, Any] = {"precision": precision}
    if precision in ("16-mixed", "bf16-mixed"):
        # One of its literals, though mypy does not see it.
        how = {"plugins": [Autocast(precision, device.type)]}  # type: ignore[arg-type]
    if processes.count == 1:
        devices: Any = [device.index] if device.type == "cuda" else 1
        return Fabric(accelerator=device.type, devices=devices, **how)

    class Unwrapped(DDPStrategy):
        """The processes of DistributedDataParallel, with the exchange left to the loop."""

        def setup_module(self, module: Any) -> Any:
            return module

    fabric = Fabric(
        accelerator=device.type,
        devices=processes.devices,
        num_nodes=processes.num_nodes,
        strategy=Unwrapped() if processes.strategy == "auto" else DDPStrategy(),
        **how,
    )
    fabric.launch()
    return fabric
