"""MiniClustering: deep clustering of long-tailed data."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skdeepcluster.data import EmbeddedViews, NeighborViews, ResidentSource, Source
from skdeepcluster.estimators._base import DeepClusterer
from skdeepcluster.estimators._building import PairedViews, Recipe
from skdeepcluster.estimators._inference import infer
from skdeepcluster.estimators._report import CallbackReport
from skdeepcluster.estimators._validation import integer, one_of, real
from skdeepcluster.networks import ClusterModel
from skdeepcluster.numerics import (
    KMeansResult,
    average_linkage,
    centroid_silhouette,
    cosine_affinity,
    kmeans,
    neighbor_affinity,
    propagate_labels,
)
from skdeepcluster.objectives import HeadFit, MiniObjective
from skdeepcluster.training import Phase, Trainer, constant, cosine

FEATURE_TRAINING = Recipe(batch_size=512, learning_rate=1e-2, max_steps=100)
HEAD_FIT = Recipe(batch_size=512, learning_rate=5e-2, max_steps=60)
IMAGE_TRAINING = Recipe(batch_size=512, learning_rate=1e-5, image_epochs=10)
# Length of the heads' weights at the start. The paper's 100 makes predictions near certain, which
# leaves nothing to learn from the moderate differences between neighbours.
FEATURE_LOGIT_SCALE = 30.0
IMAGE_LOGIT_SCALE = 100.0
KMEANS_RUNS = 3
# The share by which another start has to be better separated than k-means to be preferred.
KMEANS_MARGIN = 0.02
JUDGED_ROWS = 2**14


class MiniClustering(DeepClusterer):
    """Cluster long-tailed data: a fine partition tells large classes from small ones.

    An encoder maps samples to the unit sphere, where two heads divide them: a target head into
    `n_clusters` clusters and a mini head into many more mini-clusters. Confident predictions for
    one view of a sample are the training targets of the other view. A cluster that occupies many
    mini-clusters is a large class and gets a small weight, so that small classes are not
    swallowed.

    On feature arrays the two views are a sample and one of its nearest neighbours, and a short
    contrastive pretraining of a small encoder comes first. On images the views are random crops,
    flips and colour changes.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters K.
    init : {"auto", "kmeans", "merged"}, default="auto"
        Partition from which the heads start. "kmeans" is k-means on the embedding; it cuts large
        classes up and fuses small ones. "merged" merges the mini-clusters by average linkage, once
        by the cosine of their centres and once by the neighbours that they share. "auto" takes
        k-means or the better of the two mergers, whichever separates the clusters best in the
        features as they came (median centroid silhouette; k-means wins when within 2 %). On images
        "auto" is k-means, as in the paper.
    n_mini_clusters : int or "auto", default="auto"
        Number of mini-clusters M, at least `n_clusters`. "auto" is four for each cluster, the
        paper's ratio, as long as five samples are left for each.
    confidence_threshold : float, default=0.99
        Predictions surer than this become training targets (tau); 0 takes all. The paper's
        value.
    occupancy_threshold : float, default=0.3
        Share of a mini-cluster that a cluster has to hold to occupy it (delta). The paper's value.
    mini_weight : float, default=1.0
        Weight of the mini head's self-training (alpha); 0 turns it off. The paper's value.
    alignment_weight : float or "auto", default="auto"
        Weight of the term that makes both heads agree on which samples belong together (beta); 0
        turns it off. "auto" is 0.2, the paper's value, for images and 0 for feature arrays, where
        it moved the median ARI by at most .002 and can tear large, clear clusters apart.
    marginal_weight : float or "auto", default="auto"
        Weight of a term that keeps the cluster sizes near those of the start; 0 turns it off. It is
        not in the paper. "auto" is 1 for feature arrays, where many clusters are lost without it
        (doc/mini_clustering.md), and 0 for images.
    reweight : bool, default=True
        Whether the class weights act on the target head's self-training.
    fine_tune : bool or "auto", default="auto"
        Whether the encoder is trained along with the heads. "auto" is True for images, whose
        augmentations tell the encoder something new, and False for feature arrays.
    backbone : "auto", str, path or nn.Module, default="auto"
        "auto" is a multilayer perceptron for feature arrays and a ResNet-18 for images. A string is
        the name of a timm model, a :class:`pathlib.Path` a folder with one, a module is copied.
        Images of up to 64 pixels get a first layer with stride 1.
    pretrained : bool or path, default=False
        True loads timm's published weights (from its cache, or the network); a path is a file of
        weights for the named backbone.
    pretraining : "auto" or None, default="auto"
        "auto" pretrains the encoder by contrast: neighbours for feature arrays, augmentations for
        images, unless the backbone comes with weights. None does not; feature arrays are then
        clustered as they are.
    max_epochs : int or "auto", default="auto"
        Passes over the data in the clustering phase; 0 keeps the start. "auto" is about 100 steps
        for feature arrays, fewer for small ones, and 10 passes for images (the paper: 200).
    batch_size : int or "auto", default="auto"
        Samples per step of the clustering phase. "auto" is 512, the paper's.
    learning_rate : float or "auto", default="auto"
        Of Adam in the clustering phase. "auto" is 0.01, falling to zero, for the heads of feature
        arrays and 1e-5, constant, for images (the paper's).
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is a device, else Apple's MPS, else the CPU.
    precision : str, default="auto"
        "auto" is "bf16-mixed" for images on CUDA devices that can, "32-true" otherwise.
    num_workers : int, default=0
        Threads that read the items of a Dataset or image files; 0 reads them one by one.
    checkpoint_dir : path or None, default=None
        Folder to which the state is written after each epoch. The same call resumes from there and
        ends with the labels of an uninterrupted fit.
    warm_start : bool, default=False
        Whether to go on from the networks of the last fit instead of starting anew.
    random_state : int, RandomState instance or None, default=None
        Source of all randomness. An int gives the same labels, bit for bit, on the same machine
        with the same number of threads.
    verbose : int, default=0
        Print one line per epoch if positive.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int64
        Cluster of each training sample, numbered from zero without gaps.
    cluster_sizes_ : ndarray of shape (n_clusters,), int64
        Number of training samples in each cluster; clusters that were lost come last, with 0.
    cluster_centers_ : ndarray of shape (n_clusters, n_embedding_dimensions)
        Mean embedding of each cluster.
    class_weights_ : ndarray of shape (n_clusters,)
        The weights w, M over the number of mini-clusters that a cluster occupies: small for large
        classes.
    history_ : list of dict
        One record per epoch: phase, epoch, losses, share of confident samples, learning
        rate, seconds.
    n_iter_ : int
        Epochs of the clustering phase.
    n_skipped_steps_ : int
        Batches without a confident sample, which changed nothing.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
        Numbers per sample.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string names for all.
    image_shape_ : tuple of int
        Channels, height and width of an image; for images only.
    paths_ : list of str
        The image files in the order of ``labels_``, if X was read from files.

    See Also
    --------
    sklearn.cluster.KMeans : What to compare with on the same array.

    Notes
    -----
    The class weights come from a running table of all samples, never from one batch, which may hold
    fewer samples than there are clusters. Batches without a confident sample change nothing.

    On the feature arrays measured so far the gain over k-means comes from the pretraining and the
    start; there the paper's terms neither help nor harm (``benchmarks/features.py --ablation``).

    References
    ----------
    "MiniClustering", International Conference on Learning Representations (ICLR), 2026.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster import MiniClustering
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> model = MiniClustering(n_clusters=3, random_state=0).fit(X)
    >>> sorted(model.cluster_sizes_.tolist())
    [176, 178, 183]
    >>> model.predict_proba(X[:5]).shape
    (5, 3)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepClusterer._parameter_constraints,
        "init": [one_of("auto", "kmeans", "merged")],
        "n_mini_clusters": [one_of("auto"), integer(1)],
        "confidence_threshold": [real(0, 1, "left")],
        "occupancy_threshold": [real(0, 1, "left")],
        "mini_weight": [real(0, None, "left")],
        "alignment_weight": [one_of("auto"), real(0, None, "left")],
        "marginal_weight": [one_of("auto"), real(0, None, "left")],
        "reweight": ["boolean"],
        "fine_tune": [one_of("auto"), "boolean"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str = "auto",
        n_mini_clusters: int | str = "auto",
        confidence_threshold: float = 0.99,
        occupancy_threshold: float = 0.3,
        mini_weight: float = 1.0,
        alignment_weight: float | str = "auto",
        marginal_weight: float | str = "auto",
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
        self.marginal_weight = marginal_weight
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
            alignment_weight=self._resolve(self.alignment_weight, features=0.0, images=0.2),
            marginal_weight=self._resolve(self.marginal_weight, features=1.0, images=0.0),
            reweight=self.reweight,
            fine_tune=self._fine_tunes(),
            neighbor_views=not self._takes_images(),
        )

    def _count_mini_clusters(self, n_samples: int) -> int:
        if self.n_mini_clusters == "auto":
            # Four for each cluster, as in the paper, as long as five samples are left for each.
            return max(min(4 * self.n_clusters, n_samples // 5), self.n_clusters)
        if int(self.n_mini_clusters) < self.n_clusters:
            raise ValueError(
                f"n_mini_clusters={self.n_mini_clusters} should be >= n_clusters="
                f"{self.n_clusters}: mini-clusters are parts of clusters. Raise it, or use 'auto'."
            )
        return min(int(self.n_mini_clusters), n_samples)

    def _fine_tunes(self) -> bool:
        return bool(self._resolve(self.fine_tune, features=False, images=True))

    def _own_phases(self) -> list[str]:
        return ["clustering"] if self._takes_images() else ["start", "clustering"]

    def _start(
        self,
        objective: MiniObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Start the heads from partitions of the embedding."""
        generator = trainer.generator("partitions")
        embedding = self._embed(objective, source)
        n_mini = objective.mini_head.out_features
        mini = kmeans(embedding, n_mini, generator=generator, n_init=1)
        init = self._resolve(self.init, features="both", images="kmeans")
        candidates = {}
        if init != "merged":
            run = kmeans(embedding, self.n_clusters, generator=generator, n_init=KMEANS_RUNS)
            candidates["kmeans"] = run.labels
        if init != "kmeans":
            candidates |= self._merge(mini, views)
        labels = candidates[self._choose(candidates, source, objective)]
        scale = self._by_kind(features=FEATURE_LOGIT_SCALE, images=IMAGE_LOGIT_SCALE)
        objective.start(embedding, labels, mini.labels, scale)
        if isinstance(views, NeighborViews):
            nodes = views.rows.to(labels.device)
            neighbors = views.neighbors.to(labels.device)
            smoothed = propagate_labels(labels[nodes], neighbors, self.n_clusters)
            self._fit_head(objective, embedding[nodes], smoothed, trainer, report)

    def _fit_head(
        self,
        objective: MiniObjective,
        embedding: Tensor,
        labels: Tensor,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Fit the target head to a partition, from where it stands."""
        n = len(labels)
        epochs = HEAD_FIT.epochs(n, HEAD_FIT.batch_size)
        parameters = list(objective.target_head.parameters())
        with report.phase("start", epochs) as hook:
            trainer.run(
                Phase(
                    name="start",
                    objective=HeadFit(objective.target_head),
                    views=lambda index, _: (embedding[index], labels[index]),
                    n_samples=n,
                    batch_size=HEAD_FIT.batch_size,
                    epochs=epochs,
                    parameter_groups=[{"params": parameters, "lr": HEAD_FIT.learning_rate}],
                    optimizer=torch.optim.Adam,
                    schedule=cosine,
                    hook=hook,
                    resumable=False,
                )
            )

    def _merge(self, mini: KMeansResult, views: PairedViews) -> dict[str, Tensor]:
        """Merge the mini-clusters, by the likeness of their centres and by shared neighbours."""
        n_mini = len(mini.centers)
        sizes = torch.bincount(mini.labels, minlength=n_mini)
        affinities = {"centers": (cosine_affinity(mini.centers, sizes), sizes)}
        if isinstance(views, NeighborViews):
            nodes = mini.labels.cpu()[views.rows]
            node_sizes = torch.bincount(nodes, minlength=n_mini)
            edges = neighbor_affinity(views.neighbors, nodes, n_mini)
            affinities["neighbors"] = (edges, node_sizes)
        return {
            name: average_linkage(affinity, size, self.n_clusters).to(mini.labels)[mini.labels]
            for name, (affinity, size) in affinities.items()
        }

    def _choose(
        self, candidates: dict[str, Tensor], source: Source, objective: MiniObjective
    ) -> str:
        """Return the start whose clusters are best separated in the features as they came.

        The embedding would be no impartial judge: it was made to look good there.
        """
        if len(candidates) == 1:
            return next(iter(candidates))
        rows = torch.linspace(0, len(source) - 1, min(len(source), JUDGED_ROWS)).round().long()
        features = torch.cat(
            [objective.model.prepare(source.rows(index)) for index in rows.tensor_split(16)]
        ).flatten(1)
        scores = {
            name: centroid_silhouette(features, labels[rows.to(labels.device)], self.n_clusters)
            for name, labels in candidates.items()
        }
        if "kmeans" in scores:
            # The safer start: another has to be better by more than noise.
            scores["kmeans"] += KMEANS_MARGIN * abs(scores["kmeans"])
        return max(scores, key=lambda name: scores[name])

    def _train(
        self,
        objective: MiniObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        recipe = self._by_kind(features=FEATURE_TRAINING, images=IMAGE_TRAINING)
        n = len(views)
        batch_size = min(_given(self.batch_size, recipe.batch_size), n)
        epochs = _given(self.max_epochs, recipe.epochs(n, batch_size))
        rate = _given(self.learning_rate, recipe.learning_rate)
        trained_views: PairedViews | EmbeddedViews = views
        if not self._fine_tunes():
            trained_views = self._freeze(views, objective, source)
        with report.phase("clustering", epochs, lambda: self._fitted_attributes(objective)) as hook:
            trainer.run(
                Phase(
                    name="clustering",
                    objective=objective,
                    views=trained_views,
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=[{"params": objective.trained_parameters(), "lr": rate}],
                    optimizer=torch.optim.Adam,
                    schedule=self._by_kind(features=cosine, images=constant),
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

    def _resolve(self, value: Any, *, features: Any, images: Any) -> Any:
        """Return what the user gave, or for "auto" the default for this kind of data."""
        return self._by_kind(features=features, images=images) if value == "auto" else value

    def _by_kind(self, *, features: Any, images: Any) -> Any:
        """Return the default for the kind of data that fit was given."""
        return images if self._takes_images() else features


def _given(value: Any, default: Any) -> Any:
    return default if value == "auto" else value
