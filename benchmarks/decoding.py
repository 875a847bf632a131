"""Image files: Pillow against torchvision's decoders, alone and in threads.

    python benchmarks/decoding.py [--files 200] [--output FILE]

Files are made on the spot: the two photographs of scikit-learn, at 2560 x 1707, 640 x 427 and
48 x 32 pixels, as JPEG and PNG, each moved a little so that no two are alike. Each is decoded to
RGB, its central square resized to at most 224 pixels. "Pillow, draft" lets the JPEG decoder leave
out what the smaller picture will not show, as ``ImageFiles`` does. Prints images per second,
medians of three passes, and how far pixels differ from Pillow's on average (of 255).
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from joblib import Parallel, delayed
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2.functional import center_crop, resize

LARGEST = 224
SIDES = {"2560 x 1707": (2560, 1707), "640 x 427": (640, 427), "48 x 32": (48, 32)}
PASSES = 3


def with_pillow(path: str, size: int) -> np.ndarray:
    with Image.open(path) as image:
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def with_draft(path: str, size: int) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (2 * size, 2 * size))
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def with_torchvision(path: str, size: int) -> np.ndarray:
    image = decode_image(read_file(path), ImageReadMode.RGB)
    pixels: np.ndarray = center_crop(resize(image, [size], antialias=True), [size, size]).numpy()
    return pixels


WAYS = {"Pillow": with_pillow, "Pillow, draft": with_draft, "torchvision": with_torchvision}


def write(folder: Path, sides: tuple[int, int], ending: str, n_files: int) -> list[str]:
    """Write photographs, each a part of its own of one of the two."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    paths = []
    for number in range(n_files):
        left, top = rng.integers(0, 20, size=2)
        part = photographs[number % 2].crop((left, top, left + 600, top + 400))
        path = folder / f"{number:04}.{ending}"
        part.resize(sides, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def rate(way: Callable[[str, int], np.ndarray], paths: list[str], size: int, n_jobs: int) -> float:
    """Return how many images are decoded in a second."""
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(way)(path, size) for path in paths)
        seconds.append(time.perf_counter() - began)
    return len(paths) / float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # threads work side by side, on a file each
    versions = {"Pillow": PIL.__version__, "torchvision": torchvision.__version__}
    for name, sides in SIDES.items():
        size = min(LARGEST, min(sides))
        for ending in ("jpeg", "png"):
            with tempfile.TemporaryDirectory() as folder:
                n_files = arguments.files if max(sides) < 2000 else arguments.files // 5
                paths = write(Path(folder), sides, ending, n_files)
                expected = with_pillow(paths[0], size).astype(float)
                for way, decode in WAYS.items():
                    off = np.abs(decode(paths[0], size) - expected).mean()
                    rates = {n: rate(decode, paths, size, n) for n in (1, 2)}
                    record = {
                        "files": f"{name} {ending}",
                        "way": way,
                        "images per second, alone": round(rates[1], 1),
                        "with two threads": round(rates[2], 1),
                        "mean difference": round(float(off), 2),
                        "versions": versions,
                        "machine": platform.processor() or platform.machine(),
                    }
                    print(record["files"], way, *list(record.values())[2:5], flush=True)
                    if arguments.output:
                        with open(arguments.output, "a") as file:
                            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
