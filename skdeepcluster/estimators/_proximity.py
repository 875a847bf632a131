"""ProximityDeepClustering: codes move to their neighbours; no pseudo-labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skdeepcluster.base import (
    GRAPH_ROWS,
    CallbackReport,
    DeepClusterer,
    MakeProjector,
    PairedViews,
    Recipe,
    given,
    ground_of,
    integer,
    n_fine_clusters,
    one_of,
    real,
)
from skdeepcluster.data import AugmentedViews, IndexedViews, SelectedSource, Source, unchanged
from skdeepcluster.networks import ClusterModel, build_critic, build_decoder, most_likely
from skdeepcluster.numerics import cluster_means, kmeans
from skdeepcluster.objectives import InterpolationObjective, ProximityObjective
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training import PeriodicHook, Phase, Trainer, constant, one_cycle

PRETRAINING = Recipe(batch_size=256, learning_rate=1e-3, max_steps=400, samples_per_step=6)
IMAGE_PRETRAINING = Recipe(batch_size=256, learning_rate=1e-3, image_epochs=40)
FEATURE_TRAINING = Recipe(batch_size=256, learning_rate=2e-3, max_steps=400, samples_per_step=6)
IMAGE_TRAINING = Recipe(batch_size=256, learning_rate=1e-4, image_epochs=20)
REFRESHES = 20
# After this share of the refreshes without growth, filters let all samples pass.
RELAXED_AFTER = 0.25
KMEANS_RUNS = 10
UNUSED = ("pretraining", "views")  # of all clusterers' parameters


class ProximityDeepClustering(DeepClusterer):
    """Cluster by moving samples to their neighbours, no pseudo-labels; a reconstruction of R-DC.

    The method of A. Shaheen, N. Mrabah, R. Ksantini and A. Alqaddoumi, "Rethinking deep clustering
    paradigms: self-supervision is all you need" (Neural Networks, 2025), as far as it could be
    reconstructed: the paper's equations were not available to us.

    First an auto-encoder learns codes between which one can interpolate: a critic tries to tell
    decoded mixtures of two codes from samples. The decoder is a perceptron for feature arrays, and
    transposed convolutions for images. Then every code moves to the centroid of its nearest
    neighbours, those in crowds first. Which samples belong to which cluster is not decided before
    the end, so no early mistake is learned: by k-means on the codes or, on feature arrays, by a
    merger of small clusters, of the codes or the features, if that separates them better.

    It is made from the paper's description and the auto-encoder of its authors' earlier method. See
    the user guide for what was inferred. On feature arrays it is better than k-means on
    average, and worse on some.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters K. "auto" learns 30, or one for every four samples if these are fewer,
        and merges them to the number with the best of `cut_scores_`. No score finds the number
        reliably: see the user guide.
    n_neighbors : int, default=5
        Nearest neighbours of each sample (k); the paper uses 3 to 11.
    filters : {"both", "edge"} or None, default="both"
        What has to hold before a sample moves. The edge filter keeps edges of the graph of
        neighbours that are short and mutual; the point filter samples that have enough of them.
        "edge" uses the first only, None neither: all samples move at once.
    centroid : {"mean", "medoid"}, default="mean"
        Where a sample moves: to the mean of itself and its remaining neighbours, or to the one of
        them that is nearest to all.
    schedule : {"gradual", "hard"}, default="gradual"
        What happens whenever the share of samples that pass the filters has stopped growing:
        "gradual" lets them pass some more, "hard" all at once.
    interpolation_weight : float, default=0.5
        Weight of the term that makes interpolations look real (lambda); 0 turns interpolation off.
        The published value of the auto-encoder.
    code_weight : float, default=1.0
        Weight of the distance between codes and their centroids, relative to the reconstruction of
        what the centroids are decoded to; 0 turns it off.
    fine_tune : bool or "auto", default="auto"
        Whether a backbone that arrives trained (`pretrained` or a folder) goes on learning. By such
        a one every image is embedded once, by published weights enlarged to 128 x 128 pixels,
        and clusters are learned from the features as from an array. True, which "auto" is on an
        accelerator, then fine-tunes its parameters that have `requires_grad`, by contrast, embeds
        and clusters once more, and keeps what is better separated (`selected_stage_`). A module is
        taken to be trained if this is not "auto". Without trained weights the backbone always
        learns.
    backbone : "auto", str, path or nn.Module, default="auto"
        "auto" is a multilayer perceptron for feature arrays, three convolutions ("small_convnet")
        for images of up to 64 pixels on a CPU, and a ResNet-18 for other images. A string is the
        name of a timm model, a :class:`pathlib.Path` a folder with one, a module is copied. A model
        of timm without weights gets a first layer with stride 1 for images of up to 64 pixels.
    pretrained : bool or path, default=False
        True loads timm's published weights (from its cache, or the network); a path is a file of
        weights for the named backbone.
    pretraining_epochs : int or "auto", default="auto"
        Passes over the data of the first phase; 0 skips it, which is for comparisons only: the
        second phase relies on its decoder. "auto" is about 400 steps for feature arrays, fewer
        for small ones, and 40 passes for images.
    max_epochs : int or "auto", default="auto"
        Passes over the data of the second phase, during which centroids are found anew up to 20
        times; 0 keeps the auto-encoder's codes. "auto" is about 400 steps for feature arrays, fewer
        for small ones, and 20 passes for images.
    batch_size : int or "auto", default="auto"
        Samples per step; "auto" is 256.
    learning_rate : float or "auto", default="auto"
        Of AdamW. "auto" is 0.001 in the first phase, where it goes through one cycle, and in the
        second, where it is constant, 0.002 for feature arrays and 0.0001 for images.
    calibrate : bool, default=True
        Whether to learn, after the fit, how far the labels can be trusted: ``predict_proba`` then
        gives the share of independent partitions that agree. False gives the softmax of the
        clustering head.
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
    labels_ : ndarray of shape (n_samples,), int64
        Cluster of each training sample, numbered from zero without gaps.
    selected_stage_ : {"clustering", "fine-tuning"}
        Whether a backbone that arrived trained was kept as it came or as fine-tuned; only where it
        was fine-tuned.
    n_clusters_ : int
        Number of clusters: the one that was asked for, or chosen.
    cut_scores_ : dict
        From number of clusters, 2 or more, to its score; only of ``n_clusters="auto"``. See
        :meth:`cut_scores`.
    cluster_sizes_ : ndarray of shape (`n_clusters_`,), int64
        Number of training samples in each cluster; clusters that were lost come last, with 0.
    cluster_centers_ : ndarray of shape (`n_clusters_`, n_embedding_dimensions)
        Mean embedding of each cluster.
    class_weights_ : ndarray of shape (`n_clusters_`,)
        As MiniClustering's, from a partition of the codes by k-means into four times as many
        regions: their number over how many of them a cluster occupies, small for large classes.
    merge_tree_ : ndarray of shape (`n_clusters_` - 1, 4)
        In which order clusters become one, in the format of SciPy's linkage: what `cut` goes along.
    expected_accuracy_ : float
        Share of the labels that are right, as far as independent partitions can tell: the mean of
        the largest probabilities of the training samples. Not with `calibrate=False`.
    expected_accuracy_interval_ : tuple of (float, float)
        Low and high bound of that share. On tasks that its width was not chosen on, it held the
        true one nine times in ten or more often; images were not among them.
    history_ : list of dict
        One record per epoch: phase, epoch, epochs planned, batch size, losses, share of samples
        that moved, learning rate, seconds.
    n_iter_ : int
        Epochs of the clustering phase.
    n_skipped_steps_ : int
        Always 0.
    max_epochs_ : int
        Epochs of the clustering phase that were planned: `max_epochs`, or what "auto" became.
    batch_size_ : int
        Samples per step of the clustering phase: `batch_size`, or what "auto" became, and n_samples
        at most.
    learning_rate_ : float
        Rate of the clustering phase: `learning_rate`, or what "auto" became.
    backbone_name_ : str
        The backbone in use, by its name in timm where it has one.
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

    See Also
    --------
    StableClusterDiscrimination : Clusters that are stable from the first step.
    sklearn.cluster.KMeans : What divides the codes in the end.

    Notes
    -----
    Of feature arrays with more than 32,768 rows as many random ones are trained on; all get labels.

    References
    ----------
    A. Shaheen, N. Mrabah, R. Ksantini, A. Alqaddoumi. "Rethinking deep clustering paradigms:
    self-supervision is all you need." Neural Networks, 2025. arXiv:2503.03733.

    D. Berthelot, C. Raffel, A. Roy, I. Goodfellow. "Understanding and improving interpolation in
    autoencoders via an adversarial regularizer." International Conference on Learning
    Representations (ICLR), 2019.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import ProximityDeepClustering
    >>> X, _ = make_blobs(n_samples=[300, 40, 40], n_features=6, random_state=1)
    >>> model = ProximityDeepClustering(n_clusters=3, random_state=0).fit(X)
    >>> sorted(model.cluster_sizes_.tolist())
    [40, 40, 300]
    """

    _default_pretraining = SimCLR
    pretraining = None  # the method's own first phase is it
    views = "auto"  # of which there are none
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{k: v for k, v in DeepClusterer._parameter_constraints.items() if k not in UNUSED},
        "n_neighbors": [integer(1)],
        "filters": [one_of("both", "edge"), None],
        "centroid": [one_of("mean", "medoid")],
        "schedule": [one_of("gradual", "hard")],
        "interpolation_weight": [real(0, None, "left")],
        "code_weight": [real(0, None, "left")],
        "pretraining_epochs": [one_of("auto"), integer(0)],
    }

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        n_neighbors: int = 5,
        filters: str | None = "both",
        centroid: str = "mean",
        schedule: str = "gradual",
        interpolation_weight: float = 0.5,
        code_weight: float = 1.0,
        fine_tune: bool | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        pretraining_epochs: int | str = "auto",
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        calibrate: bool = True,
        device: str | torch.device = "auto",
        precision: str = "auto",
        num_workers: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.filters = filters
        self.centroid = centroid
        self.schedule = schedule
        self.interpolation_weight = interpolation_weight
        self.code_weight = code_weight
        self.fine_tune = fine_tune
        self.backbone = backbone
        self.pretrained = pretrained
        self.pretraining_epochs = pretraining_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.calibrate = calibrate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _arrives_trained(self) -> bool:
        return self._is_said_to_arrive_trained()

    def _pretrainer(self) -> None:
        """Return that nothing but the method's own first phase trains the encoder."""

    def _projector(self) -> MakeProjector:
        return self._default_pretraining()._make_projector  # the first phase teaches it

    def _own_phases(self) -> list[str]:
        return ["clustering"] if self._goes_on() else ["pretraining", "clustering"]

    def _make_objective(self, model: ClusterModel) -> ProximityObjective:
        n_clusters = self._most_clusters()
        return ProximityObjective(
            model,
            build_decoder(model.embedding.embedding_dim, self._seen_shape),
            self._standardize(model),
            n_clusters=n_clusters,
            n_regions=n_fine_clusters(n_clusters, self._n_sized),
            n_neighbors=self.n_neighbors,
            filters=self.filters,
            medoids=self.centroid == "medoid",
            code_weight=self.code_weight,
        )

    def _standardize(self, model: ClusterModel) -> nn.Module:
        """Return what brings prepared samples to unit variance: features are prepared so."""
        if not self._sees_images():
            return nn.Identity()
        return next(model.embedding.backbone.children())

    def _make_views(self, source: Source, objective: Any, trainer: Trainer) -> PairedViews:
        """Return the samples as they are: of each there is one view only."""
        self.__dict__.pop("views_", None)  # by which an earlier fit has fine-tuned its backbone
        if not self._sees_images():
            source = SelectedSource(source, self._trained_rows(source, trainer))
        return AugmentedViews(source, objective.model.prepare, [unchanged])

    def _trained_rows(self, source: Source, trainer: Trainer) -> Tensor:
        rows = torch.randperm(len(source), generator=trainer.generator("views"))
        return rows[:GRAPH_ROWS].sort().values

    def _build(self, source: Source, trainer: Trainer) -> ProximityObjective:
        """Start without clusters, be they those of an earlier fit."""
        objective: ProximityObjective = super()._build(source, trainer)
        objective.forget_clusters()
        return objective

    def _start(
        self,
        objective: ProximityObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Train the auto-encoder and its critic."""
        recipe = self._by_kind(features=PRETRAINING, images=IMAGE_PRETRAINING)
        n = len(views)
        batch_size, _, rate = self._plan(recipe, n)
        epochs = given(self.pretraining_epochs, recipe.epochs(n, batch_size))
        critic = None
        if self.interpolation_weight:
            with trainer.draws("build for pretraining"):
                critic = build_critic(self._seen_shape)
        interpolation = InterpolationObjective(
            objective.model.embedding,
            objective.decoder,
            critic,
            objective.standardize,
            self.interpolation_weight,
        ).to(source.device)
        with report.phase("pretraining", epochs) as hook:
            trainer.run(
                Phase(
                    name="pretraining",
                    objective=interpolation,
                    views=views,
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=interpolation.parameter_groups(rate),
                    optimizer=torch.optim.AdamW,
                    schedule=one_cycle,
                    hook=hook,
                )
            )
        objective.fix_targets()

    def _train(
        self,
        objective: ProximityObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Move the codes to their neighbours."""
        recipe = self._by_kind(features=FEATURE_TRAINING, images=IMAGE_TRAINING)
        n = len(views)
        batch_size, epochs, rate = self._plan(recipe, n)

        to_go = 1 - ProximityObjective.FIRST_QUANTILE
        n_steps = RELAXED_AFTER * min(REFRESHES, epochs) if self.schedule == "gradual" else 1

        def refresh() -> None:
            codes = self._embed(objective, views.source, views.rows)
            objective.refresh(trainer.agreed(codes), to_go / max(n_steps, 1))

        def attributes() -> dict[str, Any]:
            found = self._fitted_attributes(objective)
            self._divide(found["_objective"], source, trainer)
            return found

        with report.phase("clustering", epochs, attributes) as hook:
            trainer.run(
                Phase(
                    name="clustering",
                    objective=objective,
                    views=IndexedViews(views),
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=objective.parameter_groups(rate),
                    optimizer=torch.optim.AdamW,
                    schedule=constant,
                    hook=PeriodicHook(hook, epochs, REFRESHES, refresh),
                )
            )

    def _answers(
        self, objective: ProximityObjective, source: Source, trainer: Trainer
    ) -> Iterator[None]:
        """Yield once, with the clusters of the codes."""
        self._divide(objective, source, trainer)
        for tensor in (*objective.head.state_dict().values(), objective.regions.centers):
            tensor.copy_(trainer.agreed(tensor))
        if not self._sees_images():  # what their pixels mean nobody has asked
            self._go_back(objective, source, trainer)
        yield

    def _go_back(self, objective: ProximityObjective, source: Source, trainer: Trainer) -> None:
        """Divide the samples without regard to their codes, if these come to no better."""
        if not self._may_go_back(trainer):
            return
        rows = self._trained_rows(source, trainer)
        ground = ground_of(source, objective.model.prepare, rows)
        labels = most_likely(objective.head, self._embed(objective, source, ground.rows))
        kept = self._protected(labels, ground, objective, source, trainer)
        if kept is None:
            return
        codes = self._embed(objective, source, ground.rows)
        centers, _ = cluster_means(codes, kept.labels, self._most_clusters())
        n_regions = min(len(objective.regions), len(codes))
        generator = trainer.generator("going back")
        regions = kmeans(codes, n_regions, generator=generator, n_init=1)
        objective.divide(centers, trainer.agreed(regions.centers))

    def _divide(self, objective: ProximityObjective, source: Source, trainer: Trainer) -> None:
        """Divide the codes into clusters, for the first time, by k-means.

        Without a word to other processes: a callback of one of them may ask for it.
        """
        objective.forget_samples()
        codes = self._embed(objective, source, self._trained_rows(source, trainer))
        generator = trainer.generator("partitions")
        clusters = kmeans(codes, self._most_clusters(), generator=generator, n_init=KMEANS_RUNS)
        # After a warm start there may be fewer samples than regions.
        n_regions = min(len(objective.regions), len(codes))
        regions = kmeans(codes, n_regions, generator=generator, n_init=1)
        objective.divide(clusters.centers, regions.centers)
