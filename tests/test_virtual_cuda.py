"""The virtual device refuses what a real one refuses, and counts launches and waits."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.virtual_cuda import CUDA, virtual_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device")


@pytest.fixture
def device():
    with virtual_cuda() as device:
        yield device


def test_tensors_stay_where_they_are_put(device):
    here, there = torch.randn(4, 3), torch.randn(4, 3, device=CUDA)
    assert (here.device.type, there.device) == ("cpu", CUDA)
    for made in (here.to(CUDA), there.T, there[0], there + 1, torch.zeros_like(there)):
        assert made.device == CUDA
        assert made.is_cuda
    for made in (there.cpu(), there.to("cpu"), torch.zeros_like(there, device="cpu")):
        assert type(made) is torch.Tensor
    assert torch.equal(here.to(CUDA).cpu(), here)
    there[0] = 5
    there[:, 1].add_(1)
    assert there[0].tolist() == [5, 6, 5]


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here.T,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here[there.argmax(dim=0)],
        lambda here, there: nn.Linear(3, 2)(there),
        lambda here, there: torch.rand(3, device=CUDA, generator=torch.Generator()),
    ],
)
def test_mixtures_are_refused(mix, device):
    with pytest.raises(RuntimeError, match=r"same device|device of|device type"):
        mix(torch.randn(4, 3), torch.randn(4, 3, device=CUDA))
    with pytest.raises(TypeError, match="convert cuda"):
        torch.randn(3, device=CUDA).numpy()


def test_networks_learn_and_move_as_elsewhere(device):
    torch.manual_seed(0)
    X = torch.randn(20, 3)
    networks = {"cpu": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())}
    networks[CUDA] = copy.deepcopy(networks["cpu"]).to(CUDA)
    for place, network in networks.items():
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            network(X.to(place)).square().mean().backward()
            optimizer.step()
    assert {p.device for p in networks[CUDA].parameters()} == {CUDA}
    assert {p.device for p in copy.deepcopy(networks[CUDA]).parameters()} == {CUDA}
    read = pickle.loads(pickle.dumps(networks[CUDA]))
    assert {p.device for p in read.parameters()} == {CUDA}
    for network in (read.cpu(), networks[CUDA].cpu()):
        for ours, theirs in zip(network.parameters(), networks["cpu"].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("wait", "n_waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: torch.tensor([1.0], device=CUDA), 1),
        (lambda x: torch.arange(3).pin_memory().to(CUDA, non_blocking=True), 0),
        (lambda x: torch.zeros(3, device=CUDA) + 1, 0),
        (lambda x: x.sort().values.cumsum(dim=0).argmax(), 0),
    ],
)
def test_waits_are_counted(wait, n_waits, device):
    x = torch.randn(9, device=CUDA)
    device.waits.clear()
    wait(x)
    assert device.waits.total() == n_waits


def test_launches_are_counted(device):
    x = torch.randn(9, device=CUDA)
    device.launches = 0
    x.view(3, 3).T[0].sum().item()
    torch.empty_like(x)
    assert device.launches == 1
    x.add_(1).cpu()
    torch.arange(3).to(CUDA)
    assert device.launches == 4
