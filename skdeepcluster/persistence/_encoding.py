"""Parameters and fitted attributes as JSON and tensors, and back; nothing else is understood."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skdeepcluster.base import DeepEstimator, validate_parameters
from skdeepcluster.calibration import ConfidenceHead
from skdeepcluster.persistence._checks import check_names

# Longer lists of strings, which can be paths of image files, lie among the tensors.
MOST_PATHS = 1000
# Each number in a parameter can stand for a head, which is made of objects as well as of numbers.
MOST_VALUES = 10_000


class Encoder:
    """Turns values into what JSON can hold, and gathers the tensors that these refer to.

    What JSON has no form for becomes an object with one key, which begins with a dollar sign.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By the names that the values refer to.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[int, dict[str, str]] = {}

    def parameters(self, estimator: DeepEstimator, prefix: str = "") -> dict[str, Any]:
        """Return the parameters of an estimator in the form of JSON.

        Raises
        ------
        ValueError
            If one cannot be kept so.
        """
        return {
            name: self.encode(value, prefix + name)
            for name, value in estimator.get_params(deep=False).items()
        }

    def encode(self, value: Any, name: str) -> Any:
        """Return a value in the form of JSON; errors and tensors call it by its name."""
        match value:
            case None | str():
                return value
            case np.ndarray() | np.generic():
                return self._encode_array(value, name)
            case bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else {"$float": str(value)}
            case list() if len(value) > MOST_PATHS and _are_paths(value):
                text = "\0".join(value).encode(errors="surrogateescape")
                tensor = torch.frombuffer(bytearray(text), dtype=torch.uint8)
                return self._store("$paths", value, name, {"": tensor})
            case list():
                return self._encode_all(value, name)
            case tuple():
                return {"$tuple": self._encode_all(value, name)}
            case range():
                return {"$range": [value.start, value.stop, value.step]}
            case dict() if _are_strings(value) and not any(key.startswith("$") for key in value):
                return {key: self.encode(item, f"{name}.{key}") for key, item in value.items()}
            case dict() if all(type(key) is int for key in value):
                return {"$numbered": [[k, self.encode(v, f"{name}.{k}")] for k, v in value.items()]}
            case torch.device():
                return {"$device": str(value)}
            case os.PathLike():
                return {"$path": os.fsdecode(value)}
            case DeepEstimator():
                parameters = self.parameters(value, f"{name}__")
                return {"$estimator": [type(value).__name__, parameters]}
            case ConfidenceHead():
                return self._store("$confidence", value, name, value.state_dict(prefix="."))
            case nn.Module() if name.split("__")[-1] == "backbone":
                return {"$backbone": type(value).__name__}
        raise _not_kept(value, name)

    def _encode_all(self, values: Iterable[Any], name: str) -> list[Any]:
        return [self.encode(value, f"{name}.{place}") for place, value in enumerate(values)]

    def _encode_array(self, value: NDArray[Any] | np.generic, name: str) -> dict[str, Any]:
        if isinstance(value, np.ndarray) and value.dtype == object and _are_strings(value.tolist()):
            return {"$names": value.tolist()}
        try:
            tensor = torch.from_numpy(np.array(value, order="C"))
        except (TypeError, ValueError) as error:
            raise _not_kept(value, name) from error
        return self._store("$array", value, name, {"": tensor})

    def _store(
        self, form: str, value: Any, name: str, tensors: dict[str, Tensor]
    ) -> dict[str, str]:
        """Store the tensors of a value once, in however many places it is kept."""
        if id(value) not in self._known:
            named = {name + part: tensor for part, tensor in tensors.items()}
            if named.keys() & self.tensors.keys():
                raise ValueError(f"{name} is the name of two values. Rename one.")
            self.tensors |= named
            self._known[id(value)] = {form: name}
        return self._known[id(value)]


class Decoder:
    """Turns what :class:`Encoder` has made into values again.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Those that the values may refer to.
    backbone : nn.Module or None
        What the user gives for a module among the parameters.

    Attributes
    ----------
    unread : set of str
        Names of the tensors that nothing has referred to so far.
    backbone_is_used : bool
        Whether one of the parameters was a module.
    """

    def __init__(self, tensors: dict[str, Tensor], backbone: nn.Module | None) -> None:
        self.unread = set(tensors)
        self.backbone_is_used = False
        self._tensors = tensors
        self._backbone = backbone
        self._known: dict[tuple[str, str], Any] = {}

    def estimator(self, class_name: Any, parameters: Any, prefix: str = "") -> DeepEstimator:
        """Return an estimator with decoded parameters, which are checked as in a fit.

        Raises
        ------
        ValueError
            If the class or a parameter is not known, or a parameter is missing or not valid.
        """
        cls = find_class(class_name)
        check_names(f"{prefix}parameters", parameters, cls._get_param_names())
        decoded = {name: self.decode(value, prefix + name) for name, value in parameters.items()}
        for name, value in decoded.items():
            is_sequence = isinstance(value, list | tuple | range | np.ndarray)
            if is_sequence and len(value[: MOST_VALUES + 1]) > MOST_VALUES:
                raise ValueError(f"{prefix}{name} has more than {MOST_VALUES} values.")
        estimator = cls(**decoded)
        validate_parameters(estimator)
        return estimator

    def decode(self, value: Any, name: str) -> Any:
        """Return the value of a form of JSON; errors call it by its name.

        Raises
        ------
        ValueError
            If the form is not known, or a tensor is missing.
        """
        if isinstance(value, list):
            return [self.decode(item, name) for item in value]
        if not isinstance(value, dict):
            return value
        if not any(key.startswith("$") for key in value):
            return {key: self.decode(item, f"{name}.{key}") for key, item in value.items()}
        try:
            return self._decode_form(value, name)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot be read: {error}") from error

    def _decode_form(self, value: dict[str, Any], name: str) -> Any:
        if len(value) > 1:
            raise ValueError(f"{sorted(value)} is no form of a value")
        [(form, content)] = value.items()
        match form:
            case "$array" | "$paths" | "$confidence":
                if (form, content) not in self._known:
                    self._known[form, content] = self._decode_tensors(form, content)
                return self._known[form, content]
            case "$names":
                if not _are_strings(content):
                    raise ValueError("names are strings")
                return np.array(content, dtype=object)
            case "$tuple":
                return tuple(self.decode(content, name))
            case "$range":
                return range(*content)
            case "$numbered":
                return {int(key): self.decode(item, f"{name}.{key}") for key, item in content}
            case "$float":
                return float(content)
            case "$path":
                return Path(content)
            case "$device":
                return torch.device(content)
            case "$estimator":
                class_name, parameters = content
                return self.estimator(class_name, parameters, f"{name}__")
            case "$backbone":
                return self._given_backbone(content)
        raise ValueError(f"{form!r} is no form of a value")

    def _decode_tensors(self, form: str, key: str) -> Any:
        match form:
            case "$array":
                # Without axes it was a scalar of numpy, and becomes one again.
                return self._tensor(key).numpy()[()]
            case "$paths":
                text = self._tensor(key).numpy().tobytes()
                return text.decode(errors="surrogateescape").split("\0")
        parts = ("scales", "weight", "bias", "mean_confidence")
        tensors = {part: self._tensor(f"{key}.{part}") for part in parts}
        return ConfidenceHead.from_tensors(**tensors).eval()

    def _tensor(self, key: str) -> Tensor:
        if key not in self._tensors:
            raise ValueError(f"there is no tensor {key!r}")
        self.unread.discard(key)
        return self._tensors[key].clone()  # of what may be a file mapped into memory

    def _given_backbone(self, class_name: Any) -> nn.Module:
        if self._backbone is None:
            raise ValueError(
                f"it was a module ({class_name}), which no file can hold. Pass one of the same "
                "architecture: load(path, backbone=...)."
            )
        self.backbone_is_used = True
        return self._backbone


def find_class(name: Any) -> type[DeepEstimator]:
    """Return the estimator class of this name, among those that are imported.

    Raises
    ------
    ValueError
        If there is none.
    """
    base: Any = DeepEstimator  # abstract, which mypy would refuse
    classes = {cls.__name__: cls for cls in _subclasses(base)}
    if not isinstance(name, str) or name not in classes:
        raise ValueError(
            f"There is no estimator {name!r} among {', '.join(sorted(classes))}. If it is one of "
            "yours, import its module first."
        )
    return classes[name]


def _subclasses(cls: type[DeepEstimator]) -> Iterator[type[DeepEstimator]]:
    """Yield all classes below one that are not abstract, those defined later, later."""
    for subclass in cls.__subclasses__():
        if not inspect.isabstract(subclass):
            yield subclass
        yield from _subclasses(subclass)


def _are_strings(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_paths(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) and "\0" not in value for value in values)


def _not_kept(value: Any, name: str) -> ValueError:
    return ValueError(
        f"{name} is a {type(value).__name__}, which cannot be kept as text and numbers. Give a "
        f"number, a string or None instead: set_params({name}=...)."
    )
