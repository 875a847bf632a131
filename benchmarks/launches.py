"""What the host starts on an accelerator in each step of training, counted without one.

    python benchmarks/launches.py [--stages BYOL ...] [--backbone test_resnet] [--size 32]
        [--batch-size 32] [--output FILE]

Every operation that the host starts takes it some microseconds, in which a fast card has nothing to
do; where it reads a number from the card, it waits until all before is computed. Both are counted
on the virtual device of the tests, in real fits on random pixels with all views that there are and
no batch skipped: what an epoch of six steps has more than one of two.
"""

import argparse
import importlib
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from features import environment
from throughput import CLUSTERING, PRETRAINING, catch, fresh_trainer, random_images

from skdeepcluster.base import _building
from skdeepcluster.base._view_choice import NAMES
from skdeepcluster.training import Phase, SilentHook, Trainer

# Of the checkout: the tests are not installed.
sys.path.append(str(Path(__file__).parents[1]))
virtual_cuda = importlib.import_module("tests.virtual_cuda").virtual_cuda

FEW, MANY = 2, 6  # steps of an epoch
EVERYTHING = [name for name in NAMES if name != "slight crop"]


def count(stage: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return launches and waits per step, and the launches of the views alone."""
    X = random_images(MANY * arguments.batch_size, arguments.size)
    with virtual_cuda() as device, patch.object(_building, "choose_views", lambda *_: EVERYTHING):
        trainer, phase = catch(stage, X, arguments.backbone, arguments.batch_size)
        before = device.launches
        phase.views(torch.arange(arguments.batch_size), torch.Generator().manual_seed(0))
        views = device.launches - before
        epoch(device, trainer, phase, 1)  # gives every later one gradients to bring along
        few, many = (epoch(device, trainer, phase, n) for n in (FEW, MANY))
    launches, waits = ((more - less) / (MANY - FEW) for less, more in zip(few, many, strict=True))
    return {"stage": stage, "launches": launches, "of views": views, "waits": waits}


def epoch(device: Any, trainer: Trainer, phase: Phase, n_steps: int) -> tuple[int, int]:
    """Return launches, and waits in steps, of an epoch."""
    launches, waits = device.launches, device.waits_of_steps.total()
    n_samples = n_steps * phase.batch_size
    fresh_trainer(trainer).run(replace(phase, n_samples=n_samples, epochs=1, hook=SilentHook()))
    return device.launches - launches, device.waits_of_steps.total() - waits


def main() -> None:
    stages = PRETRAINING | CLUSTERING
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", default=[*stages], choices=stages)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    print(f"{'in each step':30}{'launches':>10}{'of views':>10}{'waits':>8}")
    for stage in arguments.stages:
        record = count(stage, arguments)
        print(
            f"{stage:30}{record['launches']:10.0f}{record['of views']:10}{record['waits']:8.2f}",
            flush=True,
        )
        if arguments.output:
            with arguments.output.open("a") as file:
                file.write(json.dumps({**record, **environment()}) + "\n")


if __name__ == "__main__":
    main()
