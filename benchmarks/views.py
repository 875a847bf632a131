"""How many random views per second: ours, those of kornia, and torchvision image by image.

    python benchmarks/views.py [--sides 32 96 224] [--seconds 2]

Crop, flip, jitter and grey, as for small images, and the two views of BYOL for ImageNet, which add
blur and solarisation. All get the same probabilities and ranges and a batch of uint8 images, on the
GPU if there is one, and return float images; every image draws its own parameters. Prints views per
second, by the median time of a batch, over the two views of an image. kornia is left out unless it
is installed; of its two ways to crop, the faster one counts.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from skdeepcluster.data import RandomImageViews, contrastive_views

BATCH_SIZES = {32: 256}  # others: 64
KINDS = {"small images": (32, 32), "BYOL, ImageNet": (224, 224)}


def kernel_size(side: int) -> int:
    """Return the size of the blur kernel that ours takes for this side."""
    return 2 * max(1, side // 20) + 1


def ours(views: RandomImageViews, side: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda images: views(images, generator)


def by_kornia(views: RandomImageViews, side: int, crop: str) -> Callable[[Tensor], Tensor]:
    from kornia import augmentation

    steps = [
        augmentation.RandomResizedCrop((side, side), views.scale, views.ratio, cropping_mode=crop),
        augmentation.RandomHorizontalFlip(views.flip),
        augmentation.ColorJitter(*views.jitter, p=views.jitter_probability),
        augmentation.RandomGrayscale(p=views.grey_probability),
    ]
    if views.blur_probability > 0:
        steps.append(
            augmentation.RandomGaussianBlur(
                kernel_size(side), views.blur_sigma, p=views.blur_probability
            )
        )
    if views.solarize_probability > 0:
        steps.append(
            augmentation.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=views.solarize_probability)
        )
    chain = nn.Sequential(*steps)
    return lambda images: chain(images / 255)


def by_torchvision(views: RandomImageViews, side: int) -> Callable[[Tensor], Tensor]:
    blur = v2.GaussianBlur(kernel_size(side), views.blur_sigma)
    steps = [
        v2.RandomResizedCrop(side, views.scale, views.ratio),
        v2.RandomHorizontalFlip(views.flip),
        v2.RandomApply([v2.ColorJitter(*views.jitter)], views.jitter_probability),
        v2.RandomGrayscale(views.grey_probability),
        v2.RandomApply([blur], views.blur_probability),
        v2.RandomSolarize(128, views.solarize_probability),
        v2.ToDtype(torch.float32, scale=True),
    ]
    chain = v2.Compose(steps)
    return lambda images: torch.stack([chain(image) for image in images])


METHODS = {"ours": [ours]}
if find_spec("kornia"):
    METHODS["kornia"] = [partial(by_kornia, crop="slice"), partial(by_kornia, crop="resample")]
METHODS["torchvision"] = [by_torchvision]


def seconds_per_batch(draw: Callable[[Tensor], Tensor], images: Tensor, limit: float) -> float:
    """Return the median time of a call, over as many calls as fit into the limit."""
    draw(images)
    times: list[float] = []
    while len(times) < 3 or sum(times) < limit:
        _wait(images)
        started = time.perf_counter()
        draw(images)
        _wait(images)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--seconds", type=float, default=2.0, help="per view and method")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"Views per second on {device}, {torch.get_num_threads()} threads")
    print(f"{'':16}{'side':>6}{'batch':>7}" + "".join(f"{name:>14}" for name in METHODS))
    for side, (kind, image_size) in product(arguments.sides, KINDS.items()):
        n = BATCH_SIZES.get(side, 64)
        images = torch.randint(256, (n, 3, side, side), dtype=torch.uint8, device=device)
        print(f"{kind:16}{side:6}{n:7}", end="")
        for ways in METHODS.values():
            fastest = [
                min(seconds_per_batch(way(views, side), images, arguments.seconds) for way in ways)
                for views in contrastive_views(image_size)
            ]
            print(f"{n / np.mean(fastest):14,.0f}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
