"""What it costs to embed a batch in pieces, where it does not fit into memory at once.

    python benchmarks/pieces.py [--model resnet18] [--side 32] [--images 64] [--device cpu]

Prints the time of a forward and a backward pass, relative to the whole batch, and on CUDA the
memory, too.
"""

import argparse
import time

import timm
import torch
from torch import nn

from skdeepcluster.networks import EmbeddingNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    backbone = timm.create_model(options.model, num_classes=0)
    network = EmbeddingNetwork(backbone, nn.Identity(), backbone.num_features)
    network.to(options.device).train()
    images = torch.randn(options.images, 3, options.side, options.side, device=options.device)
    seconds: dict[int, list[float]] = {1: [], 2: [], 4: [], 8: []}
    memory = dict.fromkeys(seconds, 0)
    cuda = options.device.startswith("cuda")
    for _ in range(options.turns):
        for n_pieces, times in seconds.items():
            network.n_pieces = n_pieces
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            network(images).sum().backward()
            if cuda:
                torch.cuda.synchronize()
                memory[n_pieces] = torch.cuda.max_memory_allocated() // 2**20
            times.append(time.perf_counter() - started)
    where = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} thread(s)"
    print(f"{options.model}, {options.images} images of {options.side} pixels, {where}")
    for n_pieces, times in seconds.items():
        line = f"{n_pieces} piece(s): {min(times) / min(seconds[1]):.2f} x the time"
        print(f"{line}, {memory[n_pieces]} MiB" if cuda else line)


if __name__ == "__main__":
    main()
