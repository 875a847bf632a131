"""A virtual CUDA device: what host and device mix up is found on a machine without a GPU.

A tensor on the device is a wrapper around one on the CPU. torch believes that it lies on CUDA, so
the real branches of this package and of its engine run; each operation is computed by the CPU on
what is inside. Operations that a real device would refuse raise the errors that it would raise, and
what makes the host wait for the device is counted by the line of the package that asked for it.

Kernels, streams and the order in which they end are not those of a device, and neither are speed
and memory.
"""

import contextlib
import functools
import sys
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar, Self
from unittest import mock

import torch
import torch._dynamo  # it looks at all of torch.cuda when it is imported
from torch import Tensor
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import skdeepcluster
from skdeepcluster.training import _engine, _prefetch

CUDA = torch.device("cuda", 0)
PACKAGE = skdeepcluster.__file__.removesuffix("__init__.py")
STEPS = "training/_steps.py"
# What the host cannot go on without.
WAITING = {
    "_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "histc", "is_nonzero",
    "masked_select", "nonzero", "repeat_interleave", "unique_consecutive", "unique_dim",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPYING = {"_to_copy", "copy_"}
# What leaves the device nothing to compute, besides views.
UNLAUNCHED = {
    "_local_scalar_dense", "_unsafe_view", "empty", "empty_like", "empty_strided", "is_pinned",
    "lift_fresh", "new_empty", "new_empty_strided",
}  # fmt: skip
# Larger copies wait, unless they are of pinned memory.
SENT_ALONG = 2**16
# A tensor without axes on the CPU goes with others everywhere, but not here.
STRICT = {"addmm", "cat", "embedding", "gather", "index_add_", "index_copy_", "index_select", "mm"}


class DeviceTensor(Tensor):
    """A tensor that says that it lies on CUDA; to torch's own code it has no data at all."""

    @staticmethod
    def __new__(cls, inside):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inside.size(),
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device="meta",
        )

    def __init__(self, inside):
        self.inside = inside

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def get_device(self):
        return CUDA.index

    def numpy(self, *, force=False):
        if force:
            return self.cpu().numpy(force=True)
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_, **__):
        return self.numpy()

    def __setitem__(self, index, value):
        if not isinstance(value, Tensor):
            value = torch.full((), value, dtype=self.dtype, device=CUDA)
        super().__setitem__(index, value)

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo):
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied.__dict__.update({k: v for k, v in vars(self).items() if k != "inside"})
        memo[id(self)] = copied
        return copied

    def __tensor_flatten__(self):
        return ["inside"], None

    @staticmethod
    def __tensor_unflatten__(inner, _context, _size, _stride):
        return DeviceTensor(inner["inside"])

    def __reduce_ex__(self, protocol):
        """Come back where it was; who reads a file of torch.save says where to instead."""
        if _is_below("torch/serialization.py"):
            return self.cpu().__reduce_ex__(protocol)
        is_parameter = getattr(self, "_is_param", False)
        return _rebuilt, (self.detach().cpu(), is_parameter, self.requires_grad)

    def __repr__(self, **_):
        return f"{self.inside!r} on {CUDA}"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside virtual_cuda()")

    __torch_function__ = torch._C._disabled_torch_function_impl


def _rebuilt(inside, is_parameter, requires_grad):
    tensor = DeviceTensor(inside).requires_grad_(requires_grad)
    if is_parameter:
        tensor._is_param = True
    return tensor


class DeviceGenerator(torch.Generator):
    """A generator that says where it was asked to be."""

    # Those on the device, by what torch's own code knows them by, which loses our type.
    there: ClassVar[dict[int, Self]] = {}

    def __new__(cls, device="cpu"):
        return super().__new__(cls, device="cpu")

    def __init__(self, device="cpu"):
        super().__init__()
        with torch._C.DisableTorchFunction():  # a real one is made without
            self.place = torch.device(device)
        if self.place.type == "cuda":
            self.there[self._cdata] = self

    @property
    def device(self):
        return self.place


class VirtualCuda(TorchDispatchMode):
    """Computes what is on the device, refuses mixtures, and counts launches and waits.

    Attributes
    ----------
    doubles : int
        How many tensors of float64 lay on the device.
    launches : int
        How often the device was given something to compute or to copy.
    waits : Counter
        By operation and line of the package, how often the host had to wait.
    waits_of_steps : Counter
        Those of them in the epochs of a training.
    """

    def __init__(self):
        super().__init__()
        self.doubles, self.launches = 0, 0
        self.waits, self.waits_of_steps = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        ours = DeviceTensor in types
        wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if wanted is not None:
            if wanted.type == "cuda" and wanted.index:
                raise RuntimeError("CUDA error: invalid device ordinal")
            if not ours and wanted.type == "meta" and not _meta_is_meant():
                # Made by torch's own code for one of ours, on the device that it knows of.
                wanted = CUDA
        if not ours and (wanted is None or wanted.type != "cuda"):
            if name == "is_pinned":
                return False
            if name == "_pin_memory":
                pinned = args[0].clone()
                pinned.lies_pinned = True
                return pinned
            return func(*args, **kwargs)
        others: list[Tensor] = []
        inside_args = _taken_out(args, others)
        inside = {key: _taken_out(value, others) for key, value in kwargs.items()}
        if ours and others:
            self._refuse_mixtures(name, args, others)
        self._count_waits(name, args, kwargs, wanted)
        self.launches += not func.is_view and name not in UNLAUNCHED
        if name == "copy_":
            inside_args[0].copy_(inside_args[1])
            return args[0]
        # Where others are made like one of ours, torch asks for the device that it knows of.
        kind = "meta" if wanted is None else wanted.type
        stays = kind == "cuda" or (kind == "meta" and ours)
        generator = kwargs.get("generator")
        if stays and generator is not None and generator._cdata not in DeviceGenerator.there:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if "device" in kwargs:
            inside["device"] = torch.device("cpu")
        if name == "_to_copy":
            inside.pop("non_blocking", None)
        result = func(*inside_args, **inside)
        if not stays:
            return result
        result = self._brought(result)
        if ours and (func.is_view or func._schema.is_mutable):
            return return_and_correct_aliasing(func, args, kwargs, result)
        return result

    def _brought(self, value):
        """Return a tensor, or those in a list of them, on the device."""
        if isinstance(value, Tensor):
            self.doubles += value.dtype == torch.float64
            return DeviceTensor(value)
        if isinstance(value, (list, tuple)):
            return type(value)([self._brought(entry) for entry in value])
        return value

    def _refuse_mixtures(self, name, args, others):
        if name in COPYING:
            return
        if name in INDEXING:
            if not isinstance(args[0], DeviceTensor):
                raise RuntimeError(
                    "indices should be on the same device as the indexed tensor (cpu)"
                )
            self._wait("an index on the CPU")
            others = [v for v in others if not any(v is i for i in args[1])]
        if any(v.ndim or name in STRICT for v in others):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:0 and cpu! ({name})"
            )

    def _count_waits(self, name, args, kwargs, wanted):
        if name in WAITING:
            self._wait(name)
        elif name in INDEXING:
            if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
                self._wait("a mask as an index")
        elif name == "copy_":
            if isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
                self._wait("a copy")
        elif name == "_to_copy":
            leaves = isinstance(args[0], DeviceTensor) and wanted is not None
            if leaves and torch.device(wanted).type == "cpu":
                self._wait("to the CPU")
            elif not isinstance(args[0], DeviceTensor):
                small = args[0].nbytes <= SENT_ALONG or hasattr(args[0], "lies_pinned")
                if not (small and kwargs.get("non_blocking")):
                    self._wait("to the device")

    def _wait(self, why):
        frame, lines = sys._getframe(1), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                lines.append(f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}")
            frame = frame.f_back
        event = f"{why}: {lines[0] if lines else 'elsewhere'}"
        self.waits[event] += 1
        if any(line.startswith(STEPS) for line in lines):
            self.waits_of_steps[event] += 1


def _is_below(name):
    """Whether a function of this file waits for us."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.endswith(name):
        frame = frame.f_back
    return frame is not None


def _meta_is_meant():
    """Whether somebody has entered ``torch.device("meta")``."""
    modes = torch.overrides._get_current_function_mode_stack()
    return any(isinstance(m, DeviceContext) and m.device.type == "meta" for m in modes)


def _taken_out(value, others):
    """Return what is inside, with that of a list of tensors; keep those that are not ours."""
    if isinstance(value, Tensor):
        if isinstance(value, DeviceTensor):
            return value.inside
        others.append(value)
    elif isinstance(value, (list, tuple)):
        return type(value)([_taken_out(entry, others) for entry in value])
    return value


def _making_there(make):
    """Return a function that makes a tensor of Python's numbers and brings it to the device."""

    @functools.wraps(make)
    def made(data, *args, device=None, **kwargs):
        tensor = make(data, *args, **kwargs)
        return tensor if device is None else tensor.to(device)

    return made


def _no_operation(*_, **__):
    return None


class _NoThreads(ThreadPoolExecutor):
    """Does at once what is asked for: another thread would know nothing of the device."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def virtual_cuda():
    """Let torch have one CUDA device."""
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "virtual",
        "is_bf16_supported": lambda including_emulation=True: True,
        "mem_get_info": lambda device=None: (78 * 2**30, 80 * 2**30),
        "is_current_stream_capturing": lambda: False,
        "_lazy_init": _no_operation,
        "_lazy_call": _no_operation,
        "empty_cache": _no_operation,
        "synchronize": _no_operation,
        "set_device": _no_operation,
        "get_rng_state": lambda device=None: torch.empty(0, dtype=torch.uint8),
        "set_rng_state": _no_operation,
        "device": lambda device: contextlib.nullcontext(),
        "current_stream": lambda device=None: None,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "Generator", DeviceGenerator))
        for name in ("tensor", "as_tensor"):
            make = _making_there(getattr(torch, name))
            stack.enter_context(mock.patch.object(torch, name, make))
        stack.enter_context(mock.patch.object(_prefetch, "ThreadPoolExecutor", _NoThreads))
        # It asks the driver.
        check = "_accelerator_graph_capture_health_check"
        patch = mock.patch.object(torch.optim.Optimizer, check, _no_operation, create=True)
        stack.enter_context(patch)
        stack.callback(DeviceGenerator.there.clear)
        stack.callback(_engine._make_fabric.cache_clear)
        _engine._make_fabric.cache_clear()
        yield stack.enter_context(VirtualCuda())
