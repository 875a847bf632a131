"""MiniClustering: deep clustering of long-tailed data."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from skdeepcluster.base import (
    DeepClusterer,
    Pretrainer,
    Recipe,
    TwoStageClusterer,
    Views,
    integer,
    one_of,
    real,
)
from skdeepcluster.networks import ClusterModel
from skdeepcluster.objectives import MiniObjective
from skdeepcluster.pretraining import SimCLR

# Length of the heads' weights at the start. The paper's 100 makes predictions near certain, which
# leaves nothing to learn from the moderate differences between neighbours.
FEATURE_LOGIT_SCALE = 30.0
IMAGE_LOGIT_SCALE = 100.0


class MiniClustering(TwoStageClusterer):
    """Cluster long-tailed data: a fine partition tells large classes from small ones.

    The method of "Mini-cluster guided long-tailed deep clustering" (ICLR, 2026), named
    MiniClustering there.

    An encoder maps samples to the unit sphere, where two heads divide them: a target head into
    `n_clusters` clusters and a mini head into many more mini-clusters. Confident predictions for
    one view of a sample are the training targets of the other view. A cluster that occupies many
    mini-clusters is a large class and gets a small weight, so that small classes are not
    swallowed.

    On feature arrays the two views are a sample and one of its nearest neighbours, and a short
    contrastive pretraining of a small encoder comes first; what the heads learn after their start
    changes next to nothing there, see the user guide. On images the views are crops, mirror images,
    colour changes and other images nearby, of all these what leaves the images at hand what they
    are (`views`).

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters K. "auto" learns 30, or one for every four samples if these are fewer,
        and merges them to the number with the best of `cut_scores_`. No score finds the number
        reliably: see the user guide.
    init : {"auto", "kmeans", "merged"}, default="auto"
        Partition from which the heads start. "kmeans" is k-means on the embedding; it cuts large
        classes up and fuses small ones. "merged" merges the mini-clusters by average linkage, once
        by the cosine of their centres and once by the neighbours that they share. "auto" takes, on
        feature arrays, whichever of these separates its clusters best, or k-means on the features
        as they came, unless another is clearly better; and where training ends no better than
        that, it is taken back. On images "auto" is the better separated of k-means and the merger
        by centres, and k-means, as in the paper, if the encoder is fine-tuned.
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
        turns it off. "auto" is 0.2, the paper's value, for images whose encoder is trained along,
        else 0: on feature arrays it moved the median ARI by at most .002 and can tear large, clear
        clusters apart.
    marginal_weight : float or "auto", default="auto"
        Weight of a term that keeps the cluster sizes near those of the start; 0 turns it off. It is
        not in the paper. "auto" is 0 for images whose encoder is trained along, else 1: on feature
        arrays heads that learn fast lose many clusters without it (doc/methods/mini_clustering.md).
    reweight : bool, default=True
        Whether the class weights act on the target head's self-training.
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
        images whose encoder is trained along (the paper: 200), else about 100 steps, fewer for
        few samples.
    batch_size : int or "auto", default="auto"
        Samples per step of the clustering phase. "auto" is 512, the paper's, for images whose
        encoder is trained along, else 256; on feature arrays more made no difference.
    learning_rate : float or "auto", default="auto"
        Of Adam in the clustering phase. "auto" is 1e-5, constant (the paper's), for images whose
        encoder is trained along, else 0.01, falling to zero.
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
        The weights w, M over the number of mini-clusters that a cluster occupies: small for large
        classes.
    merge_tree_ : ndarray of shape (`n_clusters_` - 1, 4)
        In which order clusters become one, in the format of SciPy's linkage: what `cut` goes along.
    expected_accuracy_ : float
        Share of the labels that are right, as far as independent partitions can tell: the mean of
        the largest probabilities of the training samples. Not with `calibrate=False`.
    expected_accuracy_interval_ : tuple of (float, float)
        Low and high bound of that share. On tasks that its width was not chosen on, it held the
        true one nine times in ten or more often; images were not among them.
    history_ : list of dict
        One record per epoch: phase, epoch, epochs planned, batch size, losses, share of confident
        samples, learning rate, seconds.
    n_iter_ : int
        Epochs of the clustering phase.
    n_skipped_steps_ : int
        Batches without a confident sample, which changed no weight.
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
    sklearn.cluster.KMeans : What to compare with on the same array.

    Notes
    -----
    The class weights come from a running table of all samples, never from one batch, which may hold
    fewer samples than there are clusters. Batches without a confident sample change no weight.

    On the feature arrays measured so far the gain over k-means comes from the pretraining and the
    start; there the paper's terms neither help nor harm (``benchmarks/features.py --ablation``).

    References
    ----------
    "Mini-cluster guided long-tailed deep clustering." International Conference on Learning
    Representations (ICLR), 2026. https://openreview.net/forum?id=3JlljaiQwR lists its authors.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import MiniClustering
    >>> X, _ = make_blobs([300, 40, 40], n_features=6, random_state=1)
    >>> model = MiniClustering(n_clusters=3, random_state=0).fit(X)
    >>> sorted(model.cluster_sizes_.tolist())
    [40, 40, 300]
    >>> model.predict_proba(X[:5]).shape
    (5, 3)
    """

    _stops_learning = True
    _default_pretraining = SimCLR
    _feature_training = Recipe(batch_size=256, learning_rate=1e-2, max_steps=100)
    _image_training = Recipe(batch_size=512, learning_rate=1e-5, image_epochs=10)
    _head_fit = Recipe(batch_size=512, learning_rate=5e-2, max_steps=60)
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
    }

    def __init__(
        self,
        n_clusters: int | str = 8,
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

    def _own_phases(self) -> list[str]:
        # A head that starts from the centres of k-means is exact already.
        return ["clustering"] if self._learns_from_images() else super()._own_phases()

    def _make_objective(self, model: ClusterModel) -> MiniObjective:
        return MiniObjective(
            model,
            n_clusters=self._most_clusters(),
            n_mini_clusters=self._count_parts("n_mini_clusters"),
            confidence_threshold=self.confidence_threshold,
            occupancy_threshold=self.occupancy_threshold,
            mini_weight=self.mini_weight,
            alignment_weight=self._resolve(self.alignment_weight, features=0.0, images=0.2),
            marginal_weight=self._resolve(self.marginal_weight, features=1.0, images=0.0),
            reweight=self.reweight,
            fine_tune=self._fine_tunes(),
            neighbor_views=not self._learns_from_images(),
            logit_scale=self._by_kind(features=FEATURE_LOGIT_SCALE, images=IMAGE_LOGIT_SCALE),
        )
