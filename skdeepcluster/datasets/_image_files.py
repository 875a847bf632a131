"""Images that lie on disk."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from skdeepcluster._warnings import warn
from skdeepcluster.datasets._pixels import Header, common_type, read_header, read_pixels

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

IMAGE_EXTENSIONS = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
"""Endings by which :class:`ImageFiles` tells images from other files in a folder."""

# The usual side of pretrained backbones; larger photographs gain little and cost much.
_LARGEST_DERIVED_SIZE = 224

# How many unreadable files an error names.
_MAX_NAMED = 10


class ImageFiles:
    """Image files as square RGB tensors: what to pass as X when a bare folder path is not enough.

    The length, the order and the readability of the files are known on construction, from the
    headers alone; pixels are read when asked for, one image by indexing (so that this is a dataset
    for :class:`torch.utils.data.DataLoader`) or all at once by :meth:`decode`.

    Each image is turned upright by its EXIF orientation, converted to RGB, resized (bilinear,
    antialiased) so that its shorter side is `image_size`, and cropped to its central square. An
    alpha channel is dropped, and of an animation the first frame is taken.

    Greys of more than 8 bits (16-bit, signed, 32-bit and floating point, as microscopes and
    scanners write them) keep their values: all images are then float32 instead of uint8, and
    clustered as an array of the same values would be.

    Parameters
    ----------
    source : str, Path, or sequence of them
        A folder, searched with all its sub-folders, whose names are ignored: they may be labels,
        and labels are not for training. Its rows are the files with one of `extensions`, sorted by
        path relative to the folder; hidden files and folders are left out, links to folders not
        followed. Or a list of image files, taken in the order given whatever their extensions.
    image_size : int, default=None
        Side of the square tensors in pixels. None takes the median of the shorter sides, at most
        224, the usual side of pretrained backbones.
    unreadable : {"raise", "skip"}, default="raise"
        What to do about files that cannot be read. "raise" names them in a ValueError; "skip"
        leaves them out, lists them in the attribute `unreadable`, and warns with their number.
    extensions : sequence of str, default=IMAGE_EXTENSIONS
        Endings that make a file in a folder an image; upper and lower case are the same.

    Attributes
    ----------
    paths : list of str
        The readable files, one per row.
    unreadable : list of (str, str)
        Path and reason for each file that was skipped.
    image_size : int
        Side of the tensors in pixels.
    dtype : numpy.dtype
        Of the pixels: uint8, or float32 where files have more than 8 bits.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file in the list, does not exist.
    ValueError
        If there is no image, a parameter is out of range, files of 8 bits, of more, and in floating
        point are mixed, which have no common range, or, with ``unreadable="raise"``, a file has no
        readable header.

    Notes
    -----
    A file may have a good header and damaged pixels. That shows only when it is decoded, so
    :meth:`decode` treats such files by the same rule, and indexing raises a ValueError naming the
    file.

    Of colours with 16 bits Pillow reads the upper 8, which is enough for photographs. A warning
    says so, because little is left of a camera's 10 or 12 bits if they were stored so.

    Pillow refuses images of very many pixels, which could be an attack. If you trust yours, raise
    ``PIL.Image.MAX_IMAGE_PIXELS`` first, or set it to None.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skdeepcluster.datasets import ImageFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (48, 32)).save(Path(folder, "wide.png"))
    ...     Image.new("L", (40, 60)).save(Path(folder, "tall.png"))
    ...     files = ImageFiles(folder)
    ...     images = files.decode()
    >>> files
    ImageFiles(n=2, image_size=36)
    >>> [Path(path).name for path in files.paths], images.shape, images.dtype
    (['tall.png', 'wide.png'], torch.Size([2, 3, 36, 36]), torch.uint8)
    """

    paths: list[str]
    unreadable: list[tuple[str, str]]
    image_size: int
    dtype: np.dtype[Any]

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        image_size: int | None = None,
        unreadable: Literal["raise", "skip"] = "raise",
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
    ) -> None:
        if unreadable not in ("raise", "skip"):
            raise ValueError(f"unreadable must be 'raise' or 'skip'; got {unreadable!r}.")
        if isinstance(source, str | os.PathLike):
            if not os.fspath(source):
                raise ValueError("source='' names no folder; for the current one pass '.'.")
            candidates = _find_images(Path(source), extensions)
        else:
            candidates = _check_listed(source)

        self._skip = unreadable == "skip"
        self.paths, self.unreadable = candidates, []
        outcomes = [_try(read_header, path) for path in candidates]
        self._leave_out(outcomes)
        headers = [outcome for outcome in outcomes if isinstance(outcome, Header)]
        self.dtype = common_type(headers, self.paths)
        self._warn_about_colours(headers)
        self.image_size = (
            _derived_size([header.side for header in headers])
            if image_size is None
            else _check_size(image_size)
        )

    def __len__(self) -> int:
        """Return the number of readable files."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Return length and image size; a list of all paths would flood the screen."""
        return f"ImageFiles(n={len(self)}, image_size={self.image_size})"

    def __getitem__(self, index: int) -> Tensor:
        """Decode one image.

        Parameters
        ----------
        index : int
            Row; negative numbers count from the end.

        Returns
        -------
        image : Tensor of shape (3, image_size, image_size)
            The image, of type `dtype`.

        Raises
        ------
        IndexError
            If there is no such row.
        ValueError
            If the file cannot be decoded.
        """
        import torch

        path = self.paths[operator.index(index)]
        pixels = _try(read_pixels, path, self.image_size, self.dtype)
        if isinstance(pixels, _Unreadable):
            raise ValueError(_describe([(path, pixels.reason)]))
        return torch.from_numpy(pixels)

    def decode(self, n_jobs: int | None = None) -> Tensor:
        """Decode all images into memory.

        Parameters
        ----------
        n_jobs : int, default=None
            Number of threads; None means 1 and -1 all cores, as in scikit-learn. Decoding releases
            the interpreter lock, so threads do work side by side.

        Returns
        -------
        images : Tensor of shape (n, 3, image_size, image_size)
            One row per entry of `paths`: n * 3 * image_size**2 bytes of type uint8, or four times
            as many of float32.

        Raises
        ------
        ValueError
            If any file is damaged and ``unreadable="raise"``, or no file is left. With "skip"
            damaged files move from `paths` to `unreadable`, with one warning.
        """
        import torch

        size = self.image_size
        images = np.empty((len(self), 3, size, size), dtype=self.dtype)

        def decode_row(row: int) -> _Unreadable | None:
            pixels = _try(read_pixels, self.paths[row], size, self.dtype)
            if isinstance(pixels, _Unreadable):
                return pixels
            images[row] = pixels
            return None

        # The rows are written in place, so other processes would be of no use.
        outcomes = Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(decode_row)(row) for row in range(len(self))
        )
        good = self._leave_out(outcomes)
        return torch.from_numpy(images if good.all() else images[good])

    def with_image_size(self, image_size: int) -> ImageFiles:
        """Return the same files at another size, without looking at the disk again.

        A model trained at one size should predict at that size, also for a folder whose own median
        differs.

        Parameters
        ----------
        image_size : int
            Side of the square tensors in pixels.

        Returns
        -------
        files : ImageFiles
            A new object; this one keeps its size.

        Raises
        ------
        ValueError
            If `image_size` is below 1.
        """
        resized = copy(self)
        resized.paths, resized.unreadable = list(self.paths), list(self.unreadable)
        resized.image_size = _check_size(image_size)
        return resized

    def _warn_about_colours(self, headers: Sequence[Header]) -> None:
        n_shortened = sum(header.is_shortened for header in headers)
        if n_shortened:
            warn(
                f"{n_shortened} image file(s) have colours of 16 bits, of which the upper 8 are "
                "read. If your camera fills fewer than 16, scale the values before they are stored "
                "or pass an array."
            )

    def _leave_out(self, outcomes: Sequence[object]) -> NDArray[np.bool_]:
        """Drop the paths whose outcome is a failure, or raise; return a mask of those that stay."""
        good = np.array([not isinstance(outcome, _Unreadable) for outcome in outcomes])
        failures = [
            (path, outcome.reason)
            for path, outcome in zip(self.paths, outcomes, strict=True)
            if isinstance(outcome, _Unreadable)
        ]
        if not failures:
            return good
        if not self._skip:
            raise ValueError(
                _describe(failures) + "\nRepair or remove them, or pass unreadable='skip'."
            )
        if not good.any():
            raise ValueError(f"No image is left. {_describe(failures)}")
        self.paths = [path for path, stays in zip(self.paths, good, strict=True) if stays]
        self.unreadable = [*self.unreadable, *failures]
        warn(f"{len(failures)} unreadable image file(s) left out; see the attribute `unreadable`.")
        return good


class _Unreadable:
    """Why a file could not be read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _try(read: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | _Unreadable:
    """Return the result of reading a file, or an `_Unreadable` with the reason."""
    try:
        return read(*args, **kwargs)
    except MemoryError:
        raise
    except Exception as error:
        # Damaged files make PIL's decoders raise nearly anything: OSError, SyntaxError, ...
        name = type(error).__name__
        bomb = name.startswith("DecompressionBomb")
        advice = " If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS, or set it to None."
        return _Unreadable(f"{name}: {error}{advice if bomb else ''}")


def _find_images(folder: Path, extensions: Sequence[str]) -> list[str]:
    """Visible image files below a folder, sorted by relative path."""
    if not folder.exists():
        raise FileNotFoundError(f"source folder does not exist: {str(folder)!r}.")
    if not folder.is_dir():
        raise ValueError(f"source is a file, {str(folder)!r}; pass its folder, or a list of files.")
    endings = tuple(extension.lower() for extension in extensions)
    found: list[Path] = []
    # Without onerror a folder that may not be entered would be left out in silence.
    for parent, subfolders, names in os.walk(folder, onerror=_raise):
        # Editors and macOS keep copies and stubs of images in hidden places.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and name.lower().endswith(endings)
        ]
    if not found:
        raise ValueError(
            f"source folder {str(folder)!r} and its sub-folders hold no file ending in "
            f"{', '.join(endings)}; check the path, or pass `extensions`."
        )
    return [str(path) for path in sorted(found, key=lambda path: path.relative_to(folder).parts)]


def _raise(error: OSError) -> None:
    raise error


def _check_listed(source: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the paths of a list as strings; all of them must exist."""
    paths = [os.fspath(path) for path in source]
    if not paths:
        raise ValueError("source is an empty list; pass at least one image file.")
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} files in source do not exist: {_first_few(missing)}."
        )
    return paths


def _check_size(image_size: int) -> int:
    """Image size as an int of at least 1."""
    size = operator.index(image_size)
    if size < 1:
        raise ValueError(f"image_size must be at least 1 pixel; got {size}.")
    return size


def _derived_size(sides: Sequence[int]) -> int:
    """Median of the shorter sides, up to the usual side of pretrained backbones."""
    return min(_LARGEST_DERIVED_SIZE, int(np.median(sides)))


def _describe(failures: Sequence[tuple[str, str]]) -> str:
    """Name the first few unreadable files and count the rest."""
    named = [f"\n  {path} ({reason})" for path, reason in failures[:_MAX_NAMED]]
    rest = len(failures) - len(named)
    more = f"\n  and {rest} more" if rest else ""
    return f"{len(failures)} image file(s) could not be read:{''.join(named)}{more}"


def _first_few(paths: Sequence[str]) -> str:
    """Name the first few paths and count the rest."""
    rest = len(paths) - _MAX_NAMED
    named = ", ".join(repr(path) for path in paths[:_MAX_NAMED])
    return f"{named} and {rest} more" if rest > 0 else named
