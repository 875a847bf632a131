"""A fit by several processes equals that by one, and says so when one of them is lost."""

import atexit
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
from lightning_fabric import Fabric
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.training import Processes, _engine, started_processes

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
def test_two_processes_do_as_one(program, tmp_path, monkeypatch, real_device):
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
        MiniClustering(3, random_state=0).set_callbacks(Die()).fit(X)
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
    """Let torchrun or srun seem to have started this process and others."""

    def start(launcher, here, in_all):
        variables = {
            "torchrun": {
                "TORCHELASTIC_RUN_ID": "test",
                "LOCAL_WORLD_SIZE": here,
                "WORLD_SIZE": in_all,
                "LOCAL_RANK": 1,
            },
            "slurm": {
                "SLURM_STEP_NUM_TASKS": in_all,
                "SLURM_STEP_NUM_NODES": in_all // here,
                "SLURM_LOCALID": 1,
            },
        }
        for name, value in variables[launcher].items():
            monkeypatch.setenv(name, str(value))

    return start


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
@pytest.mark.parametrize(("here", "in_all"), [(2, 2), (2, 6), (1, 3)])
def test_a_fit_joins_the_processes_that_were_started(started, launcher, here, in_all):
    assert started_processes().count == 1
    started(launcher, here, in_all)
    assert started_processes() == Processes(here, in_all // here, launcher)
    assert started_processes().count == in_all


@pytest.fixture
def fewer_digits():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
def test_a_process_takes_its_device_whatever_precision_the_user_allows(
    started, cuda, fewer_digits, monkeypatch, capfd
):
    taken = []
    monkeypatch.setattr(Fabric, "launch", lambda _: None)
    monkeypatch.setattr(atexit, "register", lambda _: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    started("torchrun", 2, 2)
    monkeypatch.setenv("RANK", "1")
    fabric = _engine._make_fabric.__wrapped__(cuda, "32-true", started_processes())
    fabric.strategy.accelerator.setup_device(fabric.device)
    assert taken == [torch.device("cuda", 1)]
    assert capfd.readouterr() == ("", "")  # no advice on anybody's precision


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_one_process_is_alone_whoever_started_it(started, launcher):
    started(launcher, 1, 1)
    assert started_processes().count == 1


def test_a_job_of_slurm_without_srun_is_one_process(monkeypatch):
    """In its batch script SLURM tells of the tasks that srun could start, and has started none."""
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert started_processes().count == 1
    X, _ = make_blobs(40, centers=2, random_state=0)
    # In this precision every fit makes an engine of its own, which would look for the others.
    model = MiniClustering(2, max_epochs=1, pretraining=None, precision="16-mixed", random_state=0)
    assert len(model.fit(X).labels_) == 40


@pytest.mark.parametrize(("here", "in_all"), [(4, 6), (5, 6)])
def test_different_numbers_on_the_machines_are_refused(started, here, in_all):
    started("torchrun", here, in_all)
    with pytest.raises(ValueError, match=f"torchrun has started 6 processes, and {here} of them"):
        started_processes()


def test_workers_and_threads_fit_alone(started):
    started("torchrun", 2, 2)
    for backend in ("loky", "threading"):
        parallel = joblib.Parallel(n_jobs=2, backend=backend)
        found = parallel([joblib.delayed(started_processes)()] * 2)
        assert [processes.count for processes in found] == [1, 1]


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_each_process_has_a_gpu_of_its_own(started, launcher):
    started(launcher, 2, 2)
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert started_processes().own_device(cuda) == torch.device("cuda", 1)
    assert started_processes().own_device(cpu) == cpu
    assert Processes(1).own_device(cuda) == cuda


JOINED = """
    import torch
    from sklearn.datasets import make_blobs
    from torch import distributed
    from skdeepcluster import MiniClustering

    X, _ = make_blobs(100, random_state=0)
    model = MiniClustering(3, random_state=0, max_epochs=3).fit(X)
    print(distributed.get_world_size(), *model.labels_)
    # The program ends while threads of gloo still hold tensors, as it may after any fit.
    under_way = [distributed.all_reduce(torch.ones(30_000), async_op=True) for _ in range(40)]
    under_way[30].wait()
    del under_way
"""


def test_processes_of_slurm_find_each_other_and_part(tmp_path, unused_port):
    source = tmp_path / "program.py"
    source.write_text("\n".join(line[4:] for line in JOINED.splitlines()))
    variables = {
        **{"SLURM_JOB_ID": "12345", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
        **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0"},
        **{"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(unused_port)},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(source)],
            env=os.environ | variables | {"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in (0, 1)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    X, _ = make_blobs(100, random_state=0)
    alone = MiniClustering(3, random_state=0, max_epochs=3).fit_predict(X)
    for out, _ in said:
        count, *labels = map(int, out.split())
        assert count == 2
        assert adjusted_rand_score(alone, labels) == 1
