"""Fitted estimators on disk: text and numbers in a folder, from which nothing can be executed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skdeepcluster.estimators._building import blank_networks
from skdeepcluster.estimators._deep import DeepEstimator
from skdeepcluster.estimators._encoding import Decoder, Encoder, check_names
from skdeepcluster.estimators._inference import consult
from skdeepcluster.networks import (
    ClusterModel,
    build_backbone,
    output_width,
    rebuild_backbone,
    timm_recipe,
)
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.training import undisturbed

TEXT_FILE = "model.json"
TENSOR_FILE = "tensors.safetensors"
# The tensors of an earlier model, until the text of the new one is there.
PREVIOUS_FILE = TENSOR_FILE + ".previous"
FORMAT = "skdeepcluster model"
# To be raised when what a file holds changes, be it by a new parameter of an estimator; what older
# files lack is then filled in before they are checked.
FORMAT_VERSION = 2
# A larger text is refused unread: what there is much of lies among the tensors.
MOST_TEXT_BYTES = 2**26
# Before the names of the networks' tensors, which could be those of attributes.
NETWORKS = "networks."
# Callbacks may be anything. The other names are those of a fit that is under way.
LEFT_OUT = {
    "_skl_callbacks",
    "_skl_callbacks_to_teardown",
    "_callback_fit_ctx",
    "_parent_callback_ctx",
}


@dataclass(frozen=True)
class Text:
    """The fields of ``model.json``."""

    format: str
    format_version: int
    saved_with: dict[str, str]
    estimator: str
    parameters: dict[str, Any]
    backbone: dict[str, Any] | None
    fitted: dict[str, Any]
    sha256_of_tensors: str = ""


@dataclass(frozen=True)
class Backbone:
    """How to make a backbone anew.

    Attributes
    ----------
    name : str
        Of the timm model, or the class of the user's module.
    small_stem : bool
        Whether a timm model has the first layer for small images.
    width : int
        Number of features that it returns.
    """

    name: str
    small_stem: bool
    width: int


@undisturbed()
def load(path: str | os.PathLike[str], *, backbone: nn.Module | None = None) -> Any:
    """Read a fitted estimator that its method ``save`` has written.

    Unlike unpickling this runs no code from the files, and opens none but the two that ``save`` has
    written. What is of another format version, has a field that is not known or does not fit is
    refused. A model that was fitted on a GPU loads where there is none.

    Parameters
    ----------
    path : path
        The folder.
    backbone : nn.Module, optional
        For a model whose parameter `backbone` was a module, which no file can hold: one of the same
        architecture. It becomes the parameter as it is, and a copy of it gets the trained weights.

    Returns
    -------
    estimator : object
        Of the class that was saved, with its parameters and fitted attributes, but no callbacks.
        Paths among the parameters are kept, but not looked at.

    Raises
    ------
    FileNotFoundError
        If the folder or one of the files is not there.
    ValueError
        If the files are of another format version, are damaged or do not fit together, if the class
        of the estimator is not imported, or if ``backbone`` is missing or does not fit.

    See Also
    --------
    DeepClusterer.save : Write the files.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> import skdeepcluster
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> model = skdeepcluster.MiniClustering(3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     again = skdeepcluster.load(folder)
    >>> again
    MiniClustering(n_clusters=3, random_state=0)
    >>> bool((again.predict_proba(X) == model.predict_proba(X)).all())
    True
    """
    folder = Path(path)
    tensor_files = [folder / name for name in (TENSOR_FILE, PREVIOUS_FILE)]
    for found in ([folder / TEXT_FILE], tensor_files):
        if not any(file.exists() for file in found):
            raise FileNotFoundError(
                f"path={str(path)!r} holds no {found[0].name}. Give the folder that save was given."
            )
    try:
        return _read(folder / TEXT_FILE, tensor_files, backbone)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"The model in path={str(path)!r} cannot be loaded. {error}") from error


@undisturbed()
def save(estimator: DeepEstimator, path: str | os.PathLike[str]) -> None:
    """Write an estimator to a folder; see its method ``save``."""
    check_is_fitted(estimator)
    estimator = copy.copy(estimator)  # with networks of its own, on the CPU
    backbone = estimator.backbone if isinstance(estimator.backbone, nn.Module) else None
    folder = Path(path)
    try:
        text, tensors = _describe(estimator)
        _refuse_other_files(folder)
        with _new_files(folder) as (text_file, tensor_file):
            _write(text, tensors, text_file, tensor_file)
            _compare(estimator, _read(text_file, [tensor_file], backbone))
            _replace(folder, text_file, tensor_file)
    except ValueError as error:
        raise ValueError(f"This {type(estimator).__name__} cannot be saved. {error}") from error


def _describe(estimator: DeepEstimator) -> tuple[Text, dict[str, Tensor]]:
    """Return what there is to know about a fitted estimator, but for the checksum."""
    encoder = Encoder()
    networks = estimator._NETWORKS[0]
    parameters = encoder.parameters(estimator)
    others = LEFT_OUT | parameters.keys() | {networks}
    attributes = {name: value for name, value in estimator.__dict__.items() if name not in others}
    _check_attributes(estimator, attributes)
    fitted = {name: encoder.encode(value, name) for name, value in attributes.items()}
    for name, tensor in _tensors_of(getattr(estimator, networks)).items():
        # In memory of its own: safetensors refuses to write any twice.
        own = tensor.detach().clone(memory_format=torch.contiguous_format)
        encoder.tensors[NETWORKS + name] = own
    backbone = _record_backbone(estimator)
    text = Text(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        saved_with=_versions(),
        estimator=type(estimator).__name__,
        parameters=parameters,
        backbone=None if backbone is None else asdict(backbone),
        fitted=fitted,
    )
    return text, encoder.tensors


def _read(
    text_file: Path, tensor_files: Sequence[Path], backbone: nn.Module | None
) -> DeepEstimator:
    """Return the estimator of a text and the tensors that it belongs to.

    Raises
    ------
    ValueError
        If there is anything wrong with the files.
    """
    text = _read_text(text_file)
    tensors = _read_tensors(tensor_files, text.sha256_of_tensors)
    decoder = Decoder(tensors, backbone)
    with _blaming(TEXT_FILE):
        estimator = decoder.estimator(text.estimator, text.parameters)
        _check_attributes(estimator, text.fitted)
        for name, value in text.fitted.items():
            setattr(estimator, name, decoder.decode(value, name))
        _check_fitted(estimator)
        record = _read_record(estimator, text.backbone)
    if backbone is not None and not decoder.backbone_is_used:
        raise ValueError(
            f"backbone={type(backbone).__name__} was given, but the model was saved with "
            f"backbone={estimator.backbone!r}. Leave it out."
        )
    with _blaming(TENSOR_FILE):
        stray = sorted(name for name in decoder.unread if not name.startswith(NETWORKS))
        if stray:
            raise ValueError(f"nothing refers to {stray[0]!r}.")
        weights = {name.removeprefix(NETWORKS): tensors[name] for name in decoder.unread}
        networks = _rebuild(estimator, record, weights)
        try:
            estimator._adopt(networks)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"fitted attributes do not fit each other: {error!r}") from error
    return estimator


def _check_attributes(estimator: DeepEstimator, found: Any) -> None:
    """Raise ValueError unless these are the fitted attributes that its class declares."""
    check_names("fitted", found, estimator._FITTED, estimator._SOMETIMES_FITTED)


def _check_fitted(estimator: DeepEstimator) -> None:
    """Raise ValueError unless the attributes are of the types that the class declares."""
    for name, expected in {**estimator._FITTED, **estimator._SOMETIMES_FITTED}.items():
        value = getattr(estimator, name, None)
        if name in estimator.__dict__ and not isinstance(value, expected):
            raise ValueError(f"fitted: {name} is of type {type(value).__name__}, not {expected}.")
    shape, n_features = estimator._sample_shape, estimator.n_features_in_
    if (
        len(shape) not in (1, 3)
        or not all(type(size) is int and size > 0 for size in shape)
        or math.prod(shape) != n_features
    ):
        raise ValueError(
            f"fitted: image_shape_={shape} and n_features_in_={n_features} are no shape of samples."
        )
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and names.shape != (n_features,):
        raise ValueError(f"fitted: feature_names_in_ has the shape {names.shape}.")


# --- the networks --------------------------------------------------------------------------------


def _record_backbone(estimator: DeepEstimator) -> Backbone | None:
    """Return how to make the backbone, unless the parameters say all there is to say."""
    if not _has_record(estimator):
        return None
    backbone = estimator._model.embedding.backbone
    width = output_width(backbone, estimator._sample_shape)
    if isinstance(estimator.backbone, nn.Module):
        return Backbone(type(estimator.backbone).__name__, False, width)
    *_, network = backbone.children()  # after the normalisation of the channels
    return Backbone(*timm_recipe(estimator.backbone, network), width)


def _has_record(estimator: DeepEstimator) -> bool:
    return estimator._takes_images() or isinstance(estimator.backbone, nn.Module)


def _rebuild(
    estimator: DeepEstimator, record: Backbone | None, weights: dict[str, Tensor]
) -> nn.Module:
    """Return the networks that the parameters describe, with these weights."""
    with OwnDraws(0):  # of numbers that are replaced
        # First without memory, lest a few numbers in a small file ask for all that there is.
        try:
            with torch.device("meta"):
                blank = _build(estimator, record)
        except Exception as error:  # timm's, torch's, and those of methods that others have written
            hint = " A newer version of timm may help." if "meta" in str(error).lower() else ""
            raise ValueError(
                f"the networks cannot be built from the parameters: {error}{hint}"
            ) from error
        _compare_shapes(_tensors_of(blank), weights)
        networks = _build(estimator, record)
    with torch.no_grad():
        for name, tensor in _tensors_of(networks).items():
            # In the type of the file, but in the order in memory that the network had.
            tensor.data = torch.empty_like(tensor, dtype=weights[name].dtype).copy_(weights[name])
    return networks.eval()


def _build(estimator: DeepEstimator, record: Backbone | None) -> nn.Module:
    shape, projector = estimator._sample_shape, estimator._projector()
    network: nn.Module
    if record is None and projector is None:  # features are clustered as they are
        network, width = nn.Identity(), shape[0]
    elif record is None:
        network, width = build_backbone("auto", shape)
    elif isinstance(estimator.backbone, nn.Module):
        network = copy.deepcopy(estimator.backbone).cpu().to(memory_format=torch.channels_last)
        width = record.width
    else:
        network = rebuild_backbone(record.name, shape[0], record.small_stem)
        width = record.width
    prepare, embedding = blank_networks(shape, network, width, projector)
    networks: nn.Module = estimator._make_networks(ClusterModel(prepare, embedding, nn.Identity()))
    return networks


def _read_record(estimator: DeepEstimator, record: Any) -> Backbone | None:
    if not _has_record(estimator):
        if record is not None:
            raise ValueError(f"backbone: expected none for feature arrays, got {record!r}.")
        return None
    check_names("backbone", record, [field.name for field in fields(Backbone)])
    found = Backbone(**record)
    if [type(value) for value in astuple(found)] != [str, bool, int]:
        raise ValueError(f"backbone: a name, a truth value and a width were expected, got {found}.")
    return found


def _tensors_of(networks: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each once: some modules are known by two names."""
    state = networks.state_dict(keep_vars=True)
    # By the later name, which does not depend on which of several heads is the model's.
    return dict({id(tensor): (name, tensor) for name, tensor in state.items()}.values())


def _compare_shapes(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    try:
        check_names("tensors", found, expected)
        for name, tensor in expected.items():
            wanted, shape = tuple(tensor.shape), tuple(found[name].shape)
            if shape != wanted:
                raise ValueError(f"{name} has the shape {shape} instead of {wanted}.")
            if found[name].is_floating_point() != tensor.is_floating_point():
                raise ValueError(f"{name} is {found[name].dtype} instead of {tensor.dtype}.")
    except ValueError as error:
        raise ValueError(
            f"{NETWORKS}* are not what parameters and backbone describe. {error}"
        ) from error


@torch.no_grad()
def _compare(estimator: DeepEstimator, again: DeepEstimator) -> None:
    """Raise ValueError if what was read back does not answer as what was written."""
    if type(again) is not type(estimator):
        raise ValueError(
            f"{type(again)} has the same name as {type(estimator)}. Rename one; a class that was "
            "defined anew, as in a notebook, is another one."
        )
    prepare: Any = estimator._model.prepare
    generator = torch.Generator().manual_seed(0)
    rows = prepare.mean + prepare.scale * torch.rand(
        2, *estimator._sample_shape, generator=generator
    )
    answers = [consult(one._model, rows, one._second_opinion()) for one in (estimator, again)]
    for ours, theirs in zip(*answers, strict=True):
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError(
                "Its networks are not those that its parameters describe: read back, they answer "
                "differently. Set the parameters back to those of the fit, or fit again."
            )


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Let an error say what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


# --- the files -----------------------------------------------------------------------------------


def _refuse_other_files(folder: Path) -> None:
    """Raise ValueError if there is something that was not written by save."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"path={str(folder)!r} is a file. Name a folder.")
    for name in os.listdir(folder) if folder.exists() else []:
        if not re.fullmatch(rf"({TEXT_FILE}|{TENSOR_FILE})(\.\d+\.tmp|\.previous)?", name):
            raise ValueError(f"path={str(folder)!r} holds {name!r}. Name a folder of its own.")
        if name == TEXT_FILE:
            with _blaming(f"path={str(folder)!r} holds another model. Name another folder"):
                _parse_text(folder / TEXT_FILE)


@contextmanager
def _new_files(folder: Path) -> Iterator[list[Path]]:
    """Give names for two files in a folder, and leave nothing there that was not renamed."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{os.getpid()}.tmp" for name in (TEXT_FILE, TENSOR_FILE)]
    try:
        yield files
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        if is_new and not os.listdir(folder):
            folder.rmdir()


def _replace(folder: Path, text_file: Path, tensor_file: Path) -> None:
    """Put new files in the place of old ones; cut short, it leaves one of both models."""
    text, tensors, previous = (folder / name for name in (TEXT_FILE, TENSOR_FILE, PREVIOUS_FILE))
    # Unless we were cut short before, and the tensors in use have that name already.
    if text.exists() and _belongs(tensors, _parse_text(text).get("sha256_of_tensors")):
        os.replace(tensors, previous)
    os.replace(tensor_file, tensors)
    os.replace(text_file, text)
    previous.unlink(missing_ok=True)


def _write(text: Text, tensors: dict[str, Tensor], text_file: Path, tensor_file: Path) -> None:
    """Write both files, down to the disk.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, tensor_file)
        text = replace(text, sha256_of_tensors=_sha256(tensor_file))
        content = json.dumps(asdict(text), indent=1).encode()
        if len(content) > MOST_TEXT_BYTES:
            raise ValueError(f"{TEXT_FILE} would have {len(content)} bytes, more than load reads.")
        text_file.write_bytes(content)
        shutil.copymode(text_file, tensor_file)  # which safetensors let nobody else read
        for file in (text_file, tensor_file):
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"The model could not be written to path={str(text_file.parent)!r}: {error}. What was "
            "there before is left."
        ) from error


def _parse_text(file: Path) -> dict[str, Any]:
    """Return the fields of what save has written, of whatever version."""
    _check_file(file)
    size = file.stat().st_size
    if size > MOST_TEXT_BYTES:
        raise ValueError(f"{TEXT_FILE} has {size} bytes, more than {MOST_TEXT_BYTES}.")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{TEXT_FILE} is no JSON text: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{TEXT_FILE} was not written by save of an estimator.")
    return content


def _read_text(file: Path) -> Text:
    content = _parse_text(file)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{TEXT_FILE} has format_version={version!r}, but this version of skdeepcluster reads "
            f"{FORMAT_VERSION}. It was saved with {str(content.get('saved_with'))[:200]}."
        )
    check_names(TEXT_FILE, content, [field.name for field in fields(Text)])
    return Text(**content)


def _read_tensors(files: Sequence[Path], sha256: Any) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = next((file for file in files if _belongs(file, sha256)), None)
    if file is None:
        raise ValueError(
            f"{TENSOR_FILE} is damaged or belongs to another {TEXT_FILE}: its sha256 is not "
            "sha256_of_tensors."
        )
    try:
        return load_file(file)
    except Exception as error:  # of what others have written, and of torch for unusual types
        raise ValueError(f"{TENSOR_FILE} is no file of safetensors: {error}") from error


def _check_file(file: Path) -> None:
    """Refuse links, which lead out of the folder, and what is no file at all."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise ValueError(f"{file.name} is a link or no file. Copy the file itself to the folder.")


def _belongs(file: Path, sha256: Any) -> bool:
    """Whether a file is there and has this content."""
    if not os.path.lexists(file):
        return False
    _check_file(file)
    return bool(_sha256(file) == sha256)


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    names = ("skdeepcluster", "torch", "timm", "numpy", "sklearn")
    return {name: sys.modules[name].__version__ for name in names if name in sys.modules}
