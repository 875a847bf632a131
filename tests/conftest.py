"""Set up before anything is imported; ``--virtual-cuda`` runs all tests on a virtual device."""

import os

import pytest

# scikit-learn skips its array API check unless SciPy was imported with this.
os.environ["SCIPY_ARRAY_API"] = "1"
# No test may reach a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser):
    parser.addoption("--virtual-cuda", action="store_true", help="as if there were a CUDA device")


@pytest.fixture(autouse=True, scope="session")
def _virtual_cuda_if_asked_for(request):
    if not request.config.getoption("--virtual-cuda"):
        yield
        return
    from tests.virtual_cuda import virtual_cuda  # not before torch's surroundings are set

    with virtual_cuda():
        yield


@pytest.fixture
def real_device(request):
    """Skip a test of what no virtual device has: threads, processes, networks without memory."""
    if request.config.getoption("--virtual-cuda"):
        pytest.skip("the virtual device knows neither threads nor processes nor the meta device")


@pytest.fixture
def cuda(monkeypatch):
    """Return a device of CUDA: a real one where there is one."""
    import torch

    from tests.virtual_cuda import CUDA, virtual_cuda

    if torch.cuda.is_available():
        yield torch.device("cuda", torch.cuda.current_device())
    else:
        with virtual_cuda():
            yield CUDA
            monkeypatch.undo()  # what stands for a part of it is put back while it is there
