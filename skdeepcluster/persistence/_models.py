"""Fitted estimators on disk: text and numbers in a folder, from which nothing can be executed."""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skdeepcluster.base import DeepEstimator, consult
from skdeepcluster.persistence._checks import blaming, check_is_ours, check_names
from skdeepcluster.persistence._encoding import Decoder, Encoder
from skdeepcluster.persistence._files import (
    FORMAT,
    FORMAT_VERSION,
    PREVIOUS_FILE,
    TENSOR_FILE,
    TEXT_FILE,
    Text,
    new_files,
    read_tensors,
    read_text,
    refuse_other_files,
    replace_files,
    write_files,
)
from skdeepcluster.persistence._networks import (
    NETWORKS,
    networks_of,
    read_record,
    rebuild,
    record_backbone,
    tensors_of,
)
from skdeepcluster.training import undisturbed

# Callbacks may be anything. The other names are those of a fit that is under way.
LEFT_OUT = {
    "_skl_callbacks",
    "_skl_callbacks_to_teardown",
    "_callback_fit_ctx",
    "_parent_callback_ctx",
}


@undisturbed()
def save(estimator: DeepEstimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a folder that :func:`load` reads.

    The folder holds ``model.json`` and ``tensors.safetensors``: numbers and text, no code. They
    are read back and compared before they take the place of an earlier model. Neither training
    data nor callbacks are in them, nor is a `backbone` that is a module, though its trained
    weights are. Where several processes fit together, one of them should save.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted: a clusterer or a pretraining. Of a Pipeline, its steps can be saved.
    path : path
        Folder; made if there is none. It may hold an earlier model, and nothing else.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is no estimator of this package.
    ValueError
        If something cannot be kept as numbers and text, a ``RandomState`` for example, if
        parameters were changed after the fit so that they no longer describe its networks, or
        if ``path`` holds other files.
    OSError
        If the files cannot be written, for example to a full disk.

    See Also
    --------
    load : Read it again.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_digits
    >>> import skdeepcluster
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> model = skdeepcluster.MiniClustering(3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skdeepcluster.save(model, folder)
    ...     files = sorted(file.name for file in Path(folder).iterdir())
    ...     again = skdeepcluster.load(folder)
    >>> files
    ['model.json', 'tensors.safetensors']
    >>> bool((again.predict(X) == model.labels_).all())
    True
    """
    check_is_ours(estimator, "save")
    estimator = copy.copy(estimator)  # with networks of its own, on the CPU
    backbone = estimator.backbone if isinstance(estimator.backbone, nn.Module) else None
    folder = Path(path)
    try:
        text, tensors = _describe(estimator)
        refuse_other_files(folder)
        with new_files(folder) as (text_file, tensor_file):
            write_files(text, tensors, text_file, tensor_file)
            _compare(estimator, _read(text_file, [tensor_file], backbone))
            replace_files(folder, text_file, tensor_file)
    except ValueError as error:
        raise ValueError(f"This {type(estimator).__name__} cannot be saved. {error}") from error


@undisturbed()
def load(path: str | os.PathLike[str], *, backbone: nn.Module | None = None) -> Any:
    """Read a fitted estimator that :func:`save` has written.

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
    save : Write the files.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> import skdeepcluster
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> model = skdeepcluster.MiniClustering(3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skdeepcluster.save(model, folder)
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


def _describe(estimator: DeepEstimator) -> tuple[Text, dict[str, Tensor]]:
    """Return what there is to know about a fitted estimator, but for the checksum."""
    encoder = Encoder()
    parameters = encoder.parameters(estimator)
    others = LEFT_OUT | parameters.keys() | {estimator._NETWORKS[0], "_frozen"}
    attributes = {name: value for name, value in estimator.__dict__.items() if name not in others}
    _check_attributes(estimator, attributes)
    fitted = {name: encoder.encode(value, name) for name, value in attributes.items()}
    for name, tensor in tensors_of(networks_of(estimator)).items():
        # In memory of its own: safetensors refuses to write any twice.
        own = tensor.detach().clone(memory_format=torch.contiguous_format)
        encoder.tensors[NETWORKS + name] = own
    backbone = record_backbone(estimator)
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
    text = read_text(text_file)
    tensors = read_tensors(tensor_files, text.sha256_of_tensors)
    decoder = Decoder(tensors, backbone)
    with blaming(TEXT_FILE):
        estimator = decoder.estimator(text.estimator, text.parameters)
        _check_attributes(estimator, text.fitted)
        for name, value in text.fitted.items():
            setattr(estimator, name, decoder.decode(value, name))
        _check_fitted(estimator)
        record = read_record(estimator, text.backbone)
    if backbone is not None and not decoder.backbone_is_used:
        raise ValueError(
            f"backbone={type(backbone).__name__} was given, but the model was saved with "
            f"backbone={estimator.backbone!r}. Leave it out."
        )
    with blaming(TENSOR_FILE):
        stray = sorted(name for name in decoder.unread if not name.startswith(NETWORKS))
        if stray:
            raise ValueError(f"nothing refers to {stray[0]!r}.")
        weights = {name.removeprefix(NETWORKS): tensors[name] for name in decoder.unread}
        rebuild(estimator, record, weights)
        try:
            estimator._adopt(getattr(estimator, estimator._NETWORKS[0]))
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


@torch.no_grad()
def _compare(estimator: DeepEstimator, again: DeepEstimator) -> None:
    """Raise ValueError if what was read back does not answer as what was written."""
    if type(again) is not type(estimator):
        raise ValueError(
            f"{type(again)} has the same name as {type(estimator)}. Rename one; a class that was "
            "defined anew, as in a notebook, is another one."
        )
    prepare: Any = (estimator._frozen or estimator._model).prepare
    generator = torch.Generator().manual_seed(0)
    rows = prepare.mean + prepare.scale * torch.rand(
        2, *estimator._sample_shape, generator=generator
    )
    answers = [
        consult(one._model, rows, one._second_opinion(), one._frozen) for one in (estimator, again)
    ]
    for ours, theirs in zip(*answers, strict=True):
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError(
                "Its networks are not those that its parameters describe: read back, they answer "
                "differently. Set the parameters back to those of the fit, or fit again."
            )


def _versions() -> dict[str, str]:
    names = ("skdeepcluster", "torch", "timm", "numpy", "sklearn")
    return {name: sys.modules[name].__version__ for name in names if name in sys.modules}
