"""BYOL: predict how a slow copy of the network embeds the other view."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from skdeepcluster.base import (
    FEATURE_EMBEDDING,
    Pretrainer,
    Recipe,
    Views,
    given,
    integer,
    one_of,
    real,
    remembered,
)
from skdeepcluster.networks import EmbeddingNetwork, multilayer_perceptron
from skdeepcluster.objectives import BYOLObjective


class BYOL(Pretrainer):
    """Learn an embedding by predicting how a slow copy of the network embeds the other view.

    The method of J.-B. Grill and 13 others, "Bootstrap your own latent: a new approach to
    self-supervised learning" (NeurIPS, 2020).

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
        Share of the teacher that each batch keeps, at the begin; it rises to one along a half
        cosine. "auto" is 0.996, the paper's, or less in short fits: the teacher then remembers a
        twentieth of the batches.
    backbone : "auto", str, path or nn.Module, default="auto"
        "auto" is a multilayer perceptron for feature arrays, three convolutions ("small_convnet")
        for images of up to 64 pixels on a CPU, and a ResNet-18 for other images. A string is the
        name of a timm model, a :class:`pathlib.Path` a folder with one, a module is copied. A model
        of timm without weights gets a first layer with stride 1 for images of up to 64 pixels.
    pretrained : bool or path, default=False
        True loads timm's published weights (from its cache, or the network); a path is a file of
        weights for the named backbone.
    views : "auto", callable or list of str and callable, default="auto"
        What shows an image anew: some of "crop" (to 8 % of the area or more, as published), "slight
        crop" (70 % or more), "mirror", "light", "colour", "grey", "blur", "solarize" and "neighbor"
        (another image, near by its pixels), or functions that make a batch of images from one (of
        torchvision, say), in [0, 1]. "auto" takes those that leave images near the ones that they
        were near (doc/guide/features_or_images.md). Feature arrays have neighbours only.
    max_epochs : int or "auto", default="auto"
        Passes over the data. "auto" is about 400 steps for feature arrays, fewer for small ones,
        and 40 passes for images (the paper: 1000).
    batch_size : int or "auto", default="auto"
        Samples per step; "auto" is 256.
    learning_rate : float or "auto", default="auto"
        "auto" is 0.001, one cycle of AdamW, for feature arrays; for images 0.05 (as
        in MiniClustering's paper), of SGD, which rises and falls along a cosine; the predictor's is
        ten times as high.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is a device, else Apple's MPS (from torch 2.14 on), else the CPU.
    precision : str, default="auto"
        "auto" is "bf16-mixed" for images where that is faster (on CUDA; from 16 pixels on, on CPUs
        with AMX), else "32-true".
    num_workers : int, default=0
        Threads that read the items of a Dataset or image files; 0 reads them one by one.
    checkpoint_dir : path or None, default=None
        Folder to which the state is written after each epoch. The same call resumes from there and
        ends as an uninterrupted fit would, bit for bit.
    warm_start : bool, default=False
        Whether to go on from the networks of the last fit instead of starting anew.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. An int gives the same result, bit for bit, on the same machine
        with the same number of threads; on a GPU usually, too.
    verbose : int, default=0
        1 prints a line for each phase (before a long one, how long it will take), 2 a line for each
        epoch, too.

    Attributes
    ----------
    backbone_ : nn.Module
        The trained backbone. ``MiniClustering(backbone=byol.backbone_)`` clusters its features,
        with ``fine_tune=True`` it tunes it further.
    history_ : list of dict
        One record per epoch: phase, epoch, epochs planned, batch size, loss, learning rate,
        seconds.
    n_iter_ : int
        Epochs.
    max_epochs_ : int
        Epochs that were planned: `max_epochs`, or what "auto" became.
    batch_size_ : int
        Samples per step: `batch_size`, or what "auto" became, and n_samples at most.
    learning_rate_ : float
        Rate: `learning_rate`, or what "auto" became.
    backbone_name_ : str
        The backbone in use, by its name in timm where it has one.
    views_ : list of str
        The kinds of views in use.
    device_ : str
        Where the fit ran.
    precision_ : str
        The precision in which it ran.
    n_features_in_ : int
        Numbers per sample.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names for all.
    image_shape_ : tuple of int
        Channels, height and width of an image; for images only.
    paths_ : list of str
        The image files in the order of X, if it was read from files.

    References
    ----------
    J.-B. Grill, F. Strub, F. Altche, C. Tallec, P. H. Richemond, E. Buchatskaya, C. Doersch,
    B. Avila Pires, Z. D. Guo, M. Gheshlaghi Azar, B. Piot, K. Kavukcuoglu, R. Munos, M. Valko.
    "Bootstrap your own latent: a new approach to self-supervised learning." Advances in Neural
    Information Processing Systems (NeurIPS), 2020. arXiv:2006.07733.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster.pretraining import BYOL
    >>> X, _ = load_digits(return_X_y=True)
    >>> BYOL(max_epochs=2, random_state=0).fit_transform(X).shape
    (1797, 64)
    """

    _image_recipe = Recipe(batch_size=256, learning_rate=0.05, image_epochs=40)
    _image_optimizer = staticmethod(partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4))
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Pretrainer._parameter_constraints,
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
        views: Views = "auto",
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
        self.hidden_dim = hidden_dim
        self.embedding_dim = embedding_dim
        self.momentum = momentum
        self.backbone = backbone
        self.pretrained = pretrained
        self.views = views
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

    def _make_projector(self, width: int, *, images: bool) -> tuple[nn.Module, int]:
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
