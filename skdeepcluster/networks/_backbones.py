"""Backbones: a small encoder for feature arrays, timm models or the user's module for images."""

from __future__ import annotations

import copy
import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from skdeepcluster.networks._embedding import multilayer_perceptron
from skdeepcluster.networks._small_convnet import SmallConvNet

if TYPE_CHECKING:
    from collections.abc import Sequence

# Up to this side in pixels, the usual stem (7x7, stride 2, pooling) would leave too few positions.
SMALL_IMAGE = 64
# To this side they are enlarged for published weights. Those have mostly seen 224 pixels, which
# take four times as long and on CIFAR-10 gain .05 ARI more (doc/guide/features_or_images.md).
PUBLISHED_SIDE = 128
DEFAULT_IMAGE_BACKBONE = "resnet18"
# Not timm's, but named as if it were.
SMALL_CONVNET = "small_convnet"
FEATURE_ENCODER_WIDTH = 256


def build_backbone(
    backbone: str | os.PathLike[str] | nn.Module,
    sample_shape: Sequence[int],
    pretrained: bool | str | os.PathLike[str] = False,
) -> tuple[nn.Module, int]:
    """Build a network that maps standardised samples to features.

    Parameters
    ----------
    backbone : "auto", str, path or nn.Module
        ``"auto"`` is a multilayer perceptron for feature arrays and a ResNet-18 for images. Any
        other string is a timm model name, a path is a folder in timm's layout (``config.json``
        and weights), a module is copied, never changed. The copy is in single precision, unless
        the module takes samples of single precision in its own.
    sample_shape : sequence of int
        ``(n_features,)`` or ``(channels, height, width)``.
    pretrained : bool or path, default=False
        Whether timm fetches its published weights, or a file of weights for the named model.

    Returns
    -------
    network : nn.Module
        Maps (batch, *sample_shape) to (batch, n_features), possibly with trailing axes of one.
    n_features : int
        Its output width.

    Raises
    ------
    ValueError
        If the backbone cannot take samples of this shape or the name is unknown.
    OSError
        If published weights cannot be loaded; names the file and the folder it may be put in.
    """
    if isinstance(backbone, nn.Module):
        network = _own_copy(backbone, sample_shape)
    elif len(sample_shape) == 1:
        network = _feature_encoder(backbone, sample_shape[0])
    else:
        network = _timm_model(backbone, sample_shape, pretrained)
    # The order in memory that convolutions are fastest in; nothing else notices.
    network.to(memory_format=torch.channels_last)
    return network, output_width(network, sample_shape)


def default_image_backbone(
    sample_shape: Sequence[int], device: torch.device, pretrained: bool | str | os.PathLike[str]
) -> str:
    """Return the name of the backbone that "auto" stands for: a small one where others are slow.

    Parameters
    ----------
    sample_shape : sequence of int
        ``(channels, height, width)``.
    device : torch.device
        Where it is trained.
    pretrained : bool or path
        With published weights it is the network that has some.
    """
    small = device.type == "cpu" and max(sample_shape[1:]) <= SMALL_IMAGE and not pretrained
    return SMALL_CONVNET if small else DEFAULT_IMAGE_BACKBONE


def timm_recipe(backbone: str | os.PathLike[str], network: nn.Module) -> tuple[str, bool]:
    """Return name and stem by which :func:`rebuild_backbone` makes a network of the same shape.

    Parameters
    ----------
    backbone : "auto", str or path
        What :func:`build_backbone` was given.
    network : nn.Module
        What it made of it, for images.
    """
    if isinstance(network, SmallConvNet):
        return SMALL_CONVNET, False
    small_stem = bool(getattr(network, "small_stem", False))
    if isinstance(backbone, os.PathLike):
        published: Any = network.pretrained_cfg
        return str(published["architecture"]), small_stem
    return DEFAULT_IMAGE_BACKBONE if backbone == "auto" else backbone, small_stem


def least_side(backbone: str | os.PathLike[str] | nn.Module, network: nn.Module) -> int:
    """Return to which side images are to be enlarged for a network, if they are smaller.

    Published weights have learned things that span hundreds of pixels. What users have trained, be
    it with this package, may have learned small images.

    Parameters
    ----------
    backbone : "auto", str, path or nn.Module
        What :func:`build_backbone` was given.
    network : nn.Module
        What it made of it, for images.
    """
    published = getattr(network, "has_published_weights", False)
    return PUBLISHED_SIDE if published and not isinstance(backbone, nn.Module) else 0


def rebuild_backbone(name: str, sample_shape: Sequence[int], small_stem: bool) -> nn.Module:
    """Build a named network as :func:`build_backbone` did, without any weights to load.

    Parameters
    ----------
    name : str
        A timm model name, or "small_convnet". Those by which timm would read a folder or a hub are
        refused.
    sample_shape : sequence of int
        ``(channels, height, width)``.
    small_stem : bool
        Whether it had the first layer for small images.

    Returns
    -------
    nn.Module
        With random weights.

    Raises
    ------
    ValueError
        If there is no timm model of this name.
    """
    import timm

    if name == SMALL_CONVNET:
        return SmallConvNet(sample_shape).to(memory_format=torch.channels_last)
    if not re.fullmatch(r"\w+(\.\w+)?", name) or not timm.is_model(name):
        raise ValueError(
            f"{name!r} is the name of no timm model. timm.list_models() lists those that there are."
        )
    network: nn.Module = timm.create_model(name, in_chans=sample_shape[0], num_classes=0)
    if small_stem:
        network = _use_small_image_stem(network)
    return network.to(memory_format=torch.channels_last)


def is_pretrained(
    backbone: str | os.PathLike[str] | nn.Module, pretrained: bool | str | os.PathLike[str]
) -> bool:
    """Whether the backbone arrives with weights worth keeping."""
    return isinstance(backbone, nn.Module | os.PathLike) or bool(pretrained)


def same_backbone(
    one: str | os.PathLike[str] | nn.Module, other: str | os.PathLike[str] | nn.Module
) -> bool:
    """Whether two backbones are the same; of modules, whether one could be a copy of the other."""
    if not (isinstance(one, nn.Module) and isinstance(other, nn.Module)):
        return one == other
    state, weights = one.state_dict(), other.state_dict()
    return (
        repr(one) == repr(other)
        and state.keys() == weights.keys()
        and all(torch.equal(state[name].cpu(), weights[name].cpu()) for name in state)
    )


def _own_copy(module: nn.Module, sample_shape: Sequence[int]) -> nn.Module:
    """Return a copy of a user's module on the CPU that takes samples of single precision.

    One in half precision mostly does not, and would lose what training adds to its weights; where
    the device gains from fewer digits, ``precision`` takes them in the products alone.
    """
    network = copy.deepcopy(module).cpu()
    types = {tensor.dtype for tensor in network.state_dict().values() if tensor.is_floating_point()}
    if types - {torch.float32}:
        try:
            output_width(network, sample_shape)
        except ValueError:
            return network.float()
    return network


def _feature_encoder(backbone: str | os.PathLike[str], n_features: int) -> nn.Module:
    if backbone != "auto":
        raise ValueError(
            f"backbone={backbone!r} works on images, but X is a feature array of shape "
            f"(n_samples, {n_features}). Use backbone='auto' or pass an nn.Module that takes "
            "vectors."
        )
    width = FEATURE_ENCODER_WIDTH
    return nn.Sequential(
        multilayer_perceptron([n_features, width, width]), nn.BatchNorm1d(width), nn.ReLU()
    )


def _timm_model(
    backbone: str | os.PathLike[str],
    sample_shape: Sequence[int],
    pretrained: bool | str | os.PathLike[str],
) -> nn.Module:
    import timm

    if isinstance(backbone, os.PathLike):
        return _published_model(f"local-dir:{os.fspath(backbone)}", sample_shape[0])
    name = DEFAULT_IMAGE_BACKBONE if backbone == "auto" else backbone
    if name == SMALL_CONVNET and not pretrained:
        return SmallConvNet(sample_shape)
    if not timm.is_model(name):
        similar = ", ".join(difflib.get_close_matches(name, timm.list_models())) or "none"
        raise ValueError(
            f"backbone={name!r} is not a timm model. Names like it: {similar}; "
            "timm.list_models() lists them all. For a folder on disk pass a pathlib.Path."
        )
    if not isinstance(pretrained, str | os.PathLike) and pretrained:
        network = _published_model(name, sample_shape[0])
        network.has_published_weights = True  # type: ignore[assignment]  # least_side's; no tensor
        return network
    network = timm.create_model(name, in_chans=sample_shape[0], num_classes=0)
    small = max(sample_shape[1:]) <= SMALL_IMAGE
    if not pretrained:
        return _use_small_image_stem(network) if small else network
    weights = _read_weights(pretrained)
    classifier = _classifier(weights, network)
    # Networks that this package trains on small images have the small stem, and no classifier.
    if small and not classifier:
        stemmed = _use_small_image_stem(copy.deepcopy(network))
        network = stemmed if _same_shapes(weights, stemmed) else network
    network.has_published_weights = bool(classifier)  # type: ignore[assignment]  # as above
    weights = {name: tensor for name, tensor in weights.items() if name not in classifier}
    _load_all(network, weights, pretrained, name)
    return network


def _published_model(name: str, channels: int) -> nn.Module:
    """Create a timm model with its weights from timm's hub, its cache or a local folder."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, in_chans=channels, num_classes=0)
    except Exception as error:  # the hub, the file formats and timm each have errors of their own
        if name.startswith("local-dir:"):
            folder = name.removeprefix("local-dir:")
            raise OSError(
                f"backbone={folder!r} cannot be loaded; wanted: a folder with config.json and "
                "model.safetensors or pytorch_model.bin, as timm.models.save_for_hf writes them. "
                f"{error}"
            ) from error
        from huggingface_hub.constants import HF_HUB_CACHE

        try:
            published = timm.get_pretrained_cfg(name)
        except RuntimeError:  # no such tag
            published = None
        if published is None or not published.has_weights:
            raise ValueError(
                f"pretrained=True, but timm has no weights for backbone={name!r}; "
                "timm.list_pretrained() lists the names that have."
            ) from error
        raise OSError(
            f"The published weights of backbone={name!r} could not be loaded; wanted: "
            f"model.safetensors of {published.hf_hub_id!r} in {HF_HUB_CACHE!r}. Connect once so "
            "that they are cached, or pass pretrained='path/to/weights'."
        ) from error


def _read_weights(path: str | os.PathLike[str] | bool) -> dict[str, Any]:
    """Read a file of weights without running code from it."""
    from timm.models import load_state_dict

    if isinstance(path, bool) or not Path(path).is_file():
        raise FileNotFoundError(f"pretrained={path!r} is neither a boolean nor a file of weights.")
    try:
        weights: dict[str, Any] = load_state_dict(os.fspath(path), weights_only=True)
    except Exception as error:  # each file format has errors of its own
        raise ValueError(
            f"pretrained={path!r} is not a file of weights (safetensors, or a state dict saved by "
            f"torch): {error}"
        ) from error
    return weights


def _classifier(weights: dict[str, Any], network: nn.Module) -> set[str]:
    """Return the names of those weights that belong to the classifier of a timm model."""
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return {name for name in weights if name.startswith(tuple(f"{layer}." for layer in layers))}


def _same_shapes(weights: dict[str, Any], network: nn.Module) -> bool:
    return all(
        name in weights and weights[name].shape == tensor.shape
        for name, tensor in network.state_dict().items()
    )


def _load_all(
    network: nn.Module, weights: dict[str, Any], path: str | os.PathLike[str] | bool, name: str
) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"pretrained={path!r} does not hold the weights of backbone={name!r}"
            f"{_what_differs(weights, network.state_dict())}"
        ) from error


def _what_differs(weights: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return in a few words why weights do not fit a network; torch names every tensor."""
    missing = [key for key in expected if key not in weights]
    strange = [key for key in weights if key not in expected]
    if missing or strange:
        first = f"{missing[0]!r} is missing" if missing else f"{strange[0]!r} is not its own"
        return (
            f": of its {len(expected)} tensors {len(missing)} are missing, and {len(strange)} "
            f"others are there; {first}. Name the timm model that the weights belong to, as "
            "backbone='...'."
        )
    key = next(key for key in expected if weights[key].shape != expected[key].shape)
    return (
        f" for these images: {key!r} has the shape {tuple(weights[key].shape)} instead of "
        f"{tuple(expected[key].shape)}. They may be for another number of channels."
    )


def _use_small_image_stem(network: nn.Module) -> nn.Module:
    """Let the first layer see every pixel: 3x3 with stride 1, and no max-pooling after it.

    Patch embeddings (stride equal to the kernel) are left as they are.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.kernel_size != module.stride:
                replacement = nn.Conv2d(
                    module.in_channels,
                    module.out_channels,
                    3,
                    padding=1,
                    bias=module.bias is not None,
                )
                nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
                network.set_submodule(name, replacement)
            break
    if isinstance(getattr(network, "maxpool", None), nn.Module):
        network.maxpool = nn.Identity()
    network.small_stem = True  # type: ignore[assignment]  # timm_recipe's; no tensor
    return network


@torch.no_grad()
def output_width(network: nn.Module, sample_shape: Sequence[int]) -> int:
    """Ask the network itself: the number of features it returns for two empty samples."""
    was_training = network.training
    network.eval()
    try:
        output = network(torch.zeros(2, *sample_shape))
    except Exception as error:
        raise ValueError(
            f"The backbone cannot take samples of shape {tuple(sample_shape)}: {error}. Pass "
            "samples of another shape, or another backbone."
        ) from error
    network.train(was_training)
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != 2:
        shape = getattr(output, "shape", None)
        found = type(output).__name__ if shape is None else f"tensor of shape {tuple(shape)}"
        raise ValueError(
            "The backbone has to return one feature vector per sample; for 2 samples of shape "
            f"{tuple(sample_shape)} it returned a {found}."
        )
    return output[0].numel()
