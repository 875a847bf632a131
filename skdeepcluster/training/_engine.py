"""The engine: Lightning Fabric, which knows devices, precisions and processes."""

from __future__ import annotations

import atexit
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

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
    with _lock, _kept_environment():
        return make(device, precision, processes)


@functools.cache  # making one looks through all packages that are installed
def _make_fabric(device: torch.device, precision: str, processes: Processes) -> Fabric:
    # Imported here: it takes seconds, and whoever only predicts never needs it.
    from lightning_fabric import Fabric
    from lightning_fabric.accelerators.cuda import CUDAAccelerator
    from lightning_fabric.plugins import MixedPrecision
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    class Autocast(MixedPrecision):
        """Mixed precision that leaves it to the layers to round their input."""

        def convert_input(self, data: Any) -> Any:
            return data

    class NamedDevice(CUDAAccelerator):
        """A device of CUDA that every tensor names; the current one, which is everybody's, stays.

        A process that was started for the fit is nobody else's, and NCCL uses its current device.
        There is no advice on torch's global precision, which k-means would suffer from, nor a look
        at it, which fails if the user has set it in the newer of two ways.
        """

        def setup_device(self, device: torch.device) -> None:
            if processes.count > 1:
                torch.cuda.set_device(device)

    class Unwrapped(DDPStrategy):
        """The processes of DistributedDataParallel, with the exchange left to the loop."""

        def setup_module(self, module: Any) -> Any:
            return module

    accelerator = NamedDevice() if device.type == "cuda" else device.type
    how: dict[str, Any] = {"precision": precision, "accelerator": accelerator, "plugins": []}
    if precision in ("16-mixed", "bf16-mixed"):
        autocast = Autocast(precision, device.type)  # type: ignore[arg-type]  # one of its literals
        how |= {"precision": None, "plugins": [autocast]}
    if processes.count == 1:
        # Not what Fabric would find: in a job of SLURM it takes every process for one of several.
        how["plugins"].append(LightningEnvironment())
        return Fabric(devices=[device.index] if device.type == "cuda" else 1, **how)
    launchers = {"torchrun": TorchElasticEnvironment, "slurm": SLURMEnvironment}
    how["plugins"].append(launchers[processes.launcher]())
    fabric = Fabric(
        devices=processes.devices, num_nodes=processes.num_nodes, strategy=Unwrapped(), **how
    )
    fabric.launch()
    atexit.register(_part)
    return fabric


def _part() -> None:
    """Leave the other processes, which Fabric does with NCCL alone.

    A thread of gloo that lets go of its last tensor while the interpreter ends would abort it.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Leave the environment, which is everybody's, as it was.

    The import of Fabric sets variables, one of which makes every step ask the driver for devices;
    so does the meeting of processes.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
