"""The base of all clusterers: what users touch, and nothing that a method or a loop could do."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from torch import Tensor, nn

from skdeepcluster.calibration import MOST_ROWS, ConfidenceHead, fit_confidence, n_epochs
from skdeepcluster.data import Source
from skdeepcluster.estimators._building import (
    PairedViews,
    Recipe,
    build_networks,
    build_views,
    given,
)
from skdeepcluster.estimators._inference import embed_and_label, infer, prepared_rows, vote
from skdeepcluster.estimators._prediction import PredictionMixin
from skdeepcluster.estimators._report import CallbackReport
from skdeepcluster.estimators._validation import (
    integer,
    one_of,
    open_source,
    real,
    validates_parameters,
)
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import ClusterModel, is_pretrained
from skdeepcluster.numerics import cluster_means
from skdeepcluster.objectives import ContrastiveObjective
from skdeepcluster.training import (
    MAX_SEED,
    CheckpointFolder,
    Phase,
    Trainer,
    choose_device,
    choose_precision,
    intra_op_threads,
    one_cycle,
)

if TYPE_CHECKING:
    from sklearn.utils import Tags

FEATURE_PRETRAINING = Recipe(
    batch_size=256, learning_rate=1e-3, max_steps=400, samples_per_step=8 / 3
)
IMAGE_PRETRAINING = Recipe(batch_size=256, learning_rate=1e-3, image_epochs=40)
# Images take the usual value; on feature arrays 1 gave long tails more room in exploration.
FEATURE_TEMPERATURE = 1.0
IMAGE_TEMPERATURE = 0.5
# A cluster with more than this share of the samples is worth a warning.
DOMINANT_SHARE = 0.9
# Calls between _warn_about_sizes and the line that called fit, decorators included.
USER_CODE = 6


class DeepClusterer(
    PredictionMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    BaseEstimator,
    ABC,
):
    """Base of all clusterers: shared parameters, validation, inference, fitted attributes.

    A method adds an objective and the few methods marked abstract below.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [integer(1)],
        "backbone": [str, os.PathLike, nn.Module],
        "pretrained": ["boolean", str, os.PathLike],
        "pretraining": [one_of("auto"), None],
        "max_epochs": [one_of("auto"), integer(0)],
        "batch_size": [one_of("auto"), integer(2)],
        "learning_rate": [one_of("auto"), real(0, None, "neither")],
        "device": [str, torch.device],
        "precision": [one_of("auto", "32-true", "bf16-mixed", "16-mixed")],
        "num_workers": [integer(0)],
        "checkpoint_dir": [str, os.PathLike, None],
        "calibrate": ["boolean"],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _doc_link_module = "skdeepcluster"
    _doc_link_template = "https://skdeepcluster.readthedocs.io/en/stable/generated/skdeepcluster.{estimator_name}.html"

    n_clusters: int
    backbone: str | os.PathLike[str] | nn.Module
    pretrained: bool | str | os.PathLike[str]
    pretraining: str | None
    max_epochs: int | str
    batch_size: int | str
    learning_rate: float | str
    precision: str
    checkpoint_dir: str | os.PathLike[str] | None
    calibrate: bool
    warm_start: bool
    random_state: int | np.random.RandomState | None

    labels_: NDArray[np.int64]

    @validates_parameters
    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn an embedding of X and partition it into clusters.

        Parameters
        ----------
        X : array-like, torch.Tensor, torch Dataset, path or list of paths
            Feature vectors of shape (n_samples, n_features), or images of shape (n_samples,
            channels, height, width) or (n_samples, height, width, channels). Memory maps and
            tensors are used where they lie. A map-style Dataset yields samples, or tuples that
            start with one. A folder (sub-folder names are ignored), a list of image files or a
            :class:`~skdeepcluster.datasets.ImageFiles` is read from disk.
        y : Ignored
            Accepted for scikit-learn's sake; labels are never used.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is empty, sparse, not finite or of the wrong shape, or has fewer samples than
            clusters.
        DivergenceError
            If the loss is not finite. The estimator is then fitted with the last good state.
        """
        device = choose_device(self.device)
        source = open_source(self, X, device, reset=True)
        self._check_enough_samples(source)
        n_threads = torch.get_num_threads()
        with intra_op_threads(self._n_threads(device)):
            self._fit(source, CallbackReport(self, X, y, len(self._phases())), n_threads)
        return self

    def _fit(self, source: Source, report: CallbackReport, n_threads: int) -> None:
        """Fit as a story: build, pretrain, start, train, finish, calibrate."""
        trainer = self._make_trainer(source)
        objective = self._build(source, trainer).to(source.device)
        with intra_op_threads(n_threads):  # the search for neighbours is worth all of them
            views = build_views(
                source, objective.model.prepare, self._most_clusters(), trainer.generator("views")
            )
        try:
            if "pretraining" in self._phases():
                self._pretrain(objective.model, views, trainer, report)
            if trainer.has_reached("clustering"):
                trainer.restore("clustering", objective)
            elif not self._goes_on():
                self._start(objective, source, views, trainer, report)
            self._train(objective, source, views, trainer, report)
        except DivergenceError:
            for _ in self._answers(objective, source):
                self._finish(objective, source, trainer)
            self._warn_about_sizes()
            raise
        for _ in self._answers(objective, source):
            embedding = self._finish(objective, source, trainer)
            if self.calibrate and not trainer.interrupted:
                self._calibrate(embedding, source, trainer, report)
        self._warn_about_sizes()
        report.finish(lambda: self._fitted_attributes(objective, self._confidence))

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit and return the cluster of every sample of X, ``labels_``.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`.
        y : Ignored
            Accepted for scikit-learn's sake; labels are never used.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Cluster of each sample.
        """
        self.fit(X)
        return self.labels_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "labels_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the networks as CPU tensors, so that they load where there is no accelerator."""
        state = dict(super().__getstate__())  # it may be our own __dict__
        for name in ("_objective", "_confidence"):
            if state.get(name) is not None:
                state[name] = copy.deepcopy(state[name]).cpu()
        return state

    @abstractmethod
    def _make_objective(self, model: ClusterModel, n_samples: int) -> nn.Module:
        """Return the method's objective around a model, shaped but not started."""

    @abstractmethod
    def _start(
        self,
        objective: Any,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Start the heads from the embedding of the data."""

    @abstractmethod
    def _train(
        self,
        objective: Any,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Run the clustering phase."""

    def _n_clusters(self) -> int:
        """Return the number of clusters of the head that predicts."""
        return self.n_clusters

    def _most_clusters(self) -> int:
        """Return the number of clusters, or the largest if there are several to choose from."""
        return self.n_clusters

    def _answers(self, objective: Any, source: Source) -> Iterator[None]:
        """Yield once for each head that the fitted attributes are to be computed for."""
        yield

    def _check_enough_samples(self, source: Source) -> None:
        n_clusters = self._most_clusters()
        if len(source) < n_clusters:
            raise ValueError(
                f"n_samples={len(source)} should be >= n_clusters={n_clusters}. Lower n_clusters."
            )

    def _goes_on(self) -> bool:
        """Whether ``warm_start`` goes on from the networks of an earlier fit."""
        return self.warm_start and hasattr(self, "_objective")

    def _pretrains(self) -> bool:
        if self.pretraining is None:
            return False
        # A backbone that arrives trained is the result of a longer pretraining than ours.
        return not (self._takes_images() and is_pretrained(self.backbone, self.pretrained))

    def _learns_embedding(self) -> bool:
        """Whether anything teaches a new encoder or projector before clusters depend on it."""
        return self._pretrains()

    def _phases(self) -> list[str]:
        """Return the names of the phases that this fit will run."""
        phases = self._own_phases()
        if self._goes_on():
            phases = [phase for phase in phases if phase != "start"]
        if self._pretrains() and not self._goes_on():
            phases = ["pretraining", *phases]
        return [*phases, "calibration"] if self.calibrate else phases

    def _own_phases(self) -> list[str]:
        """Return the names of the phases that belong to the method."""
        return ["clustering"]

    def _make_trainer(self, source: Source) -> Trainer:
        checkpoint = None
        if self.checkpoint_dir is not None:
            checkpoint = CheckpointFolder(self.checkpoint_dir, self._fingerprint(source))
        return Trainer(
            self._phases(),
            device=source.device,
            precision=choose_precision(self.precision, source.device, images=self._takes_images()),
            seed=int(check_random_state(self.random_state).randint(MAX_SEED)),
            checkpoint=checkpoint,
            verbose=int(self.verbose),
        )

    def _fingerprint(self, source: Source) -> dict[str, str]:
        """Return what a checkpoint must agree with: the parameters, and a sample of the data."""
        free = ("checkpoint_dir", "device", "num_workers", "verbose")
        parameters = {
            name: repr(value)
            for name, value in sorted(self.get_params(deep=False).items())
            if name not in free and not isinstance(value, np.random.RandomState)
        }
        index = torch.linspace(0, len(source) - 1, min(len(source), 64)).round().long()
        rows = source.rows(index).cpu().numpy()
        return {
            "estimator": type(self).__name__,
            "phases": ", ".join(self._phases()),
            "shape of X": str((len(source), *source.sample_shape)),
            "content of X": hashlib.sha256(rows.tobytes()).hexdigest()[:16],
            **parameters,
        }

    def _build(self, source: Source, trainer: Trainer) -> Any:
        """Build networks and objective, their random weights drawn from the trainer's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(trainer.generator("build").initial_seed())
            prepare, embedding = build_networks(
                source, self.backbone, self.pretrained, learns=self._learns_embedding()
            )
            model = ClusterModel(prepare, embedding, nn.Identity())
            objective = self._make_objective(model, len(source))
        if self._goes_on():
            try:
                objective.load_state_dict(self._objective.state_dict())
            except RuntimeError as error:
                raise ValueError(
                    "warm_start=True goes on from the networks of the last fit, but they do not "
                    f"suit this X or these parameters: {error} Set warm_start=False."
                ) from error
        return objective

    def _pretrain(
        self, model: ClusterModel, views: PairedViews, trainer: Trainer, report: CallbackReport
    ) -> None:
        """Train the embedding by contrast, before there are clusters."""
        if self._takes_images():
            recipe, temperature = IMAGE_PRETRAINING, IMAGE_TEMPERATURE
        else:
            recipe, temperature = FEATURE_PRETRAINING, FEATURE_TEMPERATURE
        epochs = recipe.epochs(len(views), recipe.batch_size)
        objective = ContrastiveObjective(model.embedding, temperature)
        with report.phase("pretraining", epochs) as hook:
            trainer.run(
                Phase(
                    name="pretraining",
                    objective=objective,
                    views=views,
                    n_samples=len(views),
                    batch_size=recipe.batch_size,
                    epochs=epochs,
                    parameter_groups=[
                        {"params": list(objective.parameters()), "lr": recipe.learning_rate}
                    ],
                    optimizer=torch.optim.AdamW,
                    schedule=one_cycle,
                    hook=hook,
                )
            )

    def _finish(self, objective: Any, source: Source, trainer: Trainer) -> Tensor:
        """Set the fitted attributes in one pass over the data, and return its embedding."""
        self._objective = objective
        self._confidence = None
        embedding, labels = embed_and_label(objective.model, source)
        n_clusters = self._n_clusters()
        sizes = torch.bincount(labels, minlength=n_clusters)
        if bool((sizes == 0).any()):
            # Empty clusters come last, so that the labels in use are consecutive.
            objective.reorder(torch.argsort((sizes == 0).int(), stable=True))
            embedding, labels = embed_and_label(objective.model, source)
        centers, sizes = cluster_means(embedding, labels, n_clusters)
        self.labels_ = labels.numpy()
        self.cluster_sizes_ = sizes.numpy()
        self.cluster_centers_ = centers.numpy()
        self.class_weights_ = objective.weigh_classes(embedding, labels).numpy()
        self.history_ = trainer.history
        self.n_iter_ = sum(record["phase"] == "clustering" for record in trainer.history)
        self.n_skipped_steps_ = trainer.n_skipped_steps
        self.device_ = str(source.device)
        return embedding

    def _calibrate(
        self, embedding: Tensor, source: Source, trainer: Trainer, report: CallbackReport
    ) -> None:
        """Learn from independent partitions how far the labels can be trusted."""
        generator = trainer.generator("votes")
        rows = torch.randperm(len(source), generator=generator)[:MOST_ROWS]
        views = [embedding[rows].to(source.device)]
        if not self._takes_images():
            views = [prepared_rows(self._model, source, rows), *views]
        labels = torch.from_numpy(self.labels_)[rows].to(source.device)
        n_clusters = self._n_clusters()
        votes = vote(views, labels, n_clusters, generator)
        with report.phase("calibration", n_epochs(len(rows))) as hook:
            self._confidence = fit_confidence(views, votes, n_clusters, trainer, hook)

    def _embed(self, objective: Any, source: Source) -> Tensor:
        """Return the embedding of all samples, on the device."""
        batches = infer(objective.model, source)
        return torch.cat([batch.embedding for batch in batches]).to(source.device)

    def _plan(self, recipe: Recipe, n_samples: int) -> tuple[int, int, float]:
        """Return batch size, epochs and learning rate: the recipe's where the user did not say."""
        batch_size = min(given(self.batch_size, recipe.batch_size), n_samples)
        epochs = given(self.max_epochs, recipe.epochs(n_samples, batch_size))
        return batch_size, epochs, given(self.learning_rate, recipe.learning_rate)

    def _resolve(self, value: Any, *, features: Any, images: Any) -> Any:
        """Return what the user gave, or for "auto" the default for this kind of data."""
        return self._by_kind(features=features, images=images) if value == "auto" else value

    def _by_kind(self, *, features: Any, images: Any) -> Any:
        """Return the default for the kind of data that fit was given."""
        return images if self._takes_images() else features

    def _warn_about_sizes(self) -> None:
        sizes = self.cluster_sizes_
        n_lost = int((sizes == 0).sum())
        share = float(sizes.max() / sizes.sum())
        if n_lost:
            warnings.warn(
                f"{n_lost} of {len(sizes)} clusters have no sample; they come last in "
                "cluster_sizes_. Lower n_clusters.",
                ConvergenceWarning,
                stacklevel=USER_CODE,
            )
        if len(sizes) > 1 and share > DOMINANT_SHARE:
            warnings.warn(
                f"One cluster holds {share:.0%} of the samples. Lower learning_rate, or look for "
                "outliers in X.",
                ConvergenceWarning,
                stacklevel=USER_CODE,
            )

    def _fitted_attributes(
        self, objective: nn.Module, confidence: ConfidenceHead | None = None
    ) -> dict[str, Any]:
        """Return what a copy of this estimator needs to predict as if fit had stopped now."""
        snapshot = copy.deepcopy(objective).eval()
        return {"_objective": snapshot, "_confidence": confidence, "labels_": None}
