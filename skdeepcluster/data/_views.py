"""Views of each sample: what an objective is to treat as the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from skdeepcluster.data._image_views import RandomImageViews
from skdeepcluster.data._sources import Source
from skdeepcluster.numerics import OwnDraws, sent

MOST_SEED = 2**31
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


class TensorViews:
    """Rows of tensors, each the same rows of all; nothing is drawn.

    Parameters
    ----------
    *tensors : Tensor of shape (n_samples, ...)
        All on one device.
    """

    resident = True

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return some rows of each tensor."""
        index = sent(index, self.tensors[0].device)
        return tuple(tensor[index] for tensor in self.tensors)


class NeighborViews:
    """A feature vector and a random one of its nearest neighbours.

    Feature space has no crops or flips. What it has is other samples nearby: that two neighbours
    belong together is information, while noise added to one vector tells next to nothing.

    Parameters
    ----------
    source : Source
        Rows to draw from.
    prepare : nn.Module
        Applied to the rows.
    graph : Tensor of shape (n_nodes, n_edges), int64
        For each node of the graph, the nodes nearest to it, the nearest first.
    rows : Tensor of shape (n_nodes,), int64
        The row of the source behind each node.
    n_neighbors : int, optional
        So many of the nearest nodes are neighbours; all by default.

    Attributes
    ----------
    neighbors : Tensor of shape (n_nodes, n_neighbors), int64
        Those that views are drawn from.
    """

    def __init__(
        self,
        source: Source,
        prepare: nn.Module,
        graph: Tensor,
        rows: Tensor,
        n_neighbors: int | None = None,
    ) -> None:
        self.source = source
        self.prepare = prepare
        self.graph = graph.cpu()
        self.neighbors = self.graph[:, :n_neighbors].contiguous()
        self.rows = rows.cpu()

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.rows)

    @property
    def resident(self) -> bool:
        """Whether the samples lie on the device, so that nobody has to wait for them."""
        return self.source.resident

    @torch.no_grad()
    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the vectors of some nodes and of one neighbour each."""
        n_neighbors = self.neighbors.shape[1]
        pick = torch.randint(n_neighbors, (len(index),), generator=generator)
        partner = self.neighbors[index, pick]
        both = self.prepare(self.source.rows(self.rows[torch.cat([index, partner])]))
        first, second = both.chunk(2)
        return first, second


class AugmentedViews:
    """Random augmentations of an image, the second of them of a neighbour of it where there is one.

    Parameters
    ----------
    source : Source
        Images to draw from.
    prepare : nn.Module
        Maps them to [0, 1].
    augmentations : sequence of callable
        Each draws one view of every image of a batch.
    neighbors : Tensor of shape (n_images, n_neighbors), int64, optional
        Images that lie near each.
    """

    def __init__(
        self,
        source: Source,
        prepare: nn.Module,
        augmentations: Sequence[Augmentation],
        neighbors: Tensor | None = None,
    ) -> None:
        self.source = source
        self.prepare = prepare
        self.augmentations = augmentations
        self.neighbors = neighbors

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    @property
    def rows(self) -> Tensor:
        """The rows of the source that there are views of: all."""
        return torch.arange(len(self.source))

    @property
    def resident(self) -> bool:
        """Whether the samples lie on the device, so that nobody has to wait for them."""
        return self.source.resident

    @torch.no_grad()
    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the views of some images, one per augmentation."""
        if self.neighbors is None:
            seen = [self.prepare(self.source.rows(index))] * len(self.augmentations)
        else:
            pick = torch.randint(self.neighbors.shape[1], (len(index),), generator=generator)
            both = torch.cat([index, self.neighbors[index, pick]])
            own, others = self.prepare(self.source.rows(both)).chunk(2)
            seen = [own, others, *[own] * (len(self.augmentations) - 2)]
        views: list[Tensor] = []
        for augment, pairs in groupby(zip(self.augmentations, seen, strict=True), itemgetter(0)):
            images = [image for _, image in pairs]
            if isinstance(augment, RandomImageViews):
                # All that are alike at once: a fast card waits for the host, which starts each
                # operation.
                views += augment(torch.cat(images), generator).chunk(len(images))
            else:
                views += [augment(image, generator) for image in images]
        return tuple(views)


class FunctionViews:
    """A view that functions make of a batch of images, one after the other.

    What they draw from torch's global generator comes from one of their own instead.

    Parameters
    ----------
    first : callable
        Draws a view as :class:`AugmentedViews` takes them.
    functions : sequence of callable
        Each maps a batch of images in [0, 1] to as many of the same shape.
    """

    def __init__(self, first: Augmentation, functions: Sequence[Callable[[Tensor], Any]]) -> None:
        self.first = first
        self.functions = functions

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each image."""
        seen = self.first(images, generator)
        seed = torch.randint(MOST_SEED, (1,), generator=generator, device=generator.device)
        with OwnDraws(int(seed)):
            for function in self.functions:
                made = function(seen)
                if not isinstance(made, Tensor) or made.shape != seen.shape:
                    shape = f" of shape {tuple(made.shape)}" if isinstance(made, Tensor) else ""
                    raise ValueError(
                        f"views={name_of(function)} made a {type(made).__name__}{shape} of a batch "
                        f"of images of shape {tuple(seen.shape)}. Return a tensor of as many "
                        "images of the same shape."
                    )
                seen = made.to(seen)
        return seen


def name_of(function: Any) -> str:
    """Return what to call a function, or an object that is one."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images as they are: the clean view."""
    return images


class IndexedViews:
    """Views that come with the numbers of their samples, for objectives with state per sample.

    Parameters
    ----------
    views : AugmentedViews or NeighborViews
        Makes the views.
    """

    def __init__(self, views: AugmentedViews | NeighborViews) -> None:
        self.views = views

    @property
    def resident(self) -> bool:
        """Whether the samples lie on the device, so that nobody has to wait for them."""
        return self.views.resident

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the numbers of some samples, where their views are, and the views."""
        views = self.views(index, generator)
        return sent(index, views[0].device), *views
