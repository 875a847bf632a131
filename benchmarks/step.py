"""What a step of training on images waits for: its parts alone, as a graph, and compiled.

    python benchmarks/step.py [--backbone resnet18] [--batch-size 512] [--size 32]
        [--stages BYOL SimCLR ...] [--output FILE]

On CUDA: what the card can do (a product of matrices, a copy), and for each stage the milliseconds
of making the views, of a step on views that are there, of the same step with cuDNN's benchmark
mode, replayed as a CUDA graph, and with the network compiled; besides, the kernels that take most
of the time. On a CPU: the first three.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from features import environment
from roofline import measured_rates, seconds_of, synchronize
from throughput import CLUSTERING, PRETRAINING, catch, random_images, stepper
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from skdeepcluster.training import Phase, Trainer

PROFILED, MOST_KERNELS = 5, 12


def milliseconds(act: Callable[[], Any], device: torch.device) -> float:
    return seconds_of(act, device) * 1e3


def card(device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield what the device can do."""
    rates = measured_rates(device, torch.bfloat16)
    yield {"what": "TFLOP/s of bfloat16", "value": rates.flop / 1e12}
    yield {"what": "TB/s of a copy", "value": rates.bytes / 1e12}


def graphed(phase: Phase, views: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
    """Return the step as a CUDA graph, in bfloat16."""
    objective = phase.objective.train()
    optimizer = phase.optimizer(phase.parameter_groups, fused=True, capturable=True)

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            loss, _ = objective(*views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    with torch.cuda.graph(graph):
        step()
    return graph


def kernels(act: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Return how many kernels a turn starts, and which take longest."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            act()
        synchronize(device)
    events = profiler.key_averages()
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    own = [event for event in events if event.key.startswith("aten::")]
    own.sort(key=lambda event: -event.self_device_time_total)
    share = {e.key: e.self_device_time_total / PROFILED / 1e3 for e in own[:MOST_KERNELS]}
    return {"launches": launches / PROFILED, "milliseconds": share}


def parts(stage: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the milliseconds of the parts of a stage."""
    X = random_images(4 * arguments.batch_size, arguments.size)

    def caught() -> tuple[Trainer, Phase]:
        return catch(stage, X, arguments.backbone, arguments.batch_size)

    trainer, phase = caught()
    device = trainer.device
    index, generator = torch.arange(arguments.batch_size), torch.Generator().manual_seed(0)

    def make_views() -> tuple[Tensor, ...]:
        return phase.views(index, generator)

    views = make_views()
    yield {"what": "views", "value": milliseconds(make_views, device)}
    step = partial(stepper(phase, device, trainer.precision), views)
    yield {"what": "step", "value": milliseconds(step, device)}
    torch.backends.cudnn.benchmark = True
    yield {"what": "step, cuDNN benchmark", "value": milliseconds(step, device)}
    if device.type == "cuda":
        yield {"what": "kernels of the views", **kernels(make_views, device)}
        yield {"what": "kernels of the step", **kernels(step, device)}
        try:
            graph = graphed(caught()[1], views)
            yield {"what": "step as a graph", "value": milliseconds(graph.replay, device)}
        except RuntimeError as error:
            yield {"what": "step as a graph", "error": str(error)[:300]}
        trainer, phase = caught()
        embedding: Any = phase.objective
        (embedding.embedding if stage in PRETRAINING else embedding.model.embedding).compile()
        step = partial(stepper(phase, device, trainer.precision), views)
        yield {"what": "step, compiled", "value": milliseconds(step, device)}
    torch.backends.cudnn.benchmark = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=512)
    stages = {**PRETRAINING, **CLUSTERING}
    parser.add_argument("--stages", nargs="+", default=["BYOL", "SimCLR"], choices=stages)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    common = {key: getattr(arguments, key) for key in ("backbone", "size", "batch_size")}
    records = list(card(torch.device("cuda"))) if torch.cuda.is_available() else []

    def tell(record: dict[str, Any]) -> None:
        print(record, flush=True)
        if arguments.output:
            with arguments.output.open("a") as file:
                file.write(json.dumps({**record, **common, **environment()}) + "\n")

    for record in records:
        tell(record)
    for stage in arguments.stages:
        for record in parts(stage, arguments):
            tell({"stage": stage, **record})


if __name__ == "__main__":
    main()
