"""Samples in containers that are neither arrays nor Datasets: lists, columns, series."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length
from torch import Tensor

from skdeepcluster.datasets import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    from PIL.Image import Image

# What pixels of a PIL image may mean as they are; all others become RGB.
PLAIN_MODES = ("L", "RGB", "RGBA", "I", "F")
DEEP_MODES = ("I", "F")
# Kinds of numpy's types whose entries are objects or texts.
OBJECT_KINDS = "OUT"


def unpack(X: Any) -> Any:
    """Return the samples in a container as an array, a tensor or a list of paths.

    Series, columns and object arrays of vectors or images, lists of them, lists of PIL images of
    one size, and lists of pairs that begin with a sample are stacked. Anything else is returned as
    it is: arrays and Datasets, and what nobody can read.

    Parameters
    ----------
    X : object
        What a user has passed.

    Raises
    ------
    ValueError
        If the samples differ in shape, or are texts.
    """
    held = _rows_of(X)
    if not isinstance(held, list | tuple) or len(held) == 0:
        return held
    first = held[0]
    if isinstance(first, tuple) and first and is_sample(first[0]):
        held = [row[0] for row in held]  # as scikit-learn makes them of a Dataset's items
        first = held[0]
    if isinstance(first, str | os.PathLike):
        return _paths(held)
    if is_picture(first):
        return _stack_pictures(held)
    if isinstance(first, Tensor | np.ndarray) and first.ndim:
        return _stack(held)
    return held


def check_targets(y: Any, n_samples: int) -> None:
    """Raise scikit-learn's ValueError if y has a length, but not that of X; it is not used."""
    if isinstance(y, str | bytes | Mapping) or not hasattr(y, "__len__"):
        return
    if getattr(y, "shape", None) != ():
        check_consistent_length(range(n_samples), y)


def is_picture(sample: Any) -> bool:
    """Whether a sample is an image of PIL, which is imported only if it may be one."""
    if not type(sample).__module__.startswith("PIL."):
        return False
    from PIL.Image import Image

    return isinstance(sample, Image)


def picture_array(image: Image) -> NDArray[Any]:
    """Return the pixels of a PIL image, channels first: uint8, or float32 if they are deeper."""
    if image.mode.startswith("I;16") or image.mode in DEEP_MODES:
        return np.asarray(image).astype(np.float32)[None]
    if image.mode not in PLAIN_MODES:
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def is_sample(candidate: Any) -> bool:
    """Whether something can be a sample by itself."""
    if isinstance(candidate, Tensor | np.ndarray):
        return candidate.ndim > 0
    return is_picture(candidate)


def is_nested_numbers(candidate: Any) -> bool:
    """Whether something is a list of numbers, or of such lists."""
    while isinstance(candidate, list) and candidate:
        candidate = candidate[0]
        if isinstance(candidate, Number):
            return True
    return False


def _rows_of(X: Any) -> Any:
    """Return the rows of a container as a list, where it is none of numbers."""
    if isinstance(X, Tensor | str | bytes | list | tuple | range):
        return X
    if hasattr(X, "__array__"):
        return _rows_of_array(X)
    # A column of Hugging Face's datasets. Images wait until they are wanted, all else is read now.
    if isinstance(X, Sequence) and len(X):
        first = X[0]
        is_vector = isinstance(first, Tensor | np.ndarray) and first.ndim == 1
        if is_vector or is_nested_numbers(first) or isinstance(first, str):
            return list(X)
    return X


def _rows_of_array(X: Any) -> Any:
    """Return the entries of an object array, a series or a table of one column as a list."""
    if getattr(getattr(X, "dtype", None), "kind", "O") not in OBJECT_KINDS:
        return X
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) == 2 and shape[0] and shape[1] == 1:
        column = np.asarray(X).ravel()
        first = column[0]
        holds_samples = is_sample(first) or _is_file(first) or isinstance(first, list)
        return column.tolist() if column.dtype.kind in OBJECT_KINDS and holds_samples else X
    if shape is not None and len(shape) != 1:
        return X
    array = np.asarray(X)
    if array.ndim == 1:
        return array.tolist() if array.dtype.kind in OBJECT_KINDS else X
    return array  # one axis of vectors, as polars and pyarrow have it


def _is_file(candidate: Any) -> bool:
    if isinstance(candidate, os.PathLike):
        return True
    return isinstance(candidate, str) and os.path.isfile(candidate)


def _paths(rows: Sequence[Any]) -> list[str | os.PathLike[str]]:
    """Return the paths of image files, or say what the strings are instead."""
    for place, row in enumerate(rows):
        if not isinstance(row, str | os.PathLike):
            raise ValueError(
                f"X names files, but X[{place}] is {row!r}, a {type(row).__name__}. Leave such "
                "rows out."
            )
    texts = [row for row in rows if isinstance(row, str)]
    if len(texts) == len(rows):
        if len(rows) > 1 and all(len(text) == 1 for text in texts):
            raise ValueError(
                "X is a list of single characters, as scikit-learn's splitters make of the name of "
                "a folder, which has no rows to split. Pass ImageFiles(folder).paths instead."
            )
        if not any(_looks_like_a_path(text) for text in texts):
            raise ValueError(
                f"X is a list of texts, X[0]={texts[0][:40]!r}. Embed texts first: for example, "
                "SentenceTransformer('all-MiniLM-L6-v2').encode(X) of the package "
                "sentence-transformers gives an array to fit. If they should name image files, "
                "none of them exists."
            )
    return list(rows)


def _looks_like_a_path(text: str) -> bool:
    return text.lower().endswith(IMAGE_EXTENSIONS) or os.path.exists(text)


def _stack(rows: Sequence[Any]) -> Any:
    """Stack arrays or tensors of one shape."""
    shapes = [_shape_of(row) for row in rows]
    for place, shape in enumerate(shapes):
        if shape != shapes[0]:
            found = f"has shape {shape}" if shape else f"is a {type(rows[place]).__name__}"
            raise ValueError(
                f"X[{place}] {found}, but X[0] has shape {shapes[0]}. All samples need one shape: "
                "pad, crop or resize them, and leave out what is missing."
            )
    if all(isinstance(row, Tensor) for row in rows):
        return torch.stack([row.detach() for row in rows])
    return np.stack([row.numpy(force=True) if isinstance(row, Tensor) else row for row in rows])


def _shape_of(row: Any) -> tuple[int, ...]:
    if isinstance(row, list | tuple):
        try:
            return np.shape(row)
        except ValueError:  # ragged
            return ()
    return tuple(getattr(row, "shape", ()))


def _stack_pictures(rows: Sequence[Any]) -> NDArray[Any]:
    """Stack PIL images of one size; where some are grey and others not, all become RGB."""
    for place, row in enumerate(rows):
        if not is_picture(row):
            raise ValueError(
                f"X[{place}] is a {type(row).__name__}, but X[0] is an image. Leave such rows out."
            )
    sizes = Counter(image.size for image in rows)
    if len(sizes) > 1:
        named = ", ".join(f"{w} x {h} ({n} of them)" for (w, h), n in sizes.most_common(3))
        raise ValueError(
            f"X has images of {len(sizes)} sizes: {named}{', ...' if len(sizes) > 3 else ''}. "
            "Bring them to one size, for example [PIL.ImageOps.fit(image, (224, 224)) for image in "
            "X], or pass the files themselves: a folder, or a list of paths."
        )
    arrays = [picture_array(image) for image in rows]
    if len({array.dtype for array in arrays}) > 1:
        modes = ", ".join(sorted({image.mode for image in rows}))
        raise ValueError(
            f"X has images of 8 bits and of more (modes {modes}), which have no common range. "
            "Convert them to one mode."
        )
    if len({array.shape for array in arrays}) > 1:
        arrays = [picture_array(image.convert("RGB")) for image in rows]
    return np.stack(arrays)


def describe_sample(sample: Any) -> str:
    """Say what an item is that cannot be a sample, and what to do about it."""
    name = type(sample).__name__
    if isinstance(sample, Mapping):
        columns = ", ".join(repr(key) for key in list(sample)[:8])
        first = next(iter(sample), "image")
        return (
            f"a {name} with the columns {columns}. Pass one of them, for example X[{first!r}], or "
            "let the Dataset return tensors."
        )
    if isinstance(sample, str | os.PathLike):
        return f"a {name}. Let the Dataset return tensors. Embed texts first; pass paths as a list."
    return f"a {name}. Let the Dataset return tensors."
