"""Pretraining: transformers that learn an embedding from pairs of views, without clusters."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdeepcluster.base._building import (
    MakeProjector,
    PairedViews,
    Recipe,
    Views,
    build_networks,
    build_views,
    load_earlier,
)
from skdeepcluster.base._estimator import REFERENCE, DeepEstimator
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._validation import ViewNames
from skdeepcluster.data import NeighborViews, Source
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, multilayer_perceptron
from skdeepcluster.training import (
    Phase,
    Schedule,
    Trainer,
    delayed,
    intra_op_threads,
    one_cycle,
)

# As for eight clusters, the clusterers' default: nobody has said how many there are.
ASSUMED_CLUSTERS = 8
FEATURE_RECIPE = Recipe(batch_size=256, learning_rate=1e-3, max_steps=400, samples_per_step=8 / 3)
FEATURE_EMBEDDING = 64
IMAGE_EMBEDDING = 128
# Images take the usual value; on feature arrays 1 gave long tails more room in exploration.
FEATURE_TEMPERATURE = 1.0
IMAGE_TEMPERATURE = 0.5
WARMUP_EPOCHS = 10
# The longest memory of a teacher, in steps, as a share of all.
REMEMBERED_SHARE = 0.05
Optimizer = Callable[..., torch.optim.Optimizer]


class Pretrainer(DeepEstimator):
    """Base of the pretraining methods: alone a transformer, in a clusterer its first phase.

    A method gives its recipes and its objective, which has ``parameter_groups(learning_rate)`` and
    ``result``, the network to keep.
    """

    _doc_link_template = f"{REFERENCE}/skdeepcluster.pretraining.{{estimator_name}}.html"
    _NETWORKS = ("_fitted_model",)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "views": [ViewNames()],
    }
    _image_recipe: ClassVar[Recipe]
    _image_optimizer: ClassVar[Optimizer]

    views: Views

    _fitted_model: ClusterModel

    @property
    def backbone_(self) -> nn.Module:
        """The trained backbone."""
        check_is_fitted(self)
        return self._model.embedding.backbone

    def _pretrain(
        self,
        embedding: EmbeddingNetwork,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
        attributes: Callable[[EmbeddingNetwork], dict[str, Any]] | None = None,
        phase: str = "pretraining",
    ) -> None:
        """Train an embedding network in place; for ``fit``, and for the clusterers.

        Callbacks get what ``attributes`` makes of the network that would be kept.
        """
        images = not isinstance(views, NeighborViews)
        n = len(views)
        batch_size, epochs, rate = self._plan(self._image_recipe if images else FEATURE_RECIPE, n)
        n_steps = epochs * (n // batch_size)
        with trainer.draws("build for pretraining"):
            objective = self._make_objective(embedding, images, n, n_steps)
        kept = None if attributes is None else partial(attributes, objective.result)
        try:
            with report.phase(phase, epochs, kept) as hook:
                trainer.run(
                    Phase(
                        name=phase,
                        objective=objective,
                        views=views,
                        n_samples=n,
                        batch_size=batch_size,
                        epochs=epochs,
                        parameter_groups=objective.parameter_groups(rate),
                        optimizer=self._image_optimizer if images else torch.optim.AdamW,
                        schedule=self._image_schedule(epochs) if images else one_cycle,
                        hook=hook,
                    )
                )
        finally:
            embedding.load_state_dict(objective.result.state_dict())

    def _make_projector(self, width: int, *, images: bool) -> tuple[nn.Module, int]:
        """Return what maps features of a backbone to the embedding, and the embedding's width."""
        if images:
            return multilayer_perceptron([width, width, IMAGE_EMBEDDING]), IMAGE_EMBEDDING
        return nn.Linear(width, FEATURE_EMBEDDING), FEATURE_EMBEDDING

    @abstractmethod
    def _make_objective(
        self, embedding: EmbeddingNetwork, images: bool, n_samples: int, n_steps: int
    ) -> Any:
        """Return the method's objective around a network."""

    def _image_schedule(self, epochs: int) -> Schedule:
        return delayed(0.0, min(WARMUP_EPOCHS, 0.1 * epochs) / max(epochs, 1))

    @property
    def _model(self) -> ClusterModel:
        return self._fitted_model

    def _projector(self) -> MakeProjector:
        return self._make_projector

    def _make_networks(self, model: ClusterModel) -> ClusterModel:
        return model

    def _phases(self) -> list[str]:
        return ["pretraining"]

    def _goes_on(self) -> bool:
        return self.warm_start and hasattr(self, "_fitted_model")

    def _fit(self, source: Source, report: CallbackReport, n_threads: int) -> None:
        trainer = self._make_trainer(source)
        model = self._build(source, trainer).to(source.device)
        with intra_op_threads(n_threads):  # the search for neighbours is worth all of them
            generator = trainer.generator("views")
            views, self.views_ = build_views(
                source, model.prepare, ASSUMED_CLUSTERS, generator, self.views
            )
        attributes = partial(self._fitted_attributes, model)
        try:
            self._pretrain(model.embedding, views, trainer, report, attributes)
        except DivergenceError:
            self._finish(model, trainer)
            raise
        self._finish(model, trainer)
        report.finish(lambda: {"_fitted_model": model})

    def _build(self, source: Source, trainer: Trainer) -> ClusterModel:
        """Build the networks, their random weights drawn from the trainer's seed."""
        with trainer.draws("build"):
            prepare, embedding = build_networks(
                source,
                self._backbone_in_use(trainer.device),
                self.pretrained,
                self._make_projector,
                self._feature_name,
            )
        model = ClusterModel(prepare, embedding, nn.Identity())
        if self._goes_on():
            load_earlier(model, self._fitted_model)
        return model

    def _finish(self, model: ClusterModel, trainer: Trainer) -> None:
        self._fitted_model = model.eval()
        self._record(trainer, "pretraining")

    def _fitted_attributes(
        self, model: ClusterModel, embedding: EmbeddingNetwork
    ) -> dict[str, Any]:
        """Return what a copy of this estimator needs to transform as if fit had stopped now."""
        snapshot = copy.deepcopy(ClusterModel(model.prepare, embedding, model.head))
        return {"_fitted_model": snapshot.eval()}


def remembered(momentum: float | str, published: float, n_steps: int) -> float:
    """Return the momentum that was given, or the published one as far as a fit is long enough."""
    if momentum != "auto":
        return float(momentum)
    return min(published, 1 - 1 / max(REMEMBERED_SHARE * n_steps, 1))
