"""How many CPU threads small convolutions are worth, on quiet cores and on busy ones.

    python benchmarks/threads.py [--busy 2] [--turns 3] [--output FILE]

An epoch of SimCLR on digits enlarged to several sides, with one thread and with all, in turns; the
fastest epoch of each counts. With ``--busy N`` so many other processes compute beside it. Prints
seconds and their ratio: above 1, threads are worth having.

This is where ``SMALL_IMAGE_PIXELS`` comes from. On two cores, two threads made an epoch of
``test_resnet`` at 8 pixels 1.3 times as fast as one, at 12, 16 and 32 pixels 1.4 to 1.6 times; with
two other processes beside it .5 times as fast at 8 pixels, .7 at 12 and .8 at 16
(``results/threads_cpu.jsonl``).
"""

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from features import append
from sklearn.datasets import load_digits

from skdeepcluster.base import _estimator
from skdeepcluster.pretraining import SimCLR

CASES = [  # model, side in pixels, number of images
    ("test_resnet", 8, 768),
    ("test_resnet", 12, 768),
    ("test_resnet", 16, 768),
    ("test_resnet", 32, 256),
    ("resnet18", 8, 256),
]


def compute_on() -> None:
    """Keep a core busy."""
    x = np.ones((200, 200))
    while True:
        x @ x


def epoch_seconds(images: np.ndarray, model: str, n_threads: int) -> float:
    torch.set_num_threads(n_threads)
    fitted = SimCLR(backbone=model, max_epochs=3, random_state=0).fit(images)
    return min(record["seconds"] for record in fitted.history_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    _estimator.SMALL_IMAGE_PIXELS = 0  # the rule is what is to be found
    n_all = torch.get_num_threads()
    others = [multiprocessing.Process(target=compute_on, daemon=True) for _ in range(options.busy)]
    for process in others:
        process.start()
    digits = torch.from_numpy(load_digits().images.astype(np.float32) / 16)[:, None]
    for model, side, n in CASES:
        images = torch.nn.functional.interpolate(digits[:n], size=(side, side)).numpy()
        seconds = {1: np.inf, n_all: np.inf}
        for _ in range(options.turns):
            for n_threads in seconds:
                took = epoch_seconds(images, model, n_threads)
                seconds[n_threads] = min(seconds[n_threads], took)
        ratio = seconds[1] / seconds[n_all]
        print(
            f"{model:12} {side:3} px, {options.busy} busy: {seconds}, ratio {ratio:.2f}", flush=True
        )
        record = {"model": model, "side": side, "images": n, "busy": options.busy}
        rounded = {str(k): round(v, 3) for k, v in seconds.items()}
        append({**record, "seconds_by_threads": rounded}, options.output)


if __name__ == "__main__":
    main()
