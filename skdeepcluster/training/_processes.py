"""Several processes that train one network: each embeds its share of every batch.

Every process goes through the same fit, with the same data and the same random numbers. What costs
time is shared: of each batch a process embeds every n-th sample and hears the embeddings of the
others. Losses, and all that is counted and remembered for them, are then computed of whole batches
by every process alike, and no method needs to know how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from threading import current_thread, main_thread
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from skdeepcluster.networks import EmbeddingNetwork

# Who has started the processes, and which variable says the number of one on its machine.
LOCAL_RANK = {"torchrun": "LOCAL_RANK", "slurm": "SLURM_LOCALID"}


@dataclass(frozen=True)
class Processes:
    """How many processes fit together, and who has started them.

    Attributes
    ----------
    devices : int
        Processes on each machine, each with a device of its own.
    num_nodes : int
        Number of machines.
    launcher : {"torchrun", "slurm"}
        Whose variables in the environment say how they find each other.
    """

    devices: int = 1
    num_nodes: int = 1
    launcher: str = "torchrun"

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.devices * self.num_nodes

    def own_device(self, device: torch.device) -> torch.device:
        """Return the device of this process: of several GPUs the one with its number."""
        if self.count == 1 or device.type != "cuda":
            return device
        return torch.device("cuda", int(os.environ[LOCAL_RANK[self.launcher]]))


ONE_PROCESS = Processes()


def started_processes() -> Processes:
    """Return the processes that torchrun, or srun of SLURM, has started with this one.

    Who starts several has said that they are to work together. A worker or a thread of a program
    that was started so works alone.

    Raises
    ------
    ValueError
        If there are not as many on each machine.
    """
    # A worker inherits the environment, and a thread the place in it, of who is in it already.
    alone = parent_process() is not None or current_thread() is not main_thread()
    if alone or not distributed.is_available():  # it is not in all builds of torch
        return ONE_PROCESS
    if distributed.is_torchelastic_launched():
        launcher, in_all = "torchrun", int(os.environ["WORLD_SIZE"])
        here = int(os.environ["LOCAL_WORLD_SIZE"])
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # srun sets it, and nothing else does
        launcher, in_all = "slurm", int(os.environ["SLURM_STEP_NUM_TASKS"])
        here = in_all // int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
    else:
        return ONE_PROCESS
    if here == 0 or in_all % here:
        raise ValueError(
            f"{launcher} has started {in_all} processes, and {here} of them here. Start as many on "
            "each machine."
        )
    return Processes(here, in_all // here, launcher)


@contextmanager
def explain_lost_processes(processes: Processes) -> Iterator[None]:
    """Say what it means that the other processes do not answer."""
    try:
        yield
    except RuntimeError as error:
        # gloo's errors have no type of their own, but name the file that they come from.
        if processes.count == 1 or not (
            isinstance(error, distributed.DistError) or "gloo/" in str(error)
        ):
            raise
        raise RuntimeError(
            "Another process of this fit has ended or cannot be reached; if it failed, its own "
            "error says why. With checkpoint_dir the same call goes on from the last epoch. "
            f"({error})"
        ) from error


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their means over all processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(mean)
    mean /= distributed.get_world_size()
    parts = torch.split(mean, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


@contextmanager
def shared_batches() -> Iterator[None]:
    """Let each process embed every n-th sample of a batch, and hear the embeddings of the others.

    Batches have to be divisible by the number of processes. What no network learns from, in
    evaluation mode, is embedded by all of them.
    """
    rank, count = distributed.get_rank(), distributed.get_world_size()
    statistics = ExitStack()

    def take_share(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not _learns(module):
            return inputs
        statistics.enter_context(_WholeBatchStatistics())  # heads have whole batches already
        # Every n-th, because a batch may consist of several views of the same samples.
        return (inputs[0][rank::count],)

    def hear_others(module: nn.Module, inputs: Any, output: Tensor | None) -> Tensor | None:
        if not _learns(module):
            return output
        statistics.close()
        if output is None:  # it has failed
            return None
        whole: Tensor = _Gather.apply(output)
        return whole

    # A hook may replace what it gets, though torch's annotations do not say so.
    hooks = [
        register_module_forward_pre_hook(take_share),  # type: ignore[arg-type]
        register_module_forward_hook(hear_others, always_call=True),  # type: ignore[arg-type]
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _learns(module: nn.Module) -> bool:
    return isinstance(module, EmbeddingNetwork) and module.training


class _Gather(torch.autograd.Function):
    """Rows of all processes, in the order of the batch of which each took every n-th."""

    @staticmethod
    def forward(context: Any, share: Tensor) -> Tensor:
        shares = [torch.empty_like(share) for _ in range(distributed.get_world_size())]
        distributed.all_gather(shares, share.contiguous())
        return torch.stack(shares, dim=1).flatten(0, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # Every process has the loss of the whole batch, and so the whole gradient of its rows. The
        # mean over processes that is taken of parameters' gradients would divide it.
        count = distributed.get_world_size()
        return gradient[distributed.get_rank() :: count] * count


class _Sum(torch.autograd.Function):
    """The sum over all processes."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class _WholeBatchStatistics(TorchFunctionMode):
    """Batch normalisation by the mean and variance over all processes.

    torch's own SyncBatchNorm does not run on CPUs, and replaces layers of known types only.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is batch_norm:
            return _synchronized_batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _synchronized_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do as :func:`torch.nn.functional.batch_norm` for equal shares of one batch."""
    if not training:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    count = distributed.get_world_size()
    axes = [axis for axis in range(x.ndim) if axis != 1]
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    own_var, own_mean = torch.var_mean(values, axes, correction=0)
    mean: Tensor = _Sum.apply(own_mean) / count
    # Not the mean of the squares, which cancels for values far from zero.
    var: Tensor = _Sum.apply(own_var + (own_mean - mean).square()) / count
    if running_mean is not None and running_var is not None:
        n = count * x.numel() / x.shape[1]
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        unbiased = var.detach() * (n / max(n - 1, 1))
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    channels = [-1] + [1] * (x.ndim - 2)
    normalized = (values - mean.view(channels)) * scale.view(channels)
    return (normalized if bias is None else normalized + bias.view(channels)).to(x.dtype)
