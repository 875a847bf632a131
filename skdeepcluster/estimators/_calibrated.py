"""CalibratedDeepClustering: clusters with confidences that can be trusted."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skdeepcluster.base import (
    CallbackReport,
    DeepClusterer,
    PairedViews,
    Pretrainer,
    Recipe,
    TwoStageClusterer,
    Views,
    integer,
    one_of,
    real,
)
from skdeepcluster.data import (
    AugmentedViews,
    Source,
    StrongImageViews,
    unchanged,
)
from skdeepcluster.networks import ClusterModel, EmbeddingOpinion
from skdeepcluster.objectives import CalibratedObjective
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training import Trainer

# Units of the heads' hidden layer, as in the paper, as long as there are so many samples.
N_HIDDEN = 512


class CalibratedDeepClustering(TwoStageClusterer):
    """Cluster with two heads: one finds the clusters, the other how far to trust them.

    The method of Y. Jia, J. Cheng, H. Liu and J. Hou, "Towards calibrated deep clustering network"
    (ICLR, 2025).

    The embedding of the data is divided into small regions. The calibration head learns, for every
    sample, the mean prediction of the clustering head in the sample's region: where neighbours
    disagree, it is unsure. Its confidences decide which samples the clustering head learns from,
    and how many: of a cluster's candidates as many as the sum of their confidences says are right.

    On feature arrays a strong view is one of a sample's nearest neighbours, and a short
    contrastive pretraining of a small encoder comes first; what the heads learn after their start
    changes next to nothing there, see the user guide. On images it is so, too, unless the encoder
    is fine-tuned: then it is a random crop, changed by four random operations, with a square cut
    out.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters K. "auto" learns 30, or one for every four samples if these are fewer,
        and merges them to the number with the best of `cut_scores_`. No score finds the number
        reliably: see the user guide.
    init : {"auto", "kmeans", "merged", "random"}, default="auto"
        Partition of the embedding from which the heads start: prototypes of the data in the hidden
        layer, and of the clusters in the output layer. "kmeans" is k-means; "merged" merges small
        clusters, which suits unequal sizes; "auto" takes, on feature arrays, the one whose clusters
        are best separated, or k-means on the features as they came, as in :class:`MiniClustering`,
        and on images what it takes there. "random" leaves the heads as they are, an ablation of
        the paper.
    n_regions : int or "auto", default="auto"
        Number of regions of the data set, at least `n_clusters`. "auto" is four for each cluster,
        as long as five samples are left for each. The paper chose 40 to 1000 by data set.
    selection : {"proportional", "balanced"}, default="proportional"
        Expected cluster sizes. They bound the number of samples each cluster may propose as
        pseudo-labels, and the mean prediction of the calibration head is drawn to them. "balanced"
        expects equal sizes, as the paper; "proportional" those of the start.
    confidence_threshold : float or None, default=None
        Select every sample surer than this instead; an ablation of the paper.
    entropy_weight : float, default=1.0
        Weight of the term that draws the mean prediction of the calibration head to the expected
        cluster sizes (w_en); 0 turns it off. The paper's value.
    calibration_head : bool, default=True
        False leaves the clustering head to judge itself; an ablation of the paper.
    stop_gradient : bool, default=True
        False lets the calibration head's loss reach the encoder; an ablation of the paper. It makes
        no difference where the encoder is not trained.
    fine_tune : bool or "auto", default="auto"
        Whether the encoder is trained along with the heads. "auto" is True for images on an
        accelerator, as in the paper. Where the encoder is not trained along, neighbours are the
        other views. By a backbone that arrives trained (`pretrained`, a folder or a module) every
        image is embedded once, by published weights enlarged to 128 x 128 pixels, and clusters
        are learned from the features as from an array. True, which "auto" is on an accelerator,
        then fine-tunes its parameters that have `requires_grad`, by contrast, embeds and clusters
        once more, and keeps what is better separated (`selected_stage_`). To train it by the heads,
        as published, pass a `pretraining`, of no epochs if need be.
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
    pretraining : "auto", transformer or None, default="auto"
        What teaches the encoder first: a transformer of :mod:`skdeepcluster.pretraining`, of which
        the method's own parameters, `max_epochs`, `batch_size` and `learning_rate`
        are used (with ``pretraining=SimCLR()`` also ``pretraining__max_epochs`` in a grid), while
        networks, device and seed are the clusterer's. "auto" is ``SimCLR()``: neighbours for
        feature arrays, and for features of a backbone that arrives trained, augmentations for
        images. None does not pretrain; feature arrays, and features of such a backbone, are then
        clustered as they are.
    max_epochs : int or "auto", default="auto"
        Passes over the data in the clustering phase; 0 keeps the start. "auto" is 10 passes for
        images whose encoder is trained along (the paper: 100), else about 100 steps, fewer for few
        samples. The last epoch is kept, whatever its result.
    batch_size : int or "auto", default="auto"
        Samples per step of the clustering phase. "auto" is 1000, the paper's, for images whose
        encoder is trained along, else 256.
    learning_rate : float or "auto", default="auto"
        Of Adam for the heads in the clustering phase; the encoder's is half of it. "auto" is 1e-4,
        constant (the paper's), for images whose encoder is trained along, else 0.001, falling to
        zero.
    calibrate : bool, default=True
        Whether to learn, after the fit, how far the labels can be trusted: ``predict_proba`` then
        gives the share of independent partitions that agree. False gives the probabilities of the
        paper's calibration head, or of the clustering head without one.
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
        Number of regions over how many of them a cluster occupies: small for large classes, as in
        MiniClustering.
    merge_tree_ : ndarray of shape (`n_clusters_` - 1, 4)
        In which order clusters become one, in the format of SciPy's linkage: what `cut` goes along.
    expected_accuracy_ : float
        Share of the labels that are right, as far as independent partitions can tell: the mean of
        the largest probabilities of the training samples. Not with `calibrate=False`.
    expected_accuracy_interval_ : tuple of (float, float)
        Low and high bound of that share. On tasks that its width was not chosen on, it held the
        true one nine times in ten or more often; images were not among them.
    history_ : list of dict
        One record per epoch: phase, epoch, epochs planned, batch size, losses, share of selected
        samples, learning rate, seconds.
    n_iter_ : int
        Epochs of the clustering phase.
    n_skipped_steps_ : int
        Batches of which nothing was selected and which changed nothing, because there was no
        calibration head to learn from them.
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
    sklearn.mixture.GaussianMixture : What to compare confidences with.

    Notes
    -----
    Regions are those of one k-means on the whole data set; where the encoder is trained, they
    follow it by one pass of k-means per batch. The paper clusters each batch anew with ten runs of
    k-means, most of the time of its training step.

    References
    ----------
    Y. Jia, J. Cheng, H. Liu, J. Hou. "Towards calibrated deep clustering network." International
    Conference on Learning Representations (ICLR), 2025. arXiv:2403.02998.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import CalibratedDeepClustering
    >>> X, _ = make_blobs([300, 40, 40], n_features=6, random_state=1)
    >>> model = CalibratedDeepClustering(n_clusters=3, random_state=0).fit(X)
    >>> sorted(model.cluster_sizes_.tolist())
    [40, 40, 300]
    >>> confidence = model.predict_proba(X).max(axis=1)
    >>> bool(confidence.min() > 1 / 3)
    True
    """

    _stops_learning = True
    _default_pretraining = SimCLR
    _feature_training = Recipe(batch_size=256, learning_rate=1e-3, max_steps=100)
    _image_training = Recipe(batch_size=1000, learning_rate=1e-4, image_epochs=10)
    _head_fit = Recipe(batch_size=512, learning_rate=1e-2, max_steps=60)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepClusterer._parameter_constraints,
        "init": [one_of("auto", "kmeans", "merged", "random")],
        "n_regions": [one_of("auto"), integer(1)],
        "selection": [one_of("proportional", "balanced")],
        "confidence_threshold": [real(0, 1, "left"), None],
        "entropy_weight": [real(0, None, "left")],
        "calibration_head": ["boolean"],
        "stop_gradient": ["boolean"],
    }

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        init: str = "auto",
        n_regions: int | str = "auto",
        selection: str = "proportional",
        confidence_threshold: float | None = None,
        entropy_weight: float = 1.0,
        calibration_head: bool = True,
        stop_gradient: bool = True,
        fine_tune: bool | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        views: Views = "auto",
        pretraining: str | Pretrainer | None = "auto",
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
        self.init = init
        self.n_regions = n_regions
        self.selection = selection
        self.confidence_threshold = confidence_threshold
        self.entropy_weight = entropy_weight
        self.calibration_head = calibration_head
        self.stop_gradient = stop_gradient
        self.fine_tune = fine_tune
        self.backbone = backbone
        self.pretrained = pretrained
        self.views = views
        self.pretraining = pretraining
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

    def _make_objective(self, model: ClusterModel) -> CalibratedObjective:
        return CalibratedObjective(
            model,
            n_clusters=self._most_clusters(),
            n_regions=self._count_parts("n_regions"),
            n_hidden=min(N_HIDDEN, self._n_sized),
            proportional=self.selection == "proportional",
            confidence_threshold=self.confidence_threshold,
            entropy_weight=self.entropy_weight,
            calibration_head=self.calibration_head,
            stop_gradient=self.stop_gradient,
            fine_tune=self._fine_tunes(),
        )

    def _own_phases(self) -> list[str]:
        return ["clustering"] if self.init == "random" else super()._own_phases()

    def _start(
        self,
        objective: CalibratedObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Start both heads equal."""
        super()._start(objective, source, views, trainer, report)
        objective.copy_head()

    def _start_anew(
        self, objective: CalibratedObjective, embedding: Tensor, labels: Tensor, trainer: Trainer
    ) -> None:
        """Start both heads equal."""
        super()._start_anew(objective, embedding, labels, trainer)
        objective.copy_head()

    def _opinion_on_outputs(self) -> nn.Module | None:
        opinion = super()._opinion_on_outputs()
        if opinion is None and self._objective.calibration_head is not None:
            opinion = EmbeddingOpinion(self._objective.calibration_head)
        return opinion

    def _training_views(self, views: PairedViews) -> PairedViews:
        """Return, for images, a clean, a strong and a weak view."""
        if not isinstance(views, AugmentedViews):
            return views
        strong = StrongImageViews()
        return AugmentedViews(views.source, views.prepare, [unchanged, strong, strong.weak])
