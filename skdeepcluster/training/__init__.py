"""The training loop: epochs, device, precision, schedules, checkpoints, history."""

from skdeepcluster.training._checkpoint import CheckpointFolder
from skdeepcluster.training._device import choose_device, choose_precision
from skdeepcluster.training._engine import get_fabric
from skdeepcluster.training._hooks import EpochHook, PeriodicHook, SilentHook
from skdeepcluster.training._loop import Trainer
from skdeepcluster.training._phase import Phase, Plan
from skdeepcluster.training._processes import Processes, explain_lost_processes, started_processes
from skdeepcluster.training._progress import Countdown
from skdeepcluster.training._randomness import MAX_SEED
from skdeepcluster.training._schedules import Schedule, constant, cosine, delayed, one_cycle
from skdeepcluster.training._surroundings import undisturbed
from skdeepcluster.training._threads import intra_op_threads, threads_beside_torch

__all__ = [
    "MAX_SEED",
    "CheckpointFolder",
    "Countdown",
    "EpochHook",
    "PeriodicHook",
    "Phase",
    "Plan",
    "Processes",
    "Schedule",
    "SilentHook",
    "Trainer",
    "choose_device",
    "choose_precision",
    "constant",
    "cosine",
    "delayed",
    "explain_lost_processes",
    "get_fabric",
    "intra_op_threads",
    "one_cycle",
    "started_processes",
    "threads_beside_torch",
    "undisturbed",
]
