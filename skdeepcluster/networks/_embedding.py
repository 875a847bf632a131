"""From raw samples to embeddings on the unit sphere."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from skdeepcluster.networks._pieces import in_pieces

# What is farther from the mean than so many times the scale is brought there. Data have to be made
# up to come near it, and squares of larger numbers would soon overflow.
FARTHEST = 1e9
# Shares of the scale by which all samples together may be off.
LEAST_REMAINDER = 2.0**-12


class Standardize(nn.Module):
    """Shift and scale the input; buffers carry the statistics into checkpoints and pickles.

    The mean is taken off in the precision in which a batch comes, and what is left is rounded to
    float32: of seconds since 1970 float32 itself would keep no more than minutes.

    Parameters
    ----------
    mean, scale : Tensor
        Broadcast against a batch: ``(x - mean) / scale``, finite for all finite input. A zero scale
        is read as one, so that constant input maps to zero.
    """

    mean: Tensor
    remainder: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        # Rounded first: what is above zero in double precision may be zero here.
        scale = scale.float().clamp(max=torch.finfo(torch.float32).max)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1.0))
        # What the mean has lost by rounding, where that is anything beside the scale.
        remainder = (mean.double() - self.mean.double()).float()
        visible = remainder.abs() > LEAST_REMAINDER * self.scale
        self.register_buffer("remainder", torch.where(visible, remainder, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised batch in the precision of the statistics."""
        centered = (x - self.mean).to(self.mean.dtype)  # a tensor of its own
        return centered.sub_(self.remainder).div_(self.scale).clamp_(-FARTHEST, FARTHEST)

    def inverse(self, standardized: Tensor) -> Tensor:
        """Return the batch as it was before, in the precision in which it is passed."""
        return standardized * self.scale + self.remainder + self.mean


class EmbeddingNetwork(nn.Module):
    """Backbone and projector in a row, ending on the unit sphere.

    Parameters
    ----------
    backbone : nn.Module
        Maps a prepared batch to features of shape (batch, n_backbone_features).
    projector : nn.Module
        Maps the features to shape (batch, embedding_dim).
    embedding_dim : int
        Number of embedding dimensions.

    Attributes
    ----------
    n_pieces : int
        In how many pieces a batch is embedded, see :func:`in_pieces`; one by default.
    taught : Tensor of shape (), int64
        1 if it was trained to repeat a partition: then it is no witness of how good that is.
    """

    n_pieces = 1
    taught: Tensor

    def __init__(self, backbone: nn.Module, projector: nn.Module, embedding_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.embedding_dim = embedding_dim
        self.register_buffer("taught", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings of unit length, shape (batch, embedding_dim), in float32."""
        if self.n_pieces > 1:
            return in_pieces(self, self._embed, x, self.n_pieces)
        return self._embed(x)

    def _embed(self, x: Tensor) -> Tensor:
        features = self.backbone(x).flatten(1)
        return normalize(self.projector(features).float(), dim=1)


class FrozenBackbone(nn.Module):
    """A backbone that is used as it came: it makes of each image a vector, once and for all.

    Parameters
    ----------
    prepare : nn.Module
        Maps raw images to what the backbone works on.
    backbone : nn.Module
        Normalises the channels of prepared images, and maps them to features.
    width : int
        How many features.
    least_side : int, default=0
        Images with fewer pixels than a square of this side are enlarged to as many; see
        :func:`least_side`.

    Attributes
    ----------
    teachable : list of str
        Names of the parameters of the backbone that asked for gradients: what may learn where it is
        fine-tuned. What its owner has frozen may not.
    """

    def __init__(
        self, prepare: nn.Module, backbone: nn.Module, width: int, least_side: int = 0
    ) -> None:
        super().__init__()
        self.prepare = prepare
        self.backbone = backbone
        self.width = width
        self.least_side = least_side
        self.teachable = [name for name, p in backbone.named_parameters() if p.requires_grad]
        self.requires_grad_(False)
        self.eval()

    @property
    def n_channels(self) -> int:
        """How many channels images have: the backbone begins with their normalisation."""
        normalization: Any = next(self.backbone.children())
        return int(normalization.mean.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of raw images, shape (batch, width), in float32."""
        return self.features(self.prepare(x))

    def features(self, prepared: Tensor) -> Tensor:
        """Return the features of prepared images, or of views of them."""
        features: Tensor = self.backbone(enlarged(prepared, self.least_side))
        return features.flatten(1).float()


def enlarged(images: Tensor, least_side: int) -> Tensor:
    """Return images with as many pixels, at least, as a square of this side.

    Parameters
    ----------
    images : Tensor of shape (batch, channels, height, width)
    least_side : int
    """
    height, width = images.shape[-2:]
    scale = least_side / math.sqrt(height * width)
    if scale <= 1:
        return images
    size = [max(round(height * scale), 1), max(round(width * scale), 1)]
    return interpolate(images, size, mode="bilinear", align_corners=False)


class ClusterModel(nn.Module):
    """All that a fitted clusterer needs: preparation, embedding and head.

    Parameters
    ----------
    prepare : nn.Module
        Maps raw samples to what views and backbone work on.
    embedding : EmbeddingNetwork
        Maps prepared samples to the unit sphere.
    head : nn.Module
        Maps embeddings to cluster logits.
    """

    def __init__(self, prepare: nn.Module, embedding: EmbeddingNetwork, head: nn.Module) -> None:
        super().__init__()
        self.prepare = prepare
        self.embedding = embedding
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """Return the embeddings of raw samples."""
        z: Tensor = self.embedding(self.prepare(x))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return the cluster logits of raw samples."""
        logits: Tensor = self.head(self.embed(x))
        return logits


def full_precision(device: torch.device) -> torch.autocast:
    """Return a context for what follows the networks: heads and losses gain nothing from less."""
    return torch.autocast(device.type, enabled=False)


def multilayer_perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with batch normalisation and ReLU between them.

    Parameters
    ----------
    widths : sequence of int
        Number of units of the input, each hidden layer and the output.

    Returns
    -------
    nn.Sequential
        The last layer is linear.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths[:-1]):
        # Batch normalisation brings its own shift.
        layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1]))
    return nn.Sequential(*layers)
