"""Images per second of training: the bare step, our loop, and the program that papers come with.

    python benchmarks/throughput.py [--cases resnet18@32 resnet50@224] [--stages BYOL ...]
        [--batch-size 256] [--steps 20] [--repeats 3] [--images 10000] [--growth] [--output FILE]

For each backbone, image size and stage:

(a) the ceiling: the step of the objective and the optimiser on one fixed batch that is on the
    device already, nothing else;
(b) our loop, end to end: views made anew from uint8 images, checked losses, history;
(c) the conventional program: PIL transforms of torchvision, one image at a time, in the workers of
    a DataLoader, and the same objective in float32, its weights in torch's usual order in memory.

All three run after a warm-up, in one process, in turns, on random images: it is speed that counts.
Rates count samples, not views. On CUDA also how many kernels (b) starts in a step, which share of
its time the device computes, and the floor: how fast (a) could be if each of its operations were as
fast as a large product of matrices or a large copy. (On a CPU caches are faster than that.)
``--growth`` adds the time of an epoch of (b) for 10,000 to 100,000 images.
"""

import argparse
import contextlib
import itertools
import json
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from features import environment
from PIL import Image
from roofline import floor_of, measured_rates, synchronize
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.data import IndexedViews, StrongImageViews
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from skdeepcluster.training import Phase, SilentHook, Trainer, get_fabric

PRETRAINING = {method.__name__: method for method in (BYOL, MoCo, SimCLR)}
CLUSTERING = {
    method.__name__: method
    for method in (
        MiniClustering,
        CalibratedDeepClustering,
        StableClusterDiscrimination,
        ProximityDeepClustering,
        GenerativeCalibrationClustering,
    )
}
N_CLUSTERS = 10
MULTIPLIED_AS = {
    "32-true": torch.float32,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
WARMUP_STEPS = 3
EPOCHS = 2  # of our loop, of which the last counts
GROWTH = (10_000, 30_000, 100_000)


class Caught(Exception):
    """Ends a fit where the stage to be measured would begin."""


def catch(stage: str, X: np.ndarray, backbone: str, batch_size: int) -> tuple[Trainer, Phase]:
    """Return a stage of a real fit, ready to be run."""
    if stage in PRETRAINING:
        estimator = PRETRAINING[stage](backbone=backbone, batch_size=batch_size, random_state=0)
        name = "pretraining"
    else:
        estimator = CLUSTERING[stage](
            N_CLUSTERS, backbone=backbone, batch_size=batch_size, random_state=0
        )
        # The network learns from images on every device.
        asked = {"pretraining": None, "fine_tune": True}
        estimator.set_params(**{k: v for k, v in asked.items() if k in estimator.get_params()})
        name = "clustering"
    caught = []

    def run(trainer: Trainer, phase: Phase) -> None:
        if phase.name == name:
            caught.append((trainer, phase))
            raise Caught

    with patch.object(Trainer, "run", run), contextlib.suppress(Caught):
        estimator.fit(X)
    trainer, phase = caught[0]
    if hasattr(phase.objective, "confidence_threshold"):  # or batches are skipped, in no time
        phase.objective.confidence_threshold = 0.0
    return trainer, phase


def fresh_trainer(trainer: Trainer, precision: str | None = None) -> Trainer:
    """Return a trainer that has run nothing yet."""
    return Trainer(
        trainer.phases,
        device=trainer.device,
        precision=precision or trainer.precision,
        seed=trainer.seed,
    )


def stepper(
    phase: Phase, device: torch.device, precision: str
) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """Return what takes a step of a phase on views."""
    fabric = get_fabric(device, precision)
    optimizer = phase.optimizer(phase.parameter_groups, fused=True)
    objective, optimizer = fabric.setup(phase.objective.train(), optimizer)

    def step(views: tuple[Tensor, ...]) -> Tensor:
        loss, _ = objective(*views)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        return loss

    return step


def time_steps(
    phase: Phase,
    batches: Iterator[tuple[torch.Tensor, ...]],
    device: torch.device,
    precision: str,
    n_steps: int,
) -> float:
    """Return the seconds of some steps, after a few that do not count."""
    step = stepper(phase, device, precision)
    started = 0.0
    for number, views in enumerate(itertools.islice(batches, WARMUP_STEPS + n_steps)):
        if number == WARMUP_STEPS:
            synchronize(device)
            started = time.perf_counter()
        step(views)
    synchronize(device)
    return time.perf_counter() - started


def fixed_batch(phase: Phase) -> tuple[Tensor, ...]:
    return phase.views(torch.arange(phase.batch_size), torch.Generator().manual_seed(0))


def floor(trainer: Trainer, phase: Phase, n_steps: int) -> float:
    """Return the seconds that the operations of steps on one fixed batch need at least."""
    rates = measured_rates(trainer.device, MULTIPLIED_AS[trainer.precision])
    views, step = fixed_batch(phase), stepper(phase, trainer.device, trainer.precision)
    step(views)  # the optimiser's state is made
    return n_steps * floor_of(lambda: step(views), rates)


def ceiling(trainer: Trainer, phase: Phase, n_steps: int) -> float:
    """Return (a), the seconds of steps on one fixed batch."""
    batches = itertools.repeat(fixed_batch(phase))
    return time_steps(phase, batches, trainer.device, trainer.precision, n_steps)


def our_loop(trainer: Trainer, phase: Phase, n_steps: int) -> float:
    """Return (b), the seconds of steps of the loop: the second epoch, everything included."""
    n_samples = n_steps * phase.batch_size
    trainer = fresh_trainer(trainer)
    trainer.run(replace(phase, n_samples=n_samples, epochs=EPOCHS, hook=SilentHook()))
    synchronize(trainer.device)
    return float(trainer.history[-1]["seconds"])


def on_the_device(trainer: Trainer, phase: Phase, n_steps: int) -> tuple[float, float]:
    """Return how many kernels the loop starts in a step, and how many seconds they compute."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        our_loop(trainer, phase, n_steps)
    events = profiler.key_averages()
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    microseconds = sum(
        event.self_device_time_total
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )
    return launches / (EPOCHS * n_steps), microseconds / 1e6 / (EPOCHS * n_steps)


class PILViews(Dataset[Any]):
    """The views of each image, made by PIL, as the papers' programs make them."""

    def __init__(self, X: np.ndarray, transforms: list[Callable[[Any], Any]], numbered: bool):
        self.X = X.transpose(0, 2, 3, 1)
        self.transforms = transforms
        self.numbered = numbered

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        image = Image.fromarray(self.X[number])
        views = tuple(transform(image) for transform in self.transforms)
        return (number, *views) if self.numbered else views


def pil_transforms(phase: Phase, size: int) -> tuple[list[Callable[[Any], Any]], bool]:
    """Return torchvision's counterparts of the views of a phase, and whether they are numbered."""
    numbered = isinstance(phase.views, IndexedViews)
    views: Any = phase.views.views if numbered else phase.views
    to_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    crop = [v2.RandomResizedCrop(size, antialias=False), v2.RandomHorizontalFlip()]
    transforms: list[Callable[[Any], Any]] = []
    for augmentation in views.augmentations:
        if isinstance(augmentation, StrongImageViews):
            steps = [*crop, v2.RandAugment(augmentation.n_operations), *to_tensor]
            steps.append(v2.RandomErasing(1.0, scale=(0.01, 0.25), ratio=(1, 1)))
        elif hasattr(augmentation, "jitter"):
            steps = list(crop)
            if max(augmentation.jitter):
                jitter = v2.ColorJitter(*augmentation.jitter)
                steps.append(v2.RandomApply([jitter], augmentation.jitter_probability))
                steps.append(v2.RandomGrayscale(augmentation.grey_probability))
            if augmentation.blur_probability:
                blur = v2.GaussianBlur(size // 20 * 2 + 1, augmentation.blur_sigma)
                steps.append(v2.RandomApply([blur], augmentation.blur_probability))
            if augmentation.solarize_probability:
                steps.append(v2.RandomSolarize(128, augmentation.solarize_probability))
            steps += to_tensor
        else:
            steps = to_tensor
        transforms.append(v2.Compose(steps))
    return transforms, numbered


def conventional(
    trainer: Trainer, phase: Phase, X: np.ndarray, n_steps: int, n_workers: int
) -> float:
    """Return (c), the seconds of steps of the conventional program."""
    transforms, numbered = pil_transforms(phase, X.shape[-1])
    loader = DataLoader(
        PILViews(X, transforms, numbered),
        phase.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=n_workers,
        pin_memory=trainer.device.type == "cuda",
        persistent_workers=n_workers > 0,
    )

    def batches() -> Iterator[tuple[torch.Tensor, ...]]:
        while True:
            for views in loader:
                yield tuple(view.to(trainer.device, non_blocking=True) for view in views)

    phase.objective.to(memory_format=torch.contiguous_format)
    return time_steps(phase, batches(), trainer.device, "32-true", n_steps)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in MiB: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(case: str, stage: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rates of one stage on one kind of network and images."""
    backbone, size = case.split("@")
    X = random_images(arguments.images, int(size))
    n_steps = min(arguments.steps, len(X) // arguments.batch_size)
    record: dict[str, Any] = {"case": case, "stage": stage, "batch": arguments.batch_size}
    routes: dict[str, Callable[[Trainer, Phase], float]] = {
        "floor": lambda trainer, phase: floor(trainer, phase, n_steps),
        "ceiling": lambda trainer, phase: ceiling(trainer, phase, n_steps),
        "loop": lambda trainer, phase: our_loop(trainer, phase, n_steps),
        "conventional": lambda trainer, phase: conventional(
            trainer, phase, X, n_steps, arguments.workers
        ),
    }
    skipped = [*arguments.skip, *([] if torch.cuda.is_available() else ["floor"])]
    seconds: dict[str, list[float]] = {name: [] for name in routes if name not in skipped}
    # In turns, so that a slow minute of the machine is everybody's.
    for name in [*seconds] * arguments.repeats:
        trainer, phase = catch(stage, X, backbone, arguments.batch_size)
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        seconds[name].append(routes[name](trainer, phase))
        record[f"{name} MiB"] = peak_memory(trainer.device)
        record["precision"], record["device"] = trainer.precision, str(trainer.device)
    if trainer.device.type == "cuda" and "loop" in seconds:
        trainer, phase = catch(stage, X, backbone, arguments.batch_size)
        record["launches"], computing = on_the_device(trainer, phase, n_steps)
        record["busy"] = computing * n_steps / statistics.median(seconds["loop"])
    n_samples = n_steps * arguments.batch_size
    rates = {name: n_samples / statistics.median(times) for name, times in seconds.items()}
    return {**record, "steps": n_steps, "repeats": arguments.repeats, **rates}


def growth(case: str, stage: str, batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield the seconds of an epoch of the loop for more and more images."""
    backbone, size = case.split("@")
    for n in GROWTH:
        trainer, phase = catch(stage, random_images(n, int(size)), backbone, batch_size)
        seconds = our_loop(trainer, phase, n // batch_size)
        yield {
            "case": case,
            "stage": stage,
            "batch": batch_size,
            "images": n,
            "epoch seconds": seconds,
            "loop MiB": peak_memory(trainer.device),
        }


def random_images(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(n, 3, size, size), dtype=np.uint8)


def describe(record: dict[str, Any]) -> str:
    if "images" in record:
        return (
            f"{record['case']:20}{record['stage']:30}{record['images']:>9} images"
            f"{record['epoch seconds']:9.1f} s{record['loop MiB']:9.0f} MiB"
        )
    rates = "".join(f"{record.get(k, float('nan')):10.0f}" for k in ROUTES)
    ratios = [
        record.get("loop", np.nan) / record.get(k, np.nan) for k in ("ceiling", "conventional")
    ]
    rest = [record.get(k, np.nan) for k in ("loop MiB", "launches", "busy")]
    return (
        f"{record['case']:20}{record['stage']:30}{rates}{ratios[0]:9.0%}{ratios[1]:9.1f}x"
        f"{rest[0]:9.0f}{rest[1]:9.0f}{rest[2]:9.0%}"
    )


ROUTES = ("floor", "ceiling", "loop", "conventional")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=["resnet18@32", "resnet50@224"])
    parser.add_argument(
        "--stages", nargs="+", default=[*PRETRAINING, *CLUSTERING], choices=PRETRAINING | CLUSTERING
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2, help="of the conventional program")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: its own")
    parser.add_argument("--skip", nargs="*", choices=ROUTES, default=[])
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    head = "".join(f"{name:>10}" for name in ROUTES)
    print(
        f"{'images per second':20}{'stage':30}{head}{'of (a)':>9}{'of (c)':>10}{'MiB':>9}"
        f"{'launches':>9}{'busy':>9}"
    )
    for case, stage in itertools.product(arguments.cases, arguments.stages):
        records = iter([measure(case, stage, arguments)])
        if arguments.growth:
            records = itertools.chain(records, growth(case, stage, arguments.batch_size))
        for record in records:
            print(describe(record), flush=True)
            if arguments.output:
                with arguments.output.open("a") as file:
                    file.write(json.dumps({**record, **environment()}) + "\n")


if __name__ == "__main__":
    main()
