"""The base of all clusterers: what users touch, and nothing that a method or a loop could do."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from skdeepcluster._warnings import warn
from skdeepcluster.base._adjacency import n_asked, neighbor_counts
from skdeepcluster.base._building import (
    PairedViews,
    build_networks,
    build_views,
    load_earlier,
)
from skdeepcluster.base._encoder_origin import EncodingEstimator
from skdeepcluster.base._estimator import DeepEstimator
from skdeepcluster.base._inference import embed_and_label, prepared_rows, vote
from skdeepcluster.base._loaded import check_answer, check_familiar
from skdeepcluster.base._merging import scored_rows
from skdeepcluster.base._pretrainer import Pretrainer
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._tuning import Round
from skdeepcluster.base._validation import (
    ClusterCount,
    PretrainingName,
    ViewNames,
    one_of,
    unnamed,
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
from skdeepcluster.data import Source
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import (
    ClusterModel,
    MergedOpinion,
)
from skdeepcluster.numerics import cluster_means, label_counts
from skdeepcluster.training import Trainer, intra_op_threads

# A cluster with more than this share of the samples is worth a warning.
DOMINANT_SHARE = 0.9
# How many clusters are learned for n_clusters="auto" to choose from, and for how many samples one.
MOST_CLUSTERS = 30
FEWEST_SAMPLES = 4


class DeepClusterer(EncodingEstimator):
    """Base of all clusterers: the story of a fit, and the fitted attributes.

    A method adds an objective and the few methods marked abstract below.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepEstimator._parameter_constraints,
        "n_clusters": [ClusterCount()],
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

    n_clusters: int | str
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
        try:
            objective = self._cluster(source, trainer, report, n_threads)
            if tunes:
                first = Round(objective, source, dict(vars(self)))
                objective = self._fine_tuned(first, images, before, trainer, report, n_threads)
        except DivergenceError:
            self._conclude(trainer)
            raise
        except BaseException:
            self._keep_best_number()
            raise
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

    def _n_clusters(self) -> int:
        """Return the number of clusters of the head that predicts."""
        return self._count_outputs(self._objective)

    def _count_outputs(self, objective: Any) -> int:
        """Return the number of clusters of the head of an objective that predicts."""
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
            mend = "Lower n_clusters."
            if self._seeks_number():
                mend = "So many clusters has the last fit learned; set warm_start=False."
            raise ValueError(
                f"n_samples={len(source)} should be >= n_clusters={n_clusters}. {mend}"
            )

    def _goes_on(self) -> bool:
        return self.warm_start and hasattr(self, "_objective")

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
        embedding, labels = embed_and_label(objective.model, source)
        n_clusters = self._count_outputs(objective)
        sizes = label_counts(labels, n_clusters)
        if bool((sizes == 0).any()):
            # Empty clusters come last, so that the labels in use are consecutive.
            objective.reorder(torch.argsort((sizes == 0).int(), stable=True))
            del embedding, labels  # of many samples it fills the memory
            embedding, labels = embed_and_label(objective.model, source)
        centers, sizes = cluster_means(embedding, labels, n_clusters)
        weights = objective.weigh_classes(embedding, labels)
        # Not before all is known: who interrupts a fit keeps the model of before.
        self._objective = objective
        self._confidence = self._groups = self._outputs = self._neighbor_counts = None
        for name in ("cut_scores_", "_merged_confidence"):
            self.__dict__.pop(name, None)
        self.labels_ = labels.numpy()
        self.cluster_sizes_ = sizes.numpy()
        self.cluster_centers_ = centers.numpy()
        self.class_weights_ = weights.numpy()
        self._describe(embedding, source, trainer)
        self._record(trainer, "clustering")
        self.n_skipped_steps_ = trainer.n_skipped_steps
        return embedding

    def _describe(self, embedding: Tensor, source: Source, trainer: Trainer) -> None:
        """Keep what tells which clusters lie side by side, and what is like no sample."""

        def described(rows: Tensor) -> Tensor:
            if self._sees_images():
                return trainer.agreed(embedding[rows].to(source.device))
            return trainer.agreed(prepared_rows(self._model.prepare, source, rows))

        generator, n_clusters = trainer.generator("familiar"), self._n_clusters()
        n_asked_rows = n_asked(n_clusters)
        rows = torch.randperm(len(source), generator=generator)[: max(FAMILIAR_ROWS, n_asked_rows)]
        seen = described(rows)
        familiar = learn_familiar(seen[:FAMILIAR_ROWS], self._most_clusters(), generator)
        self._familiar_means, self._familiar_distances = familiar
        all_labels = torch.from_numpy(self.labels_)
        labels = trainer.agreed(all_labels[rows].to(seen.device))
        asked = slice(n_asked_rows)
        sizes = torch.from_numpy(self.cluster_sizes_).to(seen.device)
        self._neighbor_counts = neighbor_counts(seen[asked], labels[asked], sizes).numpy()
        if self._seeks_number():
            rows = scored_rows(len(source))
            labels = trainer.agreed(all_labels[rows].to(seen.device))
            self.cut_scores_ = self._scores_of_cuts(described(rows).cpu(), labels.cpu())

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
            confidence = torch.tensor(mean_confidence(merged, views, groups[labels]))
            self._merged_confidence = float(trainer.agreed(confidence.to(labels.device)))

    def _conclude(self, trainer: Trainer) -> None:
        """Leave the best number of clusters, if it was to be found; say what is strange."""
        if self._seeks_number():
            most = self.n_clusters_
            self._keep_best_number()
            trainer.say(f"number of clusters: {self.n_clusters_} of up to {most}")
            if 1 < most == self.n_clusters_:
                warn(
                    f"n_clusters='auto' has found {most} clusters, the most that it looks for in "
                    f"{len(self.labels_)} samples. If there may be more, fit with a number that is "
                    "clearly too high, and cut(...) the model.",
                    ConvergenceWarning,
                )
        self._warn_about_sizes()

    def _keep_best_number(self) -> None:
        """Merge clusters to the best number, if it was to be found and the scores are there."""
        if self._seeks_number() and self._groups is None and hasattr(self, "cut_scores_"):
            self._group(self._best_cut())

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
            "cluster_sizes_": None,
            "cut_scores_": None,
        }
