"""The training loop: epochs, device, precision, schedules, checkpoints, history."""

from skdeepcluster.training._checkpoint import CheckpointFolder
from skdeepcluster.training._device import choose_device, choose_precision, intra_op_threads
from skdeepcluster.training._loop import MAX_SEED, EpochHook, Phase, SilentHook, Trainer
from skdeepcluster.training._schedules import Schedule, constant, cosine, delayed, one_cycle

__all__ = [
    "MAX_SEED",
    "CheckpointFolder",
    "EpochHook",
    "Phase",
    "Schedule",
    "SilentHook",
    "Trainer",
    "choose_device",
    "choose_precision",
    "constant",
    "cosine",
    "delayed",
    "intra_op_threads",
    "one_cycle",
]
