"""What is set around a call stays out of it, and is there again afterwards."""

import contextlib
import threading

import numpy as np
import pytest
import torch

from skdeepcluster.training import undisturbed


def setting(change, back):
    @contextlib.contextmanager
    def context():
        change()
        try:
            yield
        finally:
            back()

    return context


# What people compute in. More of it than there is a name for in the tests of the estimators.
SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled(False)": setting(
        lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)
    ),
    "a default type": setting(
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "a default device": setting(
        lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)
    ),
    "a device": lambda: torch.device("meta"),
    "numpy that raises": lambda: np.errstate(all="raise"),
    "deterministic algorithms": setting(
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
    "matrix precision": setting(
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("highest"),
    ),
    "several": lambda: several(torch.no_grad(), torch.autocast("cpu"), torch.device("meta")),
}


@contextlib.contextmanager
def several(*contexts):
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def state():
    return {
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "type": torch.get_default_dtype(),
        "device": torch.empty(0).device.type,
        "numpy": np.geterr(),
    }


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_inside_all_is_as_at_the_start_of_a_program(surroundings):
    fresh = state()
    with surroundings():
        around = state()
        with undisturbed():
            inside = state()
            x = torch.ones(2, 2, requires_grad=True)
            (x @ x).sum().backward()
        assert state() == around
        with pytest.raises(KeyError), undisturbed():
            raise KeyError
        assert state() == around
    assert inside == fresh
    assert x.grad.dtype == torch.float32
    assert state() == fresh


def test_calls_side_by_side_share_what_belongs_to_the_process():
    """The first to come is not the last to go: it must not put anything back yet."""
    torch.set_default_dtype(torch.float64)
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with undisturbed():
            inside.set()
            leave.wait(10)

    try:
        thread = threading.Thread(target=stay)
        with undisturbed():
            thread.start()
            inside.wait(10)
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
