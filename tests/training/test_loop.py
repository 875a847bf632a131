"""The loop with a tiny objective: what it records, resumes, refuses and leaves untouched."""

import math
import random
import signal
import threading

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.training import CheckpointFolder, Phase, Trainer, constant, cosine

CPU = torch.device("cpu")
EPOCHS = 4
DATA = torch.randn(22, 3, generator=torch.Generator().manual_seed(0))


class Hook:
    """Records the epochs; acts at the end of one of them."""

    def __init__(self, at=None, action=None):
        self.at = at
        self.action = action
        self.begun = []
        self.ended = []

    def begin(self, epoch):
        self.begun.append(epoch)

    def end(self, epoch):
        self.ended.append(epoch)
        return bool(self.action()) if epoch == self.at else False


class Crash(RuntimeError):
    """Stands for kill -9."""


def crash():
    raise Crash


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


class Objective(nn.Module):
    """Linear regression of a noisy view on another, with dropout, statistics and a counter."""

    def __init__(self, skip=()):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Sequential(
                nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 3)
            )
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.long))
        self.skip = skip
        self.sizes = []
        self.modes = []

    def forward(self, first, second):
        self.sizes.append(len(first))
        self.modes.append(self.training)
        skipped = float(int(self.n_batches) in self.skip)
        self.n_batches += 1
        loss = (self.network(first) - second).square().mean()
        scalars = {"half": loss / 2}
        return loss, {**scalars, "skipped": torch.tensor(skipped)} if self.skip else scalars


class Scripted(nn.Module):
    """Multiplies its parameter by what the script says of the batch, to make it diverge."""

    def __init__(self, *script):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.long))
        self.script = script

    def forward(self, first, second):
        factor = self.script[min(int(self.n_batches), len(self.script) - 1)]
        self.n_batches += 1
        return factor(self.weight), {}


class Following(nn.Module):
    """Pulls its parameter away from where it was when the epoch began."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("previous", torch.zeros(3))
        self.fails_at = fails_at
        self.events, self.progress = [], []

    def begin_epoch(self, progress):
        self.events.append("begin")
        self.progress.append(progress)
        self.previous.copy_(self.weight.detach())

    def forward(self, first, second):
        self.events.append("batch")
        factor = math.nan if len(self.events) == self.fails_at else 1.0
        target = self.previous + first.mean(dim=0)
        return factor * (self.weight - target).square().sum(), {}


def noisy_views(index, generator):
    noise = torch.randn(2, len(index), 3, generator=generator)
    return DATA[index] + noise[0], DATA[index] + noise[1]


def sgd(groups, fused):
    return torch.optim.SGD(groups, momentum=0.9, fused=fused)


def make_phase(objective, name="training", **options):
    settings = {
        "name": name,
        "objective": objective,
        "views": noisy_views,
        "n_samples": len(DATA),
        "batch_size": 5,
        "epochs": EPOCHS,
        "parameter_groups": [{"params": list(objective.parameters()), "lr": 0.05}],
        "optimizer": sgd,
        "hook": Hook(),
    }
    return Phase(**{**settings, **options})


def make_trainer(phases=("training",), **options):
    return Trainer(phases, **{"device": CPU, "precision": "32-true", "seed": 7, **options})


def copy_of_state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_state(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


# What an epoch does ----------------------------------------------------------------------------


def test_history_has_one_record_per_epoch():
    trainer, objective, hook = make_trainer(), Objective(), Hook()
    trainer.run(make_phase(objective, hook=hook))
    assert [record["epoch"] for record in trainer.history] == list(range(EPOCHS))
    for record in trainer.history:
        planned = {"n_epochs": EPOCHS, "batch_size": 5}
        known = {"phase", "epoch", "loss", "half", "learning_rate", "seconds"}
        assert record.keys() == known | planned.keys()
        assert {name: record[name] for name in planned} == planned
        assert record["phase"] == "training"
        assert record["half"] == pytest.approx(record["loss"] / 2)
        assert record["learning_rate"] == 0.05
        assert record["seconds"] >= 0
    assert hook.begun == hook.ended == list(range(EPOCHS))
    assert trainer.n_skipped_steps == 0
    assert not trainer.interrupted


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(5, [5] * 4), (11, [11, 11]), (22, [22]), (100, [22])]
)
def test_batches_are_equal_and_a_remainder_is_left_out(batch_size, sizes):
    objective = Objective()
    make_trainer().run(make_phase(objective, batch_size=batch_size, epochs=1))
    assert objective.sizes == sizes


def test_every_epoch_visits_other_samples_first_and_all_in_turn():
    seen = []

    def recording(index, generator):
        seen.append(index)
        return noisy_views(index, generator)

    make_trainer().run(make_phase(Objective(), views=recording, batch_size=11))
    epochs = [torch.cat(seen[i : i + 2]) for i in range(0, 2 * EPOCHS, 2)]
    assert all(sorted(order.tolist()) == list(range(22)) for order in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_the_schedule_scales_every_group():
    rates, progress = [], []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def schedule(value):
        progress.append(value)
        return cosine(value)

    objective = Objective()
    body, head = objective.network[0], objective.network[3]
    groups = [{"params": body.parameters(), "lr": 0.1}, {"params": head.parameters(), "lr": 0.02}]
    phase = make_phase(
        objective, parameter_groups=groups, optimizer=Recording, schedule=schedule, epochs=2
    )
    trainer = make_trainer()
    trainer.run(phase)
    assert progress == [i / 8 for i in range(8) for _ in groups]
    np.testing.assert_allclose(rates, [[0.1 * cosine(p), 0.02 * cosine(p)] for p in progress[::2]])
    assert trainer.history[-1]["learning_rate"] == pytest.approx(0.1 * cosine(7 / 8))


def test_every_group_may_have_a_schedule_of_its_own():
    rates = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    objective = Objective()
    layers = objective.network[0], objective.network[1], objective.network[3]
    groups = [
        {"params": layer.parameters(), "lr": rate}
        for layer, rate in zip(layers, (0.1, 0.02, 0.3), strict=True)
    ]
    phase = make_phase(
        objective,
        parameter_groups=groups,
        optimizer=Recording,
        schedule=[cosine, constant, lambda progress: 1 - progress],
        epochs=2,
    )
    trainer = make_trainer()
    trainer.run(phase)
    progress = [i / 8 for i in range(8)]
    expected = [[0.1 * cosine(p), 0.02, 0.3 * (1 - p)] for p in progress]
    np.testing.assert_allclose(rates, expected)
    # The history has room for one.
    assert [record["learning_rate"] for record in trainer.history] == pytest.approx(
        [expected[3][0], expected[7][0]]
    )


@pytest.mark.parametrize("n_schedules", [0, 1, 3])
def test_schedules_have_to_match_the_groups(n_schedules):
    objective = Objective()
    groups = [{"params": objective.network[i].parameters(), "lr": 0.1} for i in (0, 3)]
    phase = make_phase(objective, parameter_groups=groups, schedule=[cosine] * n_schedules)
    with pytest.raises(ValueError, match="zip"):
        make_trainer().run(phase)


def test_a_group_whose_schedule_rests_is_not_trained():
    objective = Objective()
    body, head = objective.network[0], objective.network[3]
    before = body.weight.detach().clone(), head.weight.detach().clone()
    groups = [{"params": body.parameters(), "lr": 0.1}, {"params": head.parameters(), "lr": 0.1}]
    schedules = [lambda progress: 0.0, constant]
    make_trainer().run(make_phase(objective, parameter_groups=groups, schedule=schedules))
    assert torch.equal(body.weight, before[0])
    assert not torch.equal(head.weight, before[1])


def test_an_objective_is_told_before_each_epoch():
    objective = Following()
    make_trainer().run(make_phase(objective))
    assert objective.events == ["begin", *["batch"] * 4] * EPOCHS
    assert objective.progress == [epoch / EPOCHS for epoch in range(EPOCHS)]


def test_an_objective_is_told_of_no_epoch_that_is_not_run():
    objective = Following()
    make_trainer().run(make_phase(objective, epochs=0))
    assert objective.events == []
    make_trainer().run(make_phase(objective, hook=Hook(at=1, action=lambda: True)))
    assert objective.events.count("begin") == 2


def test_modes():
    objective = Objective().eval()
    hook = Hook(at=1, action=lambda: objective.eval() and None)  # a callback that predicts
    make_trainer().run(make_phase(objective, hook=hook))
    assert all(objective.modes)
    assert not objective.training


@pytest.mark.parametrize("epochs", [0, 1])
def test_few_epochs(epochs):
    trainer, objective = make_trainer(), Objective()
    trainer.run(make_phase(objective, epochs=epochs))
    assert len(trainer.history) == epochs
    assert not objective.training


def test_the_hook_can_stop_a_phase():
    trainer = make_trainer(["training", "more"])
    trainer.run(make_phase(Objective(), hook=Hook(at=1, action=lambda: True)))
    assert len(trainer.history) == 2
    trainer.run(make_phase(Objective(), "more"))
    assert len(trainer.history) == 2 + EPOCHS


def test_verbose_prints_a_line_per_phase_and_then_one_per_epoch(capsys):
    for verbose, expected in [
        (1, ["training"]),
        (2, ["training 1/2", "training 2/2", "training"]),
    ]:
        make_trainer(verbose=verbose).run(make_phase(Objective(), epochs=2))
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines] == expected
    make_trainer().run(make_phase(Objective(), epochs=1))
    assert capsys.readouterr().out == ""


@pytest.fixture
def unset_memory_is_nan():
    torch.use_deterministic_algorithms(True)  # which also fills memory that nobody has set
    yield
    torch.use_deterministic_algorithms(False)


def test_momentum_is_sound_where_lower_precision_skips_the_first_steps(unset_memory_is_nan):
    steep = Scripted(lambda weight: 1e35 * weight.sum())  # times the scale, 65536, too steep
    groups = [{"params": list(steep.parameters()), "lr": 1e-37}]
    make_trainer(precision="16-mixed").run(make_phase(steep, parameter_groups=groups))
    assert ((steep.weight > 0) & (steep.weight < 1)).all()


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_precisions(precision):
    trainer = make_trainer(precision=precision)
    trainer.run(make_phase(Objective(), epochs=30))
    losses = [record["loss"] for record in trainer.history]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_layers_compute_in_lower_precision_and_views_come_as_they_are():
    seen = []

    class Spy(Objective):
        def forward(self, *views):
            product = views[0] @ views[0].T
            seen.append((views[0].dtype, product.dtype))
            return super().forward(*views)

    make_trainer(precision="bf16-mixed").run(make_phase(Spy(), epochs=1))
    assert set(seen) == {(torch.float32, torch.bfloat16)}


# Skipped batches -------------------------------------------------------------------------------


def test_skipped_batches_leave_the_parameters_as_they_are():
    objective = Objective(skip=range(100))
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    trainer = make_trainer()
    trainer.run(make_phase(objective))
    assert_same_state(before, dict(objective.named_parameters()))
    assert trainer.n_skipped_steps == 4 * EPOCHS
    assert all(record["skipped"] == 1 for record in trainer.history)


def test_some_skipped_batches_are_counted_and_momentum_waits():
    objective = Objective(skip={0, 5, 6})
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    after_first = {}

    def views(index, generator):
        if int(objective.n_batches) == 1:
            after_first.update({name: p.clone() for name, p in objective.named_parameters()})
        return noisy_views(index, generator)

    trainer = make_trainer()
    trainer.run(make_phase(objective, views=views))
    assert_same_state(before, after_first)
    assert trainer.n_skipped_steps == 3
    assert [record["skipped"] for record in trainer.history] == [0.25, 0.5, 0, 0]


def test_a_skipped_batch_needs_no_gradient():
    class Rejecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, first, second):
            return torch.zeros(()), {"skipped": torch.ones(())}

    trainer = make_trainer()
    trainer.run(make_phase(Rejecting(), epochs=1))
    assert trainer.n_skipped_steps == 4


# Divergence ------------------------------------------------------------------------------------


def good(weight):
    return weight.sum()


def infinite_loss(weight):
    return weight.sum() * math.inf


def infinite_gradient(weight):
    """The loss is zero, its gradient infinite: the step spoils the parameters unseen."""
    return (weight - weight.detach()).square().sum().sqrt() + (weight - weight.detach()).sum()


@pytest.mark.parametrize("bad", [infinite_loss, infinite_gradient])
@pytest.mark.parametrize("batch_size", [11, 22])
@pytest.mark.parametrize("bad_epoch", [0, 1, EPOCHS - 1])
def test_divergence_restores_the_last_state_known_to_be_good(tmp_path, bad, batch_size, bad_epoch):
    n_batches = len(DATA) // batch_size
    script = [good] * ((bad_epoch + 1) * n_batches - 1) + [bad, good]
    objective, hook = Scripted(*script), Hook()
    states = [copy_of_state(objective)]
    hook.end = lambda epoch: states.append(copy_of_state(objective))
    trainer = make_trainer(checkpoint=CheckpointFolder(tmp_path, {}))
    message = rf"Epoch {bad_epoch + 1} of the training.*Lower learning_rate"
    with pytest.raises(DivergenceError, match=message):
        trainer.run(make_phase(objective, batch_size=batch_size, hook=hook))
    # The state after the last epoch is not known to be good: nothing was computed with it.
    assert_same_state(copy_of_state(objective), states[max(bad_epoch - 1, 0)])
    assert len(trainer.history) == bad_epoch
    assert not objective.training
    saved = CheckpointFolder(tmp_path, {}).load()
    assert (saved["next_epoch"] if saved else 0) == bad_epoch


@pytest.mark.parametrize("bad_epoch", range(EPOCHS))
def test_divergence_restores_what_was_remembered_at_the_beginning_of_an_epoch(bad_epoch):
    objective = Following(fails_at=5 * bad_epoch + 3)
    states = [copy_of_state(objective)]
    hook = Hook()
    hook.end = lambda epoch: states.append(copy_of_state(objective))
    with pytest.raises(DivergenceError, match=f"Epoch {bad_epoch + 1} of"):
        make_trainer().run(make_phase(objective, hook=hook))
    # The last good epoch began with what the one before it left behind, and remembered that.
    state = states[max(bad_epoch - 1, 0)]
    remembered = state["weight"] if bad_epoch else state["previous"]
    assert_same_state(copy_of_state(objective), {**state, "previous": remembered})


class Normalized(nn.Module):
    """Scales its own size away in training, and not in evaluation mode."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), size))
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.long))

    def forward(self, first, second):
        self.n_batches += 1
        scaled = self.weight / self.weight.detach() if self.training else self.weight**9
        return scaled.sum(), {}


@pytest.mark.parametrize(("size", "epochs_done"), [(10.0, EPOCHS), (2e3, EPOCHS), (1e5, 0)])
def test_a_network_that_overflows_in_evaluation_mode_has_diverged(size, epochs_done):
    trainer, objective = make_trainer(), Normalized(size)
    frozen = [{"params": [objective.weight], "lr": 0.0}]
    phase = make_phase(objective, parameter_groups=frozen)
    if epochs_done == EPOCHS:
        trainer.run(phase)
    else:
        with pytest.raises(DivergenceError, match=r"Epoch 1 of .*Lower learning_rate"):
            trainer.run(phase)
    assert len(trainer.history) == epochs_done
    # To look has changed nothing.
    assert objective.n_batches == 4 * epochs_done


# Randomness ------------------------------------------------------------------------------------


def test_no_global_generator_is_touched():
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 - the global state is under test
    make_trainer().run(make_phase(Objective()))
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002 - the global state is under test
    assert random.getstate() == states[2]


def test_the_seed_decides_everything():
    results = []
    for seed, noise in ((7, 0), (7, 1), (8, 0)):
        torch.manual_seed(noise)
        objective = Objective()
        make_trainer(seed=seed).run(make_phase(objective))
        results.append(copy_of_state(objective))
    torch.manual_seed(0)
    assert_same_state(results[0], results[1])
    assert not torch.equal(results[0]["network.0.weight"], results[2]["network.0.weight"])


def test_every_purpose_has_a_generator_of_its_own():
    trainer = make_trainer()
    draws = {name: torch.rand(1, generator=trainer.generator(name)).item() for name in "abc"}
    assert len(set(draws.values())) == 3
    assert torch.rand(1, generator=make_trainer().generator("b")).item() == draws["b"]
    assert torch.rand(1, generator=make_trainer(seed=8).generator("b")).item() != draws["b"]


def test_layers_are_drawn_from_the_seed_and_not_from_the_global_generator():
    def weights(purpose, seed=7):
        with make_trainer(seed=seed).draws(purpose):
            return [nn.Linear(3, 2).weight.tolist() for _ in range(2)]

    torch.manual_seed(3)
    state = torch.get_rng_state()
    drawn = weights("build")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert weights("build") == drawn
    assert len({repr(w) for w in (drawn, weights("other"), weights("build", seed=8))}) == 3
    assert drawn[0] != drawn[1]


def test_after_an_error_draws_are_global_again():
    trainer = make_trainer()
    with pytest.raises(Crash), trainer.draws("build"):
        raise Crash(nn.Linear(3, 2))
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), first)


# Resuming --------------------------------------------------------------------------------------

PHASES = ("first", "second")


def fit(folder=None, first=None, second=None, fingerprint=None, **options):
    """A fit in two phases with a start of the second between them, as an estimator does it."""
    checkpoint = CheckpointFolder(folder, fingerprint or {}) if folder else None
    trainer = make_trainer(PHASES, checkpoint=checkpoint, **options)
    objective = Objective()
    hooks = first or Hook(), second or Hook()
    trainer.run(make_phase(Encoder(objective), "first", hook=hooks[0]))
    if not trainer.has_reached("second"):
        with torch.no_grad():
            objective.network[3].weight.mul_(objective.network[0].weight.mean())
    adam = {"optimizer": torch.optim.Adam, "schedule": cosine}
    trainer.run(make_phase(objective, "second", hook=hooks[1], **adam))
    return trainer, objective, hooks


class Encoder(nn.Module):
    """An objective of its own around a part of the network."""

    def __init__(self, objective):
        super().__init__()
        self.encoder = objective.network[:3]

    def forward(self, first, second):
        return (self.encoder(first) - self.encoder(second)).square().mean() + 1, {}


@pytest.fixture(scope="module")
def uninterrupted():
    return fit()


def assert_same_fit(ours, theirs):
    assert_same_state(copy_of_state(ours[1]), copy_of_state(theirs[1]))
    assert without_seconds(ours[0].history) == without_seconds(theirs[0].history)
    assert ours[0].n_skipped_steps == theirs[0].n_skipped_steps


@pytest.mark.parametrize("epoch", range(EPOCHS))
@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_fit_resumes_as_if_nothing_had_happened(tmp_path, uninterrupted, phase, epoch):
    with pytest.raises(Crash):
        fit(tmp_path, **{phase: Hook(at=epoch, action=crash)})
    # Another seed in the call, as with random_state=None: the checkpoint's counts.
    seed = {"seed": 7 if (phase, epoch) == ("first", 0) else 99}
    resumed = fit(tmp_path, **seed)
    assert_same_fit(resumed, uninterrupted)
    first, second = resumed[2]
    if phase == "first":
        assert first.begun == list(range(epoch, EPOCHS))
        assert second.begun == list(range(EPOCHS))
    elif epoch == 0:  # the newest checkpoint is the end of the first phase
        assert first.begun == []
        assert second.begun == list(range(EPOCHS))
    else:
        assert first.begun == []
        assert second.begun == list(range(epoch, EPOCHS))


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_a_resumed_epoch_begins_as_if_nothing_had_happened(tmp_path, epoch):
    def run(folder=None, **hook):
        checkpoint = CheckpointFolder(folder, {}) if folder else None
        objective = Following()
        phase = make_phase(objective, hook=Hook(**hook), schedule=[cosine])
        make_trainer(checkpoint=checkpoint).run(phase)
        return objective

    expected = run()
    with pytest.raises(Crash):
        run(tmp_path, at=epoch, action=crash)
    resumed = run(tmp_path)
    assert_same_state(copy_of_state(resumed), copy_of_state(expected))
    assert resumed.progress == [epoch / EPOCHS for epoch in range(epoch, EPOCHS)]


def test_a_fit_killed_again_and_again(tmp_path, uninterrupted):
    for phase in PHASES:
        for epoch in range(EPOCHS):
            with pytest.raises(Crash):
                fit(tmp_path, **{phase: Hook(at=epoch, action=crash)})
    assert_same_fit(fit(tmp_path), uninterrupted)


def test_a_complete_fit_is_not_trained_again(tmp_path, uninterrupted):
    fit(tmp_path)
    again = fit(tmp_path)
    assert_same_fit(again, uninterrupted)
    assert again[2][0].begun == again[2][1].begun == []
    assert not again[1].training


def test_checkpoints_change_nothing(tmp_path, uninterrupted):
    assert_same_fit(fit(tmp_path), uninterrupted)


def test_a_torn_checkpoint_costs_one_epoch(tmp_path, uninterrupted):
    with pytest.raises(Crash):
        fit(tmp_path, second=Hook(at=3, action=crash))
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.warns(RuntimeWarning, match="passed over"):
        resumed = fit(tmp_path)
    assert_same_fit(resumed, uninterrupted)
    assert resumed[2][1].begun == [2, 3]


def test_a_phase_that_the_hook_stopped_stays_stopped(tmp_path):
    def early():
        return Hook(at=1, action=lambda: True)

    expected = fit(first=early())
    with pytest.raises(Crash):
        fit(tmp_path, first=early(), second=Hook(at=0, action=crash))
    resumed = fit(tmp_path, first=early())
    assert_same_fit(resumed, expected)
    assert resumed[2][0].begun == []


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_resuming_in_other_precisions(tmp_path, precision):
    expected = fit(precision=precision)
    with pytest.raises(Crash):
        fit(tmp_path, precision=precision, second=Hook(at=2, action=crash))
    assert_same_fit(fit(tmp_path, precision=precision), expected)


def test_skipped_batches_are_counted_across_a_resume(tmp_path):
    def run(folder, hook):
        trainer = make_trainer(checkpoint=CheckpointFolder(folder, {}))
        trainer.run(make_phase(Objective(skip={0, 5, 6, 13}), hook=hook))
        return trainer

    with pytest.raises(Crash):
        run(tmp_path, Hook(at=2, action=crash))
    assert run(tmp_path, Hook()).n_skipped_steps == 4


def test_numpy_numbers_in_the_parameters_do_not_spoil_a_checkpoint(tmp_path):
    objective = Objective()
    groups = [{"params": list(objective.parameters()), "lr": np.float64(0.05)}]
    trainer = make_trainer(checkpoint=CheckpointFolder(tmp_path, {}))
    trainer.run(make_phase(objective, parameter_groups=groups, epochs=np.int64(2)))
    assert CheckpointFolder(tmp_path, {}).load()["next_epoch"] == 2


def test_has_reached_and_has_passed(tmp_path):
    fresh = make_trainer(PHASES, checkpoint=CheckpointFolder(tmp_path, {}))
    assert not any(ask(name) for name in PHASES for ask in (fresh.has_reached, fresh.has_passed))
    for phase, reached, passed in (("first", [1, 0], [0, 0]), ("second", [1, 1], [1, 0])):
        with pytest.raises(Crash):
            fit(tmp_path, **{phase: Hook(at=1, action=crash)})
        trainer = make_trainer(PHASES, checkpoint=CheckpointFolder(tmp_path, {}))
        assert [trainer.has_reached(name) for name in PHASES] == reached
        assert [trainer.has_passed(name) for name in PHASES] == passed


def test_restore_gives_the_objective_of_the_phase_and_of_no_other(tmp_path):
    with pytest.raises(Crash):
        fit(tmp_path, second=Hook(at=1, action=crash))
    trainer = make_trainer(PHASES, checkpoint=CheckpointFolder(tmp_path, {}))
    objective = Objective()
    fresh = copy_of_state(objective)
    trainer.restore("first", Encoder(objective))
    assert_same_state(copy_of_state(objective), fresh)
    trainer.restore("second", objective)
    assert_same_state(copy_of_state(objective), CheckpointFolder(tmp_path, {}).load()["objective"])


def test_a_checkpoint_of_a_phase_that_this_fit_lacks(tmp_path):
    fit(tmp_path)
    with pytest.raises(ValueError, match=r"written in the second.*no phase of this fit \(first\)"):
        make_trainer(["first"], checkpoint=CheckpointFolder(tmp_path, {}))


# Ctrl-C ----------------------------------------------------------------------------------------


@pytest.fixture
def handler():
    """A handler of the user's own, which has to be there again afterwards."""

    def handle(signum, frame):
        raise AssertionError("the loop did not handle Ctrl-C")

    previous = signal.signal(signal.SIGINT, handle)
    yield handle
    signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize(("phase", "epoch"), [("first", 0), ("first", 3), ("second", 1)])
def test_ctrl_c_stops_after_the_epoch(tmp_path, uninterrupted, handler, phase, epoch):
    message = rf"Interrupted after epoch {epoch + 1} of {EPOCHS} of the {phase}"
    with pytest.warns(ConvergenceWarning, match=message):
        trainer, objective, hooks = fit(tmp_path, **{phase: Hook(at=epoch, action=press_ctrl_c)})
    assert trainer.interrupted
    assert signal.getsignal(signal.SIGINT) is handler
    assert trainer.history[-1]["phase"] == phase
    assert trainer.history[-1]["epoch"] == epoch
    assert (hooks[1].begun == []) == (phase == "first")
    assert not objective.training
    assert_same_fit(fit(tmp_path), uninterrupted)


def test_ctrl_c_in_the_very_last_epoch_interrupts_nothing(handler, uninterrupted):
    interrupted = fit(second=Hook(at=EPOCHS - 1, action=press_ctrl_c))
    assert not interrupted[0].interrupted
    assert_same_fit(interrupted, uninterrupted)


def test_a_second_ctrl_c_interrupts_at_once(handler):
    def press_twice():
        press_ctrl_c()
        press_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        fit(first=Hook(at=1, action=press_twice))
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_ignored_ctrl_c_stays_ignored(uninterrupted):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert_same_fit(fit(first=Hook(at=1, action=press_ctrl_c)), uninterrupted)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_the_handler_is_put_back_after_an_error(handler):
    with pytest.raises(Crash):
        fit(first=Hook(at=0, action=crash))
    assert signal.getsignal(signal.SIGINT) is handler


def test_in_another_thread(uninterrupted, handler):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit()))
    thread.start()
    thread.join()
    assert_same_fit(results[0], uninterrupted)
    assert signal.getsignal(signal.SIGINT) is handler
