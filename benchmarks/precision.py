"""A training step on the CPU in float32 and bfloat16, in both orders of the weights in memory.

    python benchmarks/precision.py [--models resnet18 ...] [--turns 7] [--threads 2]
        [--output FILE]

A step is forward, backward and an update by SGD, with a network as ``build_backbone`` returns it
(channels last) or put back into torch's usual order (NCHW), and the engine of our training loop, on
one batch of random images. The four ways take turns, after a step of each that does not count, and
the fastest of its turns counts for each. Prints milliseconds. Give it all cores, and nothing else
to share them with.

This is where ``CPU_BFLOAT16_SIDE`` comes from. On two cores of a Xeon with matrix units (AMX) and
channels last, bfloat16 took twice as long as float32 at 8 pixels, a fifth less at 16, and from 28
pixels on a third to over a half less (``results/precision_cpu.jsonl``). Channels last were as fast
as the usual order or faster but for ResNet-18 in float32 at 8 and 16 pixels (6 and 10 %).
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from features import append

from skdeepcluster.networks import build_backbone
from skdeepcluster.training import get_fabric

CASES = [  # model, side in pixels, batch size
    ("resnet18", 8, 256),
    ("resnet18", 16, 128),
    ("resnet18", 28, 64),
    ("resnet18", 32, 64),
    ("resnet18", 64, 16),
    ("resnet18", 224, 8),
    ("resnet50", 224, 4),
    ("test_resnet", 16, 256),
    ("test_resnet", 32, 256),
]
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
ORDERS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
WAYS = [" ".join(way) for way in itertools.product(PRECISIONS, ORDERS)]
CPU = torch.device("cpu")


def make_step(model: str, images: torch.Tensor, way: str) -> Callable[[], None]:
    """Return what trains a new network for one step."""
    precision, order = way.split()
    network, _ = build_backbone(model, images.shape[1:])
    network.to(memory_format=ORDERS[order])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=True)
    fabric = get_fabric(CPU, PRECISIONS[precision])
    network, optimizer = fabric.setup(network.train(), optimizer)

    def step() -> None:
        loss = network(images).square().mean()
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()

    return step


def milliseconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - started)


def measure(model: str, side: int, batch_size: int, n_turns: int) -> dict[str, Any]:
    """Return the milliseconds of a step in each of the ways."""
    images = torch.rand(batch_size, 3, side, side)
    steps = {way: make_step(model, images, way) for way in WAYS}
    for step in steps.values():
        step()
    # In turns, so that a slow minute of the machine is everybody's.
    turns = [{way: milliseconds(step) for way, step in steps.items()} for _ in range(n_turns)]
    return {
        "model": model,
        "side": side,
        "batch": batch_size,
        "turns": n_turns,
        **{way: min(turn[way] for turn in turns) for way in WAYS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = list(dict.fromkeys(model for model, *_ in CASES))
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--turns", type=int, default=7, help="the fastest counts")
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    capabilities = torch.cpu.get_capabilities()
    hardware = {name: capabilities[name] for name in ("cpu_name", "avx512_bf16", "amx_bf16")}
    print(*(f"{name}: {value}" for name, value in hardware.items()), sep=", ", end=", ")
    print(f"threads: {torch.get_num_threads()}")
    print(f"{'ms of a step':16}{'side':>6}{'batch':>7}", *(f"{way:>14}" for way in WAYS))
    for model, side, batch_size in CASES:
        if model not in arguments.models:
            continue
        record = measure(model, side, batch_size, arguments.turns)
        times = (f"{record[way]:14.0f}" for way in WAYS)
        print(f"{model:16}{side:6}{batch_size:7}", *times, flush=True)
        append({**record, **hardware}, arguments.output)


if __name__ == "__main__":
    main()
