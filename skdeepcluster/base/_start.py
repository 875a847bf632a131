"""Where clustering starts: partitions of an embedding, and heads fitted to one of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skdeepcluster.base._building import GRAPH_EDGES, Recipe
from skdeepcluster.base._inference import prepared_rows, rows_per_pass
from skdeepcluster.base._judging import judged_rows
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._view_choice import MOST_VALUES, compared
from skdeepcluster.data import ResidentSource, Source, TensorViews
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import EmbeddingNetwork, PrototypeHead, most_likely
from skdeepcluster.numerics import (
    KMeansResult,
    breathing_kmeans,
    centroid_silhouette,
    cluster_means,
    evenly_spaced,
    kmeans,
    mean_conductance,
    merged_partitions,
    nearest_center,
    nearest_neighbors,
    squared_lengths,
)
from skdeepcluster.objectives import HeadFit
from skdeepcluster.training import EpochHook, Phase, SilentHook, Trainer, cosine

# Starts of k-means, the best of which is taken: as many as visit so many rows and centres.
FEWEST_RUNS = 3
MOST_RUNS = 30
ROWS_TIMES_CLUSTERS = 1_000_000
# Of up to so many clusters, starts find centres that are as good as those that move.
FEW_CLUSTERS = 32
# Mini-clusters of the finer merger, where clusters are few.
FINE_PARTS = 64
ROWS_PER_FINE_PART = 10
# By which they are merged: of ten samples that are a cluster none has more than nine of its own.
FINE_NEIGHBORS = 5
# How partitions are judged; chosen on 34 families of tasks (benchmarks/tasks.py), half of them at a
# time and judged on the other half.
SILHOUETTE_WEIGHT = 6.0
LEAST_CONDUCTANCE = 0.001
# By how much another partition has to be better than k-means on the features as they came, and a
# merger than what the means of its clusters say, for the encoder to learn it.
MARGIN = 0.1
TAUGHT_MARGIN = 1.0
# How an encoder is taught, and the length of the weights of the head that teaches it.
TEACHING = Recipe(batch_size=256, learning_rate=2e-3, max_steps=200, samples_per_step=8 / 3)
TEACHING_SCALE = 10.0
# Partitions are judged by so many images at least, be they large.
FEWEST_JUDGED = 2**9
# How often a head is taught a partition at most.
MOST_LESSONS = 5


class Ground(NamedTuple):
    """Samples by which partitions are judged, and what judges them."""

    rows: Tensor
    """(n_samples,), int64: their numbers."""

    inputs: Tensor
    """(n_samples, ...): as the encoder gets them."""

    features: Tensor
    """(n_samples, n_features): where clusters are to be separated. Of images pixels."""

    graph: Tensor
    """(n_samples, n_edges), int64: the nearest neighbours of each among the features."""


@torch.no_grad()
def ground_of(source: Source, prepare: nn.Module, rows: Tensor) -> Ground:
    """Return some samples as a ground to judge partitions by; of large images fewer.

    Parameters
    ----------
    source : Source
    prepare : nn.Module
        Applied to its rows.
    rows : Tensor of shape (n_samples,), int64
    """
    if len(source.sample_shape) == 1:
        features = prepared_rows(prepare, source, rows)
        inputs = features
    else:
        affordable = max(MOST_VALUES // math.prod(source.sample_shape), FEWEST_JUDGED)
        rows = rows[evenly_spaced(len(rows), affordable)]
        inputs = prepared_rows(prepare, source, rows).reshape(-1, *source.sample_shape)
        features = compared(inputs)
    _, graph = nearest_neighbors(features, GRAPH_EDGES)
    return Ground(rows, inputs, features, graph)


def n_runs(n_samples: int, n_clusters: int) -> int:
    """Return how many starts of k-means are worth their time: many, where one takes none."""
    affordable = ROWS_TIMES_CLUSTERS // (n_samples * n_clusters)
    return min(max(affordable, FEWEST_RUNS), MOST_RUNS)


def candidate_partitions(
    embedding: Tensor,
    mini: KMeansResult,
    neighbors: Tensor | None,
    n_clusters: int,
    init: str,
    generator: torch.Generator,
    n_init: int,
) -> dict[str, Tensor]:
    """Return partitions of the data into clusters: k-means, and mergers of the mini-clusters.

    Parameters
    ----------
    embedding : Tensor of shape (n_samples, embedding_dim)
    mini : KMeansResult
        The mini-clusters of the embedding.
    neighbors : Tensor of shape (n_samples, n_neighbors), int64, or None
        Nearest neighbours of each sample, by which mini-clusters can be merged.
    n_clusters : int
    init : {"auto", "kmeans", "merged"}
        Which to make; "auto" makes all.
    generator : torch.Generator
    n_init : int
        Starts of k-means, of which the best is taken.
    """
    candidates = {}
    if init != "merged":
        run = kmeans(embedding, n_clusters, generator=generator, n_init=n_init)
        candidates["kmeans"] = run.labels
    if init != "kmeans":
        candidates |= merged_partitions(mini, n_clusters, neighbors)
    return candidates


def finer_merger(
    embedding: Tensor,
    n_parts: int,
    neighbors: Tensor,
    n_clusters: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return a merger of more parts than there are mini-clusters, where clusters are few.

    Four mini-clusters for each of two clusters are too coarse for shapes such as rings. The nearest
    of the neighbours alone count, so that those of a small cluster are its own.
    """
    n_fine = min(FINE_PARTS, len(embedding) // ROWS_PER_FINE_PART)
    if n_fine <= n_parts:
        return {}
    fine = kmeans(embedding, n_fine, generator=generator, n_init=1)
    nearest = neighbors[:, :FINE_NEIGHBORS]
    return {"fine": merged_partitions(fine, n_clusters, nearest)["neighbors"]}


def plain_partition(features: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Return k-means on the features as they came: what users would have otherwise.

    It is right where contrast is not, which spreads a large class over the sphere and squeezes a
    small one.
    """
    if n_clusters > FEW_CLUSTERS:
        return breathing_kmeans(features, n_clusters, generator=generator).labels
    n_init = n_runs(len(features), n_clusters)
    return kmeans(features, n_clusters, generator=generator, n_init=n_init).labels


def choose_partition(
    candidates: dict[str, Tensor],
    features: Tensor,
    embedding: Tensor,
    graph: Tensor,
    n_clusters: int,
    margin: float = MARGIN,
) -> str:
    """Return the name of the partition whose clusters are best separated.

    Neither the features nor the embedding alone would be an impartial judge, so both are, side by
    side; and so are the neighbours among the features. The one named "plain", k-means on the
    features, is kept unless another is clearly better.

    Parameters
    ----------
    candidates : dict of str to Tensor of shape (n_samples,), int64
    features : Tensor of shape (n_samples, n_features)
        As the encoder gets them.
    embedding : Tensor of shape (n_samples, embedding_dim)
    graph : Tensor of shape (n_samples, n_edges), int64
        Nearest neighbours of each sample among the features.
    n_clusters : int
    margin : float, default=0.1
        By how much another has to be better than the one named "plain".
    """
    rows = judged_rows(len(features)).to(features.device)
    both = side_by_side(features[rows], embedding[rows])
    graph = graph.to(features.device)
    scores = {}
    for name, labels in candidates.items():
        silhouette = centroid_silhouette(both, labels[rows], n_clusters, torch.mean)
        conductance = mean_conductance(labels, graph, n_clusters)
        scores[name] = SILHOUETTE_WEIGHT * silhouette - math.log(LEAST_CONDUCTANCE + conductance)
    best = max(scores, key=lambda name: scores[name])
    kept = scores.get("plain", -math.inf) + margin >= scores[best]
    return "plain" if kept else best


def nearest_mean(embedding: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Return the cluster to whose mean each sample is nearest."""
    centers, counts = cluster_means(embedding, labels, n_clusters)
    nearest, _ = nearest_center(embedding, centers[counts > 0])
    return torch.arange(n_clusters, device=labels.device)[counts > 0][nearest]


def teach_encoder(
    encoder: EmbeddingNetwork, features: Tensor, labels: Tensor, n_clusters: int, trainer: Trainer
) -> bool:
    """Teach an encoder a partition that its embedding contradicts, from where it stands.

    What contrast has torn apart no head on the embedding could put together again.

    Returns
    -------
    bool
        Whether it knows the partition now: not if the user has interrupted the fit, or if it
        diverged and is as it was. Where all samples are embedded next to the mean of their cluster,
        it had nothing to learn.
    """
    with trainer.draws("what the encoder knows"):  # it may draw when it embeds, too
        knows = _knows(encoder, features, labels, n_clusters)
    if trainer.agreed(torch.tensor(knows)):
        return True
    if trainer.interrupted:
        return False
    with trainer.draws("build the teacher"):
        head = PrototypeHead(encoder.embedding_dim, n_clusters).to(features.device)
    head.start_from(head.weight, TEACHING_SCALE)
    return teach_together(encoder, head, features, labels, trainer)


def teach_together(
    encoder: EmbeddingNetwork, head: nn.Module, features: Tensor, labels: Tensor, trainer: Trainer
) -> bool:
    """Teach an encoder a partition with a head on it, and return whether it went to the end."""
    learned = learn_aside(nn.Sequential(encoder, head), features, labels, TEACHING, trainer)
    if learned:
        encoder.taught.fill_(1)
    return learned


def teach_head(
    head: nn.Module, embedding: Tensor, labels: Tensor, recipe: Recipe, trainer: Trainer
) -> bool:
    """Teach a head a partition that the embedding agrees with, over and over until it knows it.

    The few samples of a small cluster have little weight in the loss: once is not always enough.

    Returns
    -------
    bool
        Whether it knows it.
    """
    for lesson in range(MOST_LESSONS + 1):
        knows = torch.equal(most_likely(head, embedding).to(labels.device), labels)
        if trainer.agreed(torch.tensor(knows)):
            return True
        if lesson == MOST_LESSONS or not learn_aside(head, embedding, labels, recipe, trainer):
            break
    return False


def learn_aside(
    network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, trainer: Trainer
) -> bool:
    """Train a network on a partition beside a fit: in none of its phases, on no record.

    Returns
    -------
    bool
        Whether that went to the end: not if the user has interrupted it, which ends the fit, or if
        it diverged, and the network is as it was.
    """
    aside = trainer.aside(["teaching"])
    try:
        aside.run(_fit_to("teaching", network, inputs, labels, recipe, SilentHook()))
    except DivergenceError:  # none of the user's rates is to blame
        return False
    trainer.interrupted |= aside.interrupted
    return not aside.interrupted


@torch.no_grad()
def _knows(encoder: EmbeddingNetwork, features: Tensor, labels: Tensor, n_clusters: int) -> bool:
    """Whether every sample lies nearest to the mean of its own cluster in the embedding."""
    parts = torch.split(features, rows_per_pass(ResidentSource(features)))
    embedding = torch.cat([encoder(rows) for rows in parts])
    return torch.equal(nearest_mean(embedding, labels, n_clusters), labels)


def side_by_side(features: Tensor, embedding: Tensor) -> Tensor:
    """Return two descriptions of the same samples as one, in which both count the same."""
    return torch.cat([_of_unit_size(features), _of_unit_size(embedding)], dim=1)


def _of_unit_size(X: Tensor) -> Tensor:
    """Return centred rows, of length one on average."""
    centered = X - X.mean(dim=0)
    size = squared_lengths(centered).mean().sqrt()
    return centered.div_(torch.where(size > 0, size, 1.0))


def fit_head(
    head: nn.Module,
    embedding: Tensor,
    labels: Tensor,
    recipe: Recipe,
    trainer: Trainer,
    report: CallbackReport,
) -> None:
    """Fit a head to a partition, from where it stands, in a phase named "start"."""
    with report.phase("start", recipe.epochs(len(labels), recipe.batch_size)) as hook:
        trainer.run(_fit_to("start", head, embedding, labels, recipe, hook))


def _fit_to(
    name: str, network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, hook: EpochHook
) -> Phase:
    """Return a phase in which a network learns which label belongs to which input."""
    return Phase(
        name=name,
        objective=HeadFit(network),
        views=TensorViews(inputs, labels),
        n_samples=len(labels),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs(len(labels), recipe.batch_size),
        parameter_groups=[{"params": list(network.parameters()), "lr": recipe.learning_rate}],
        optimizer=torch.optim.Adam,
        schedule=cosine,
        hook=hook,
        resumable=False,
    )
