"""What is in an image file: its size and depth from the header, its pixels as an RGB array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Depth = Literal["8 bits", "more than 8 bits", "floating point"]


class Header(NamedTuple):
    """What is known of an image file without its pixels."""

    side: int
    """The shorter side in pixels."""
    depth: Depth
    is_shortened: bool
    """Whether Pillow reads the upper 8 bits of 16."""


def read_header(path: str) -> Header:
    """Return what the header of an image file says."""
    from PIL import Image

    with Image.open(path) as image:
        return Header(min(image.size), _depth(image), _is_shortened(image))


def common_type(headers: Sequence[Header], paths: Sequence[str]) -> np.dtype[Any]:
    """Return the type for the pixels of all files.

    Raises
    ------
    ValueError
        If they have no common range.
    """
    examples: dict[Depth, str] = {}
    for header, path in zip(headers, paths, strict=True):
        examples.setdefault(header.depth, path)
    if len(examples) > 1:
        depths = [header.depth for header in headers]
        found = ", ".join(f"{depths.count(k)} of {k} ({v!r})" for k, v in examples.items())
        raise ValueError(
            f"source mixes image files without a common range of values: {found}. Convert them to "
            "one depth, or pass one kind."
        )
    return np.dtype(np.uint8 if "8 bits" in examples else np.float32)


def read_pixels(path: str, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decode a file to an upright RGB image, an array of shape (3, size, size)."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        # Of a large JPEG only so much is decoded as twice the size can show.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        plain = _to_rgb(image) if _depth(image) == "8 bits" else _to_float(image)
        # Resizes the central square in one step, which is to resize the shorter side, then to crop.
        square = ImageOps.fit(plain, (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(square, dtype=dtype)
    if pixels.ndim == 2:
        return np.stack([pixels] * 3)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _depth(image: Image.Image) -> Depth:
    if image.mode == "F":
        return "floating point"
    return "more than 8 bits" if image.mode.startswith("I") else "8 bits"


def _is_shortened(image: Image.Image) -> bool:
    """Whether Pillow, which has no colours of 16 bits, drops half of them."""
    if _depth(image) != "8 bits":
        return False
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB version of an image of 8 bits, of any mode."""
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB, PIL warns that this transparency gets lost; that is what is wanted.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_float(image: Image.Image) -> Image.Image:
    """Floating-point version of a deep grey image; its values stay what they are."""
    from PIL import Image

    # Not PIL's own conversion, which knows no unsigned 16 bits in some versions.
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are NaN or infinite")
    return Image.fromarray(values)
