"""Images that lie on disk."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image
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
    alpha channel is dropped, 16-bit greys keep their upper 8 bits, and of an animation the first
    frame is taken.

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

    Raises
    ------
    FileNotFoundError
        If the folder, or a file in the list, does not exist.
    ValueError
        If there is no image, a parameter is out of range, or, with ``unreadable="raise"``, a file
        has no readable header.

    Notes
    -----
    A file may have a good header and damaged pixels. That shows only when it is decoded, so
    :meth:`decode` treats such files by the same rule, and indexing raises a ValueError naming the
    file.

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
        sides = [_try(_shorter_side, path) for path in candidates]
        self._leave_out(sides)
        self.image_size = (
            _derived_size([side for side in sides if isinstance(side, int)])
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
        image : uint8 Tensor of shape (3, image_size, image_size)
            The image.

        Raises
        ------
        IndexError
            If there is no such row.
        ValueError
            If the file cannot be decoded.
        """
        path = self.paths[operator.index(index)]
        image = _try(_load, path, self.image_size)
        if isinstance(image, _Unreadable):
            raise ValueError(_describe([(path, image.reason)]))
        return _to_tensor(image)

    def decode(self, n_jobs: int | None = None) -> Tensor:
        """Decode all images into memory.

        Parameters
        ----------
        n_jobs : int, default=None
            Number of threads; None means 1 and -1 all cores, as in scikit-learn. Decoding releases
            the interpreter lock, so threads do work side by side.

        Returns
        -------
        images : uint8 Tensor of shape (n, 3, image_size, image_size)
            One row per entry of `paths`: n * 3 * image_size**2 bytes.

        Raises
        ------
        ValueError
            If any file is damaged and ``unreadable="raise"``, or no file is left. With "skip"
            damaged files move from `paths` to `unreadable`, with one warning.
        """
        import torch

        size = self.image_size
        images = torch.empty((len(self), 3, size, size), dtype=torch.uint8)

        def decode_row(row: int) -> _Unreadable | None:
            image = _try(_load, self.paths[row], size)
            if isinstance(image, _Unreadable):
                return image
            images[row] = _to_tensor(image)
            return None

        # The rows are written in place, so other processes would be of no use.
        outcomes = Parallel(n_jobs=n_jobs, require="sharedmem")(
            delayed(decode_row)(row) for row in range(len(self))
        )
        good = self._leave_out(outcomes)
        return images if good.all() else images[torch.from_numpy(good)]

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
        warnings.warn(
            f"{len(failures)} unreadable image file(s) left out; see the attribute `unreadable`.",
            UserWarning,
            stacklevel=3,
        )
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
        return _Unreadable(f"{type(error).__name__}: {error}")


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


def _shorter_side(path: str) -> int:
    """Shorter side in pixels, from the header."""
    from PIL import Image

    with Image.open(path) as image:
        _check_mode(image)
        return min(image.size)


def _load(path: str, size: int) -> Image.Image:
    """Decode a file to an upright RGB image of `size` x `size` pixels."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        _check_mode(image)
        ImageOps.exif_transpose(image, in_place=True)
        # Resizes the central square in one step, which is to resize the shorter side, then to crop.
        return ImageOps.fit(_to_rgb(image), (size, size), method=Image.Resampling.BILINEAR)


def _check_mode(image: Image.Image) -> None:
    """Refuse pixels without a known range, of which 8 bits could only be guessed."""
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range; convert them to 8 bits")


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB version of an image of any mode."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        # PIL's own conversion would turn everything above 255 white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB, PIL warns that this transparency gets lost; that is what is wanted.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_tensor(image: Image.Image) -> Tensor:
    """RGB image as a contiguous uint8 tensor of shape (3, H, W)."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


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
