"""What clusterers and pretraining have in common: parameters, the fit around a training, and X."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skdeepcluster.base._building import MakeProjector, Recipe, given
from skdeepcluster.base._inference import Predictions, infer
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._validation import (
    integer,
    one_of,
    open_source,
    output_array,
    real,
    validates_parameters,
)
from skdeepcluster.data import SelectedSource, Source, check_targets, name_of, rows_in_block
from skdeepcluster.datasets import ImageFiles
from skdeepcluster.networks import ClusterModel, FrozenBackbone, default_image_backbone
from skdeepcluster.numerics import evenly_spaced
from skdeepcluster.training import (
    MAX_SEED,
    CheckpointFolder,
    Trainer,
    choose_device,
    choose_precision,
    explain_lost_processes,
    intra_op_threads,
    started_processes,
    threads_beside_torch,
    undisturbed,
)

if TYPE_CHECKING:
    from sklearn.utils import Tags


# Up to so many pixels images are small enough for one thread (benchmarks/threads.py).
SMALL_IMAGE_PIXELS = 100
# Samples by which the data of two fits are compared.
FINGERPRINT_ROWS = 64
# Where the pages of the API reference lie.
REFERENCE = "https://skdeepcluster.readthedocs.io/en/stable/generated"


class DeepEstimator(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    ABC,
):
    """Base of everything that trains a network: parameters, sources, trainers, embeddings."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, os.PathLike, nn.Module],
        "pretrained": ["boolean", str, os.PathLike],
        "max_epochs": [one_of("auto"), integer(0)],
        "batch_size": [one_of("auto"), integer(2)],
        "learning_rate": [one_of("auto"), real(0, None, "neither")],
        "device": [str, torch.device],
        "precision": [one_of("auto", "32-true", "bf16-mixed", "16-mixed")],
        "num_workers": [integer(0)],
        "checkpoint_dir": [str, os.PathLike, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _doc_link_module = "skdeepcluster"
    _doc_link_template = f"{REFERENCE}/skdeepcluster.{{estimator_name}}.html"
    # Networks that go into a pickle as CPU tensors, and what says whether there are any.
    _NETWORKS: ClassVar[tuple[str, ...]] = ()
    # What save writes besides: the type of every fitted attribute, and of those that not all have.
    _FITTED: ClassVar[dict[str, Any]] = {
        "n_features_in_": int,
        "history_": list,
        "n_iter_": int,
        "max_epochs_": int,
        "batch_size_": int,
        "learning_rate_": float,
        "backbone_name_": str,
        "device_": str,
        "precision_": str,
    }
    _SOMETIMES_FITTED: ClassVar[dict[str, Any]] = {
        "feature_names_in_": np.ndarray,
        "image_shape_": tuple,
        "paths_": list,
        "views_": list,
        "_pixel_range": tuple,
        "_sklearn_output_config": dict,  # of set_output
    }

    backbone: str | os.PathLike[str] | nn.Module
    pretrained: bool | str | os.PathLike[str]
    max_epochs: int | str
    batch_size: int | str
    learning_rate: float | str
    device: str | torch.device
    precision: str
    num_workers: int
    checkpoint_dir: str | os.PathLike[str] | None
    warm_start: bool
    random_state: int | np.random.RandomState | None
    verbose: int

    backbone_name_: str
    n_features_in_: int
    image_shape_: tuple[int, ...]
    paths_: list[str]

    # What makes vectors of images before anything is trained, if anything does.
    _frozen: FrozenBackbone | None = None

    # Of images: a PixelRange, as a plain tuple that files can hold.
    _pixel_range: tuple[float, float, bool, bool]

    @validates_parameters
    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from X.

        Parameters
        ----------
        X : array-like, torch.Tensor, torch Dataset, path or list of paths
            Feature vectors of shape (n_samples, n_features), or images of shape (n_samples,
            channels, height, width) or (n_samples, height, width, channels). Memory maps and
            tensors are used where they lie. A map-style Dataset yields samples, or tuples that
            start with one. A folder (sub-folder names are ignored), a list of image files or a
            :class:`~skdeepcluster.datasets.ImageFiles` is read from disk. Lists, series and columns
            of vectors, of PIL images of one size or of paths are read as what they hold.
        y : Ignored
            Accepted for scikit-learn's sake, if it has as many entries as X; labels are never used.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is empty, not finite or of the wrong shape, or has too few samples, or y has
            another number of entries.
        TypeError
            If X is sparse, or of a type that cannot be read.
        DivergenceError
            If the loss is not finite. The estimator is then fitted with the last good state.
        """
        n_threads = intra_op_threads.count()
        processes = started_processes()
        with undisturbed(), explain_lost_processes(processes):
            device = processes.own_device(choose_device(self.device))
            # Before damaged files are left out.
            n_given = len(X) if isinstance(X, ImageFiles) else None
            source = open_source(self, X, device, reset=True)
            check_targets(y, n_given or len(source))
            with self._frozen_for_this_fit(source):
                self._check_enough_samples(source)
                n_small = self._n_threads(device, images=self._sees_images())
                with intra_op_threads(n_small), threads_beside_torch(n_small):
                    self._fit(source, CallbackReport(self, X, y, len(self._phases())), n_threads)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embedding of each sample, a vector of unit length.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`; samples of the shape seen there.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_embedding_dimensions)
            Samples that belong together lie close together, as measured by the cosine.
        """
        return self._infer(X, lambda batch: batch.embedding.numpy())

    def __sklearn_is_fitted__(self) -> bool:
        return all(hasattr(self, name) for name in self._NETWORKS)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the networks as CPU tensors, so that they load where there is no accelerator."""
        state = dict(super().__getstate__())  # it may be our own __dict__
        for name, value in state.items():
            if name in self._NETWORKS or lies_elsewhere(value):  # a backbone of the user's may
                state[name] = on_cpu(value)
        return state

    @property
    @abstractmethod
    def _model(self) -> ClusterModel:
        """The fitted networks."""

    @property
    def _sample_shape(self) -> tuple[int, ...]:
        return getattr(self, "image_shape_", (self.n_features_in_,))

    @property
    def _seen_shape(self) -> tuple[int, ...]:
        """Shape of what is trained on: the samples, or what a frozen backbone makes of them."""
        return self._sample_shape if self._frozen is None else (self._frozen.width,)

    @property
    def _n_features_out(self) -> int:
        return self._model.embedding.embedding_dim

    @abstractmethod
    def _projector(self) -> MakeProjector | None:
        """Return what makes a projector, if anything teaches it."""

    @abstractmethod
    def _make_networks(self, model: ClusterModel) -> Any:
        """Return all that a fit trains, around a model without a head, shaped but not started."""

    def _adopt(self, networks: Any) -> None:
        """Take networks that were loaded, after all other fitted attributes, as those of a fit."""
        setattr(self, self._NETWORKS[0], networks)

    @abstractmethod
    def _fit(self, source: Source, report: CallbackReport, n_threads: int) -> None:
        """Fit to the rows of a source; ``n_threads`` may be used in large operations."""

    @abstractmethod
    def _phases(self) -> list[str]:
        """Return the names of the phases that this fit will run."""

    def _check_enough_samples(self, source: Source) -> None:
        """Raise ValueError if there are fewer samples than the method needs."""

    @abstractmethod
    def _goes_on(self) -> bool:
        """Whether ``warm_start`` goes on from the networks of an earlier fit."""

    def _make_trainer(self, source: Source) -> Trainer:
        processes = started_processes()
        is_alone = self.checkpoint_dir is None and processes.count == 1
        fingerprint = {} if is_alone else self._fingerprint(source)
        checkpoint = None
        if self.checkpoint_dir is not None:
            checkpoint = CheckpointFolder(self.checkpoint_dir, fingerprint)
        trainer = Trainer(
            self._phases(),
            device=source.device,
            precision=choose_precision(self.precision, source.device, self._seen_shape),
            seed=int(check_random_state(self.random_state).randint(MAX_SEED)),
            checkpoint=checkpoint,
            processes=processes,
            verbose=int(self.verbose),
        )
        trainer.require_same(fingerprint)
        backbone = self._backbone_name(trainer.device)
        trainer.say(
            f"{type(self).__name__}: {len(source)} samples of shape {source.sample_shape}, "
            f"backbone {backbone}, on {trainer.device} in {trainer.precision}"
        )
        return trainer

    def _record(self, trainer: Trainer, phase: str) -> None:
        """Set the attributes that tell how a fit went, and in its main phase what "auto" became."""
        # A fit that diverged may not have come that far.
        plan = trainer.plans.get(phase) or next(reversed(trainer.plans.values()))
        self.max_epochs_, self.batch_size_, self.learning_rate_ = plan
        self.backbone_name_ = self._backbone_name(trainer.device)
        self.device_, self.precision_ = str(trainer.device), trainer.precision
        self.history_ = trainer.history
        self.n_iter_ = sum(record["phase"] == phase for record in trainer.history)

    def _backbone_in_use(self, device: torch.device) -> str | os.PathLike[str] | nn.Module:
        """Return the backbone, of images by its name where it is "auto"."""
        if self.backbone != "auto" or not self._takes_images():
            return self.backbone
        earlier: str | None = getattr(self, "backbone_name_", None)
        if self._goes_on() and earlier:
            return earlier
        return default_image_backbone(self.image_shape_, device, self.pretrained)

    def _backbone_name(self, device: torch.device) -> str:
        """Return what to call the backbone in use."""
        backbone = self._backbone_in_use(device)
        if isinstance(backbone, nn.Module):
            return type(backbone).__name__
        if backbone != "auto":
            return os.fspath(backbone)
        return "none" if self._projector() is None else "multilayer perceptron"

    def _fingerprint(self, source: Source) -> dict[str, str]:
        """Return what has to be the same for one fit: the parameters, and a sample of the data."""
        free = ("checkpoint_dir", "device", "num_workers", "verbose")
        parameters = {
            name: _identity(value)
            for name, value in sorted(self.get_params().items())
            if name.split("__")[-1] not in free and not isinstance(value, np.random.RandomState)
        }
        index = evenly_spaced(len(source), FINGERPRINT_ROWS)
        content = hashlib.sha256()
        for part in torch.split(index, rows_in_block(source.sample_shape, FINGERPRINT_ROWS)):
            rows = source.rows(part).cpu().double().numpy()  # however wide it came
            content.update(rows.tobytes())
        return {
            "estimator": type(self).__name__,
            "phases": ", ".join(self._phases()),
            "shape of X": str((len(source), *source.sample_shape)),
            "content of X": content.hexdigest()[:16],
            **parameters,
        }

    def _plan(self, recipe: Recipe, n_samples: int) -> tuple[int, int, float]:
        """Return batch size, epochs and learning rate: the recipe's where the user did not say."""
        batch_size = min(given(self.batch_size, recipe.batch_size), n_samples)
        epochs = given(self.max_epochs, recipe.epochs(n_samples, batch_size))
        return batch_size, epochs, given(self.learning_rate, recipe.learning_rate)

    def _resolve(self, value: Any, *, features: Any, images: Any) -> Any:
        """Return what the user gave, or for "auto" the default for this kind of data."""
        return self._by_kind(features=features, images=images) if value == "auto" else value

    def _by_kind(self, *, features: Any, images: Any) -> Any:
        """Return the default for the kind of data that is learned from."""
        return images if self._learns_from_images() else features

    @contextmanager
    def _predictions(
        self, X: Any, opinion: nn.Module | None = None, most: int | None = None
    ) -> Iterator[tuple[int, Iterator[Predictions]]]:
        """Give the number of samples, and what the networks say about them, batch by batch.

        If there are more than ``most`` samples, so many of them stand for all.
        """
        check_is_fitted(self)
        with undisturbed():
            device = self._device_of_answers()
            source = open_source(self, X, device, reset=False)
            if most is not None:
                source = SelectedSource(source, evenly_spaced(len(source), most))
            with intra_op_threads(self._n_threads(device, images=self._takes_images())):
                opinion = opinion or self._second_opinion()
                answers = infer(self._model, source, opinion, self._frozen)
                yield len(source), answers

    def _device_of_answers(self) -> torch.device:
        """Return where a fitted estimator computes."""
        try:
            return choose_device(self.device)
        except ValueError:  # fitted on a device that this machine does not have
            return torch.device("cpu")

    def _infer(
        self,
        X: Any,
        summarize: Callable[[Predictions], NDArray[Any]],
        out: NDArray[Any] | None = None,
        opinion: nn.Module | None = None,
    ) -> NDArray[Any]:
        """Return what a function makes of the predictions for each sample, written into ``out``.

        The second opinion may be another than that on the labels.
        """
        with self._predictions(X, opinion) as (n_samples, batches):
            parts = map(summarize, batches)
            first = next(parts)  # there is always a sample
            results = output_array(out, (n_samples, *first.shape[1:]), first.dtype)
            start = 0
            for part in itertools.chain([first], parts):
                results[start : start + len(part)] = part
                start += len(part)
        return results

    def _second_opinion(self) -> nn.Module | None:
        """Return what judges the labels, if anything does: maps descriptions to logits."""
        return None

    def _feature_name(self, number: int) -> str:
        """Return how to call a feature in a message."""
        if self._frozen is not None:
            return f"Feature {number} of the backbone"
        names = getattr(self, "feature_names_in_", None)
        return f"Feature {number}" if names is None else f"Feature {number} ({names[number]!r})"

    @contextmanager
    def _frozen_for_this_fit(self, source: Source) -> Iterator[None]:
        """Set what a fit has before it, and back if it fails before there are new networks."""
        before = dict(vars(self))
        self._frozen = self._frozen_backbone(source)
        try:
            yield
        except BaseException:
            networks = self._NETWORKS[0]
            if self.__dict__.get(networks) is before.get(networks):
                for name in ("_frozen", "_n_sized"):  # on which what was fitted depends
                    self.__dict__.pop(name, None)
                    if name in before:
                        setattr(self, name, before[name])
            raise

    def _frozen_backbone(self, source: Source) -> FrozenBackbone | None:
        """Return what is to make vectors of the images of a fit, once, if anything is."""
        return None

    def _learns_from_images(self) -> bool:
        """Whether it is images that clusters are learned from, rather than vectors."""
        return self._sees_images()

    def _sees_images(self) -> bool:
        """Whether networks are trained on images, rather than on vectors."""
        return self._takes_images() and self._frozen is None

    def _takes_images(self) -> bool:
        return hasattr(self, "image_shape_")

    def _n_threads(self, device: torch.device, *, images: bool) -> int:
        """Return how many CPU threads to use inside an operation.

        In the products of a feature encoder threads cost more than they give. To convolutions of
        the smallest images they give a third at best, and on a busy machine they take the double.
        """
        n_pixels = math.prod(self._sample_shape[1:]) if images else 1
        if images and self._frozen is not None:  # it may see them enlarged
            n_pixels = max(n_pixels, self._frozen.least_side**2)
        small = device.type == "cpu" and n_pixels <= SMALL_IMAGE_PIXELS
        return 1 if small else intra_op_threads.count()


def _identity(parameter: Any) -> str:
    """Return a text that tells values of a parameter apart; an estimator's own come after it."""
    if isinstance(parameter, BaseEstimator):
        return type(parameter).__name__
    if isinstance(parameter, list | tuple):
        return f"[{', '.join(map(_identity, parameter))}]"
    if isinstance(parameter, partial):
        return _identity([parameter.func, *parameter.args, *sorted(parameter.keywords.items())])
    if not isinstance(parameter, nn.Module):
        text = repr(parameter)
        if callable(parameter) and " at 0x" in text:  # a function: it prints where it lies
            return f"{parameter.__module__}.{name_of(parameter)}"
        return text
    digest = hashlib.sha256()
    for tensor in parameter.state_dict().values():
        if isinstance(tensor, Tensor):
            digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{parameter!r} with weights {digest.hexdigest()[:16]}"


def lies_elsewhere(value: Any) -> bool:
    """Whether something is a network that does not lie on the CPU."""
    if not isinstance(value, nn.Module):
        return False
    tensors = itertools.chain(value.parameters(), value.buffers())
    return any(tensor.device.type != "cpu" for tensor in tensors)


def on_cpu(network: nn.Module | None) -> nn.Module | None:
    """Return a copy of a network, if there is one, on the CPU."""
    return None if network is None else copy.deepcopy(network).cpu()
