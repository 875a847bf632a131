"""Counters of batches are counted on the host, and nobody notices."""

import copy

import pytest
import torch
from torch import nn

from skdeepcluster.training._counters import counted_on_host
from tests.virtual_cuda import CUDA, virtual_cuda


def small_network():
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        nn.BatchNorm1d(4, momentum=None),  # the mean of all batches: it reads its counter
        nn.BatchNorm1d(4, track_running_stats=False),
    )


def counters(network):
    return [network[i].num_batches_tracked for i in (1, 2)]


@pytest.mark.parametrize("breaks_off", [False, True])
def test_they_come_back_with_what_they_would_have_counted(breaks_off, cuda):
    torch.manual_seed(0)
    network, x = small_network(), torch.randn(8, 3)
    expected = copy.deepcopy(network)
    network, there = network.to(cuda), x.to(cuda)
    try:
        with counted_on_host(network):
            assert {c.device.type for c in counters(network)} == {"cpu"}
            for _ in range(3):
                network(there)
            if breaks_off:
                raise RuntimeError
    except RuntimeError:
        assert breaks_off
    for _ in range(3):
        expected(x)
    assert {c.device for c in counters(network)} == {cuda}
    assert [c.item() for c in counters(network)] == [3, 3]
    torch.testing.assert_close(network.cpu().state_dict(), expected.state_dict())
    assert list(network.state_dict()) == list(expected.state_dict())


def test_an_accelerator_is_spared_the_counting():
    with virtual_cuda() as device:
        network, x = small_network().to(CUDA), torch.randn(8, 3).to(CUDA)
        launches = []
        for counted in (False, True):
            network(x)  # warm
            with counted_on_host(network[:2] if counted else nn.Identity()):
                before = device.launches
                network[:2](x)
                launches.append(device.launches - before)
    assert launches[0] == launches[1] + 1
