"""MiniClustering: deep clustering of long-tailed data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skdeepcluster.data import EmbeddedViews, NeighborViews, ResidentSource, Source
from skdeepcluster.estimators._base import DeepClusterer, infer
from skdeepcluster.estimators._building import PairedViews
from skdeepcluster.estimators._report import CallbackReport
from skdeepcluster.estimators._validation import integer, one_of, real
from skdeepcluster.networks import ClusterModel
from skdeepcluster.numerics import centroid_silhouette, kmeans, merge_clusters
from skdeepcluster.objectives import MiniObjective
from skdeepcluster.training import Phase, Trainer


@dataclass(frozen=True)
class HeadRecipe:
    """How fast and how long to train the heads, where the user does not say."""

    learning_rate: float
    batch_size: int
    logit_scale: float
    max_steps: int

    def steps(self, n_samples: int) -> int:
        """Return the number of steps for a data set of this size."""
        return min(max(n_samples // 4, 20), self.max_steps)


FEATURE_HEADS = HeadRecipe(learning_rate=1e-3, batch_size=1024, logit_scale=30.0, max_steps=150)
IMAGE_HEADS = HeadRecipe(learning_rate=1e-5, batch_size=512, logit_scale=100.0, max_steps=400)


KMEANS_RUNS = 3
# The share by which another start has to be better separated than k-means to be preferred.
KMEANS_MARGIN = 0.04
JUDGED_ROWS = 2**14


class MiniClustering(DeepClusterer):
    """TODO-DOC."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepClusterer._parameter_constraints,
        "init": [one_of("auto", "kmeans", "merged")],
        "n_mini_clusters": [one_of("auto"), integer(1)],
        "confidence_threshold": [real(0, 1, "left")],
        "occupancy_threshold": [real(0, 1, "left")],
        "mini_weight": [real(0, None, "left")],
        "alignment_weight": [real(0, None, "left")],
        "reweight": ["boolean"],
        "fine_tune": [one_of("auto"), "boolean"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str = "auto",
        n_mini_clusters: int | str = "auto",
        confidence_threshold: float = 0.9,
        occupancy_threshold: float = 0.3,
        mini_weight: float = 1.0,
        alignment_weight: float = 0.2,
        reweight: bool = True,
        fine_tune: bool | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        pretraining: str | None = "auto",
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        device: str | torch.device = "auto",
        precision: str = "auto",
        num_workers: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_mini_clusters = n_mini_clusters
        self.confidence_threshold = confidence_threshold
        self.occupancy_threshold = occupancy_threshold
        self.mini_weight = mini_weight
        self.alignment_weight = alignment_weight
        self.reweight = reweight
        self.fine_tune = fine_tune
        self.backbone = backbone
        self.pretrained = pretrained
        self.pretraining = pretraining
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _make_objective(self, model: ClusterModel, n_samples: int) -> MiniObjective:
        return MiniObjective(
            model,
            n_clusters=self.n_clusters,
            n_mini_clusters=self._count_mini_clusters(n_samples),
            confidence_threshold=self.confidence_threshold,
            occupancy_threshold=self.occupancy_threshold,
            mini_weight=self.mini_weight,
            alignment_weight=self.alignment_weight,
            reweight=self.reweight,
            fine_tune=self._fine_tunes(),
        )

    def _count_mini_clusters(self, n_samples: int) -> int:
        if self.n_mini_clusters == "auto":
            # Four for each cluster, as in the paper, as long as five samples are left for each.
            return max(min(4 * self.n_clusters, n_samples // 5), self.n_clusters)
        return min(int(self.n_mini_clusters), n_samples)

    def _fine_tunes(self) -> bool:
        return self._takes_images() if self.fine_tune == "auto" else bool(self.fine_tune)

    def _start(
        self, objective: MiniObjective, source: Source, views: PairedViews, trainer: Trainer
    ) -> None:
        """Start the heads from partitions of the embedding."""
        generator = trainer.generator("start")
        embedding = self._embed(objective, source)
        n_mini = objective.mini_head.out_features
        mini = kmeans(embedding, n_mini, generator=generator, n_init=1)
        candidates = {}
        if self.init in ("auto", "kmeans"):
            run = kmeans(embedding, self.n_clusters, generator=generator, n_init=KMEANS_RUNS)
            candidates["kmeans"] = run.labels
        if self.init in ("auto", "merged"):
            sizes = torch.bincount(mini.labels, minlength=n_mini)
            parts = merge_clusters(mini.centers, sizes, self.n_clusters).to(mini.labels.device)
            candidates["merged"] = parts[mini.labels]
        name = self.init if len(candidates) == 1 else self._choose(candidates, source, objective)
        objective.start(embedding, candidates[name], mini.labels, self._recipe().logit_scale)

    def _choose(
        self, candidates: dict[str, Tensor], source: Source, objective: MiniObjective
    ) -> str:
        """Return the start whose clusters are better separated in the features as they came.

        The embedding would be no impartial judge: both starts were made to look good there.
        """
        if self._takes_images():
            return "kmeans"
        rows = torch.linspace(0, len(source) - 1, min(len(source), JUDGED_ROWS)).round().long()
        features = torch.cat(
            [objective.model.prepare(source.rows(index)) for index in rows.split(4096)]
        )
        scores = {
            name: centroid_silhouette(features, labels[rows.to(labels.device)], self.n_clusters)
            for name, labels in candidates.items()
        }
        # k-means is the safer start; the other has to be better by more than noise.
        preferred = scores["kmeans"] + KMEANS_MARGIN * abs(scores["kmeans"])
        return "merged" if scores["merged"] > preferred else "kmeans"

    def _train(
        self,
        objective: MiniObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        recipe = self._recipe()
        n = len(views)
        batch_size = recipe.batch_size if self.batch_size == "auto" else int(self.batch_size)
        if self.max_epochs == "auto":
            epochs = max(round(recipe.steps(n) / max(n // batch_size, 1)), 1)
        else:
            epochs = int(self.max_epochs)
        rate = recipe.learning_rate if self.learning_rate == "auto" else self.learning_rate
        if not self._fine_tunes():
            views = self._freeze(views, objective, source)
        with report.phase("clustering", epochs, lambda: self._fitted_attributes(objective)) as hook:
            trainer.run(
                Phase(
                    name="clustering",
                    objective=objective,
                    views=views,
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=[{"params": objective.trained_parameters(), "lr": rate}],
                    optimizer=torch.optim.Adam,
                    hook=hook,
                )
            )

    def _freeze(
        self, views: PairedViews, objective: MiniObjective, source: Source
    ) -> PairedViews | EmbeddedViews:
        """Return views that are embeddings already; of feature arrays each sample's only once."""
        if isinstance(views, NeighborViews):
            embedding = ResidentSource(self._embed(objective, source))
            return NeighborViews(embedding, nn.Identity(), views.neighbors, views.rows)
        return EmbeddedViews(views, objective.model.embedding)

    def _embed(self, objective: MiniObjective, source: Source) -> Tensor:
        """Return the embedding of all samples, on the device."""
        batches = infer(objective.model, source)
        return torch.cat([embedding for embedding, _ in batches]).to(source.device)

    def _recipe(self) -> HeadRecipe:
        return IMAGE_HEADS if self._takes_images() else FEATURE_HEADS
