"""Build the networks and views that fit the data: the room where defaults are derived."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from skdeepcluster._warnings import warn
from skdeepcluster.base._inference import prepared_rows
from skdeepcluster.base._view_choice import (
    augmentations_of,
    choose_views,
    image_neighbors,
)
from skdeepcluster.data import (
    AugmentedViews,
    FunctionViews,
    NeighborViews,
    Source,
    moments,
    name_of,
    value_range,
)
from skdeepcluster.networks import (
    EmbeddingNetwork,
    FrozenBackbone,
    Standardize,
    build_backbone,
    is_pretrained,
    least_side,
)
from skdeepcluster.numerics import evenly_spaced, nearest_neighbors

# Exact neighbours cost n^2; pretraining draws some 200,000 samples and needs no larger graph.
GRAPH_ROWS = 2**15
# Nearest rows that are searched for: partitions are judged by more than views are drawn from.
GRAPH_EDGES = 15
# Small clusters, or regions, for each cluster, as in MiniClustering's paper.
PARTS_PER_CLUSTER = 4
# Standard deviations of constants, as a share of their mean, are below this.
ROUNDING = 1e-12
# Images, and pixels of them, that tell what is usual.
LOOKED_AT = 16
LOOKED_AT_PIXELS = 2**20
# In squared distances float32 loses what has a smaller share.
LEAST_SHARE = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Recipe:
    """How fast and how long to train where the user does not say.

    Attributes
    ----------
    batch_size : int
        Samples per step.
    learning_rate : float
        Base rate.
    max_steps : int
        Steps for feature arrays of 20,000 rows and more. Smaller ones get fewer, 250 at most at
        some thousand rows.
    samples_per_step : float
        Very small arrays get one step for each so many rows, and six at least, so that a fit on
        fifty rows takes a fraction of a second.
    image_epochs : int
        Passes over a set of images, at least.
    fewest_image_steps : int
        As many steps have small sets of images, too; one for each `samples_per_step` is enough.
    """

    batch_size: int
    learning_rate: float
    max_steps: int = 0
    samples_per_step: float = 8
    image_epochs: int = 0
    fewest_image_steps: int = 0

    def epochs(self, n_samples: int, batch_size: int) -> int:
        """Return the number of passes over the data that comes nearest to the steps wanted."""
        n_batches = max(n_samples // batch_size, 1)
        wanted = n_samples / self.samples_per_step
        if self.image_epochs:
            steps = min(wanted, self.fewest_image_steps)
            return max(round(steps / n_batches), self.image_epochs)
        steps = min(max(min(wanted, 250 + n_samples / 130), 6.0), self.max_steps)
        return max(round(steps / n_batches), 1)


def n_fine_clusters(n_clusters: int, n_samples: int, multiple: int = PARTS_PER_CLUSTER) -> int:
    """Return so many times the number of clusters, as long as five samples are left for each."""
    return max(min(multiple * n_clusters, n_samples // 5), n_clusters)


def given(value: Any, default: Any) -> Any:
    """Return what the user gave, or the default for "auto"."""
    return default if value == "auto" else value


Backbone = str | os.PathLike[str] | nn.Module
Weights = bool | str | os.PathLike[str]
ImageFunction = Callable[[Tensor], Tensor]
Views = str | ImageFunction | Sequence[str | ImageFunction]
PairedViews = AugmentedViews | NeighborViews


class MakeProjector(Protocol):
    """Makes what maps the features of a backbone to the embedding, and tells its width."""

    def __call__(self, width: int, *, images: bool) -> tuple[nn.Module, int]:
        """Return the layers for features of this width."""
        ...


def load_earlier(network: nn.Module, earlier: nn.Module) -> None:
    """Let a network go on from where one of an earlier fit stands."""
    try:
        network.load_state_dict(earlier.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True goes on from the networks of the last fit, but they do not suit this "
            f"X or these parameters: {error} Set warm_start=False."
        ) from error


def build_networks(
    source: Source,
    backbone: Backbone,
    pretrained: Weights,
    projector: MakeProjector | None,
    feature_name: Callable[[int], str],
) -> tuple[nn.Module, EmbeddingNetwork]:
    """Return the preparation of raw samples and the embedding network for this data.

    Parameters
    ----------
    source : Source
        Gives the shape of the samples, and their statistics.
    backbone, pretrained : see ``DeepClusterer``
    projector : callable or None
        ``projector(width, images=...)`` makes what maps the backbone's features to the embedding,
        and returns it with its width. None where nothing would train it: then no new layer is
        added.
    feature_name : callable
        How to call the feature of a number in a warning.
    """
    if len(source.sample_shape) == 1:
        return _feature_networks(source, backbone, projector, feature_name)
    return _image_networks(source, backbone, pretrained, projector)


def _feature_networks(
    source: Source,
    backbone: Backbone,
    projector: MakeProjector | None,
    feature_name: Callable[[int], str],
) -> tuple[nn.Module, EmbeddingNetwork]:
    mean, variance = moments(source, (0,))
    _warn_about_scales(mean, variance, feature_name)
    # One scale for all features: their relative sizes are information, above all in embeddings.
    prepare = Standardize(mean, variance.mean().sqrt())
    if projector is None and backbone == "auto":
        # An encoder that nothing has trained would only blur the features.
        identity = nn.Identity()
        return prepare, EmbeddingNetwork(identity, identity, source.sample_shape[0])
    network, width = build_backbone(backbone, source.sample_shape)
    return prepare, _project(network, width, projector, images=False)


def _warn_about_scales(mean: Tensor, variance: Tensor, feature_name: Callable[[int], str]) -> None:
    """Warn if one feature varies so much that nothing can be told by the others."""
    varies = variance > (ROUNDING * mean).square()  # and is no constant
    largest = int(variance.argmax())
    varies[largest] = False
    others = variance[varies]
    if len(others) and others.sum() < LEAST_SHARE * variance[largest]:
        warn(
            f"{feature_name(largest)} has a standard deviation of "
            f"{variance[largest].sqrt().item():.2g}, all others {others.max().sqrt().item():.2g} "
            "at most: beside it networks, which compute in float32, see next to nothing of them. "
            "Scale the features (StandardScaler), or look for an outlier in this one."
        )


def _warn_about_pixels(source: Source, low: float, high: float) -> None:
    """Warn if a few pixels lie so far out that all others are the same beside them."""
    few = source.rows(evenly_spaced(len(source), LOOKED_AT)).flatten()
    pixels = few[:LOOKED_AT_PIXELS].cpu().double()
    usual = torch.quantile(pixels, torch.tensor([0.01, 0.99], dtype=torch.float64))
    spread = (usual[1] - usual[0]).item()
    if 0 < spread < LEAST_SHARE * (high - low):
        warn(
            f"X has pixels from {low:.2g} to {high:.2g}, but nearly all lie between "
            f"{usual[0].item():.2g} and {usual[1].item():.2g}: beside the others networks, which "
            "compute in float32, see no difference between them. Clip X, or rescale it."
        )


def _image_networks(
    source: Source, backbone: Backbone, pretrained: Weights, projector: MakeProjector | None
) -> tuple[nn.Module, EmbeddingNetwork]:
    prepare, network, width = _image_backbone(source, backbone, pretrained)
    return prepare, _project(network, width, projector, images=True)


def frozen_backbone(source: Source, backbone: Backbone, pretrained: Weights) -> FrozenBackbone:
    """Return a backbone that nothing is to change, with what it needs before it.

    Parameters
    ----------
    source : Source
        Of images; their range and statistics are what is missing.
    backbone, pretrained : see ``DeepClusterer``
    """
    prepare, normalized, width = _image_backbone(source, backbone, pretrained)
    *_, network = normalized.children()
    return FrozenBackbone(prepare, normalized, width, least_side(backbone, network))


def _image_backbone(
    source: Source, backbone: Backbone, pretrained: Weights
) -> tuple[nn.Module, nn.Module, int]:
    """Return the preparation of raw images, the normalised backbone, and its width."""
    low, high = value_range(source)
    _warn_about_pixels(source, low, high)
    # Augmentations work on [0, 1]; the backbone then gets channels of mean zero.
    prepare = Standardize(torch.tensor(low, dtype=torch.float64), torch.tensor(high - low))
    network, width = build_backbone(backbone, source.sample_shape, pretrained)
    # The backbone of an earlier fit brings its own normalisation.
    if not isinstance(next(network.children(), None), Standardize):
        published = getattr(network, "pretrained_cfg", None)
        if published and is_pretrained(backbone, pretrained) and source.sample_shape[0] == 3:
            mean, deviation = (torch.tensor(published[k])[:, None, None] for k in ("mean", "std"))
        else:
            mean, variance = moments(source, (0, 2, 3))
            span = max(high - low, torch.finfo(torch.float32).tiny)
            mean, deviation = (mean - low) / span, variance.sqrt() / span
        network = nn.Sequential(Standardize(mean, deviation), network)
    return prepare, network, width


def blank_networks(
    sample_shape: tuple[int, ...],
    network: nn.Module,
    width: int,
    projector: MakeProjector | None,
) -> tuple[nn.Module, EmbeddingNetwork]:
    """Return networks as :func:`build_networks` shapes them, whose numbers are yet to be loaded.

    Parameters
    ----------
    sample_shape : tuple of int
        Of the samples that the networks take.
    network : nn.Module
        The backbone.
    width : int
        Number of features that it returns.
    projector : callable or None
        See :func:`build_networks`.
    """
    if len(sample_shape) == 1:
        prepare = Standardize(torch.zeros(sample_shape), torch.ones(()))
        return prepare, _project(network, width, projector, images=False)
    pixels, network = _blank_image_backbone(sample_shape, network)
    return pixels, _project(network, width, projector, images=True)


def blank_frozen(
    sample_shape: tuple[int, ...], network: nn.Module, width: int, least_side: int
) -> FrozenBackbone:
    """Return what :func:`frozen_backbone` shapes; its numbers are yet to be loaded.

    Parameters
    ----------
    sample_shape, network, width
        See :func:`blank_networks`.
    least_side : int
        See :class:`~skdeepcluster.networks.FrozenBackbone`.
    """
    return FrozenBackbone(*_blank_image_backbone(sample_shape, network), width, least_side)


def _blank_image_backbone(
    sample_shape: tuple[int, ...], network: nn.Module
) -> tuple[nn.Module, nn.Module]:
    if not isinstance(next(network.children(), None), Standardize):
        channels = torch.ones(sample_shape[0], 1, 1)
        network = nn.Sequential(Standardize(channels, channels), network)
    return Standardize(torch.zeros(()), torch.ones(())), network


def _project(
    network: nn.Module, width: int, projector: MakeProjector | None, *, images: bool
) -> EmbeddingNetwork:
    if projector is None:
        return EmbeddingNetwork(network, nn.Identity(), width)
    return EmbeddingNetwork(network, *projector(width, images=images))


@torch.no_grad()
def build_views(
    source: Source,
    prepare: nn.Module,
    n_clusters: int,
    generator: torch.Generator,
    wanted: Views = "auto",
) -> tuple[PairedViews, list[str]]:
    """Return two views per sample, and their names: of feature vectors, neighbours.

    Neighbours are found among at most 32,768 random rows.

    Parameters
    ----------
    source : Source
    prepare : nn.Module
        Applied to its rows.
    n_clusters : int
        The more there are, the fewer neighbours have a sample.
    generator : torch.Generator
    wanted : "auto", callable or list of str and callable, optional
        Views of images; "auto" chooses those that leave them what they are.
    """
    images = len(source.sample_shape) == 3
    names = ["neighbor"]
    if images:
        _, height, width = source.sample_shape
        if isinstance(wanted, str):
            wanted = choose_views(source, prepare, generator)
        chosen = [wanted] if callable(wanted) else wanted
        functions = [view for view in chosen if callable(view)]
        named = [view for view in chosen if isinstance(view, str)]
        names = [name_of(view) if callable(view) else view for view in chosen]
        augmentations: list[Any] = augmentations_of(named, (height, width))
        if functions:
            augmentations = [FunctionViews(first, functions) for first in augmentations]
        if "neighbor" not in named:
            return AugmentedViews(source, prepare, augmentations), names
    rows = torch.randperm(len(source), generator=generator)[:GRAPH_ROWS].sort().values
    n_neighbors = count_neighbors(len(rows), n_clusters)
    if images:
        neighbors = image_neighbors(source, prepare, rows, n_neighbors)
        return AugmentedViews(source, prepare, augmentations, neighbors), names
    _, graph = nearest_neighbors(prepared_rows(prepare, source, rows), GRAPH_EDGES)
    return NeighborViews(source, prepare, graph, rows, n_neighbors), names


def count_neighbors(n_samples: int, n_clusters: int) -> int:
    """Return so few neighbours that most belong to the same cluster, even where that is small."""
    return min(max(n_samples // (4 * n_clusters), 3), 10)
