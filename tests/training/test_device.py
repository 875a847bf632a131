"""Devices, precision and threads, on machines with and without an accelerator."""

import contextlib

import pytest
import torch
from torch.torch_version import TorchVersion

from skdeepcluster.training import choose_device, choose_precision, intra_op_threads


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that there are CUDA devices, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)


def pretend(monkeypatch, *, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda:0"), (True, False, "cuda:0"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_there_is(monkeypatch, cuda, mps, expected):
    pretend(monkeypatch, cuda=cuda, mps=mps)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.14.1"))
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize(
    ("version", "expected"), [("2.9.1", "cpu"), ("2.13.2", "cpu"), ("2.14.0", "mps")]
)
def test_auto_leaves_mps_alone_where_torch_computes_wrongly_on_it(monkeypatch, version, expected):
    pretend(monkeypatch, cuda=False, mps=True)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_cpu_by_name(device):
    assert choose_device(device) == torch.device("cpu")


@pytest.mark.parametrize(("name", "expected"), [("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_a_device_without_a_number_is_the_current_one(cuda, name, expected):
    assert choose_device(name) == torch.device(expected)
    assert choose_device(torch.device(name)) == torch.device(expected)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "", 3.5, torch.device("meta")])
def test_devices_that_cannot_be_used(device):
    with pytest.raises(ValueError, match=r"device=.*Use device='auto' or 'cpu'"):
        choose_device(device)


def test_precision_on_cuda(cuda, monkeypatch):
    gpu = torch.device("cuda", 0)
    assert choose_precision("auto", gpu, (1, 8, 8)) == "bf16-mixed"
    assert choose_precision("auto", gpu, (64,)) == "32-true"
    assert choose_precision("16-mixed", gpu, (64,)) == "16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert choose_precision("auto", gpu, (1, 8, 8)) == "32-true"


def test_precision_is_that_of_the_device_used_not_of_the_current_one(monkeypatch):
    current = [0]

    @contextlib.contextmanager
    def device(named):
        current.append(named.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: current[-1] == 1)
    found = [choose_precision("auto", torch.device("cuda", n), (3, 32, 32)) for n in range(2)]
    assert found == ["32-true", "bf16-mixed"]


@pytest.mark.parametrize(
    ("shape", "capabilities", "expected"),
    [
        ((3, 32, 32), {"amx_bf16": True}, "bf16-mixed"),
        ((3, 12, 16), {"amx_bf16": True}, "bf16-mixed"),
        ((3, 15, 15), {"amx_bf16": True}, "32-true"),
        ((64,), {"amx_bf16": True}, "32-true"),
        ((3, 224, 224), {"amx_bf16": False}, "32-true"),
        ((3, 224, 224), {}, "32-true"),
    ],
)
def test_precision_on_cpus(monkeypatch, shape, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", torch.device("cpu"), shape) == expected


def test_precision_where_torch_does_not_tell_what_the_cpu_can(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision("auto", torch.device("cpu"), (3, 32, 32)) == "32-true"


def test_threads_are_put_back_after_an_error_too():
    before = torch.get_num_threads()
    with intra_op_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="inside"), intra_op_threads(before + 1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
