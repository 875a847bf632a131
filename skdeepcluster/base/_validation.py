"""What users may pass as X, and the only place that uses scikit-learn's private names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Number, Real
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.validation import assert_all_finite, check_array, validate_data
from torch import Tensor

from skdeepcluster._warnings import warn
from skdeepcluster.base._view_choice import NAMES
from skdeepcluster.data import (
    RESIDENT_SHARE,
    DatasetSource,
    PixelRange,
    ResidentSource,
    ScaledSource,
    Source,
    channels_last,
    deliverable,
    free_memory,
    open_array,
    pixel_range,
    rows_in_block,
    scale_to,
    unpack,
)
from skdeepcluster.datasets import ImageFiles

Method = TypeVar("Method", bound=Callable[..., Any])

# Types that stay as they are until samples are centred; anything else becomes float64, the first.
NUMERIC_TYPES = [
    np.float64, np.float32, np.float16, np.int16, np.uint16, np.int8, np.uint8, np.bool_
]  # fmt: skip
# Of what networks compute in.
LARGEST = float(np.finfo(np.float32).max)
# Rows whose values are checked at a time.
CHECKED_ROWS = 2**12
# For errors about anything else.
ACCEPTED = (
    "X has to be numbers of shape (n_samples, n_features), images of shape (n_samples, channels, "
    "height, width) or (n_samples, height, width, channels), a map-style torch Dataset, a folder, "
    "or a list of image files."
)


class TakesSamples(Protocol):
    """An estimator, as far as it is asked here: what fit has seen, and how to read files."""

    num_workers: int
    n_features_in_: int
    image_shape_: tuple[int, ...]
    paths_: list[str]
    _pixel_range: tuple[float, float, bool, bool]

    def _goes_on(self) -> bool: ...

    def _validate_params(self) -> None: ...


def validates_parameters(method: Method) -> Method:
    """Check parameters against ``_parameter_constraints`` before a fit."""
    # Nested estimators validate themselves when they are fitted.
    decorated: Method = _fit_context(prefer_skip_nested_validation=False)(method)
    return decorated


def validate_parameters(estimator: TakesSamples) -> None:
    """Check the parameters of an estimator that another one uses without fitting it."""
    estimator._validate_params()


def integer(low: int) -> Interval:
    """Accept an integer of at least ``low``."""
    return Interval(Integral, low, None, closed="left")


def real(low: float, high: float | None, closed: str) -> Interval:
    """Accept a real number in an interval."""
    return Interval(Real, low, high, closed=closed)


def one_of(*options: str) -> StrOptions:
    """Accept one of these strings."""
    return StrOptions(set(options))


class ClusterCount(Interval):
    """Accept a number of clusters or "auto", and say who takes several numbers."""

    def __init__(self) -> None:
        super().__init__(Integral, 1, None, closed="left")

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether the value is one of them."""
        return (isinstance(val, str) and val == "auto") or bool(super().is_satisfied_by(val))

    def __str__(self) -> str:
        """Return what an error says is accepted."""
        return (
            f"{super().__str__()} or 'auto' (StableClusterDiscrimination alone takes several "
            "numbers, as n_clusters=[8, 10, 12])"
        )


class PretrainingName(StrOptions):
    """Accept "auto", and name what else is public; instances are accepted beside it."""

    def __init__(self) -> None:
        super().__init__({"auto"})

    def __str__(self) -> str:
        """Return what an error says is accepted."""
        return (
            "'auto', an instance of a class of skdeepcluster.pretraining, that is, "
            "skdeepcluster.pretraining.BYOL(), MoCo() or SimCLR(),"
        )


class ViewNames(StrOptions):
    """Accept "auto", a function, or a list of functions and names of views, each once."""

    def __init__(self) -> None:
        super().__init__({"auto"})

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether the value is one of them."""
        if isinstance(val, str):
            return val == "auto"
        if not isinstance(val, Sequence):
            return self._is_function(val)
        known = all(self._is_function(view) or view in NAMES for view in val)
        return known and len(val) > 0 and all(val.count(view) == 1 for view in val)

    def __str__(self) -> str:
        """Return what an error says is accepted."""
        names = ", ".join(map(repr, NAMES))
        return (
            "'auto', a function of a batch of images (of torchvision's transforms those that have "
            f"get_params inside v2.Compose), or a list with functions and some of {names}"
        )

    @staticmethod
    def _is_function(view: Any) -> bool:
        """Whether it is one that scikit-learn does not take for an estimator."""
        return callable(view) and not hasattr(view, "get_params")


def unnamed(accepted: type) -> Hidden:
    """Accept instances of a class that errors do not name."""
    return Hidden(accepted)


# Of cosines: colder logits overflow, and hotter ones are all the same.
TEMPERATURE = real(1e-6, 1e6, "both")


def positive_integers(name: str, values: Any) -> list[int]:
    """Check that the values of a parameter are different integers above 0; return them as ints."""
    found = list(values)
    integers = [v for v in found if isinstance(v, (int, np.integer)) and not isinstance(v, bool)]
    numbers = [int(v) for v in integers if v > 0]
    if len(numbers) != len(found) or not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(f"{name}={found!r} should be different positive integers, at least one.")
    return numbers


def open_source(estimator: TakesSamples, X: Any, device: torch.device, *, reset: bool) -> Source:
    """Check X and give access to its rows on the device.

    Parameters
    ----------
    estimator : TakesSamples
        Takes ``n_features_in_``, ``feature_names_in_``, ``image_shape_`` and ``paths_`` when
        ``reset``; is compared with them otherwise.
    X : array-like, Tensor, Dataset, path or list of paths
        See ``DeepClusterer.fit``.
    device : torch.device
        Where rows are delivered.
    reset : bool
        True in ``fit``.
    """
    return _in_fitted_range(estimator, _open(estimator, X, device, reset), reset)


def _open(estimator: TakesSamples, X: Any, device: torch.device, reset: bool) -> Source:
    """Give access to the rows of whatever X is, and record or compare their shape."""
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError("X has masked entries, which networks cannot take. Fill or drop them.")
    X = unpack(X)
    if isinstance(X, Tensor):
        X = _share_memory(X)
    if isinstance(X, Tensor):
        return _open_tensor(estimator, X, device, reset)
    if _are_paths(X):
        X = ImageFiles(X, image_size=None if reset else _fitted_image_size(estimator))
    if isinstance(X, ImageFiles):
        return _open_files(estimator, X, device, reset)
    if _is_dataset(X):
        return _open_dataset(estimator, X, device, reset)
    if not isinstance(X, list | tuple | Number) and not _is_array(X):
        one = f" Pass one of its values, such as X[{next(iter(X))!r}]." if _is_named(X) else ""
        raise TypeError(f"X is of type {type(X).__name__}. {ACCEPTED}{one}")
    return _open_array(estimator, X, device, reset)


def output_array(
    out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the array to write results into: the user's if it suits them, or a new one."""
    if out is None:
        return np.empty(shape, dtype)
    found = getattr(out, "shape", None), getattr(out, "dtype", None)
    suits = isinstance(out, np.ndarray) and out.shape == shape
    if not suits or not np.can_cast(dtype, out.dtype, "same_kind"):
        raise ValueError(
            f"out has to be an array of shape {shape} that takes {dtype}, got a "
            f"{type(out).__name__} of shape {found[0]} and type {found[1]}."
        )
    return out


def _fitted_image_size(estimator: TakesSamples) -> int:
    if not hasattr(estimator, "image_shape_"):
        raise ValueError(
            f"X names image files, but this {type(estimator).__name__} was fitted on feature "
            f"arrays with {estimator.n_features_in_} features."
        )
    return int(estimator.image_shape_[-1])


def _share_memory(X: Tensor) -> Tensor | np.ndarray[Any, Any]:
    """Return a tensor on the CPU as an array on the same memory, any other without its graph."""
    X = X.detach()
    if X.device.type != "cpu":
        return X
    # bfloat16 is the one type that numpy does not know.
    array: np.ndarray[Any, Any] = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    return array


def _open_tensor(estimator: TakesSamples, X: Tensor, device: torch.device, reset: bool) -> Source:
    if X.ndim not in (2, 4) or len(X) < (2 if reset else 1) or X[0].numel() == 0:
        raise ValueError(
            "X has to be a tensor of shape (n_samples, n_features) or (n_samples, channels, "
            f"height, width) with samples and features in it, got shape {tuple(X.shape)}."
        )
    if X.is_complex():
        raise ValueError("Complex data not supported: X is a tensor of complex numbers.")
    if X.is_floating_point():
        _check_tensor(X)
    if X.ndim == 4 and _has_channels_last(estimator, tuple(X.shape[1:]), reset):
        X = X.permute(0, 3, 1, 2)
    _record_shape(estimator, X.shape[1:], reset)
    return ResidentSource(deliverable(X, images=X.ndim == 4).to(device).contiguous())


def _open_dataset(estimator: TakesSamples, X: Any, device: torch.device, reset: bool) -> Source:
    least = 2 if reset else 1
    if len(X) < least:
        raise ValueError(f"X is a Dataset with {len(X)} item(s), but needs at least {least}.")
    source = DatasetSource(X, device, estimator.num_workers)
    shape = source.sample_shape
    if len(shape) == 3 and _has_channels_last(estimator, shape, reset):
        source.read_channels_last()
    _record_shape(estimator, source.sample_shape, reset)
    return source


def _open_files(
    estimator: TakesSamples, X: ImageFiles, device: torch.device, reset: bool
) -> Source:
    """Decode once if the images fit into memory; read them batch by batch otherwise."""
    n_bytes = len(X) * 3 * X.image_size**2 * X.dtype.itemsize
    if n_bytes > RESIDENT_SHARE * free_memory(torch.device("cpu")):
        source = _open_dataset(estimator, X, device, reset)
    else:
        source = _open(estimator, X.decode(estimator.num_workers or 1), device, reset)
    if reset:
        estimator.paths_ = list(X.paths)
    return source


def _open_array(estimator: TakesSamples, X: Any, device: torch.device, reset: bool) -> Source:
    with _explained():
        array = check_array(
            X, dtype=NUMERIC_TYPES, order="C", allow_nd=True, ensure_min_samples=2 if reset else 1,
            ensure_all_finite=False, estimator=estimator, input_name="X",
        )  # fmt: skip
    if array.ndim not in (2, 4):
        raise ValueError(
            f"Found array with dim {array.ndim} (shape={array.shape}). {ACCEPTED} Reshape it; "
            "grey images have one channel."
        )
    if array.ndim == 2:  # what is left to check are names and number of the features
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    _check_values(estimator, array)
    last = array.ndim == 4 and _has_channels_last(estimator, array.shape[1:], reset)
    shape = (array.shape[3], *array.shape[1:3]) if last else array.shape[1:]
    _record_shape(estimator, shape, reset, has_names=array.ndim == 2)
    return open_array(array, device, channels_last=last)


@contextmanager
def _explained() -> Iterator[None]:
    """Add to an error what X may be: numpy's say neither that nor that they are about X."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(ACCEPTED)
        raise


def _check_values(estimator: TakesSamples, X: np.ndarray[Any, Any]) -> None:
    """Refuse what is not finite, in single precision too, in which networks compute.

    A part at a time: for some types scikit-learn's own check takes as much memory as they do.
    """
    name, n_rows = type(estimator).__name__, rows_in_block(X.shape[1:], CHECKED_ROWS)
    for start in range(0, len(X), n_rows):
        part = X[start : start + n_rows]
        with np.errstate(invalid="ignore"):  # it adds all up first, and infinities may cancel
            assert_all_finite(part, estimator_name=name, input_name="X")
        if part.dtype == np.float64 and max(part.max(initial=0), -part.min(initial=0)) > LARGEST:
            sample, *feature = np.argwhere(abs(part) > LARGEST)[0].tolist()
            raise _too_large(start + sample, feature)


def _check_tensor(X: Tensor) -> None:
    """Refuse what :func:`_check_values` refuses: the same for what lies on a device."""
    n_rows = rows_in_block(X.shape[1:], CHECKED_ROWS)
    for start, part in zip(range(0, len(X), n_rows), torch.split(X, n_rows), strict=True):
        if not part.isfinite().all():
            raise ValueError("Input X contains NaN or infinity. Impute or remove those rows.")
        if part.dtype == torch.float64 and (large := part.abs() > LARGEST).any():
            sample, *feature = large.nonzero()[0].tolist()
            raise _too_large(start + sample, feature)


def _too_large(sample: int, place: list[int]) -> ValueError:
    where = f"sample {sample}" + (f", feature {place[0]}" if len(place) == 1 else "")
    return ValueError(
        "Input X contains a value too large for dtype('float32'), in which networks compute: "
        f"{where}. Rescale X."
    )


def _record_shape(
    estimator: TakesSamples, shape: tuple[int, ...], reset: bool, *, has_names: bool = False
) -> None:
    """Remember the shape of a sample in ``fit``; later, compare with it."""
    images = len(shape) == 3
    if 0 in shape:
        raise ValueError(
            f"X has samples of shape {tuple(shape)}, which hold no numbers. Check how X was made."
        )
    if reset:
        estimator.n_features_in_ = int(np.prod(shape))
        estimator.__dict__.pop("paths_", None)
        if not has_names:
            estimator.__dict__.pop("feature_names_in_", None)
        if images:
            estimator.image_shape_ = tuple(shape)
        else:
            estimator.__dict__.pop("image_shape_", None)
        return
    expected = getattr(estimator, "image_shape_", (estimator.n_features_in_,))
    if tuple(shape) != expected:
        raise ValueError(
            f"X has samples of shape {tuple(shape)}, but {type(estimator).__name__} is expecting "
            f"samples of shape {expected} as seen in fit."
        )


def _has_channels_last(estimator: TakesSamples, shape: tuple[int, ...], reset: bool) -> bool:
    """Whether images of this shape have their channels last: as in ``fit``, where that fits."""
    turned = (shape[2], *shape[:2])
    expected = None if reset else getattr(estimator, "image_shape_", None)
    if shape != turned and expected in (shape, turned):
        return bool(expected == turned)
    last, sure = channels_last(shape)
    if reset and not sure:
        n, height, width = turned if last else shape
        warn(
            f"X has images of shape {shape}, read as {n} channels of {height} x {width} pixels. "
            "If that is wrong, move the axis of the channels with np.moveaxis, or crop or pad the "
            "images to squares."
        )
    return last


def _in_fitted_range(estimator: TakesSamples, source: Source, reset: bool) -> Source:
    """Remember the range of images in ``fit``; later, bring others to it or refuse them."""
    if len(source.sample_shape) != 3:
        if reset:
            estimator.__dict__.pop("_pixel_range", None)
        return source
    stored = getattr(estimator, "_pixel_range", None)
    if reset and not (stored and estimator._goes_on()):
        estimator._pixel_range = pixel_range(source)[:]
        return source
    if stored is None:  # saved by an earlier version
        return source
    fitted = PixelRange(*stored)
    if fitted.is_bytes and source.rows(torch.tensor([0])).dtype == torch.uint8:
        return source  # without a look at images that may have to be decoded
    factor = scale_to(fitted, pixel_range(source))
    return source if factor == 1 else ScaledSource(source, factor)


def _is_named(X: Any) -> bool:
    return isinstance(X, Mapping) and len(X) > 0


def _is_array(X: Any) -> bool:
    if hasattr(X, "__array__") or hasattr(X, "__array_interface__"):
        return True
    return hasattr(X, "shape") and hasattr(X, "dtype")  # tables of other libraries have a shape


def _is_dataset(X: Any) -> bool:
    """Whether X is a map-style torch Dataset (or quacks like one) and not an array or list."""
    mapped = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    return mapped and not _is_array(X) and not isinstance(X, bytes | list | tuple | Mapping)


def _are_paths(X: Any) -> bool:
    if isinstance(X, list | tuple) and len(X):
        return all(isinstance(item, os.PathLike | str) for item in X)
    return isinstance(X, os.PathLike | str)
