"""How batches reach a step: made ahead of time, added up, or too large for the memory."""

import contextlib
import re
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from skdeepcluster.networks import EmbeddingNetwork
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training import Phase, SilentHook, Trainer
from skdeepcluster.training._prefetch import views_of

DATA = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))


class Distant:
    """Views that have to be waited for, or not; tells who made them and when."""

    def __init__(self, resident=False, fails_at=None):
        self.resident = resident
        self.fails_at = fails_at
        self.made = 0
        self.threads = []
        self.n_threads = []

    def __call__(self, index, generator):
        if self.made == self.fails_at:
            raise OSError("the disk is gone")
        self.made += 1
        self.threads.append(threading.get_ident())
        self.n_threads.append(torch.get_num_threads())
        return (DATA[index] + torch.randn(len(index), 3, generator=generator),)


class Mean(nn.Module):
    """Draws its weight to the mean of a batch; a loss that is a mean of the samples' losses."""

    def __init__(self, skip=(), fails_at=None, demand=lambda: None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.skip = skip
        self.fails_at = fails_at
        self.demand = demand
        self.calls = 0

    def forward(self, x):
        if self.calls == self.fails_at:
            self.demand()
        skipped = float(self.calls in self.skip)
        self.calls += 1
        loss = (x - self.weight).square().mean()
        return loss, {"skipped": torch.tensor(skipped)} if self.skip else {}


class CountingSGD(torch.optim.SGD):
    def __init__(self, groups, fused):
        super().__init__(groups)
        self.n_steps = 0

    def step(self, closure=None):
        type(self).total += 1
        return super().step(closure)


def run(objective, views=None, epochs=3, **options):
    CountingSGD.total = 0
    trainer = Trainer(["training"], device=torch.device("cpu"), precision="32-true", seed=7)
    phase = Phase(
        name="training",
        objective=objective,
        views=views or Distant(resident=True),
        n_samples=len(DATA),
        epochs=epochs,
        parameter_groups=[{"params": list(objective.parameters()), "lr": 0.1}],
        optimizer=CountingSGD,
        **{"hook": SilentHook(), "batch_size": 4, **options},
    )
    trainer.run(phase)
    return trainer


# Views made ahead ------------------------------------------------------------------------------


def test_views_made_ahead_change_nothing():
    results = []
    for resident in (True, False):
        objective = Mean()
        trainer = run(objective, Distant(resident))
        losses = [record["loss"] for record in trainer.history]
        results.append((objective.weight.tolist(), losses))
    assert results[0] == results[1]


def test_samples_that_are_waited_for_are_read_in_another_thread(real_device):
    views = Distant()
    run(Mean(), views, epochs=1)
    assert views.made == 6
    assert threading.get_ident() not in views.threads
    assert set(views.n_threads) == {torch.get_num_threads()}


def test_views_are_made_on_the_stream_of_the_caller(monkeypatch, cuda):
    log = []

    @contextlib.contextmanager
    def stream(which):
        log.append(("enter", which))
        yield
        log.append(("leave", which))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the one of {device}")
    monkeypatch.setattr(torch.cuda, "stream", stream)

    def views(index, generator):
        log.append("made")
        return (index,)

    views.resident = False
    list(views_of([torch.arange(2)], views, torch.Generator(), lambda: OwnDraws(0), cuda))
    assert log == [("enter", "the one of cuda:0"), "made", ("leave", "the one of cuda:0")]


def test_samples_on_the_device_need_no_thread():
    views = Distant(resident=True)
    run(Mean(), views)
    assert set(views.threads) == {threading.get_ident()}


def test_no_more_than_one_batch_is_made_ahead():
    views = Distant()
    ahead = []

    class Slow(Mean):
        def forward(self, x):
            time.sleep(0.01)  # time enough to run away
            ahead.append(views.made - self.calls)
            return super().forward(x)

    run(Slow(), views, epochs=2)
    assert max(ahead) <= 2  # this batch and the next


@pytest.mark.parametrize("at", [0, 3, 5])
def test_an_error_of_the_reader_reaches_the_caller(at):
    with pytest.raises(OSError, match="the disk is gone"):
        run(Mean(), Distant(fails_at=at))
    assert not any("ThreadPool" in thread.name for thread in threading.enumerate())


# Steps ------------------------------------------------------------------------------------------


def plain(index, generator):
    return (DATA[index],)


def test_a_batch_is_a_step():
    run(Mean(), epochs=2)
    assert CountingSGD.total == 12


def test_a_skipped_batch_is_none():
    trainer = run(Mean(skip=(0, 1, 4)), epochs=1)
    assert trainer.n_skipped_steps == 3
    assert CountingSGD.total == 3


def test_gradients_from_before_are_forgotten():
    fresh, stale = Mean(), Mean()
    stale.weight.grad = torch.full((3,), 100.0)
    for objective in (fresh, stale):
        run(objective)
    assert torch.equal(fresh.weight, stale.weight)


def test_a_parameter_without_entries_is_no_trouble():
    objective = Mean()
    objective.nothing = nn.Parameter(torch.zeros(0))
    assert len(run(objective, epochs=2).history) == 2


# Batches that do not fit -----------------------------------------------------------------------


def too_much_of_a_gpu():
    raise torch.OutOfMemoryError("tried to allocate much")


def too_much_of_numpy():
    np.empty(2**62, np.uint8)


def too_much_of_torch():
    torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.parametrize("demand", [too_much_of_a_gpu, too_much_of_numpy, too_much_of_torch])
@pytest.mark.parametrize("fails_at", [0, 7])
def test_too_little_memory_names_the_argument_to_lower(fails_at, demand):
    message = r"The training does not fit .* cpu\. Lower its batch_size=4\. .*alloc"
    with pytest.raises(MemoryError, match=message):
        run(Mean(fails_at=fails_at, demand=demand))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "GET was unable to find an engine to execute this computation",
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 20.13 GB)",
    ],
)
def test_errors_that_torch_does_not_call_errors_of_memory(words):
    def fail():
        raise RuntimeError(words)

    with pytest.raises(MemoryError, match=re.escape(words)):
        run(Mean(fails_at=0, demand=fail))


def test_other_errors_are_left_as_they_are():
    def fail():
        raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        run(Mean(fails_at=0, demand=fail))


class Roomy(nn.Module):
    """Has room for a few rows; draws, and normalises without a look at the batch."""

    def __init__(self, room):
        super().__init__()
        self.room = room
        self.layers = nn.Sequential(
            nn.Linear(3, 16), nn.GELU(), nn.LayerNorm(16), nn.Dropout(0.5), nn.Linear(16, 3)
        )
        self.register_buffer("n_rows", torch.zeros((), dtype=torch.long))
        self.most = 0

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError(f"no room for {len(x)}")
        self.most = max(self.most, len(x))
        if self.training:
            self.n_rows += len(x)
        return self.layers(x)


class Contrast(nn.Module):
    """A loss that compares all samples of a batch, of two views each."""

    def __init__(self, room, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = EmbeddingNetwork(Roomy(room), nn.Identity(), 3)
        self.embedding.backbone.layers[3].p = dropout

    def forward(self, x):
        z = self.embedding(torch.cat([x, x + 1]))
        n = len(x)
        similar = z[:n] @ z[n:].T / 0.5
        return nn.functional.cross_entropy(similar, torch.arange(n)), {"first": z[0, 0]}


@pytest.mark.parametrize("room", [47, 24, 12, 8, 6])
def test_a_batch_that_does_not_fit_has_the_same_loss_in_pieces(room):
    whole, parts = Contrast(48), Contrast(room)
    expected = run(whole, plain, batch_size=24).history
    with pytest.warns(UserWarning, match="The training does not fit into the memory of cpu"):
        found = run(parts, plain, batch_size=24).history
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["first"] == pytest.approx(theirs["first"], rel=1e-4)
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    # What went wrong has left no trace, and what was computed twice was counted once.
    assert parts.embedding.backbone.n_rows == whole.embedding.backbone.n_rows == 3 * 48
    assert room // 2 < parts.embedding.backbone.most <= room
    assert parts.embedding.n_pieces == 1


def test_a_batch_that_does_not_fit_is_met_when_the_first_is_learned_from():
    class Unsure(Contrast):
        """Learns from nothing in the first epoch, when a batch has room."""

        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            first = self.calls <= 2
            self.embedding.backbone.room = 100 if first else 12
            loss, _ = super().forward(x)
            return loss, {"skipped": torch.tensor(float(first))}

    objective = Unsure(100)
    with pytest.warns(UserWarning, match="in 2 pieces"):
        trainer = run(objective, plain, batch_size=12, epochs=2)
    assert trainer.n_skipped_steps == 2


def test_pieces_draw_the_same_when_they_are_computed_anew():
    network = EmbeddingNetwork(nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 4)), nn.Identity(), 4)
    x, direction = torch.randn(48, 3), torch.randn(48, 4)
    gradients = []
    for n_pieces in (4, 1):
        network.n_pieces = n_pieces
        network.zero_grad()
        with OwnDraws(0):
            if n_pieces == 1:  # the same by hand, without computing anything anew
                parts = [network(x[start::4]) for start in range(4)]
                z = torch.stack(parts, dim=1).flatten(0, 1)
            else:
                z = network(x)
        (z * direction).sum().backward()
        gradients.append((z.detach(), network.backbone[1].weight.grad.clone()))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_pieces_that_are_too_small_are_given_up():
    with (
        pytest.warns(UserWarning, match="does not fit"),
        pytest.raises(MemoryError, match=r"Lower its batch_size=24\. no room for 6"),
    ):
        run(Contrast(2), plain, batch_size=24)


def test_memory_that_runs_out_later_is_an_error():
    objective = Contrast(48)

    class Shrinking(SilentHook):
        def begin(self, epoch):
            objective.embedding.backbone.room = 48 if epoch == 0 else 4

    with pytest.raises(MemoryError, match="Lower its batch_size"):
        run(objective, plain, batch_size=24, hook=Shrinking())
