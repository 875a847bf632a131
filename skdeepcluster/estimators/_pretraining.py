"""Pretraining: transformers that learn an embedding from pairs of views, without clusters."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdeepcluster.data import NeighborViews, Source
from skdeepcluster.estimators._building import (
    PairedViews,
    Recipe,
    build_networks,
    build_views,
    given,
    load_earlier,
)
from skdeepcluster.estimators._deep import DeepEstimator
from skdeepcluster.estimators._report import CallbackReport
from skdeepcluster.estimators._validation import integer, one_of, real
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, multilayer_perceptron
from skdeepcluster.objectives import BYOLObjective, ContrastiveObjective, MoCoObjective
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

    _NETWORKS = ("_fitted_model",)
    _image_recipe: ClassVar[Recipe]
    _image_optimizer: ClassVar[Optimizer]

    _fitted_model: ClusterModel

    @property
    def backbone_(self) -> nn.Module:
        """The trained backbone."""
        check_is_fitted(self)
        return self._model.embedding.backbone

    def pretrain(
        self,
        embedding: EmbeddingNetwork,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
        attributes: Callable[[EmbeddingNetwork], dict[str, Any]] | None = None,
    ) -> None:
        """Train an embedding network in place; the clusterers call this, users call ``fit``.

        Callbacks get what ``attributes`` makes of the network that would be kept.
        """
        images = not isinstance(views, NeighborViews)
        n = len(views)
        batch_size, epochs, rate = self._plan(self._image_recipe if images else FEATURE_RECIPE, n)
        n_steps = epochs * (n // batch_size)
        with trainer.global_generator("build for pretraining"):
            objective = self._make_objective(embedding, images, n, n_steps)
        kept = None if attributes is None else partial(attributes, objective.result)
        try:
            with report.phase("pretraining", epochs, kept) as hook:
                trainer.run(
                    Phase(
                        name="pretraining",
                        objective=objective,
                        views=views,
                        n_samples=n,
                        batch_size=batch_size,
                        epochs=epochs,
                        accumulate=self.accumulate,
                        parameter_groups=objective.parameter_groups(rate),
                        optimizer=self._image_optimizer if images else torch.optim.AdamW,
                        schedule=self._image_schedule(epochs) if images else one_cycle,
                        hook=hook,
                    )
                )
        finally:
            embedding.load_state_dict(objective.result.state_dict())

    def projector(self, width: int, *, images: bool) -> tuple[nn.Module, int]:
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

    def _phases(self) -> list[str]:
        return ["pretraining"]

    def _goes_on(self) -> bool:
        return self.warm_start and hasattr(self, "_fitted_model")

    def _fit(self, source: Source, report: CallbackReport, n_threads: int) -> None:
        trainer = self._make_trainer(source)
        model = self._build(source, trainer).to(source.device)
        with intra_op_threads(n_threads):  # the search for neighbours is worth all of them
            views = build_views(source, model.prepare, ASSUMED_CLUSTERS, trainer.generator("views"))
        attributes = partial(self._fitted_attributes, model)
        try:
            self.pretrain(model.embedding, views, trainer, report, attributes)
        except DivergenceError:
            self._finish(model, source, trainer)
            raise
        self._finish(model, source, trainer)
        report.finish(lambda: {"_fitted_model": model})

    def _build(self, source: Source, trainer: Trainer) -> ClusterModel:
        """Build the networks, their random weights drawn from the trainer's seed."""
        with trainer.global_generator("build"):
            prepare, embedding = build_networks(
                source, self.backbone, self.pretrained, self.projector
            )
        model = ClusterModel(prepare, embedding, nn.Identity())
        if self._goes_on():
            load_earlier(model, self._fitted_model)
        return model

    def _finish(self, model: ClusterModel, source: Source, trainer: Trainer) -> None:
        self._fitted_model = model.eval()
        self.history_ = trainer.history
        self.n_iter_ = len(trainer.history)
        self.device_ = str(source.device)

    def _fitted_attributes(
        self, model: ClusterModel, embedding: EmbeddingNetwork
    ) -> dict[str, Any]:
        """Return what a copy of this estimator needs to transform as if fit had stopped now."""
        snapshot = copy.deepcopy(ClusterModel(model.prepare, embedding, model.head))
        return {"_fitted_model": snapshot.eval()}


class SimCLR(Pretrainer):
    """Learn an embedding in which two views of a sample find each other among all of the batch.

    Usable alone, as a step of a Pipeline, or as ``pretraining=`` of a clusterer.

    Parameters
    ----------
    temperature : float or "auto", default="auto"
        Of the loss. "auto" is 0.5, a usual value, for images, and 1 for feature arrays, where it
        leaves small clusters more room.
    backbone : "auto", str, path or nn.Module, default="auto"
        "auto" is a multilayer perceptron for feature arrays and a ResNet-18 for images. A string is
        the name of a timm model, a :class:`pathlib.Path` a folder with one, a module is copied.
        Images of up to 64 pixels get a first layer with stride 1.
    pretrained : bool or path, default=False
        True starts from timm's published weights (from its cache, or the network); a path is a file
        of weights for the named backbone.
    max_epochs : int or "auto", default="auto"
        Passes over the data. "auto" is about 400 steps for feature arrays, fewer for small ones,
        and 40 passes for images (the paper: 1000).
    batch_size : int or "auto", default="auto"
        Samples per step; "auto" is 256.
    accumulate : int, default=1
        Batches whose gradients are averaged before a step. Half the `batch_size` and twice the
        `accumulate` take half the memory for as many samples per step, though what compares the
        samples of a batch sees fewer of them.
    learning_rate : float or "auto", default="auto"
        "auto" is 0.001, one cycle of AdamW, for feature arrays; for images the same rate and cycle.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is a device, else Apple's MPS, else the CPU.
    precision : str, default="auto"
        "auto" is "bf16-mixed" for images on CUDA devices that can, "32-true" otherwise.
    num_workers : int, default=0
        Threads that read the items of a Dataset or image files; 0 reads them one by one.
    checkpoint_dir : path or None, default=None
        Folder to which the state is written after each epoch. The same call resumes from there and
        ends with the network of an uninterrupted fit.
    warm_start : bool, default=False
        Whether to go on from the network of the last fit instead of starting anew.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. An int gives the same network, bit for bit, on the same machine
        with the same number of threads.
    verbose : int, default=0
        Print one line per epoch if positive.

    Attributes
    ----------
    backbone_ : nn.Module
        The trained backbone. ``MiniClustering(backbone=byol.backbone_, pretraining=None)`` goes on
        from it.
    history_ : list of dict
        One record per epoch: phase, epoch, loss, learning rate, seconds.
    n_iter_ : int
        Epochs.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
        Numbers per sample.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string names for all.
    image_shape_ : tuple of int
        Channels, height and width of an image; for images only.
    paths_ : list of str
        The image files in the order of X, if it was read from files.

    References
    ----------
    T. Chen, S. Kornblith, M. Norouzi, G. Hinton. "A simple framework for contrastive learning of
    visual representations." International Conference on Machine Learning (ICML), 2020.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdeepcluster.pretraining import SimCLR
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = make_pipeline(SimCLR(random_state=0), KMeans(10, random_state=0))
    >>> model.fit_predict(X).shape
    (1797,)
    """

    _image_recipe = Recipe(batch_size=256, learning_rate=1e-3, image_epochs=40)
    _image_optimizer = torch.optim.AdamW
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "temperature": [one_of("auto"), real(0, None, "neither")],
    }

    def __init__(
        self,
        *,
        temperature: float | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        accumulate: int = 1,
        learning_rate: float | str = "auto",
        device: str | torch.device = "auto",
        precision: str = "auto",
        num_workers: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.temperature = temperature
        self.backbone = backbone
        self.pretrained = pretrained
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.learning_rate = learning_rate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _make_objective(
        self, embedding: EmbeddingNetwork, images: bool, n_samples: int, n_steps: int
    ) -> ContrastiveObjective:
        temperature = IMAGE_TEMPERATURE if images else FEATURE_TEMPERATURE
        if self.temperature != "auto":
            temperature = float(self.temperature)
        return ContrastiveObjective(embedding, temperature, both_kinds=images)

    def _image_schedule(self, epochs: int) -> Schedule:
        return one_cycle


class MoCo(Pretrainer):
    """Learn an embedding in which a view finds the other among many of earlier batches.

    The other view and the negatives are embedded by a teacher, a slowly moving average of the
    network. Usable alone, as a step of a Pipeline, or as ``pretraining=`` of a clusterer.

    Parameters
    ----------
    queue_size : int, default=32768
        Number of negatives; at most half of the samples, so that most are of others.
    temperature : float, default=0.2
        Of the loss; MoCo v2's value.
    momentum : float or "auto", default="auto"
        Share of the teacher that each step keeps, at the begin. "auto" is 0.99, or less in short
        fits: the teacher then remembers a twentieth of the steps.
    final_momentum : float, default=0.999
        Towards the end; it grows in a line, and never falls.
    backbone : "auto", str, path or nn.Module, default="auto"
        "auto" is a multilayer perceptron for feature arrays and a ResNet-18 for images. A string is
        the name of a timm model, a :class:`pathlib.Path` a folder with one, a module is copied.
        Images of up to 64 pixels get a first layer with stride 1.
    pretrained : bool or path, default=False
        True starts from timm's published weights (from its cache, or the network); a path is a file
        of weights for the named backbone.
    max_epochs : int or "auto", default="auto"
        Passes over the data. "auto" is about 400 steps for feature arrays, fewer for small ones,
        and 40 passes for images (CDC: 1000).
    batch_size : int or "auto", default="auto"
        Samples per step; "auto" is 256.
    accumulate : int, default=1
        Batches whose gradients are averaged before a step. Half the `batch_size` and twice the
        `accumulate` take half the memory for as many samples per step, though what compares the
        samples of a batch sees fewer of them.
    learning_rate : float or "auto", default="auto"
        "auto" is 0.001, one cycle of AdamW, for feature arrays; for images 0.25, of SGD,
        which rises and falls along a cosine (CDC: 0.5 for batches of 512).
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is a device, else Apple's MPS, else the CPU.
    precision : str, default="auto"
        "auto" is "bf16-mixed" for images on CUDA devices that can, "32-true" otherwise.
    num_workers : int, default=0
        Threads that read the items of a Dataset or image files; 0 reads them one by one.
    checkpoint_dir : path or None, default=None
        Folder to which the state is written after each epoch. The same call resumes from there and
        ends with the network of an uninterrupted fit.
    warm_start : bool, default=False
        Whether to go on from the network of the last fit instead of starting anew.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. An int gives the same network, bit for bit, on the same machine
        with the same number of threads.
    verbose : int, default=0
        Print one line per epoch if positive.

    Attributes
    ----------
    backbone_ : nn.Module
        The trained backbone. ``MiniClustering(backbone=byol.backbone_, pretraining=None)`` goes on
        from it.
    history_ : list of dict
        One record per epoch: phase, epoch, loss, learning rate, seconds.
    n_iter_ : int
        Epochs.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
        Numbers per sample.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string names for all.
    image_shape_ : tuple of int
        Channels, height and width of an image; for images only.
    paths_ : list of str
        The image files in the order of X, if it was read from files.

    References
    ----------
    X. Chen, H. Fan, R. Girshick, K. He. "Improved baselines with momentum contrastive learning."
    2020. Its shuffled batches are left out: there is one device.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster.pretraining import MoCo
    >>> X, _ = load_digits(return_X_y=True)
    >>> MoCo(max_epochs=2, random_state=0).fit_transform(X).shape
    (1797, 64)
    """

    _image_recipe = Recipe(batch_size=256, learning_rate=0.25, image_epochs=40)
    _image_optimizer = partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "queue_size": [integer(1)],
        "temperature": [real(0, None, "neither")],
        "momentum": [one_of("auto"), real(0, 1, "both")],
        "final_momentum": [real(0, 1, "both")],
    }

    def __init__(
        self,
        *,
        queue_size: int = 32768,
        temperature: float = 0.2,
        momentum: float | str = "auto",
        final_momentum: float = 0.999,
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        accumulate: int = 1,
        learning_rate: float | str = "auto",
        device: str | torch.device = "auto",
        precision: str = "auto",
        num_workers: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.queue_size = queue_size
        self.temperature = temperature
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.backbone = backbone
        self.pretrained = pretrained
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.learning_rate = learning_rate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _make_objective(
        self, embedding: EmbeddingNetwork, images: bool, n_samples: int, n_steps: int
    ) -> MoCoObjective:
        momentum = remembered(self.momentum, 0.99, n_steps)
        return MoCoObjective(
            embedding,
            queue_size=min(self.queue_size, max(n_samples // 2, 1)),
            temperature=self.temperature,
            momentum=momentum,
            final_momentum=max(momentum, remembered("auto", self.final_momentum, n_steps)),
        )


class BYOL(Pretrainer):
    """Learn an embedding by predicting how a slow copy of the network embeds the other view.

    There are no negatives. What is kept is the teacher, the average over many steps. Usable alone,
    as a step of a Pipeline, or as ``pretraining=`` of a clusterer.

    Parameters
    ----------
    hidden_dim : int or "auto", default="auto"
        Hidden units of projector and predictor. "auto" is 4096, the paper's, for images, and 256
        for feature arrays, whose projector is linear.
    embedding_dim : int or "auto", default="auto"
        Dimensions of the embedding. "auto" is 512 for images, as MiniClustering's paper has it, and
        64 for feature arrays.
    momentum : float or "auto", default="auto"
        Share of the teacher that each step keeps, at the begin; it rises to one along a half
        cosine. "auto" is 0.996, the paper's, or less in short fits: the teacher then remembers a
        twentieth of the steps.
    backbone : "auto", str, path or nn.Module, default="auto"
        "auto" is a multilayer perceptron for feature arrays and a ResNet-18 for images. A string is
        the name of a timm model, a :class:`pathlib.Path` a folder with one, a module is copied.
        Images of up to 64 pixels get a first layer with stride 1.
    pretrained : bool or path, default=False
        True starts from timm's published weights (from its cache, or the network); a path is a file
        of weights for the named backbone.
    max_epochs : int or "auto", default="auto"
        Passes over the data. "auto" is about 400 steps for feature arrays, fewer for small ones,
        and 40 passes for images (the paper: 1000).
    batch_size : int or "auto", default="auto"
        Samples per step; "auto" is 256.
    accumulate : int, default=1
        Batches whose gradients are averaged before a step. Half the `batch_size` and twice the
        `accumulate` take half the memory for as many samples per step, though what compares the
        samples of a batch sees fewer of them.
    learning_rate : float or "auto", default="auto"
        "auto" is 0.001, one cycle of AdamW, for feature arrays; for images 0.05 (as
        in MiniClustering's paper), of SGD, which rises and falls along a cosine; the predictor's is
        ten times as high.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is a device, else Apple's MPS, else the CPU.
    precision : str, default="auto"
        "auto" is "bf16-mixed" for images on CUDA devices that can, "32-true" otherwise.
    num_workers : int, default=0
        Threads that read the items of a Dataset or image files; 0 reads them one by one.
    checkpoint_dir : path or None, default=None
        Folder to which the state is written after each epoch. The same call resumes from there and
        ends with the network of an uninterrupted fit.
    warm_start : bool, default=False
        Whether to go on from the network of the last fit instead of starting anew.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. An int gives the same network, bit for bit, on the same machine
        with the same number of threads.
    verbose : int, default=0
        Print one line per epoch if positive.

    Attributes
    ----------
    backbone_ : nn.Module
        The trained backbone. ``MiniClustering(backbone=byol.backbone_, pretraining=None)`` goes on
        from it.
    history_ : list of dict
        One record per epoch: phase, epoch, loss, learning rate, seconds.
    n_iter_ : int
        Epochs.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
        Numbers per sample.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string names for all.
    image_shape_ : tuple of int
        Channels, height and width of an image; for images only.
    paths_ : list of str
        The image files in the order of X, if it was read from files.

    References
    ----------
    J.-B. Grill, F. Strub, F. Altche, et al. "Bootstrap your own latent: a new approach to
    self-supervised learning." Advances in Neural Information Processing Systems (NeurIPS), 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster.pretraining import BYOL
    >>> X, _ = load_digits(return_X_y=True)
    >>> BYOL(max_epochs=2, random_state=0).fit_transform(X).shape
    (1797, 64)
    """

    _image_recipe = Recipe(batch_size=256, learning_rate=0.05, image_epochs=40)
    _image_optimizer = partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "hidden_dim": [one_of("auto"), integer(1)],
        "embedding_dim": [one_of("auto"), integer(1)],
        "momentum": [one_of("auto"), real(0, 1, "both")],
    }

    def __init__(
        self,
        *,
        hidden_dim: int | str = "auto",
        embedding_dim: int | str = "auto",
        momentum: float | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        accumulate: int = 1,
        learning_rate: float | str = "auto",
        device: str | torch.device = "auto",
        precision: str = "auto",
        num_workers: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_dim = hidden_dim
        self.embedding_dim = embedding_dim
        self.momentum = momentum
        self.backbone = backbone
        self.pretrained = pretrained
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.learning_rate = learning_rate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def projector(self, width: int, *, images: bool) -> tuple[nn.Module, int]:
        """Return what maps features of a backbone to the embedding, and the embedding's width."""
        embedding_dim = int(given(self.embedding_dim, 512 if images else FEATURE_EMBEDDING))
        if images:
            layers = multilayer_perceptron([width, self._hidden_dim(images), embedding_dim])
            return layers, embedding_dim
        return nn.Linear(width, embedding_dim), embedding_dim

    def _hidden_dim(self, images: bool) -> int:
        return int(given(self.hidden_dim, 4096 if images else 256))

    def _make_objective(
        self, embedding: EmbeddingNetwork, images: bool, n_samples: int, n_steps: int
    ) -> BYOLObjective:
        return BYOLObjective(
            embedding,
            hidden_dim=self._hidden_dim(images),
            momentum=remembered(self.momentum, 0.996, n_steps),
        )


def remembered(momentum: float | str, published: float, n_steps: int) -> float:
    """Return the momentum that was given, or the published one as far as a fit is long enough."""
    if momentum != "auto":
        return float(momentum)
    return min(published, 1 - 1 / max(REMEMBERED_SHARE * n_steps, 1))
