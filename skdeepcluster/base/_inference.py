"""Inference: embeddings, logits and what follows from them, the same in fit and predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor, nn
from torch.nn.functional import pad

from skdeepcluster.calibration import collect_votes, confident_in
from skdeepcluster.data import SelectedSource, Source, ordered_batches, rows_in_block
from skdeepcluster.networks import ClusterModel, FrozenBackbone
from skdeepcluster.numerics import OwnDraws, full_digits

# Rows per forward pass. It is the same for fit and predict, always padded to full size, so that a
# sample's result does not depend on the company it keeps.
INFERENCE_BATCH = 512
# Of images fewer, where so many have more pixels in a channel than 512 images of 64 x 64: what the
# first layers of a network make of them has to fit into the memory of any card.
PIXELS_PER_PASS = INFERENCE_BATCH * 64 * 64
# At least, and on a CPU: a single image takes as long as so many. Larger batches of photographs are
# slower there; they are faster only where a network takes next to no time.
FEWEST_IMAGES = 16
# Rows that are prepared at a time.
PREPARED_ROWS = 2**12
# With more clusters a voter costs more, and its errors average out over them.
MOST_VOTERS = 16
FEWEST_VOTERS = 8
VOTERS_TIMES_CLUSTERS = 160
FEW_SAMPLES = 200


class Predictions(NamedTuple):
    """What the networks say about some samples, on the CPU."""

    embedding: Tensor
    """(n_samples, embedding_dim), of unit length."""

    logits: Tensor
    """(n_samples, n_clusters), of the clustering head."""

    opinion: Tensor | None = None
    """(n_samples, n_clusters), logits of the second opinion, if there is one."""

    @property
    def labels(self) -> Tensor:
        """(n_samples,), int64: the most likely cluster."""
        return self.logits.argmax(dim=1)

    @property
    def probabilities(self) -> Tensor:
        """(n_samples, n_clusters): in double precision, with the label's the largest."""
        if self.opinion is None:
            return self.logits.double().softmax(dim=1)
        return confident_in(self.labels, self.opinion.double().softmax(dim=1))


def rows_per_pass(source: Source, frozen: FrozenBackbone | None = None) -> int:
    """Return how many rows go through a network at a time."""
    if len(source.sample_shape) < 3:
        return INFERENCE_BATCH
    if source.device.type == "cpu":
        return FEWEST_IMAGES
    n_pixels = max(math.prod(source.sample_shape[1:]), frozen.least_side**2 if frozen else 0)
    n_images = PIXELS_PER_PASS // n_pixels
    return min(max(n_images // 16 * 16, FEWEST_IMAGES), INFERENCE_BATCH)


@torch.no_grad()
def infer(
    model: ClusterModel,
    source: Source,
    second_opinion: nn.Module | None = None,
    frozen: FrozenBackbone | None = None,
) -> Iterator[Predictions]:
    """Yield the predictions for all samples, batch by batch.

    Parameters
    ----------
    model : ClusterModel
    source : Source
    second_opinion : nn.Module, optional
    frozen : FrozenBackbone, optional
        See :func:`consult`.
    """
    for network in (model, second_opinion, frozen):
        if network is not None:
            network.to(source.device).eval()
    # Networks that draw when they predict say the same whenever they are asked.
    draws = OwnDraws(0)
    for rows, n_valid in _learned_from(source, frozen, draws):
        with draws:
            said = consult(model, rows, second_opinion)
        yield Predictions(*(tensor[:n_valid].float().cpu() for tensor in said))


def _learned_from(
    source: Source, frozen: FrozenBackbone | None, draws: OwnDraws
) -> Iterator[tuple[Tensor, int]]:
    """Yield padded batches of what the model was trained on, and how many rows of them are valid.

    The features of a frozen backbone are as many as those of a feature array, in ``fit`` and later,
    however many images go through the backbone at a time.
    """
    if frozen is None:
        yield from ordered_batches(source, rows_per_pass(source))
        return
    for index in torch.split(torch.arange(len(source)), INFERENCE_BATCH):
        selected = SelectedSource(source, index)
        features = torch.cat(list(_features_of(selected, frozen, draws)))
        yield pad(features, (0, 0, 0, INFERENCE_BATCH - len(index))), len(index)


def _features_of(source: Source, frozen: FrozenBackbone, draws: OwnDraws) -> Iterator[Tensor]:
    """Yield the features of all images, batch by batch."""
    for rows, n_valid in ordered_batches(source, rows_per_pass(source, frozen)):
        with draws:
            features = frozen(rows)[:n_valid]
        yield features


@torch.no_grad()
def embed_once(
    source: Source, frozen: FrozenBackbone, announce: Callable[[int], None]
) -> NDArray[np.float32]:
    """Return the features of all images, batch by batch as :func:`infer` sees them.

    Parameters
    ----------
    source : Source
    frozen : FrozenBackbone
    announce : callable
        Is told after each batch how many images are done.

    Raises
    ------
    ValueError
        If a feature is not finite.
    """
    frozen.to(source.device)
    features = np.empty((len(source), frozen.width), dtype=np.float32)
    done = 0
    for on_device in _features_of(source, frozen, OwnDraws(0)):
        batch = on_device.cpu()
        if not batch.isfinite().all():
            raise ValueError(
                "The backbone makes features of X that are not finite. Pass images in the range "
                "that it was trained on, or another backbone."
            )
        features[done : done + len(batch)] = batch.numpy()
        done += len(batch)
        announce(done)
    return features


def consult(
    model: ClusterModel,
    rows: Tensor,
    second_opinion: nn.Module | None = None,
    frozen: nn.Module | None = None,
) -> list[Tensor]:
    """Return embedding, logits and the second opinion, if there is one, of a batch.

    ``frozen`` maps samples to what the model was trained on, where that is not they themselves.
    """
    prepared = model.prepare(rows if frozen is None else frozen(rows))
    embedding = model.embedding(prepared)
    said = [embedding, model.head(embedding)]
    if second_opinion is not None:
        with full_digits():
            said.append(second_opinion(*descriptions(prepared, embedding)))
    return said


def descriptions(prepared: Tensor, embedding: Tensor) -> list[Tensor]:
    """Return in which ways confidences see a sample: pixels tell little, features much."""
    return [prepared, embedding] if prepared.ndim == 2 else [embedding]


@torch.no_grad()
def prepared_rows(prepare: nn.Module, source: Source, rows: Tensor) -> Tensor:
    """Return samples as the encoder gets them, flat."""
    width = math.prod(source.sample_shape)
    prepared = torch.empty(len(rows), width, device=source.device)
    n_rows = rows_in_block(source.sample_shape, PREPARED_ROWS)
    for start in range(0, len(rows), n_rows):
        part = slice(start, start + n_rows)
        prepared[part] = prepare(source.rows(rows[part])).flatten(1)
    return prepared


def vote(
    views: list[Tensor], labels: Tensor, n_clusters: int, generator: torch.Generator
) -> Tensor:
    """Return votes about labels, as many from each description of the samples.

    The truth is taken to be as likely to look like the features as like the embedding: partitions
    of the features alone agree with the labels less often than the classes do, and partitions of
    the embedding, from which the labels were made, more often.
    """
    n_voters = min(max(VOTERS_TIMES_CLUSTERS // n_clusters, FEWEST_VOTERS), MOST_VOTERS)
    if len(labels) < FEW_SAMPLES:
        n_voters = FEWEST_VOTERS // 2  # a fit on so few takes a fraction of a second
    votes = [
        # Random directions make voters differ. The embedding beside the features needs none.
        collect_votes(
            view, labels, n_clusters, n_voters // len(views), generator, project=place == 0
        )
        for place, view in enumerate(views)
    ]
    return torch.cat(votes, dim=1)


def embed_and_label(model: ClusterModel, source: Source) -> tuple[Tensor, Tensor]:
    """Return the embedding and the most likely cluster of every sample."""
    n = len(source)
    # Filled in place: the batches and their concatenation together would take twice the memory.
    embedding = torch.empty(n, model.embedding.embedding_dim)
    labels = torch.empty(n, dtype=torch.long)
    start = 0
    for batch in infer(model, source):
        rows = slice(start, start := start + len(batch.labels))
        embedding[rows], labels[rows] = batch.embedding, batch.labels
    return embedding, labels


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy along the last axis, in nats."""
    total: NDArray[np.float64] = entr(probabilities).sum(axis=-1)
    return total
