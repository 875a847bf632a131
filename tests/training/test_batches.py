"""How batches reach a step: made ahead of time, added up, or too large for the memory."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from skdeepcluster.training import Phase, SilentHook, Trainer

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
        hook=SilentHook(),
        **{"batch_size": 4, **options},
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


def test_samples_that_are_waited_for_are_read_in_another_thread():
    views = Distant()
    run(Mean(), views, epochs=1)
    assert views.made == 6
    assert threading.get_ident() not in views.threads
    assert set(views.n_threads) == {torch.get_num_threads()}


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


# Batches added up ------------------------------------------------------------------------------


def test_batches_added_up_step_like_one_large_batch():
    # Every epoch sees all samples, without noise, so that their order does not matter.
    whole, parts = Mean(), Mean()
    run(whole, _plain, batch_size=24, epochs=4)
    run(parts, _plain, batch_size=6, accumulate=4, epochs=4)
    assert CountingSGD.total == 4
    torch.testing.assert_close(parts.weight, whole.weight)


def _plain(index, generator):
    return (DATA[index],)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (2, 3), (4, 2), (6, 1), (100, 1)])
def test_what_is_left_at_the_end_of_an_epoch_is_stepped(accumulate, steps):
    run(Mean(), accumulate=accumulate, epochs=2)
    assert CountingSGD.total == 2 * steps


def test_what_is_left_makes_a_smaller_step():
    objective = Mean()
    run(objective, _plain, batch_size=24, accumulate=4, epochs=1)
    whole = Mean()
    run(whole, _plain, batch_size=24, epochs=1)
    torch.testing.assert_close(4 * objective.weight, whole.weight)


def test_skipped_batches_are_not_added_up():
    objective = Mean(skip=(0, 1, 4))
    trainer = run(objective, accumulate=3, epochs=1)
    assert trainer.n_skipped_steps == 3
    assert CountingSGD.total == 1  # of the three that are left
    assert run(Mean(skip=range(6)), accumulate=2, epochs=1).n_skipped_steps == 6
    assert CountingSGD.total == 0


def test_gradients_from_before_are_forgotten():
    fresh, stale = Mean(), Mean()
    stale.weight.grad = torch.full((3,), 100.0)
    for objective in (fresh, stale):
        run(objective, accumulate=2)
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
    message = r"The training does not fit .* cpu\. Lower its batch_size=4: .* accumulate=6 .* alloc"
    with pytest.raises(MemoryError, match=message):
        run(Mean(fails_at=fails_at, demand=demand), accumulate=3)


def test_other_errors_are_left_as_they_are():
    def fail():
        raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        run(Mean(fails_at=0, demand=fail))
