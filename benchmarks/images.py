"""Images: our methods on images against KMeans and our array path on pixels and embeddings.

    python benchmarks/images.py [--data DIR] [--sets digits letters ...] [--seeds 3]
        [--methods MiniClustering ...] [--ablation] [--pixels] [--output FILE]
    python benchmarks/images.py --measure-views [--data DIR] [--sets digits letters cifar]

Sets: the digits of scikit-learn (8 x 8); ``letters``, 3,000 grey images of 28 x 28 pixels of twelve
letters in the fonts that matplotlib brings, turned, sheared, moved and noisy; both long-tailed
("LT", imbalance 10, drawn anew for each seed); with ``--data`` 2,000 test images of CIFAR-10 at 96
pixels through EfficientNet-Lite0 (DIR holds ``cifar10_jpeg.npz`` and
``tf_efficientnet_lite0.pth``). Labels are read only to score. Prints medians over the seeds with
seconds and peak memory, and appends a JSON record per run to ``--output`` as it goes.
``--measure-views`` prints what the choice of views is made by, for one draw of each set: the share
of an image's neighbours that its view has, and how many times as far the nearest image is.
"""

import argparse
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from features import METHODS, append, report, run
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import nn

from skdeepcluster import MiniClustering
from skdeepcluster.base._view_choice import measure_views
from skdeepcluster.data import ResidentSource
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.networks import Standardize

LETTERS = "abdehknpqstx"
LETTERS_PER_CLASS = 250
BACKBONE = "tf_efficientnet_lite0"
CIFAR_SIZE = 96
CIFAR_IMAGES = 2000
FIRST_SEED = 3000
SETS = ("digits", "digits LT", "letters", "letters LT")
PUBLISHED_VIEWS = ["crop", "mirror", "light", "colour", "grey"]
ABLATION: dict[str, dict[str, Any]] = {  # of MiniClustering
    "no neighbours": {"views": ["slight crop"]},
    "neighbours alone": {"views": ["neighbor"]},
    "mirror images besides": {"views": ["neighbor", "slight crop", "mirror"]},
    "published views": {"views": PUBLISHED_VIEWS},
    "fine-tuned": {"fine_tune": True},  # what was kept is in the record, as its stage
    "start alone": {"max_epochs": 0},
}


def letters(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw letters: half of the box is black, and no two of a class are alike."""
    rng = np.random.default_rng(seed)
    folder = Path(get_data_path()) / "fonts" / "ttf"
    # Fonts with all letters, in a plain shape.
    fonts = sorted(
        path
        for path in folder.glob("*.ttf")
        if path.name.startswith(("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmr", "cmss", "cmtt"))
        and "Display" not in path.name
    )
    images, classes = [], []
    for number, letter in enumerate(LETTERS):
        for _ in range(LETTERS_PER_CLASS):
            font = ImageFont.truetype(fonts[rng.integers(len(fonts))], int(rng.integers(38, 54)))
            drawn = Image.new("L", (84, 84))
            pen = ImageDraw.Draw(drawn)
            left, top, right, bottom = pen.textbbox((0, 0), letter, font=font)
            place = (42 - (left + right) / 2, 42 - (top + bottom) / 2)
            pen.text(place, letter, fill=255, font=font)
            angle, shear = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
            turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            change = np.array(turn) @ [[1, shear], [0, 1]] @ np.diag(rng.uniform(0.85, 1.2, size=2))
            shift = 42 - change @ (42 + rng.uniform(-1, 1, size=2))
            table = (*change[0], shift[0], *change[1], shift[1])
            drawn = drawn.transform((84, 84), Image.Transform.AFFINE, table, Image.BILINEAR)
            small = np.asarray(drawn.resize((28, 28), Image.BOX), dtype=np.float32)
            images.append(small * rng.uniform(0.6, 1) + rng.normal(0, 8, size=small.shape))
            classes.append(number)
    X = np.clip(np.array(images, dtype=np.float32) / 255, 0, 1)
    return X[:, None], np.array(classes)


def cifar(
    data: Path, seed: int, n_images: int = CIFAR_IMAGES, size: int = CIFAR_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Return test images of CIFAR-10, enlarged, or with 32 pixels as they are."""
    with np.load(data / "cifar10_jpeg.npz") as file:
        content, offsets, y = file["bytes"], file["offsets"], file["y"]
        wanted = np.flatnonzero(file["test"])
    wanted = np.random.default_rng(seed).choice(wanted, n_images, replace=False)
    images = [
        Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]].tobytes())).resize(
            (size, size), Image.BICUBIC
        )
        for i in wanted
    ]
    X = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(X), y[wanted].astype(np.int64)


def load(name: str, data: Path | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    base, _, tail = name.partition(" ")
    if base == "digits":
        X, y = load_digits(return_X_y=True)
        X = (X.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    elif base == "letters":
        X, y = letters(seed)
    elif data is None:
        raise SystemExit("CIFAR-10 needs --data, a folder with cifar10_jpeg.npz.")
    else:
        X, y = cifar(data, seed)
    if tail:
        flat, y = make_long_tailed(X.reshape(len(X), -1), y, imbalance_ratio=10, random_state=seed)
        X = flat.reshape(-1, *X.shape[1:])
    return X, y


@torch.inference_mode()
def embed(X: np.ndarray, weights: Path) -> np.ndarray:
    """Return what the pretrained backbone makes of the images."""
    network = timm.create_model(
        BACKBONE, num_classes=0, pretrained=True, pretrained_cfg_overlay={"file": str(weights)}
    ).eval()
    parts = torch.from_numpy(X).split(256)
    return torch.cat([network(part.float() / 127.5 - 1) for part in parts]).numpy()


class OnEmbedding:
    """An estimator behind the backbone, so that its time has the forward pass in it."""

    def __init__(self, estimator: Any, weights: Path) -> None:
        self.estimator = estimator
        self.weights = weights

    def fit_predict(self, X: np.ndarray) -> np.ndarray:
        """Return the clusters of images."""
        labels: np.ndarray = self.estimator.fit_predict(embed(X, self.weights))
        return labels


class OnPixels:
    """An estimator that gets each image as a vector."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit_predict(self, X: np.ndarray) -> np.ndarray:
        """Return the clusters of images."""
        flat = X.reshape(len(X), -1).astype(np.float32)
        labels: np.ndarray = self.estimator.fit_predict(flat)
        return labels


def candidates(
    n_clusters: int,
    seed: int,
    weights: Path | None,
    ours: list[str],
    ablation: bool,
    pixels_of_photographs: bool,
) -> Iterator[tuple[str, Any]]:
    plain, array = (
        KMeans(n_clusters, n_init=10, random_state=seed),
        MiniClustering(n_clusters, random_state=seed),
    )
    yield "KMeans", OnPixels(plain)
    if weights is None or pixels_of_photographs:
        yield "MiniClustering, pixels", OnPixels(array)
    known: dict[str, Any] = {}
    if weights is not None:
        known = {"backbone": BACKBONE, "pretrained": weights}
        yield "KMeans, embedding", OnEmbedding(plain, weights)
        yield "MiniClustering, embedding", OnEmbedding(array, weights)
    for name in ours:
        yield f"{name}, images", METHODS[name](n_clusters, random_state=seed, **known)
    # With trained weights there are no views unless the backbone is fine-tuned.
    changes = ABLATION if weights is None else {"fine-tuned": ABLATION["fine-tuned"]}
    for change, parameters in changes.items() if ablation else ():
        yield f"  {change}", MiniClustering(n_clusters, random_state=seed, **known, **parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=(*SETS, "cifar", "cifar LT"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ablation", action="store_true", help="of MiniClustering, too")
    parser.add_argument(
        "--pixels", action="store_true", help="CIFAR-10 as arrays of 27,648 pixels, too: slow"
    )
    parser.add_argument("--measure-views", action="store_true", help="and nothing else")
    parser.add_argument("--output", type=Path, help="append JSON records to this file")
    arguments = parser.parse_args()

    sets = arguments.sets or ((*SETS, "cifar") if arguments.data else SETS)
    if arguments.measure_views:
        for name in sets:
            X, _ = load(name, arguments.data, arguments.first_seed)
            source, prepare = ResidentSource(torch.from_numpy(X)), nn.Identity()
            if X.dtype == np.uint8:
                prepare = Standardize(torch.zeros(()), torch.tensor(255.0))
            measured = measure_views(source, prepare, torch.Generator().manual_seed(0))
            print(name, {k: (round(m.share, 2), round(m.farther, 1)) for k, m in measured.items()})
        return
    # The first fit imports the training engine; that is not the fit's time.
    MiniClustering(2, random_state=0).fit(np.eye(8, dtype=np.float32))
    records = []
    for name in sets:
        weights = arguments.data / f"{BACKBONE}.pth" if name.startswith("cifar") else None
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            X, y = load(name, arguments.data, seed)
            for method, estimator in candidates(
                len(np.unique(y)),
                seed,
                weights,
                arguments.methods,
                arguments.ablation,
                arguments.pixels,
            ):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # lost clusters are in the record
                    records.append(run(name, method, estimator, X, y, seed))
                    if hasattr(estimator, "selected_stage_"):
                        records[-1]["stage"] = estimator.selected_stage_
                append(records[-1], arguments.output)
                print(name, method, seed, f"{records[-1]['ARI']:.3f}", flush=True)
    report(records)


if __name__ == "__main__":
    main()
