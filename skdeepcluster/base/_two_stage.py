"""Clusterers of two stages: an embedding first, then heads that start from a partition of it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from skdeepcluster.base._building import (
    GRAPH_ROWS,
    PairedViews,
    Recipe,
    count_neighbors,
    n_fine_clusters,
)
from skdeepcluster.base._clusterer import DeepClusterer
from skdeepcluster.base._inference import prepared_rows
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._start import (
    TAUGHT_MARGIN,
    candidate_partitions,
    choose_partition,
    finer_merger,
    fit_head,
    n_runs,
    nearest_mean,
    teach_encoder,
    teach_head,
)
from skdeepcluster.data import NeighborViews, ResidentSource, Source
from skdeepcluster.networks import ClusterModel, most_likely
from skdeepcluster.numerics import (
    KMeansResult,
    best_separated,
    kmeans,
    nearest_neighbors,
    propagate_labels,
)
from skdeepcluster.training import Phase, Trainer, choose_device, constant, cosine


class TwoStageClusterer(DeepClusterer):
    """Base of the methods that pretrain an encoder, partition its embedding and train heads.

    A method gives its objective and its recipes. The objective has ``n_parts``,
    ``start(embedding, labels, mini_labels, generator)`` and ``parameter_groups(learning_rate)``.
    """

    _starts_from_mergers = True
    _feature_training: ClassVar[Recipe]
    _image_training: ClassVar[Recipe]
    _head_fit: ClassVar[Recipe]

    init: str

    def _own_phases(self) -> list[str]:
        return ["start", "clustering"]

    def _fine_tunes(self) -> bool:
        """Whether the encoder goes on learning: of "auto", from images where that is affordable."""
        if self._frozen is not None:  # whose backbone is what fine_tune is about
            return False
        if self.fine_tune == "auto":
            return self._sees_images() and choose_device(self.device).type != "cpu"
        return bool(self.fine_tune)

    def _learns_from_images(self) -> bool:
        """Whether the encoder is fine-tuned on images; else heads learn from their embedding."""
        return self._sees_images() and self._fine_tunes()

    def _count_parts(self, name: str) -> int:
        """Return the size of the fine partition that the parameter of this name asks for."""
        wanted, n_clusters = getattr(self, name), self._most_clusters()
        if wanted == "auto":
            return n_fine_clusters(n_clusters, self._n_sized)
        if int(wanted) < n_clusters:
            raise ValueError(
                f"{name}={wanted} should be >= n_clusters={n_clusters}: they are parts of "
                "clusters. Raise it, or use 'auto'."
            )
        return min(int(wanted), self._n_sized)

    def _start(
        self,
        objective: Any,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Start the heads from partitions of the samples that are trained on."""
        generator, n_clusters = trainer.generator("partitions"), self._most_clusters()
        embedding = self._embed(objective, source, views.rows)
        mini = kmeans(embedding, objective.n_parts, generator=generator, n_init=1)
        if self.init == "random":
            objective.start(embedding, None, trainer.agreed(mini.labels), generator)
            return
        labels, is_new = self._partition(
            embedding, mini, views, objective.model, source, trainer, generator
        )
        labels = trainer.agreed(labels)
        if trainer.agreed(torch.tensor(is_new)) and self._teaches():
            trainer.say("start: a partition of the features, which the encoder learns")
            features = prepared_rows(objective.model.prepare, source, views.rows)
            teach_encoder(objective.model.embedding, features, labels, n_clusters, trainer)
            embedding = self._embed(objective, source, views.rows)
            mini = kmeans(embedding, objective.n_parts, generator=generator, n_init=1)
        objective.start(embedding, labels, trainer.agreed(mini.labels), generator)
        if "start" in self._own_phases():
            if isinstance(views, NeighborViews):
                neighbors = views.neighbors.to(labels.device)
                labels = propagate_labels(labels, neighbors, n_clusters)
            fit_head(objective.model.head, embedding, labels, self._head_fit, trainer, report)

    def _partition(
        self,
        embedding: Tensor,
        mini: KMeansResult,
        views: PairedViews,
        model: ClusterModel,
        source: Source,
        trainer: Trainer,
        generator: torch.Generator,
    ) -> tuple[Tensor, bool]:
        """Return the partition that ``init`` asks for, and whether the embedding has another."""
        # The published start, where the encoder goes on from it.
        init = "kmeans" if self.init == "auto" and self._learns_from_images() else self.init
        k = self._most_clusters()
        neighbors = views.neighbors if isinstance(views, NeighborViews) else None
        candidates = candidate_partitions(
            embedding, mini, neighbors, k, init, generator, n_runs(len(embedding), k)
        )
        if not isinstance(views, NeighborViews):  # pixels are no judge of images
            # k-means has nearly the highest silhouette there is. Where a merger has more, k-means
            # has cut large classes up and put small ones together.
            name = best_separated(candidates, embedding, k, torch.mean, margin=0.0)
            return candidates[name], False
        if len(candidates) == 1:
            return next(iter(candidates.values())), False
        features = prepared_rows(model.prepare, source, views.rows)
        if init == "auto":
            n_parts = len(mini.centers)
            candidates |= finer_merger(embedding, n_parts, views.neighbors, k, generator)
            candidates["plain"] = self._plain_labels(features, trainer)
        name = choose_partition(candidates, features, embedding, views.graph, k)
        labels = candidates[name]
        if init != "auto" or name == "plain":
            return labels, name == "plain"
        # Heads are as good as the means of the clusters; a merger may have no shape like that.
        expressed = {"plain": nearest_mean(embedding, labels, k), "merger": labels}
        better = choose_partition(expressed, features, embedding, views.graph, k, TAUGHT_MARGIN)
        return labels, better == "merger"

    def _train(
        self,
        objective: Any,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        recipe = self._by_kind(features=self._feature_training, images=self._image_training)
        if self._fine_tunes():
            views = self._training_views(views)
        else:
            views = self._freeze(views, objective, source)
        n = len(views)
        batch_size, epochs, rate = self._plan(recipe, n)
        with report.phase("clustering", epochs, lambda: self._fitted_attributes(objective)) as hook:
            trainer.run(
                Phase(
                    name="clustering",
                    objective=objective,
                    views=views,
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=objective.parameter_groups(rate),
                    optimizer=torch.optim.Adam,
                    schedule=self._by_kind(features=cosine, images=constant),
                    hook=hook,
                )
            )

    def _settle(self, objective: Any, source: Source, views: PairedViews, trainer: Trainer) -> None:
        """Start the heads anew from k-means on the features, if training has come to no better."""
        if self.init != "auto" or not self._may_go_back(trainer):
            return
        ground = self._ground(views, objective, source)
        if ground is None:
            return
        labels = most_likely(objective.model.head, self._embed(objective, source, ground.rows))
        kept = self._protected(labels, ground, objective, source, trainer)
        if kept is None:
            return
        embedding = self._embed(objective, source, ground.rows)
        self._start_anew(objective, embedding, kept.labels, trainer)

    def _start_anew(
        self, objective: Any, embedding: Tensor, labels: Tensor, trainer: Trainer
    ) -> None:
        """Start the heads from a partition, and let the one that answers learn it."""
        generator = trainer.generator("going back")
        mini = kmeans(embedding, objective.n_parts, generator=generator, n_init=1)
        objective.start(embedding, labels, trainer.agreed(mini.labels), generator)
        teach_head(objective.model.head, embedding, labels, self._head_fit, trainer)

    def _training_views(self, views: PairedViews) -> PairedViews:
        """Return the views of the clustering phase; those of the pretraining by default."""
        return views

    def _freeze(self, views: PairedViews, objective: Any, source: Source) -> NeighborViews:
        """Return views that are embedded already, each sample only once.

        The neighbours of images are those in their embedding: pixels are no measure any more.
        """
        rows = views.rows[:: math.ceil(len(views.rows) / GRAPH_ROWS)]
        embedding = self._embed(objective, source, rows)
        if isinstance(views, NeighborViews):
            neighbors = views.neighbors
        else:
            n_neighbors = count_neighbors(len(rows), self._most_clusters())
            _, neighbors = nearest_neighbors(embedding, n_neighbors)
        nodes = torch.arange(len(rows))
        return NeighborViews(ResidentSource(embedding), nn.Identity(), neighbors, nodes)
