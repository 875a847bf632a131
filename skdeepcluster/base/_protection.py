"""Going back to a partition of the features where training has come to nothing better."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from skdeepcluster.base._building import GRAPH_ROWS, PairedViews
from skdeepcluster.base._inference import embed_and_label, prepared_rows
from skdeepcluster.base._merging import MergingEstimator
from skdeepcluster.base._start import (
    Ground,
    choose_partition,
    finer_merger,
    ground_of,
    plain_partition,
    teach_encoder,
)
from skdeepcluster.data import NeighborViews, SelectedSource, Source
from skdeepcluster.numerics import evenly_spaced, numbered_alike
from skdeepcluster.training import Trainer

# Of how many parts at least a cluster is merged where features are divided without training.
PARTS_MERGED = 2
# What the partitions are called that can take the place of one that was trained.
TOLD = {"plain": "k-means on the features", "fine": "a merger of small clusters of the features"}


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
    ) -> Tensor | None:
        """Return a partition of the features where ``labels`` are no better; the encoder learns it.

        Neither pretraining nor heads are to lose what is there without them.
        """
        n_clusters = self._most_clusters()
        candidates = self._without_training(ground, trainer)
        labels = labels.to(ground.features.device)
        candidates["trained"] = labels
        embedding = self._embed(objective, source, ground.rows)
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
        trainer.say(f"{TOLD[name]} is kept: training has come to nothing better")
        return found

    def _without_training(self, ground: Ground, trainer: Trainer) -> dict[str, Tensor]:
        """Return partitions of the features: k-means, and a merger where none was tried before."""
        n_clusters = self._most_clusters()
        candidates = {"plain": self._plain_labels(ground.features, trainer)}
        if not (self._starts_from_mergers or self._sees_images()):
            generator = trainer.generator("merger")
            found = finer_merger(
                ground.features, PARTS_MERGED * n_clusters, ground.graph, n_clusters, generator
            )
            candidates |= {name: trainer.agreed(labels) for name, labels in found.items()}
        return candidates

    def _embed(self, objective: Any, source: Source, rows: Tensor) -> Tensor:
        """Return the embedding of some samples, on the device."""
        embedding, _ = embed_and_label(objective.model, SelectedSource(source, rows))
        return embedding.to(source.device)
