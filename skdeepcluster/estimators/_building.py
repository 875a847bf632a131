"""Build the networks and views that fit the data: the room where defaults are derived."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from skdeepcluster.data import (
    AugmentedViews,
    NeighborViews,
    RandomImageViews,
    Source,
    moments,
    value_range,
)
from skdeepcluster.networks import (
    EmbeddingNetwork,
    Standardize,
    build_backbone,
    is_pretrained,
    multilayer_perceptron,
)
from skdeepcluster.numerics import nearest_neighbors

FEATURE_EMBEDDING = 64
IMAGE_EMBEDDING = 128
# Exact neighbours cost n^2; pretraining draws some 200,000 samples and needs no larger graph.
GRAPH_ROWS = 2**15


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
        Passes over a set of images.
    """

    batch_size: int
    learning_rate: float
    max_steps: int = 0
    samples_per_step: float = 8
    image_epochs: int = 0

    def epochs(self, n_samples: int, batch_size: int) -> int:
        """Return the number of passes over the data that comes nearest to the steps wanted."""
        if self.image_epochs:
            return self.image_epochs
        wanted = min(n_samples / self.samples_per_step, 250 + n_samples / 130)
        steps = min(max(wanted, 6.0), self.max_steps)
        return max(round(steps / max(n_samples // batch_size, 1)), 1)


def n_fine_clusters(multiple: int, n_clusters: int, n_samples: int) -> int:
    """Return so many times the number of clusters, as long as five samples are left for each."""
    return max(min(multiple * n_clusters, n_samples // 5), n_clusters)


def given(value: Any, default: Any) -> Any:
    """Return what the user gave, or the default for "auto"."""
    return default if value == "auto" else value


Backbone = str | os.PathLike[str] | nn.Module
Weights = bool | str | os.PathLike[str]
PairedViews = AugmentedViews | NeighborViews


def build_networks(
    source: Source, backbone: Backbone, pretrained: Weights, *, learns: bool
) -> tuple[nn.Module, EmbeddingNetwork]:
    """Return the preparation of raw samples and the embedding network for this data.

    Parameters
    ----------
    source : Source
        Gives the shape of the samples, and their statistics.
    backbone, pretrained : see ``DeepClusterer``
    learns : bool
        Whether a pretraining follows, or the like. Without it, no layer is added that only it
        would train.
    """
    if len(source.sample_shape) == 1:
        return _feature_networks(source, backbone, learns)
    return _image_networks(source, backbone, pretrained, learns)


def _feature_networks(
    source: Source, backbone: Backbone, learns: bool
) -> tuple[nn.Module, EmbeddingNetwork]:
    mean, variance = moments(source, (0,))
    # One scale for all features: their relative sizes are information, above all in embeddings.
    prepare = Standardize(mean, variance.mean().sqrt())
    if not learns and backbone == "auto":
        # An encoder that nothing has trained would only blur the features.
        identity = nn.Identity()
        return prepare, EmbeddingNetwork(identity, identity, source.sample_shape[0])
    network, width = build_backbone(backbone, source.sample_shape)
    if not learns:
        return prepare, EmbeddingNetwork(network, nn.Identity(), width)
    projector = nn.Linear(width, FEATURE_EMBEDDING)
    return prepare, EmbeddingNetwork(network, projector, FEATURE_EMBEDDING)


def _image_networks(
    source: Source, backbone: Backbone, pretrained: Weights, learns: bool
) -> tuple[nn.Module, EmbeddingNetwork]:
    low, high = value_range(source)
    # Augmentations work on [0, 1]; the backbone then gets channels of mean zero.
    prepare = Standardize(torch.tensor(low), torch.tensor(high - low))
    network, width = build_backbone(backbone, source.sample_shape, pretrained)
    published = getattr(network, "pretrained_cfg", None)
    if published and is_pretrained(backbone, pretrained) and source.sample_shape[0] == 3:
        mean, deviation = (torch.tensor(published[k])[:, None, None] for k in ("mean", "std"))
    else:
        mean, variance = moments(source, (0, 2, 3))
        span = max(high - low, torch.finfo(torch.float32).tiny)
        mean, deviation = (mean - low) / span, variance.sqrt() / span
    normalized = nn.Sequential(Standardize(mean, deviation), network)
    if not learns:
        return prepare, EmbeddingNetwork(normalized, nn.Identity(), width)
    projector = multilayer_perceptron([width, width, IMAGE_EMBEDDING])
    return prepare, EmbeddingNetwork(normalized, projector, IMAGE_EMBEDDING)


@torch.no_grad()
def build_views(
    source: Source, prepare: nn.Module, n_clusters: int, generator: torch.Generator
) -> PairedViews:
    """Return two views per sample: augmentations of images, neighbours of feature vectors.

    Neighbours are found among at most 32,768 random rows, ``clip(n / (4 n_clusters), 3, 10)`` for
    each: few enough that most belong to the same cluster, even where clusters are small.
    """
    n = len(source)
    if len(source.sample_shape) == 3:
        return AugmentedViews(source, prepare, 2 * [RandomImageViews()])
    rows = torch.randperm(n, generator=generator)[:GRAPH_ROWS].sort().values
    n_neighbors = min(max(len(rows) // (4 * n_clusters), 3), 10)
    features = torch.cat([prepare(source.rows(index)) for index in torch.split(rows, 4096)])
    _, neighbors = nearest_neighbors(features, n_neighbors)
    return NeighborViews(source, prepare, neighbors, rows)
