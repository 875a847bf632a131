"""Fine-tune a backbone that arrived trained: by contrast of the images at hand."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from skdeepcluster.base._building import GRAPH_EDGES, PairedViews, Recipe, given
from skdeepcluster.base._pretrainer import Pretrainer
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._start import choose_partition, side_by_side
from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, FrozenBackbone
from skdeepcluster.numerics import nearest_neighbors
from skdeepcluster.training import Trainer

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


def fine_tuned(
    frozen: FrozenBackbone,
    model: ClusterModel,
    contrast: type[Pretrainer],
    views: PairedViews,
    batch_size: int | str,
    trainer: Trainer,
    report: CallbackReport,
) -> FrozenBackbone:
    """Return a copy of a backbone that has learned to tell some images apart.

    Parameters
    ----------
    frozen : FrozenBackbone
    model : ClusterModel
        Was trained on its features: their gradient comes through a copy of its encoder.
    contrast : type
        The pretraining by which to learn.
    views : PairedViews
        Of the images.
    batch_size : int or "auto"
        How many of them at a time, at most.
    trainer : Trainer
        Runs a phase named "fine-tuning".
    report : CallbackReport
    """
    tuned = copy.deepcopy(frozen).requires_grad_(True)
    encoder = copy.deepcopy(model.embedding)
    network = EmbeddingNetwork(
        nn.Sequential(_Features(tuned), copy.deepcopy(model.prepare), encoder.backbone),
        encoder.projector,
        encoder.embedding_dim,
    )
    affordable = min(TUNING.batch_size, int(given(batch_size, TUNING.batch_size)), len(views))
    method = contrast().set_params(
        batch_size=affordable,
        max_epochs=TUNING.epochs(len(views), affordable),
        learning_rate=TUNING.learning_rate,
    )
    method._pretrain(network, views, trainer, report, phase="fine-tuning")
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
