"""Fine-tune a backbone that arrived trained: by contrast of the images at hand."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skdeepcluster.base._building import GRAPH_EDGES, PairedViews, Recipe, Views, build_views, given
from skdeepcluster.base._inference import prepared_rows
from skdeepcluster.base._judging import judged_rows
from skdeepcluster.base._pretrainer import Pretrainer
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._start import choose_partition, side_by_side
from skdeepcluster.data import Source
from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, FrozenBackbone
from skdeepcluster.numerics import nearest_neighbors
from skdeepcluster.training import Trainer, choose_precision, intra_op_threads

# Few passes at a low rate: the weights are to learn these images, and to forget nothing.
TUNING = Recipe(
    batch_size=64, learning_rate=1e-4, samples_per_step=8, image_epochs=2, fewest_image_steps=64
)


class _Features(nn.Module):
    """What a backbone makes of prepared images; its running statistics stay as they came."""

    def __init__(self, frozen: FrozenBackbone) -> None:
        super().__init__()
        self.frozen = frozen

    def forward(self, images: Tensor) -> Tensor:
        """Return features, shape (batch, width)."""
        return self.frozen.features(images)

    def train(self, mode: bool = True) -> _Features:
        """Switch nothing: few images would only blur the statistics."""
        return super().train(False)


class Clusters(Protocol):
    """What a second round asks of a clusterer."""

    precision: str
    views: Views
    batch_size: int | str
    history_: list[Any]
    views_: list[str]
    selected_stage_: str
    _frozen: FrozenBackbone | None

    def _default_pretraining(self) -> Pretrainer: ...

    def _most_clusters(self) -> int: ...

    def _round(self) -> list[str]: ...

    def _embedded_once(
        self, frozen: FrozenBackbone, source: Source, trainer: Trainer, n_threads: int
    ) -> Source: ...

    def _cluster(
        self, source: Source, trainer: Trainer, report: CallbackReport, n_threads: int
    ) -> Any: ...

    def _labels_to_judge(
        self, state: Mapping[str, Any], first: Mapping[str, Any]
    ) -> NDArray[np.int64]: ...


class Round(NamedTuple):
    """What has come of learning clusters once."""

    objective: Any

    source: Source
    """What was clustered: the features of a backbone."""

    attributes: dict[str, Any]
    """All of the estimator's."""


def second_round(
    estimator: Clusters,
    first: Round,
    images: Source,
    trainer: Trainer,
    report: CallbackReport,
    n_threads: int,
) -> Any | None:
    """Fine-tune the backbone, cluster its features, and return the objective if that is better.

    The estimator is then what has come of it; if None is returned it is in between.

    Parameters
    ----------
    estimator : Clusters
        As it was before the first round.
    first : Round
    images : Source
    trainer : Trainer
        That of the fit.
    report : CallbackReport
    n_threads : int
        May be used in large operations.
    """
    tuning = trainer.aside(
        ["fine-tuning", *estimator._round()],
        precision=choose_precision(estimator.precision, images.device, images.sample_shape),
        verbose=trainer.verbose,
    )
    frozen, n_clusters = first.attributes["_frozen"], estimator._most_clusters()
    generator = tuning.generator("views of images")
    with intra_op_threads(n_threads):
        views, names = build_views(images, frozen.prepare, n_clusters, generator, estimator.views)
        contrast = estimator._default_pretraining().set_params(batch_size=estimator.batch_size)
        tuned = fine_tuned(frozen, first.objective.model, contrast, views, tuning, report)
    if tuning.interrupted:
        return None
    estimator._frozen = tuned
    source = estimator._embedded_once(tuned, images, trainer, n_threads)
    anew = trainer.aside(estimator._round(), verbose=trainer.verbose)
    objective = estimator._cluster(source, anew, report, n_threads)
    if anew.interrupted:
        return None
    rows = judged_rows(len(source))
    before, after = (
        torch.from_numpy(estimator._labels_to_judge(state, first.attributes))[rows]
        for state in (first.attributes, vars(estimator))
    )
    better = separates_better(
        {"plain": before.to(source.device), "tuned": after.to(source.device)},
        prepared_rows(first.objective.model.prepare, first.source, rows),
        prepared_rows(objective.model.prepare, source, rows),
        n_clusters,
    )
    if not trainer.agreed(torch.tensor(better)):
        trainer.say("fine-tuning is taken back: the clusters are no better separated")
        return None
    estimator.history_ = [*tuning.history, *estimator.history_]
    estimator.views_, estimator.selected_stage_ = names, "fine-tuning"
    return objective


def fine_tuned(
    frozen: FrozenBackbone,
    model: ClusterModel,
    contrast: Pretrainer,
    views: PairedViews,
    trainer: Trainer,
    report: CallbackReport,
) -> FrozenBackbone:
    """Return a copy of a backbone that has learned to tell some images apart.

    Parameters
    ----------
    frozen : FrozenBackbone
    model : ClusterModel
        Was trained on its features: their gradient comes through a copy of its encoder.
    contrast : Pretrainer
        By which to learn; its batches are not exceeded.
    views : PairedViews
        Of the images.
    trainer : Trainer
        Runs a phase named "fine-tuning".
    report : CallbackReport
    """
    tuned = copy.deepcopy(frozen)
    for name in tuned.teachable:
        tuned.backbone.get_parameter(name).requires_grad_(True)
    encoder = copy.deepcopy(model.embedding)
    network = EmbeddingNetwork(
        nn.Sequential(_Features(tuned), copy.deepcopy(model.prepare), encoder.backbone),
        encoder.projector,
        encoder.embedding_dim,
    )
    affordable = int(given(contrast.batch_size, TUNING.batch_size))
    batch_size = min(TUNING.batch_size, affordable, len(views))
    contrast.set_params(
        batch_size=batch_size,
        max_epochs=TUNING.epochs(len(views), batch_size),
        learning_rate=TUNING.learning_rate,
    )
    contrast._pretrain(network, views, trainer, report, phase="fine-tuning")
    tuned.zero_grad()
    return tuned.requires_grad_(False)


def separates_better(
    partitions: dict[str, Tensor], features: Tensor, tuned_features: Tensor, n_clusters: int
) -> bool:
    """Whether the clusters of fine-tuned features are clearly better separated than the others.

    Either kind of features would be partial to its own clusters, so both are the judges.

    Parameters
    ----------
    partitions : dict of str to Tensor of shape (n_samples,), int64
        The clusters of the features as they came, "plain", and of those of now, "tuned".
    features, tuned_features : Tensor of shape (n_samples, n_features)
        Of the backbone as it came, and as it is now.
    n_clusters : int
    """
    n_before, n_after = (len(torch.unique(partitions[name])) for name in ("plain", "tuned"))
    if n_after < n_before:
        return False  # what has lost a cluster is separated easily
    both = side_by_side(features, tuned_features)
    _, graph = nearest_neighbors(both, GRAPH_EDGES)
    return choose_partition(partitions, features, tuned_features, graph, n_clusters) == "tuned"
