"""The networks of a model: how to make them anew, and with which weights."""

from __future__ import annotations

import copy
from dataclasses import astuple, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from skdeepcluster.base import DeepEstimator, blank_frozen, blank_networks
from skdeepcluster.networks import (
    ClusterModel,
    build_backbone,
    output_width,
    rebuild_backbone,
    timm_recipe,
)
from skdeepcluster.numerics import OwnDraws
from skdeepcluster.persistence._checks import check_names

# Before the names of the networks' tensors, which could be those of attributes.
NETWORKS = "networks."


@dataclass(frozen=True)
class Backbone:
    """How to make a backbone anew.

    Attributes
    ----------
    name : str
        Of the named model, or the class of the user's module.
    small_stem : bool
        Whether a timm model has the first layer for small images.
    width : int
        Number of features that it returns.
    frozen : bool
        Whether it makes vectors of images before anything is trained.
    least_side : int
        To which side it enlarges images then.
    """

    name: str
    small_stem: bool
    width: int
    frozen: bool
    least_side: int


def record_backbone(estimator: DeepEstimator) -> Backbone | None:
    """Return how to make the backbone, unless the parameters say all there is to say."""
    if not _has_record(estimator):
        return None
    frozen = estimator._frozen
    backbone = _backbone_in(estimator)
    width = output_width(backbone, estimator._sample_shape)
    if isinstance(estimator.backbone, nn.Module):
        return Backbone(type(estimator.backbone).__name__, False, width, bool(frozen), 0)
    *_, network = backbone.children()  # after the normalisation of the channels
    least_side = frozen.least_side if frozen else 0
    return Backbone(*timm_recipe(estimator.backbone, network), width, bool(frozen), least_side)


def _backbone_in(estimator: DeepEstimator) -> nn.Module:
    embedding = estimator._frozen or estimator._model.embedding
    return embedding.backbone


def _has_record(estimator: DeepEstimator) -> bool:
    return estimator._takes_images() or isinstance(estimator.backbone, nn.Module)


def networks_of(estimator: DeepEstimator) -> nn.Module:
    """Return all networks of a fitted estimator but the second opinion."""
    trained = getattr(estimator, estimator._NETWORKS[0])
    if estimator._frozen is None:
        return trained  # type: ignore[no-any-return]  # of the attribute of that name
    return nn.ModuleDict({"trained": trained, "frozen": estimator._frozen})


def rebuild(estimator: DeepEstimator, record: Backbone | None, weights: dict[str, Tensor]) -> None:
    """Give an estimator the networks that its parameters describe, with these weights."""
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
        _compare_shapes(tensors_of(blank), weights)
        networks = _build(estimator, record)
    with torch.no_grad():
        for name, tensor in tensors_of(networks).items():
            # In the type of the file, but in the order in memory that the network had.
            tensor.data = torch.empty_like(tensor, dtype=weights[name].dtype).copy_(weights[name])
    networks.eval()
    if record is not None and isinstance(estimator.backbone, nn.Module):
        _check_width(estimator, record)


def _check_width(estimator: DeepEstimator, record: Backbone) -> None:
    """Raise ValueError if a module returns other vectors, which its tensors need not tell."""
    width = output_width(_backbone_in(estimator), estimator._sample_shape)
    if width != record.width:
        raise ValueError(
            f"backbone={type(estimator.backbone).__name__} returns {width} features for each "
            f"sample, and that of the fit returned {record.width}. Give one of the same "
            "architecture."
        )


def _build(estimator: DeepEstimator, record: Backbone | None) -> nn.Module:
    """Build and set the networks of an estimator, and return them all."""
    estimator._frozen = None
    if record is not None and record.frozen:
        network = _build_recorded(estimator, record)
        estimator._frozen = blank_frozen(
            estimator._sample_shape, network, record.width, record.least_side
        )
        record = None  # what is trained gets its features
    shape, projector = estimator._seen_shape, estimator._projector()
    if record is not None:
        network, width = _build_recorded(estimator, record), record.width
    elif projector is None:  # features are clustered as they are
        network, width = nn.Identity(), shape[0]
    else:
        network, width = build_backbone("auto", shape)
    prepare, embedding = blank_networks(shape, network, width, projector)
    setattr(
        estimator,
        estimator._NETWORKS[0],
        estimator._make_networks(ClusterModel(prepare, embedding, nn.Identity())),
    )
    return networks_of(estimator)


def _build_recorded(estimator: DeepEstimator, record: Backbone) -> nn.Module:
    """Return the backbone of a record, its numbers yet to be loaded."""
    if isinstance(estimator.backbone, nn.Module):
        return copy.deepcopy(estimator.backbone).cpu().to(memory_format=torch.channels_last)
    return rebuild_backbone(record.name, estimator._sample_shape, record.small_stem)


def read_record(estimator: DeepEstimator, record: Any) -> Backbone | None:
    if not _has_record(estimator):
        if record is not None:
            raise ValueError(f"backbone: expected none for feature arrays, got {record!r}.")
        return None
    check_names("backbone", record, [field.name for field in fields(Backbone)])
    found = Backbone(**record)
    if [type(value) for value in astuple(found)] != [str, bool, int, bool, int]:
        raise ValueError(
            f"backbone: a name, two sizes and two truth values were expected, got {found}."
        )
    return found


def tensors_of(networks: nn.Module) -> dict[str, Tensor]:
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
