"""Callbacks that end a fit early."""

import signal
from contextlib import contextmanager


@contextmanager
def ctrl_c_is_heard():
    """A process in the background of a shell inherits that Ctrl-C is ignored."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, inherited)


class Watcher:
    """A callback that does nothing."""

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context): ...


class Killed(Exception):
    pass


class KillAfter(Watcher):
    """Kill the fit when it has done so many epochs of a phase."""

    def __init__(self, phase, n_epochs):
        self.phase, self.n_epochs = phase, n_epochs

    def setup(self, estimator, context):
        self.seen = 0

    def on_fit_task_end(self, estimator, context):
        self.seen += context.task_name == "epoch" and context.parent.task_name == self.phase
        if self.seen == self.n_epochs:
            raise Killed


class InterruptIn(Watcher):
    """Press Ctrl-C at the begin of each epoch of a phase."""

    def __init__(self, phase):
        self.phase = phase

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch" and context.parent.task_name == self.phase:
            signal.raise_signal(signal.SIGINT)


class InterruptAt(KillAfter):
    """Press Ctrl-C when so many epochs of a phase are done."""

    def on_fit_task_end(self, estimator, context):
        self.seen += context.task_name == "epoch" and context.parent.task_name == self.phase
        if self.seen == self.n_epochs and context.task_name == "epoch":
            signal.raise_signal(signal.SIGINT)
