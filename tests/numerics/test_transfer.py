"""What is copied to a device, and when the host waits for it."""

from pathlib import Path

import pytest
import torch

import skdeepcluster
from skdeepcluster.data._image_operations import resized_crop
from skdeepcluster.numerics import sent
from tests.virtual_cuda import CUDA, virtual_cuda

PACKAGE = Path(skdeepcluster.__file__).parent


class Recorded:
    """A tensor of the CPU that tells how it was copied, and whether it was pinned before."""

    device = torch.device("cpu")

    def __init__(self, nbytes, pinned=False):
        self.nbytes = nbytes
        self.pinned = pinned

    def pin_memory(self):
        return Recorded(self.nbytes, pinned=True)

    def to(self, device, non_blocking=False):
        return self.pinned, non_blocking


@pytest.mark.parametrize(
    ("device", "nbytes", "pinned", "non_blocking"),
    [
        ("cuda:0", 2**16, False, True),
        ("cuda:0", 2**16 + 1, True, True),
        ("mps", 2**20, False, False),
        ("mps", 4, False, False),
        ("cpu", 2**20, False, False),
    ],
)
def test_only_cuda_gets_copies_that_nobody_waits_for(device, nbytes, pinned, non_blocking):
    assert sent(Recorded(nbytes), torch.device(device)) == (pinned, non_blocking)


def test_what_is_there_stays_as_it_is():
    tensor = torch.arange(3)
    assert sent(tensor, torch.device("cpu")) is tensor


def test_large_copies_wait_on_the_virtual_device_unless_they_are_pinned():
    large = torch.zeros(2**14 + 1)
    with virtual_cuda() as cuda:
        torch.testing.assert_close(sent(large, CUDA).cpu(), large)
        assert list(cuda.waits) == ["to the CPU: elsewhere"]
        large.to(CUDA, non_blocking=True)
        assert cuda.waits["to the device: elsewhere"] == 1


def test_the_crops_of_a_large_batch_make_nobody_wait():
    images = torch.rand(1024, 3, 32, 32)
    box = torch.full((1024,), 4)
    with virtual_cuda() as cuda:
        there = sent(images, CUDA)
        resized_crop(there, box, box, 2 * box, 2 * box, 32, box > 4)
        assert not cuda.waits


def test_all_copies_that_nobody_waits_for_are_made_in_one_place():
    texts = {file: file.read_text() for file in PACKAGE.rglob("*.py")}
    found = [file.name for file, text in texts.items() if "non_blocking" in text]
    assert found == ["_transfer.py"]
