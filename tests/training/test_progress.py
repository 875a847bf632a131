"""What a fit prints."""

from types import SimpleNamespace

import pytest
import torch

from skdeepcluster.training import Plan, _progress
from skdeepcluster.training._progress import Progress, duration, results

RECORD = {
    "phase": "clustering", "epoch": 1, "n_epochs": 4, "batch_size": 50, "loss": 0.51234,
    "selected": 0.75, "learning_rate": 0.01, "seconds": 0.25,
}  # fmt: skip
LOSS = torch.tensor(0.5)
PLAN = "clustering: 4 epochs of 3 x 50 samples, learning rate 0.01"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(_progress.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def make(verbose, first_epoch=0, epochs=4):
    phase = SimpleNamespace(name="clustering", n_samples=170, plan=Plan(epochs, 50, 0.01))
    return Progress(phase, verbose, first_epoch)


def run(progress, clock, step_seconds):
    for record in ({**RECORD, "epoch": epoch} for epoch in range(4)):
        for _ in range(3):
            clock.now += step_seconds
            progress.step(LOSS)
        progress.epoch(record)
    progress.end(record)


def test_nothing_is_printed_unless_it_is_wanted(clock, capsys):
    run(make(0), clock, 60.0)
    assert capsys.readouterr().out == ""


def test_a_short_phase_is_one_line(clock, capsys):
    run(make(1), clock, 0.25)
    assert capsys.readouterr().out == f"{PLAN}: 3 s, loss 0.5123, selected 0.75\n"


def test_a_long_phase_is_announced_after_a_few_steps(clock, capsys):
    run(make(1), clock, 30.0)
    announced, ended = capsys.readouterr().out.splitlines()
    assert announced == f"{PLAN}, about 4 min to go"  # eight steps of thirty seconds
    assert ended == f"{PLAN}: 6 min, loss 0.5123, selected 0.75"


def test_the_first_step_tells_nothing_about_the_others(clock, capsys):
    progress = make(1)
    clock.now += 500.0
    progress.step(LOSS)
    for _ in range(3):
        clock.now += 1.0
        progress.step(LOSS)
    assert capsys.readouterr().out == ""
    assert progress.n_steps == 12


def test_a_resumed_phase_has_less_to_go(clock):
    assert make(1, first_epoch=3).n_steps == 3


def test_epochs_are_printed_at_the_second_level(clock, capsys):
    run(make(2), clock, 0.25)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "clustering 1/4: loss 0.5123, selected 0.75, 0.25 s"
    assert len(lines) == 5


def test_one_epoch_is_no_plural():
    assert str(make(1, epochs=1)).startswith("clustering: 1 epoch of 3 x 50")


def test_results_are_what_was_not_known_before():
    assert results(RECORD) == "loss 0.5123, selected 0.75"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1234, "0.12 s"), (9.99, "10 s"), (12.4, "12 s"), (75, "1 min"), (5000, "83 min"),
     (7200, "2.0 h")],
)  # fmt: skip
def test_times_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
