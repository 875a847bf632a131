"""Which views leave an image what it is: measured on the images themselves, without labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from skdeepcluster.data import (
    LARGEST_UNBLURRED,
    RandomImageViews,
    Source,
    contrastive_views,
    rows_in_block,
)
from skdeepcluster.numerics import evenly_spaced, full_digits, nearest_neighbors

# Of how many images views are drawn, and among how many their neighbours are looked for.
ASKED = 1000
COMPARED = 2000
# Of large images fewer: so many numbers at a time, but so many images at least.
MOST_VALUES = 2**26
FEWEST = 20
# Images that are compared are read so many at a time, large ones fewer.
READ_AT_ONCE = 2**8
# One neighbour for each so many images: among fewer the same share of them is wider.
IMAGES_PER_NEIGHBOR = 200
# Of few images even one neighbour is many; a share above this is not asked for.
LARGEST_BOUND = 0.9
# How much farther away views may be that look like images of the set.
LIKE_IMAGES = 1.1
# The side at which images are compared, in pixels.
COMPARED_SIDE = 32

NOTHING = RandomImageViews(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), grey_probability=0.0
)
# A crop that takes the place of the published one where that would cut away what matters.
SLIGHT_CROP = (0.7, 1.0)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of view.

    Attributes
    ----------
    alone : RandomImageViews
        Does this to every image, and nothing else.
    least_share : float
        The share of an image's neighbours that its view has to have, too. What moves pixels loses
        many of them, even where it is harmless; what changes colours has to keep them.
    farthest : float
        How much farther than an image its view may be from the nearest other image: beyond one by
        more than noise where views look like none of the images. Any distance, by default.
    """

    alone: RandomImageViews
    least_share: float
    farthest: float = math.inf


def _only(**changes: object) -> RandomImageViews:
    return dataclasses.replace(NOTHING, jitter_probability=1.0, **changes)  # type: ignore[arg-type]  # by name


KINDS = {
    "crop": Kind(_only(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)), 0.3, LIKE_IMAGES),
    "slight crop": Kind(_only(scale=SLIGHT_CROP, ratio=(3 / 4, 4 / 3)), 0.1),
    "mirror": Kind(_only(flip=1.0), 0.05, LIKE_IMAGES),
    "light": Kind(_only(jitter=(0.4, 0.4, 0.0, 0.0)), 0.3),
    "colour": Kind(_only(jitter=(0.0, 0.0, 0.4, 0.1)), 0.6),
    "grey": Kind(_only(grey_probability=1.0), 0.5, LIKE_IMAGES),
    "blur": Kind(_only(blur_probability=1.0), 0.3),
    "solarize": Kind(_only(solarize_probability=1.0), 0.3),
}
NEEDS_COLOUR = ("colour", "grey")
NEEDS_SIZE = ("blur", "solarize")
NAMES = ("neighbor", *KINDS)


def choose_views(source: Source, prepare: nn.Module, generator: torch.Generator) -> list[str]:
    """Return the names of the views that leave images near those that they were near.

    A view is harmless where it still has the neighbours of its image, and looks like an image of
    the set: the mirror image of a digit has others and does not, that of a photograph does. Where
    images bear to be cropped to a tenth, they are photographs, whose pixels say little about which
    of them belong together; where they do not, neighbours by pixels are views, too, and crops are
    slight.

    Parameters
    ----------
    source, prepare, generator
        See :func:`measure_views`.
    """
    chosen = [
        name
        for name, found in measure_views(source, prepare, generator).items()
        if found.share >= min(KINDS[name].least_share * found.wider, LARGEST_BOUND)
        and found.farther <= KINDS[name].farthest
    ]
    if "crop" in chosen:
        return [name for name in chosen if name != "slight crop"]
    return ["neighbor", *chosen]


class Measured(NamedTuple):
    """What was measured of a kind of view."""

    share: float
    """Of the neighbours of an image, those that its view has, too."""

    farther: float
    """How many times as far the nearest other image is, median over the images."""

    wider: float
    """How much larger a share of few images the neighbours are."""


@torch.no_grad()
def measure_views(
    source: Source, prepare: nn.Module, generator: torch.Generator
) -> dict[str, Measured]:
    """Compare views with the images that they were made of, kind by kind.

    Parameters
    ----------
    source : Source
        The images.
    prepare : nn.Module
        Maps them to [0, 1].
    generator : torch.Generator
        Draws the views.
    """
    affordable = max(MOST_VALUES // math.prod(source.sample_shape), FEWEST)
    images = prepare(source.rows(evenly_spaced(len(source), min(COMPARED, affordable))))
    asked = evenly_spaced(len(images), ASKED).to(images.device)
    k = max(round(len(images) / IMAGES_PER_NEIGHBOR), 1)
    wider = max(k * IMAGES_PER_NEIGHBOR / len(images), 1.0)
    pixels = compared(images)
    expected, usual = _neighbors_of(pixels[asked], asked, pixels, k)
    measured = {}
    for name, kind in KINDS.items():
        if name in NEEDS_COLOUR and images.shape[1] != 3:
            continue
        if name in NEEDS_SIZE and min(images.shape[2:]) <= LARGEST_UNBLURRED:
            continue
        views = compared(kind.alone(images[asked], generator))
        found, distances = _neighbors_of(views, asked, pixels, k)
        # Of equal images the nearest is no way off, and may be that for views, too.
        farther = distances / usual.clamp(min=torch.finfo(usual.dtype).tiny)
        measured[name] = Measured(_shared(found, expected), farther.median().item(), wider)
    return measured


def compared(images: Tensor) -> Tensor:
    """Return the pixels by which images are compared, one row for each; of large ones fewer."""
    height, width = (min(side, COMPARED_SIDE) for side in images.shape[2:])
    # MPS pools only to sides that divide the image's.
    pooled = adaptive_avg_pool2d(images.cpu() if images.is_mps else images, (height, width))
    return pooled.flatten(1).to(images.device)


@full_digits()
def _neighbors_of(rows: Tensor, own: Tensor, pixels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the images nearest to each row, other than its own, and how far the first is."""
    distances = torch.cdist(rows, pixels)
    distances[torch.arange(len(rows), device=rows.device), own] = torch.inf
    nearest = distances.topk(min(k, max(len(pixels) - 1, 1)), largest=False)
    return nearest.indices, nearest.values[:, 0]


def _shared(found: Tensor, expected: Tensor) -> float:
    """Return the share of expected numbers that were found, row by row."""
    return (found[:, :, None] == expected[:, None, :]).any(dim=1).float().mean().item()


@torch.no_grad()
def compared_rows(source: Source, prepare: nn.Module, rows: Tensor) -> Tensor:
    """Return the pixels by which some images of a source are compared, read a few at a time."""
    parts = torch.split(rows, rows_in_block(source.sample_shape, READ_AT_ONCE))
    return torch.cat([compared(prepare(source.rows(part))) for part in parts])


@torch.no_grad()
def image_neighbors(source: Source, prepare: nn.Module, rows: Tensor, n_neighbors: int) -> Tensor:
    """Return the images nearest by pixels to each of some images; the others have only themselves.

    Parameters
    ----------
    source : Source
        The images.
    prepare : nn.Module
        Maps them to [0, 1].
    rows : Tensor of shape (n_rows,), int64
        Those among which neighbours are looked for.
    n_neighbors : int
    """
    _, graph = nearest_neighbors(compared_rows(source, prepare, rows), n_neighbors)
    neighbors = torch.arange(len(source))[:, None].repeat(1, graph.shape[1])
    neighbors[rows] = rows[graph.cpu()]
    return neighbors


def augmentations_of(names: Sequence[str], image_size: tuple[int, int]) -> list[RandomImageViews]:
    """Return the published views of SimCLR and BYOL, with the parts that are named.

    Parameters
    ----------
    names : sequence of str
        Some of ``NAMES``.
    image_size : (int, int)
        Height and width of the images, in pixels.
    """
    changes: dict[str, object] = {}
    if "crop" not in names:
        slight = "slight crop" in names
        changes |= {"scale": SLIGHT_CROP} if slight else {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    probabilities = {
        "mirror": "flip",
        "grey": "grey_probability",
        "blur": "blur_probability",
        "solarize": "solarize_probability",
    }
    changes |= {field: 0.0 for name, field in probabilities.items() if name not in names}
    drawn = []
    for view in contrastive_views(image_size):
        brightness, contrast, saturation, hue = view.jitter
        light = (brightness, contrast) if "light" in names else (0.0, 0.0)
        colour = (saturation, hue) if "colour" in names else (0.0, 0.0)
        drawn.append(dataclasses.replace(view, jitter=(*light, *colour), **changes))  # type: ignore[arg-type]  # by name
    return drawn
