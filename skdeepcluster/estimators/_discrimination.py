"""StableClusterDiscrimination: encoder and clusters in one stage, without pretraining."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skdeepcluster.base import (
    FEATURE_TEMPERATURE,
    IMAGE_TEMPERATURE,
    TEMPERATURE,
    CallbackReport,
    DeepClusterer,
    Judgement,
    MakeProjector,
    PairedViews,
    Pretrainer,
    Recipe,
    Views,
    candidate_partitions,
    integer,
    is_better,
    judge_heads,
    judged_rows,
    n_fine_clusters,
    on_cpu,
    one_of,
    positive_integers,
    prepared_rows,
    real,
    teach_head,
    teach_together,
)
from skdeepcluster.data import IndexedViews, NeighborViews, Source
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import ClusterModel, most_likely
from skdeepcluster.numerics import kmeans
from skdeepcluster.objectives import DiscriminationObjective, RefinementObjective
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training import Phase, Schedule, Trainer, constant, cosine, delayed, one_cycle

FEATURE_TRAINING = Recipe(batch_size=256, learning_rate=1e-3, max_steps=300, samples_per_step=8 / 3)
FEATURE_CENTER_RATE = 2e-3
# The paper's rates and batches; its 400 epochs are for devices that do one in seconds.
IMAGE_TRAINING = Recipe(batch_size=128, learning_rate=0.2, image_epochs=40)
IMAGE_CENTER_RATE = 1.2
SGD = partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4)
WARMUP_EPOCHS = 11
# Fine clusters only have to be small.
FINE_ITERATIONS = 20
FEATURE_REFINEMENT = Recipe(batch_size=256, learning_rate=1e-4, max_steps=100)
IMAGE_REFINEMENT = Recipe(batch_size=256, learning_rate=1e-4, image_epochs=5)
# How centres learn a partition when the fit goes back to one.
HEAD_FIT = Recipe(batch_size=512, learning_rate=1e-2, max_steps=60)


class StableClusterDiscrimination(DeepClusterer):
    """Cluster in one stage: encoder and clusters learn together, without a pretraining.

    The method of Q. Qian, "Stable cluster discrimination for deep clustering" (ICCV, 2023).

    Every sample has a cluster, assigned anew whenever it is seen. Unit centres learn from the
    samples of their own cluster alone, which keeps them stable while the encoder moves; the
    encoder learns to predict the clusters by the centres as they were when the epoch began. Several
    heads share the encoder: one or more for each number of clusters asked for, and finer ones.
    Which of them gives the labels is decided by how well they separate the samples.

    On feature arrays the views are a sample and one of its nearest neighbours, which are also drawn
    together by contrast, in the same stage. On images they are two augmentations.

    Parameters
    ----------
    n_clusters : int, array-like of int or "auto", default=8
        Number of clusters K. Of several numbers each gets a head of its own, all from one fit:
        ``labels_`` is the answer of the one with the best score, and :meth:`choose` gives the
        others. "auto" learns 30, or one for every four samples if these are fewer, and merges them
        to the number with the best of `cut_scores_`. No score finds the number reliably: see the
        user guide.
    init : {"auto", "kmeans", "merged", "random"}, default="auto"
        Where heads start: from partitions of the embedding of the untrained encoder, or from random
        directions, as in the paper. "kmeans" is k-means, "merged" merges small clusters by average
        linkage. "auto" starts three heads on feature arrays, from k-means and from mergers by
        centres and by neighbours, and keeps the best in the end or, if none is better, k-means or
        a merger of small clusters, of the features as they came or of the embedding; on images it
        is "random".
    constraint : {"size", "entropy"} or None, default="size"
        What keeps clusters alive. "size" makes clusters more attractive while they are smaller than
        `lower_bound` allows; "entropy" makes large clusters less attractive, all the time.
    lower_bound : float or "auto", default="auto"
        Least size of a cluster, as a share of the mean size (r). "auto" is 0.3 for feature arrays,
        and 0.9, the paper's, for images.
    entropy_weight : float, default=0.12
        Weight of the "entropy" constraint: by how much the cosine of a sample has to be higher to
        join a cluster that is e times larger. The paper's alpha, over the number of samples.
    over_clusterings : array-like of int or "auto", default="auto"
        Further heads have so many times the (largest) number of clusters, as long as five samples
        are left for each. "auto" is [4] for feature arrays, and 2 to 10, the paper's, for images.
    label_share : float, default=0.2
        Share of the own cluster in what the encoder is to predict (tau); the rest is the prediction
        for the other view. The paper's value.
    temperature : float, default=0.05
        Of the predictions (t); the paper's value.
    neighbor_weight : float, default=10.0
        Weight of the contrast (InfoNCE) that draws the two views of a sample together, and apart
        from other samples, relative to the rest of the loss; 0 turns it off. It is not in the
        paper, whose encoders learn without it in 400 epochs and more; in a short fit, or with
        neighbours as views, clusters alone teach an encoder too little.
    refine : bool, default=False
        Whether to train on confident predictions after the stage. The result is kept only if it
        separates the samples better and loses no cluster.
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
    views : "auto", callable or list of str and callable, default="auto"
        What shows an image anew: some of "crop" (to 8 % of the area or more, as published), "slight
        crop" (70 % or more), "mirror", "light", "colour", "grey", "blur", "solarize" and "neighbor"
        (another image, near by its pixels), or functions that make a batch of images from one (of
        torchvision, say), in [0, 1]. "auto" takes those that leave images near the ones that they
        were near (doc/guide/features_or_images.md). Feature arrays have neighbours only.
    pretraining : "auto", transformer or None, default=None
        What teaches the encoder all the same before the one stage: a transformer of
        :mod:`skdeepcluster.pretraining`, or ``SimCLR()`` if "auto".
    max_epochs : int or "auto", default="auto"
        Passes over the data; 0 keeps the start. "auto" is about 300 steps for feature arrays, fewer
        for small ones, and 40 passes for images (the paper: 400 to 800). The last one is kept.
    batch_size : int or "auto", default="auto"
        Samples per step. "auto" is 256 for feature arrays and 128, the paper's, for images.
    learning_rate : float or "auto", default="auto"
        Of the encoder. "auto" is 0.001, one cycle of AdamW, for feature arrays; for images 0.2 (the
        paper's), of SGD, which rests in the first epoch, rises and falls along a cosine.
    center_learning_rate : float or "auto", default="auto"
        Of the centres, constant. "auto" is 0.002 for feature arrays and 1.2 for images (the
        paper's).
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
    n_clusters_ : int
        Number of clusters: the one that was asked for, or chosen.
    cut_scores_ : dict
        From number of clusters, 2 or more, to its score; only of ``n_clusters="auto"``. See
        :meth:`cut_scores`.
    head_scores_ : dict of int to float
        For each number of clusters the score of its best head: the median centroid silhouette of
        its clusters, in the features as they came (of images, in the embedding), times the share
        of clusters that have samples. No labels are needed for it.
    selected_stage_ : {"clustering", "refinement", "features", "embedding", "fine-tuning"}
        The stage whose result was kept. Where none came to anything better, "features" is k-means
        on them (of images on their pixels) or a merger of small clusters, and "embedding" the same
        of the embedding. "fine-tuning" is all of it on a backbone that arrived trained and was
        fine-tuned.
    cluster_sizes_ : ndarray of shape (`n_clusters_`,), int64
        Number of training samples in each cluster; clusters that were lost come last, with 0.
    cluster_centers_ : ndarray of shape (`n_clusters_`, n_embedding_dimensions)
        Mean embedding of each cluster.
    class_weights_ : ndarray of shape (`n_clusters_`,)
        As MiniClustering's: number of clusters of the finest head over how many of them a cluster
        occupies, small for large classes.
    merge_tree_ : ndarray of shape (`n_clusters_` - 1, 4)
        In which order clusters become one, in the format of SciPy's linkage: what `cut` goes along.
    expected_accuracy_ : float
        Share of the labels that are right, as far as independent partitions can tell: the mean of
        the largest probabilities of the training samples. Not with `calibrate=False`.
    expected_accuracy_interval_ : tuple of (float, float)
        Low and high bound of that share. On tasks that its width was not chosen on, it held the
        true one nine times in ten or more often; images were not among them.
    history_ : list of dict
        One record per epoch: phase, epoch, epochs planned, batch size, loss, share of samples that
        changed cluster, learning rate, seconds.
    n_iter_ : int
        Epochs of the clustering phase.
    n_skipped_steps_ : int
        Batches of the refinement without a confident sample, which changed no weight.
    max_epochs_ : int
        Epochs of the clustering phase that were planned: `max_epochs`, or what "auto" became.
    batch_size_ : int
        Samples per step of the clustering phase: `batch_size`, or what "auto" became, and n_samples
        at most.
    learning_rate_ : float
        Rate of the clustering phase: `learning_rate`, or what "auto" became.
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

    See Also
    --------
    MiniClustering : For long-tailed data.
    sklearn.cluster.KMeans : What to compare with on the same array.

    References
    ----------
    Q. Qian. "Stable cluster discrimination for deep clustering." IEEE/CVF International Conference
    on Computer Vision (ICCV), 2023.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import StableClusterDiscrimination
    >>> X, _ = make_blobs(600, centers=3, n_features=10, random_state=3)
    >>> model = StableClusterDiscrimination(n_clusters=[2, 3, 4], random_state=0).fit(X)
    >>> model.n_clusters_
    3
    >>> model.cluster_sizes_.tolist()
    [200, 200, 200]
    >>> len(model.choose(4).cluster_sizes_)
    4
    """

    _default_pretraining = SimCLR
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepClusterer._parameter_constraints,
        "n_clusters": [integer(1), "array-like", one_of("auto")],
        "init": [one_of("auto", "kmeans", "merged", "random")],
        "constraint": [one_of("size", "entropy"), None],
        "lower_bound": [one_of("auto"), real(0, 1, "both")],
        "entropy_weight": [real(0, None, "left")],
        "over_clusterings": [one_of("auto"), "array-like"],
        "label_share": [real(0, 1, "both")],
        "temperature": [TEMPERATURE],
        "neighbor_weight": [real(0, None, "left")],
        "refine": ["boolean"],
        "center_learning_rate": [one_of("auto"), real(0, None, "neither")],
    }
    _FITTED: ClassVar[dict[str, Any]] = {
        **DeepClusterer._FITTED,
        "head_scores_": dict,
        "selected_stage_": str,
        "_best_heads": dict,
        "_by_count": dict,
    }
    # What differs between the numbers of clusters of one fit.
    _ANSWER = (
        "labels_",
        "cluster_sizes_",
        "cluster_centers_",
        "class_weights_",
        "_confidence",
        "_groups",
        "_outputs",
        "_neighbor_counts",
    )

    n_clusters: int | ArrayLike  # type: ignore[assignment]  # no other takes several

    def __init__(
        self,
        n_clusters: int | ArrayLike = 8,
        *,
        init: str = "auto",
        constraint: str | None = "size",
        lower_bound: float | str = "auto",
        entropy_weight: float = 0.12,
        over_clusterings: ArrayLike | str = "auto",
        label_share: float = 0.2,
        temperature: float = 0.05,
        neighbor_weight: float = 10.0,
        refine: bool = False,
        fine_tune: bool | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        views: Views = "auto",
        pretraining: str | Pretrainer | None = None,
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        center_learning_rate: float | str = "auto",
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
        self.init = init
        self.constraint = constraint
        self.lower_bound = lower_bound
        self.entropy_weight = entropy_weight
        self.over_clusterings = over_clusterings
        self.label_share = label_share
        self.temperature = temperature
        self.neighbor_weight = neighbor_weight
        self.refine = refine
        self.fine_tune = fine_tune
        self.backbone = backbone
        self.pretrained = pretrained
        self.views = views
        self.pretraining = pretraining
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.center_learning_rate = center_learning_rate
        self.calibrate = calibrate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def choose(self, n_clusters: int) -> Self:
        """Return a fitted copy that answers with another of the numbers of clusters of the fit.

        Parameters
        ----------
        n_clusters : int
            One of the numbers that the estimator was fitted with.

        Returns
        -------
        other : object
            With the labels, probabilities and all else of that number's best head.

        Raises
        ------
        ValueError
            If the fit had no such number.
        TypeError
            If it is no integer.
        """
        check_is_fitted(self)
        check_scalar(n_clusters, "n_clusters", Integral)
        if n_clusters not in self._by_count:
            raise ValueError(
                f"n_clusters={n_clusters} is none of the numbers of this fit: "
                f"{sorted(self._by_count)}. Fit with n_clusters=[...] to have more to choose from, "
                "or cut(...) the model."
            )
        other = self._separate_copy()
        other._objective.select(self._best_heads[n_clusters])
        other.__dict__.update(self._by_count[n_clusters])
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all heads as CPU tensors."""
        state = super().__getstate__()
        if "_by_count" in state:
            state["_by_count"] = {
                k: {**answer, "_confidence": on_cpu(answer["_confidence"])}
                for k, answer in state["_by_count"].items()
            }
        return state

    def _counts(self) -> list[int]:
        """Return the numbers of clusters to choose from."""
        if self._seeks_number():
            return [super()._most_clusters()]
        if isinstance(self.n_clusters, Integral):
            return [int(self.n_clusters)]
        return positive_integers("n_clusters", self.n_clusters)

    def _most_clusters(self) -> int:
        return max(self._counts())

    def _count_outputs(self, objective: Any) -> int:
        n_clusters: int = objective.selected_head.n_clusters
        return n_clusters

    def _arrives_trained(self) -> bool:
        return self._is_said_to_arrive_trained()

    def _projector(self) -> MakeProjector:
        return (
            self._pretrainer() or self._default_pretraining()
        )._make_projector  # the stage itself teaches it

    def _round(self) -> list[str]:
        phases = super()._round()
        if self.calibrate and not self._seeks_number():  # once for each number of clusters
            phases += ["calibration"] * (len(self._counts()) - 1)
        return phases

    def _own_phases(self) -> list[str]:
        return ["clustering", "refinement"] if self.refine else ["clustering"]

    def _starts(self) -> int:
        """Return the number of heads for each number of clusters."""
        several = {} if self._sees_images() else {"auto": 3, "merged": 2}
        return several.get(self.init, 1)

    def _count_over_clusters(self) -> list[int]:
        """Return the numbers of clusters of the further heads."""
        multiples = self._resolve(self.over_clusterings, features=[4], images=range(2, 11))
        most = self._most_clusters()
        multiples = positive_integers("over_clusterings", multiples)
        return sorted({n_fine_clusters(most, self._n_sized, multiple) for multiple in multiples})

    def _make_objective(self, model: ClusterModel) -> DiscriminationObjective:
        objective = DiscriminationObjective(
            model,
            n_clusters=[k for k in self._counts() for _ in range(self._starts())],
            n_over_clusters=self._count_over_clusters(),
            constraint=self.constraint,
            lower_bound=self._resolve(self.lower_bound, features=0.3, images=0.9),
            entropy_weight=self.entropy_weight,
            label_share=self.label_share,
            temperature=self.temperature,
            neighbor_weight=self.neighbor_weight,
            neighbor_temperature=self._by_kind(
                features=FEATURE_TEMPERATURE, images=IMAGE_TEMPERATURE
            ),
        )
        if self._goes_on():
            # Of other numbers of clusters there may be fewer; loading the heads will tell.
            objective.select(min(self._objective.selected, objective.n_candidates - 1))
        return objective

    def _adopt(self, networks: DiscriminationObjective) -> None:
        n_outputs = self.n_clusters_ if self._groups is None else len(self._groups)
        if n_outputs not in self._best_heads:
            raise ValueError(f"_best_heads has none for {n_outputs} clusters")
        networks.select(self._best_heads[n_outputs])
        super()._adopt(networks)
        for k, answer in self._by_count.items():
            if set(answer) != set(self._ANSWER):
                raise ValueError(f"_by_count has {sorted(answer)} for {k} clusters")
            if networks.heads[self._best_heads[k]].n_clusters != k:
                raise ValueError(f"_best_heads names a head of another number of clusters for {k}")
            self._check_answer(answer, k)

    def _start(
        self,
        objective: DiscriminationObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Start the heads from partitions of the embedding, as little as it has learned yet."""
        init = "random" if self.init == "auto" and self._sees_images() else self.init
        if init == "random":
            return
        generator = trainer.generator("partitions")
        embedding = self._embed(objective, source, views.rows)
        neighbors = views.neighbors if isinstance(views, NeighborViews) else None
        fine = [
            kmeans(
                embedding, head.n_clusters, generator=generator, n_init=1, max_iter=FINE_ITERATIONS
            )
            for head in objective.heads[objective.n_candidates :]
        ]
        partitions: list[Tensor] = []
        for k in self._counts():
            candidates = candidate_partitions(
                embedding, fine[-1], neighbors, k, init, generator, n_init=1
            )
            partitions += candidates.values()
        partitions += [run.labels for run in fine]
        for head, labels in zip(objective.heads, partitions, strict=True):
            head.start_from(embedding, trainer.agreed(labels))

    def _train(
        self,
        objective: DiscriminationObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Run the one stage, and the refinement if there is to be one."""
        self.selected_stage_ = "clustering"
        recipe = self._by_kind(features=FEATURE_TRAINING, images=IMAGE_TRAINING)
        n = len(views)
        batch_size, epochs, rate = self._plan(recipe, n)
        center_rate = self._resolve(
            self.center_learning_rate, features=FEATURE_CENTER_RATE, images=IMAGE_CENTER_RATE
        )
        with report.phase("clustering", epochs, lambda: self._fitted_attributes(objective)) as hook:
            trainer.run(
                Phase(
                    name="clustering",
                    objective=objective,
                    views=IndexedViews(views),
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=objective.parameter_groups(rate, center_rate),
                    optimizer=self._by_kind(features=torch.optim.AdamW, images=SGD),
                    schedule=[
                        self._by_kind(features=one_cycle, images=_encoder_schedule(epochs)),
                        constant,
                    ],
                    hook=hook,
                )
            )
        if self.refine and not trainer.interrupted:
            self._refine(objective, source, views, trainer, report)

    def _settle(
        self,
        objective: DiscriminationObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
    ) -> None:
        """Start the heads anew from a partition made without them, if the best is no better.

        Of several numbers of clusters one encoder could not learn all partitions.
        """
        several = len(self._counts()) > 1
        if self.init != "auto" or several or not self._may_go_back(trainer):
            return
        ground = self._ground(views, objective, source)
        if ground is None:
            return
        scores = [judgement.score for judgement in self._judge(objective, source)]
        best = objective.candidates[int(trainer.agreed(torch.tensor(scores)).argmax())]
        labels = most_likely(best.head, self._embed(objective, source, ground.rows))
        kept = self._protected(labels, ground, objective, source, trainer)
        if kept is None:
            return
        self.selected_stage_, found = kept
        generator = trainer.generator("going back")
        embedding = self._embed(objective, source, ground.rows)
        objective.remember_samples(len(ground.rows))  # which may be fewer than were trained on
        for head in objective.candidates:
            head.start_from(embedding, found)
            if teach_head(head.head, embedding, found, HEAD_FIT, trainer):
                continue
            # Cosines over a fixed temperature cannot say it yet: the encoder learns it with them.
            teach_together(objective.model.embedding, head.head, ground.inputs, found, trainer)
            embedding = self._embed(objective, source, ground.rows)
        for head in objective.heads[objective.n_candidates :]:
            fine = kmeans(embedding, head.n_clusters, generator=generator, n_init=1)
            head.start_from(embedding, trainer.agreed(fine.labels))

    def _refine(
        self,
        objective: DiscriminationObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Train on confident predictions; go back if that did not help."""
        n = len(views)
        recipe = self._by_kind(features=FEATURE_REFINEMENT, images=IMAGE_REFINEMENT)
        batch_size = min(recipe.batch_size, n)
        epochs = recipe.epochs(n, batch_size)
        before = self._judge(objective, source)
        state = copy.deepcopy(objective.state_dict())
        refinement = RefinementObjective(objective)
        with (
            report.phase("refinement", epochs, lambda: self._fitted_attributes(objective)) as hook,
            suppress(DivergenceError),  # a refinement that fails is one that did not help
        ):
            trainer.run(
                Phase(
                    name="refinement",
                    objective=refinement,
                    views=views,
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=[
                        {"params": list(refinement.parameters()), "lr": recipe.learning_rate}
                    ],
                    optimizer=torch.optim.Adam,
                    schedule=cosine,
                    hook=hook,
                    resumable=False,
                )
            )
        helped = torch.tensor(is_better(self._judge(objective, source), before))
        if trainer.agreed(helped):
            self.selected_stage_ = "refinement"
        else:
            objective.load_state_dict(state)

    def _judge(self, objective: DiscriminationObjective, source: Source) -> list[Judgement]:
        """Return how well each head to choose from separates the samples."""
        rows = judged_rows(len(source))
        embedding = self._embed(objective, source, rows)
        images = self._sees_images()  # pixels are no measure
        X = embedding if images else prepared_rows(objective.model.prepare, source, rows)
        return judge_heads(objective.candidates, embedding, X)

    def _labels_to_judge(
        self, state: Mapping[str, Any], first: Mapping[str, Any]
    ) -> NDArray[np.int64]:
        """Return those for the number of clusters that was best first."""
        labels: NDArray[np.int64] = state["_by_count"][len(first["cluster_sizes_"])]["labels_"]
        return labels

    def _answers(
        self, objective: DiscriminationObjective, source: Source, trainer: Trainer
    ) -> Iterator[None]:
        """Yield for the best head of each number of clusters, the best of all first."""
        objective.forget_samples()
        judged = [judgement.score for judgement in self._judge(objective, source)]
        scores = trainer.agreed(torch.tensor(judged, dtype=torch.float64)).tolist()
        best: dict[int, int] = {}
        for number, head in enumerate(objective.candidates):
            k = head.n_clusters
            if k not in best or scores[number] > scores[best[k]]:
                best[k] = number
        self.head_scores_ = {k: scores[number] for k, number in best.items()}
        self._best_heads = best
        self._by_count: dict[int, dict[str, Any]] = {}
        ranking = sorted(best, key=lambda k: -scores[best[k]])
        for k in ranking:
            objective.select(best[k])
            yield
            self._by_count[k] = {name: getattr(self, name) for name in self._ANSWER}
        objective.select(best[ranking[0]])
        self.__dict__.update(self._by_count[ranking[0]])


def _encoder_schedule(epochs: int) -> Schedule:
    """Let the centres find their places for an epoch, then warm up, as in the paper."""
    rest = 1 / max(epochs, 2)
    return delayed(rest, min(WARMUP_EPOCHS * rest, 0.25 + rest))
