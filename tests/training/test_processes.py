"""A fit by several processes equals that by one, and says so when one of them is lost."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.training import Processes, choose_processes

PROGRAM = Path(__file__).with_name("processes_program.py")


@pytest.fixture
def program():
    spec = importlib.util.spec_from_file_location("processes_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def assert_same(name, expected, found):
    assert found.keys() == expected.keys()
    for what, values in expected.items():
        if what == "labels":
            assert adjusted_rand_score(values, found[what]) >= 0.99, name
        else:
            # The rounding of a product depends on its shape, and training makes more of it.
            scale = np.abs(np.asarray(values)).max()
            np.testing.assert_allclose(
                found[what], values, rtol=0, atol=1e-2 * scale, err_msg=f"{name}: {what}"
            )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # two epochs of noise
def test_two_processes_do_as_one(program, tmp_path, monkeypatch):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node=2", str(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)  # the checkpoints that the two have left lie there
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint.previous.pt",
        "checkpoint.pt",
    ]
    said = [np.load(tmp_path / f"different {rank}.npz")["error"].item() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "The processes of this fit differ in: content of X, learning_rate." in said[0]
    for name, case in program.CASES.items():
        if name == "different":
            continue
        first, second = (dict(np.load(tmp_path / f"{name} {rank}.npz")) for rank in (0, 1))
        for what, values in first.items():
            np.testing.assert_array_equal(second[what], values, err_msg=f"{name}: {what}")
        assert_same(name, case(1), first)
    exact = dict(np.load(tmp_path / "embed 0.npz"))
    for what, values in program.embed(1).items():  # the only case in double precision
        np.testing.assert_allclose(exact[what], values.numpy(), rtol=1e-6, atol=1e-9)


KILLED = """
    import os, signal, sys
    from sklearn.datasets import make_blobs
    from skdeepcluster import MiniClustering

    class Die:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context):
            if os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)

    X, _ = make_blobs(100, random_state=0)
    try:
        MiniClustering(3, devices="auto", num_nodes=2, random_state=0).set_callbacks(Die()).fit(X)
    except RuntimeError as error:
        print(error)
"""


def test_a_lost_process_is_an_error_of_the_others(tmp_path, unused_port):
    # On two nodes, because the torchrun of one would end the other at once.
    source = tmp_path / "program.py"
    source.write_text("\n".join(line[4:] for line in KILLED.splitlines()))
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(source)],
            env=os.environ
            | {
                **{"RANK": str(rank), "LOCAL_RANK": "0", "GROUP_RANK": str(rank)},
                **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "test"},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_port)},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in (0, 1)
    ]
    said, _ = processes[0].communicate(timeout=300)
    processes[1].communicate(timeout=300)
    assert processes[1].returncode < 0
    assert "Another process of this fit has ended or cannot be reached" in said
    assert "checkpoint_dir" in said


@pytest.fixture
def started(monkeypatch):
    """Let torchrun seem to have started this process and others."""

    def start(local, in_all):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
        monkeypatch.setenv("WORLD_SIZE", str(in_all))
        monkeypatch.setenv("LOCAL_RANK", "1")

    return start


def test_auto_is_what_torchrun_has_started(started):
    assert choose_processes("auto", 1, "auto") == Processes(1)
    started(2, 6)
    assert choose_processes("auto", 3, "ddp") == Processes(2, 3, "ddp")
    assert choose_processes(2, 3, "auto").count == 6
    assert choose_processes(1, 1, "auto").count == 1  # each on its own


@pytest.mark.parametrize(("devices", "num_nodes"), [(2, 1), (4, 2), ("auto", 1)])
def test_other_numbers_than_started_are_refused(started, devices, num_nodes):
    started(3, 6)
    with pytest.raises(ValueError, match=r"devices=.* but torchrun has started 6"):
        choose_processes(devices, num_nodes, "auto")


def test_a_program_without_torchrun_is_told_how_to_start():
    with pytest.raises(ValueError, match=r"devices=2 .* torchrun --nnodes=1 --nproc-per-node=2"):
        MiniClustering(3, devices=2).fit(np.eye(20))


def test_workers_and_threads_cannot_share_a_fit(started):
    started(2, 2)
    for backend in ("loky", "threading"):
        parallel = joblib.Parallel(n_jobs=2, backend=backend)
        with pytest.raises(ValueError, match="cannot share a fit"):
            parallel([joblib.delayed(choose_processes)(2, 1, "auto")] * 2)
        assert parallel([joblib.delayed(choose_processes)("auto", 1, "auto")] * 2)[0].count == 1


def test_each_process_has_a_gpu_of_its_own(started):
    started(2, 2)
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert Processes(2).own_device(cuda) == torch.device("cuda", 1)
    assert Processes(2).own_device(cpu) == cpu
    assert Processes(1).own_device(cuda) == cuda
