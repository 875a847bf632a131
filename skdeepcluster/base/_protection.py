"""Another partition in the place of what training has come to, where that is no better."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from skdeepcluster.base._building import (
    GRAPH_ROWS,
    PairedViews,
    count_neighbors,
    n_fine_clusters,
)
from skdeepcluster.base._inference import embed_and_label, prepared_rows
from skdeepcluster.base._merging import MergingEstimator
from skdeepcluster.base._start import (
    Ground,
    candidate_partitions,
    choose_partition,
    finer_merger,
    ground_of,
    n_runs,
    plain_partition,
    teach_encoder,
)
from skdeepcluster.data import NeighborViews, SelectedSource, Source
from skdeepcluster.numerics import evenly_spaced, kmeans, numbered_alike
from skdeepcluster.training import Trainer

# Of how many parts of the features at least a cluster is merged.
FEATURE_PARTS = 2
# What partitions of the features are called that can take the place of one that was trained.
TOLD = {"plain": "k-means on the features", "fine": "a merger of small clusters of the features"}


class Kept(NamedTuple):
    """A partition that is better than what training has come to."""

    space: str
    """Where it was found: "features" or "embedding"."""

    labels: Tensor
    """(n_samples,), int64: of the ground."""


class ProtectedEstimator(MergingEstimator):
    """A clusterer that does not lose by training what is there without it."""

    # Whether clusters start from the best of several partitions, mergers among them.
    _starts_from_mergers: ClassVar[bool] = False

    @abstractmethod
    def _most_clusters(self) -> int:
        """Return the number of clusters, or the largest if there are several to choose from."""

    def _teaches(self) -> bool:
        """Whether the encoder is ours to train: not if it was given as it is to be used."""
        return self._projector() is not None

    def _plain_labels(self, features: Tensor, trainer: Trainer) -> Tensor:
        """Return k-means on the features that are trained on, as the first process has it."""
        n_clusters, generator = self._most_clusters(), trainer.generator("plain")
        return trainer.once(
            "plain", lambda: trainer.agreed(plain_partition(features, n_clusters, generator))
        )

    def _may_go_back(self, trainer: Trainer) -> bool:
        """Whether the encoder may be taught what is there without it."""
        return self._teaches() and not self._goes_on() and not trainer.interrupted

    def _ground(self, views: PairedViews, objective: Any, source: Source) -> Ground | None:
        """Return what partitions are judged by: of images their pixels, where these are views.

        Pixels of photographs are no measure.
        """
        prepare = objective.model.prepare
        if isinstance(views, NeighborViews):
            features = prepared_rows(prepare, source, views.rows)
            return Ground(views.rows, features, features, views.graph)
        if views.neighbors is None:
            return None
        return ground_of(source, prepare, evenly_spaced(len(source), GRAPH_ROWS))

    def _protected(
        self,
        labels: Tensor,
        ground: Ground,
        objective: Any,
        source: Source,
        trainer: Trainer,
    ) -> Kept | None:
        """Return another partition where ``labels`` are no better; the encoder learns it.

        Neither pretraining nor heads are to lose what is there without them.
        """
        n_clusters = self._most_clusters()
        embedding = self._embed(objective, source, ground.rows)
        candidates = self._without_heads(ground, embedding, trainer)
        labels = labels.to(ground.features.device)
        candidates["trained"] = labels
        name = choose_partition(candidates, ground.features, embedding, ground.graph, n_clusters)
        names = list(candidates)
        name = names[int(trainer.agreed(torch.tensor(names.index(name))))]
        if torch.equal(candidates[name], labels):
            return None
        found = numbered_alike(candidates[name], labels, n_clusters)
        encoder = objective.model.embedding
        learned = teach_encoder(encoder, ground.inputs, found, n_clusters, trainer)
        if not learned:
            return None
        told = TOLD.get(name, "a partition of the embedding")
        trainer.say(f"{told} is kept: training has come to nothing better")
        return Kept("features" if name in TOLD else "embedding", found)

    def _without_heads(
        self, ground: Ground, embedding: Tensor, trainer: Trainer
    ) -> dict[str, Tensor]:
        """Return k-means on the features and, where clusters did not start from such, mergers.

        Of the features, and of the embedding that training has made: what those methods start from
        that pretrain one.
        """
        k, n = self._most_clusters(), len(embedding)
        candidates = {"plain": self._plain_labels(ground.features, trainer)}
        if self._starts_from_mergers or self._sees_images():
            return candidates
        generator = trainer.generator("merger")
        found = finer_merger(ground.features, FEATURE_PARTS * k, ground.graph, k, generator)
        n_parts = n_fine_clusters(k, n)
        mini = kmeans(embedding, n_parts, generator=generator, n_init=1)
        nearest = ground.graph[:, : count_neighbors(n, k)]
        embedded = candidate_partitions(
            embedding, mini, nearest, k, "auto", generator, n_runs(n, k)
        ) | finer_merger(embedding, n_parts, ground.graph, k, generator)
        found |= {f"{name} of the embedding": labels for name, labels in embedded.items()}
        return candidates | {name: trainer.agreed(labels) for name, labels in found.items()}

    def _embed(self, objective: Any, source: Source, rows: Tensor) -> Tensor:
        """Return the embedding of some samples, on the device."""
        embedding, _ = embed_and_label(objective.model, SelectedSource(source, rows))
        return embedding.to(source.device)
