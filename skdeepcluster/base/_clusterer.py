"""The base of all clusterers: what users touch, and nothing that a method or a loop could do."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from skdeepcluster._warnings import warn
from skdeepcluster.base._building import (
    GRAPH_ROWS,
    MakeProjector,
    PairedViews,
    Views,
    build_networks,
    build_views,
    frozen_backbone,
    load_earlier,
)
from skdeepcluster.base._estimator import DeepEstimator
from skdeepcluster.base._inference import embed_and_label, embed_once, prepared_rows, vote
from skdeepcluster.base._loaded import check_answer, check_familiar
from skdeepcluster.base._merging import (
    SCORED_ROWS,
    MergingEstimator,
    n_asked,
    neighbor_counts,
)
from skdeepcluster.base._pretrainer import Pretrainer
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._start import (
    Ground,
    choose_partition,
    finer_merger,
    ground_of,
    plain_partition,
    teach_encoder,
)
from skdeepcluster.base._tuning import Round, second_round
from skdeepcluster.base._validation import (
    ClusterCount,
    PretrainingName,
    ViewNames,
    one_of,
    unnamed,
    validate_parameters,
)
from skdeepcluster.base._view_choice import compared_rows
from skdeepcluster.calibration import (
    FAMILIAR_ROWS,
    MOST_ROWS,
    ConfidenceHead,
    fit_confidence,
    learn_familiar,
    mean_confidence,
    n_epochs,
    overruled,
)
from skdeepcluster.data import NeighborViews, SelectedSource, Source, open_array
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import (
    ClusterModel,
    FrozenBackbone,
    MergedOpinion,
    is_pretrained,
    same_backbone,
)
from skdeepcluster.numerics import (
    OwnDraws,
    cluster_means,
    evenly_spaced,
    label_counts,
    numbered_alike,
)
from skdeepcluster.training import (
    Countdown,
    Trainer,
    choose_device,
    intra_op_threads,
)

# A cluster with more than this share of the samples is worth a warning.
DOMINANT_SHARE = 0.9
# How many clusters are learned for n_clusters="auto" to choose from, and for how many samples one.
MOST_CLUSTERS = 30
FEWEST_SAMPLES = 4
# Of how many parts at least a cluster is merged where features are divided without training.
PARTS_MERGED = 2
# What the partitions are called that can take the place of one that was trained.
TOLD = {"plain": "k-means on the features", "fine": "a merger of small clusters of the features"}


class DeepClusterer(MergingEstimator):
    """Base of all clusterers: the story of a fit, and the fitted attributes.

    A method adds an objective and the few methods marked abstract below.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "n_clusters": [ClusterCount(), one_of("auto")],
        "pretraining": [PretrainingName(), unnamed(Pretrainer), None],
        "views": [ViewNames()],
        "fine_tune": [one_of("auto"), "boolean"],
        "calibrate": ["boolean"],
    }
    _FITTED: ClassVar[dict[str, Any]] = {
        **DeepEstimator._FITTED,
        "labels_": np.ndarray,
        "cluster_sizes_": np.ndarray,
        "cluster_centers_": np.ndarray,
        "class_weights_": np.ndarray,
        "n_skipped_steps_": int,
        "_n_sized": int,
        "_groups": np.ndarray | None,
        "_outputs": dict | None,
        "_neighbor_counts": np.ndarray,
        "_familiar_means": np.ndarray,
        "_familiar_distances": np.ndarray,
        "_confidence": ConfidenceHead | None,
    }
    _SOMETIMES_FITTED: ClassVar[dict[str, Any]] = {
        **DeepEstimator._SOMETIMES_FITTED,
        "selected_stage_": str,
        "cut_scores_": dict,
        "_merged_confidence": float,
    }

    # Whether clusters start from the best of several partitions, mergers among them.
    _starts_from_mergers: ClassVar[bool] = False
    # Whether the encoder may stop learning once it was pretrained.
    _stops_learning: ClassVar[bool] = False
    # What pretraining="auto" stands for.
    _default_pretraining: ClassVar[type[Pretrainer]]

    n_clusters: int | str
    pretraining: str | Pretrainer | None
    views: Views
    fine_tune: bool | str
    calibrate: bool

    labels_: NDArray[np.int64]
    selected_stage_: str

    # The number of samples that sizes of networks are derived from. Who goes on from the networks
    # of an earlier fit keeps its number.
    _n_sized: int

    def _fit(self, source: Source, report: CallbackReport, n_threads: int) -> None:
        """Fit as a story: learn clusters, and once more if their backbone is to be fine-tuned."""
        pretrainer = self._pretrainer()
        if pretrainer is not None:
            self._check_pretrainer(pretrainer)
        trainer, tunes = self._make_trainer(source), self._tunes()
        if not self._goes_on():
            self._n_sized = len(source)
        images, before = source, dict(vars(self))
        if self._frozen is not None:
            source = self._embedded_once(self._frozen, images, trainer, n_threads)
        objective = self._cluster(source, trainer, report, n_threads)
        if tunes:
            first = Round(objective, source, dict(vars(self)))
            objective = self._fine_tuned(first, images, before, trainer, report, n_threads)
        self._conclude(trainer)
        report.finish(lambda: {"_objective": copy.deepcopy(objective).eval()})

    def _cluster(
        self, source: Source, trainer: Trainer, report: CallbackReport, n_threads: int
    ) -> Any:
        """Learn clusters of samples: build, pretrain, start, train, finish, calibrate."""
        objective = self._build(source, trainer).to(source.device)
        with intra_op_threads(n_threads):  # the search for neighbours is worth all of them
            views = self._make_views(source, objective, trainer)
        if hasattr(objective, "remember_samples"):
            objective.remember_samples(len(views))
        pretrainer, goes_on = self._pretrainer(), self._goes_on()
        try:
            if pretrainer is not None and not goes_on:
                pretrainer._pretrain(objective.model.embedding, views, trainer, report)
            if trainer.has_reached("clustering"):
                trainer.restore("clustering", objective)
            elif not goes_on:
                self._start(objective, source, views, trainer, report)
            self._train(objective, source, views, trainer, report)
            self._settle(objective, source, views, trainer)
        except DivergenceError:
            for _ in self._answers(objective, source, trainer):
                self._finish(objective, source, trainer)
            self._conclude(trainer)
            raise
        for _ in self._answers(objective, source, trainer):
            embedding = self._finish(objective, source, trainer)
            if self.calibrate and not trainer.interrupted:
                self._calibrate(embedding, source, trainer, report)
        if not goes_on and "selected_stage_" not in self._FITTED:
            self.__dict__.pop("selected_stage_", None)  # of an earlier fit
        return objective

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit and return the cluster of every sample of X, ``labels_``.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`.
        y : Ignored
            As in :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Cluster of each sample.
        """
        self.fit(X, y)
        return self.labels_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "labels_")

    @abstractmethod
    def _make_objective(self, model: ClusterModel) -> nn.Module:
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

    def _settle(self, objective: Any, source: Source, views: PairedViews, trainer: Trainer) -> None:
        """Go back to a safe partition, if training has come to nothing better."""

    def _make_views(self, source: Source, objective: Any, trainer: Trainer) -> PairedViews:
        """Return the views of samples that the phases train on."""
        generator = trainer.generator("views")
        prepare, n_clusters = objective.model.prepare, self._most_clusters()
        views, self.views_ = build_views(source, prepare, n_clusters, generator, self.views)
        return views

    def _frozen_backbone(self, source: Source) -> FrozenBackbone | None:
        """Return the backbone, if it arrives trained and is not to learn any more."""
        if self._goes_on():
            self._check_same_backbone(source)
            return self._frozen
        if not self._takes_images():
            return None
        learns = isinstance(self.pretraining, Pretrainer) or not self._arrives_trained()
        if learns and not self.fine_tune and not self._stops_learning:
            raise ValueError(
                f"fine_tune=False asks for a backbone that is used as it came, but backbone="
                f"{self.backbone!r} with pretrained={self.pretrained!r} and pretraining="
                f"{self.pretraining!r} has to learn. Give it trained weights and no pretraining, "
                "or leave fine_tune='auto'."
            )
        if learns:
            return None
        with OwnDraws(0):  # of weights that those that were learned replace
            backbone = self._backbone_in_use(source.device)
            frozen = frozen_backbone(source, backbone, self.pretrained)
        may_learn = bool(frozen.teachable) and self._may_fine_tune()
        if self.fine_tune and self.fine_tune != "auto" and not may_learn:
            raise ValueError(
                "fine_tune=True asks for a backbone that learns, but no parameter of this one has "
                "requires_grad. Give it one that has, or leave fine_tune='auto'."
            )
        if self.views not in ("auto", ["neighbor"]) and not may_learn:
            raise ValueError(
                f"views={self.views!r} are made while a backbone learns, but this one arrives "
                "trained and is used as it came. Set fine_tune=True, or leave views='auto'."
            )
        return frozen

    def _may_fine_tune(self) -> bool:
        """Whether a backbone that arrives trained may learn: of "auto", where it costs little."""
        if self.fine_tune == "auto":
            return choose_device(self.device).type != "cpu"
        return bool(self.fine_tune)

    def _check_same_backbone(self, source: Source) -> None:
        """Refuse to go on, with features that an earlier fit has learned, from others."""
        if self._frozen is None:
            return
        n_channels = self._frozen.n_channels
        suits = self._takes_images() and source.sample_shape[0] == n_channels
        same = self._backbone_name(source.device) == self.backbone_name_
        if not (suits and same):
            raise ValueError(
                "warm_start=True goes on from the networks of the last fit, which learned the "
                f"features of {self.backbone_name_} for images of {n_channels} channels. They do "
                "not suit this X or these parameters. Set warm_start=False."
            )

    def _arrives_trained(self) -> bool:
        """Whether the backbone was trained before the fit."""
        return is_pretrained(self.backbone, self.pretrained)

    def _is_said_to_arrive_trained(self) -> bool:
        """Whether it was, where a module may be one to train: the user can say that it is none."""
        said = bool(self.pretrained) or self.fine_tune != "auto"
        is_module = isinstance(self.backbone, nn.Module)
        return is_pretrained(self.backbone, self.pretrained) and (said or not is_module)

    def _embedded_once(
        self, frozen: FrozenBackbone, source: Source, trainer: Trainer, n_threads: int
    ) -> Source:
        """Return what the frozen backbone makes of the samples, as a source of its own."""
        countdown = Countdown("embedding", len(source), trainer.say)
        with intra_op_threads(n_threads):
            embedded = embed_once(source, frozen, countdown)
        features = trainer.agreed(torch.from_numpy(embedded))
        return open_array(features.cpu().numpy(), source.device)

    def _tunes(self) -> bool:
        """Whether a backbone that arrived trained is to be fine-tuned in this fit."""
        if self._frozen is None or self._goes_on():
            return False
        return bool(self._frozen.teachable) and self._may_fine_tune()

    def _fine_tuned(
        self,
        first: Round,
        images: Source,
        before: dict[str, Any],
        trainer: Trainer,
        report: CallbackReport,
        n_threads: int,
    ) -> Any:
        """Fine-tune the backbone, cluster anew, and return what is better separated.

        ``before`` is all that this estimator was before it learned clusters: from there it sets out
        once more, and what the first round has made of it is put back where that was no worse.
        """
        better = None
        try:
            if not trainer.interrupted:
                self._become(before)
                better = second_round(self, first, images, trainer, report, n_threads)
        except (DivergenceError, MemoryError) as error:
            warn(
                f"The backbone is used as it came, for fine-tuning it has failed: {error}",
                ConvergenceWarning,
            )
        finally:
            if better is None:
                self._become({"selected_stage_": "clustering", **first.attributes})
        return first.objective if better is None else better

    def _become(self, state: dict[str, Any]) -> None:
        """Set all attributes, and no others."""
        self.__dict__.clear()
        self.__dict__.update(state)

    def _labels_to_judge(
        self, state: Mapping[str, Any], first: Mapping[str, Any]
    ) -> NDArray[np.int64]:
        """Return the labels of a state that are to be compared with those of the first."""
        labels: NDArray[np.int64] = state["labels_"]
        return labels

    def _n_clusters(self) -> int:
        """Return the number of clusters of the head that predicts."""
        return self._most_clusters()

    def _most_clusters(self) -> int:
        """Return the number of clusters, or the largest if there are several to choose from."""
        if isinstance(self.n_clusters, str):  # "auto"
            return max(min(MOST_CLUSTERS, self._n_sized // FEWEST_SAMPLES), 1)
        return self.n_clusters

    def _seeks_number(self) -> bool:
        """Whether the number of clusters is to be found."""
        return isinstance(self.n_clusters, str)

    def _answers(self, objective: Any, source: Source, trainer: Trainer) -> Iterator[None]:
        """Yield once for each head that the fitted attributes are to be computed for."""
        yield

    def _check_enough_samples(self, source: Source) -> None:
        if self._seeks_number() and not self._goes_on():
            return
        n_clusters = self._most_clusters()
        if len(source) < n_clusters:
            raise ValueError(
                f"n_samples={len(source)} should be >= n_clusters={n_clusters}. Lower n_clusters."
            )

    def _goes_on(self) -> bool:
        return self.warm_start and hasattr(self, "_objective")

    def _pretrainer(self) -> Pretrainer | None:
        """Return what pretrains the encoder, if anything does."""
        if self.pretraining is None or isinstance(self.pretraining, Pretrainer):
            return self.pretraining
        # A backbone that arrives trained is the result of a longer pretraining than ours.
        if self._sees_images() and is_pretrained(self.backbone, self.pretrained):
            return None
        return self._default_pretraining()

    def _check_pretrainer(self, pretrainer: Pretrainer) -> None:
        """Refuse what would be ignored: the network is the clusterer's, the method the other's."""
        validate_parameters(pretrainer)
        if pretrainer.backbone != "auto" and not same_backbone(pretrainer.backbone, self.backbone):
            raise ValueError(
                f"pretraining has backbone={pretrainer.backbone!r}, but pretrains this "
                f"{type(self).__name__}'s, backbone={self.backbone!r}. Set it there."
            )
        if pretrainer.pretrained and pretrainer.pretrained != self.pretrained:
            raise ValueError(
                f"pretraining has pretrained={pretrainer.pretrained!r}, but pretrains this "
                f"{type(self).__name__}'s backbone, pretrained={self.pretrained!r}. Set it there."
            )
        if pretrainer.views not in ("auto", self.views):
            raise ValueError(
                f"pretraining has views={pretrainer.views!r}, but sees this "
                f"{type(self).__name__}'s, views={self.views!r}. Set them there."
            )

    def _projector(self) -> MakeProjector | None:
        """Return what makes a projector, if anything teaches it before clusters depend on it."""
        pretrainer = self._pretrainer()
        if pretrainer is None:
            return None
        # Nothing teaches a layer on a backbone that arrives trained and goes straight to the heads.
        untaught = pretrainer.max_epochs == 0 and self._sees_images() and self._arrives_trained()
        return None if untaught else pretrainer._make_projector

    def _make_networks(self, model: ClusterModel) -> nn.Module:
        return self._make_objective(model)

    def _adopt(self, networks: Any) -> None:
        super()._adopt(networks)
        self._check_answer(self.__dict__, self._n_clusters())
        width = self._n_features_out if self._sees_images() else math.prod(self._seen_shape)
        check_familiar(self._familiar_means, self._familiar_distances, width)

    def _check_answer(self, answer: dict[str, Any], n_outputs: int) -> None:
        """Raise ValueError if loaded attributes do not suit this number of outputs of the head."""
        width = self._objective.model.embedding.embedding_dim
        check_answer(answer, n_outputs, width)
        if answer["_confidence"] is not None:
            widths = [width] if self._sees_images() else [*self._seen_shape, width]
            answer["_confidence"].check(n_outputs, widths)

    def _phases(self) -> list[str]:
        phases = self._round()
        return [*phases, "fine-tuning", *phases] if self._tunes() else phases

    def _round(self) -> list[str]:
        """Return the names of the phases in which clusters are learned."""
        phases = self._own_phases()
        if self._goes_on():
            phases = [phase for phase in phases if phase != "start"]
        if self._pretrainer() is not None and not self._goes_on():
            phases = ["pretraining", *phases]
        return [*phases, "calibration"] if self.calibrate else phases

    def _own_phases(self) -> list[str]:
        """Return the names of the phases that belong to the method."""
        return ["clustering"]

    def _build(self, source: Source, trainer: Trainer) -> Any:
        """Build networks and objective, their random weights drawn from the trainer's seed."""
        with trainer.draws("build"):
            prepare, embedding = build_networks(
                source,
                "auto" if self._frozen else self._backbone_in_use(trainer.device),
                self.pretrained,
                self._projector(),
                self._feature_name,
            )
            model = ClusterModel(prepare, embedding, nn.Identity())
            objective = self._make_objective(model)
        if self._goes_on():
            load_earlier(objective, self._objective)
        return objective

    def _finish(self, objective: Any, source: Source, trainer: Trainer) -> Tensor:
        """Set the fitted attributes in one pass over the data, and return its embedding."""
        self._objective = objective
        self._confidence = self._groups = self._outputs = None
        for name in ("cut_scores_", "_merged_confidence"):
            self.__dict__.pop(name, None)
        embedding, labels = embed_and_label(objective.model, source)
        n_clusters = self._n_clusters()
        sizes = label_counts(labels, n_clusters)
        if bool((sizes == 0).any()):
            # Empty clusters come last, so that the labels in use are consecutive.
            objective.reorder(torch.argsort((sizes == 0).int(), stable=True))
            embedding, labels = embed_and_label(objective.model, source)
        centers, sizes = cluster_means(embedding, labels, n_clusters)
        self.labels_ = labels.numpy()
        self.cluster_sizes_ = sizes.numpy()
        self.cluster_centers_ = centers.numpy()
        self.class_weights_ = objective.weigh_classes(embedding, labels).numpy()
        self._describe(embedding, source, trainer)
        self._record(trainer, "clustering")
        self.n_skipped_steps_ = trainer.n_skipped_steps
        return embedding

    def _describe(self, embedding: Tensor, source: Source, trainer: Trainer) -> None:
        """Keep what tells which clusters lie side by side, and what is like no sample."""
        generator, n_clusters = trainer.generator("familiar"), self._n_clusters()
        n_asked_rows = n_asked(n_clusters)
        rows = torch.randperm(len(source), generator=generator)[: max(FAMILIAR_ROWS, n_asked_rows)]
        if self._sees_images():
            seen = embedding[rows].to(source.device)
        else:
            seen = prepared_rows(self._model.prepare, source, rows)
        seen = trainer.agreed(seen)
        familiar = learn_familiar(seen[:FAMILIAR_ROWS], self._most_clusters(), generator)
        self._familiar_means, self._familiar_distances = familiar
        labels = torch.from_numpy(self.labels_)[rows].to(seen.device)
        asked = slice(n_asked_rows)
        sizes = torch.from_numpy(self.cluster_sizes_).to(seen.device)
        self._neighbor_counts = neighbor_counts(seen[asked], labels[asked], sizes).numpy()
        if self._seeks_number():
            scored = slice(SCORED_ROWS)
            self.cut_scores_ = self._scores_of_cuts(seen[scored].cpu(), labels[scored].cpu())

    def _calibrate(
        self, embedding: Tensor, source: Source, trainer: Trainer, report: CallbackReport
    ) -> None:
        """Learn from independent partitions how far the labels can be trusted."""
        generator = trainer.generator("votes")
        rows = torch.randperm(len(source), generator=generator)[:MOST_ROWS]
        views = [embedding[rows].to(source.device)]
        if not self._sees_images():
            views = [prepared_rows(self._model.prepare, source, rows), *views]
        labels = torch.from_numpy(self.labels_)[rows].to(source.device)
        n_clusters = self._n_clusters()
        witnesses = views
        if self._model.embedding.taught:  # it would bear the partition out, be it right or wrong
            witnesses = views[:1]
            if self._sees_images():
                witnesses = [compared_rows(source, self._model.prepare, rows)]
        votes = vote(witnesses, labels, n_clusters, generator)
        if not self._sees_images():
            votes = overruled(votes, views[0], labels, n_clusters, generator)
        votes = trainer.agreed(votes)
        with report.phase("calibration", n_epochs(len(rows))) as hook:
            self._confidence = fit_confidence(views, votes, labels, n_clusters, trainer, hook)
        if self._seeks_number():
            groups = torch.from_numpy(self._best_cut()).to(labels.device)
            merged = MergedOpinion(self._confidence, groups)
            self._merged_confidence = mean_confidence(merged, views, groups[labels])

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

    def _conclude(self, trainer: Trainer) -> None:
        """Leave the best number of clusters, if it was to be found; say what is strange."""
        if self._seeks_number():
            most = self.n_clusters_
            self._group(self._best_cut())
            trainer.say(f"number of clusters: {self.n_clusters_} of up to {most}")
            if 1 < most == self.n_clusters_:
                warn(
                    f"n_clusters='auto' has found {most} clusters, the most that it looks for in "
                    f"{len(self.labels_)} samples. If there may be more, fit with a number that is "
                    "clearly too high, and cut(...) the model.",
                    ConvergenceWarning,
                )
        self._warn_about_sizes()

    def _warn_about_sizes(self) -> None:
        sizes = self.cluster_sizes_
        n_lost = int((sizes == 0).sum())
        share = float(sizes.max() / sizes.sum())
        if n_lost:
            warn(
                f"{n_lost} of {len(sizes)} clusters have no sample; they come last in "
                "cluster_sizes_. Lower n_clusters.",
                ConvergenceWarning,
            )
        if len(sizes) > 1 and share > DOMINANT_SHARE:
            warn(
                f"One cluster holds {share:.0%} of the samples. Lower learning_rate, or look for "
                "outliers in X.",
                ConvergenceWarning,
            )

    def _fitted_attributes(self, objective: nn.Module) -> dict[str, Any]:
        """Return what a copy of this estimator needs to predict as if fit had stopped now."""
        return {
            "_objective": copy.deepcopy(objective).eval(),
            "_confidence": None,
            "_groups": None,
            "_outputs": None,
            "_neighbor_counts": None,  # nor anything else that is known in the end
            "labels_": None,
        }
