"""Where clustering starts: partitions of an embedding, and heads fitted to one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skdeepcluster.base._building import PairedViews, Recipe
from skdeepcluster.base._inference import prepared_rows
from skdeepcluster.base._judging import judged_rows
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.data import NeighborViews, Source
from skdeepcluster.networks import ClusterModel
from skdeepcluster.numerics import KMeansResult, best_separated, kmeans, merged_partitions
from skdeepcluster.objectives import HeadFit
from skdeepcluster.training import Phase, Trainer, cosine

KMEANS_RUNS = 3


def candidate_partitions(
    embedding: Tensor,
    mini: KMeansResult,
    views: PairedViews,
    n_clusters: int,
    init: str,
    generator: torch.Generator,
    n_init: int = KMEANS_RUNS,
) -> dict[str, Tensor]:
    """Return partitions of the data into clusters: k-means, and mergers of the mini-clusters.

    Parameters
    ----------
    embedding : Tensor of shape (n_samples, embedding_dim)
        Of the samples that there are views of.
    mini : KMeansResult
        The mini-clusters of the embedding.
    views : PairedViews
        Those of feature arrays know neighbours, by which mini-clusters can be merged.
    n_clusters : int
    init : {"auto", "kmeans", "merged"}
        Which to make; "auto" makes all.
    generator : torch.Generator
    n_init : int
        Runs of k-means, of which the best is taken.
    """
    candidates = {}
    if init != "merged":
        run = kmeans(embedding, n_clusters, generator=generator, n_init=n_init)
        candidates["kmeans"] = run.labels
    if init != "kmeans":
        neighbors = views.neighbors if isinstance(views, NeighborViews) else None
        candidates |= merged_partitions(mini, n_clusters, neighbors)
    return candidates


def choose_partition(
    candidates: dict[str, Tensor], source: Source, model: ClusterModel, n_clusters: int
) -> str:
    """Return the partition whose clusters are best separated in the features as they came.

    The embedding would be no impartial judge: it was made to look good there.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    rows = judged_rows(len(source))
    judged = {name: labels[rows.to(labels.device)] for name, labels in candidates.items()}
    return best_separated(judged, prepared_rows(model.prepare, source, rows), n_clusters)


def fit_head(
    head: nn.Module,
    embedding: Tensor,
    labels: Tensor,
    recipe: Recipe,
    trainer: Trainer,
    report: CallbackReport,
) -> None:
    """Fit a head to a partition, from where it stands, in a phase named "start"."""
    n = len(labels)
    epochs = recipe.epochs(n, recipe.batch_size)
    with report.phase("start", epochs) as hook:
        trainer.run(
            Phase(
                name="start",
                objective=HeadFit(head),
                views=lambda index, _: (embedding[index], labels[index]),
                n_samples=n,
                batch_size=recipe.batch_size,
                epochs=epochs,
                parameter_groups=[{"params": list(head.parameters()), "lr": recipe.learning_rate}],
                optimizer=torch.optim.Adam,
                schedule=cosine,
                hook=hook,
                resumable=False,
            )
        )
