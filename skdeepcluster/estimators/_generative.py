"""GenerativeCalibrationClustering: generated samples, equally many of each cluster, take part."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skdeepcluster.base import (
    GRAPH_ROWS,
    CallbackReport,
    DeepClusterer,
    PairedViews,
    Pretrainer,
    Recipe,
    TwoStageClusterer,
    Views,
    given,
    integer,
    n_fine_clusters,
    one_of,
    real,
)
from skdeepcluster.data import AugmentedViews, IndexedViews, SelectedSource, Source, unchanged
from skdeepcluster.networks import ClusterModel, build_denoiser, most_likely
from skdeepcluster.numerics import kmeans
from skdeepcluster.objectives import GenerationObjective, GenerativeObjective
from skdeepcluster.pretraining import SimCLR
from skdeepcluster.training import (
    MAX_SEED,
    PeriodicHook,
    Phase,
    Trainer,
    constant,
    cosine,
    one_cycle,
    undisturbed,
)

FEATURE_GENERATION = Recipe(
    batch_size=128, learning_rate=5e-3, max_steps=300, samples_per_step=8 / 3
)
IMAGE_GENERATION = Recipe(batch_size=128, learning_rate=1e-3, image_epochs=20)
# Generated samples to draw from in a round, where there are as many real ones.
MOST_GENERATED = 1000
# Pixels of the sides of images that a small U-Net can be trusted with.
LARGEST_GENERATED = 64
# Of a round; with fewer, generating samples would take longer than learning from them.
FEWEST_STEPS = 10


class GenerativeCalibrationClustering(TwoStageClusterer):
    """Cluster with generated samples, equally many of each cluster; a reconstruction of GCC.

    The method of H. Xia, H. Huang and Z. Ding, "GCC: generative calibration clustering" (2024), as
    far as it could be reconstructed: the paper's equations were not available to us.

    Pretraining, a start and a head as :class:`MiniClustering`'s. Then a diffusion model learns to
    generate samples of a given cluster. Encoder and head are trained on real and generated samples
    together: both are to agree within a cluster. Small clusters have as many generated samples as
    large ones, so training does not forget them. In every round samples are labelled anew, the
    generator is trained on, and samples are generated anew. :meth:`sample` gives more of them.

    It is made from the paper's description; see the user guide for what was inferred. On feature
    arrays the training adds nothing to its start on average; generated samples keep small clusters
    where there are many.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters K. "auto" learns 30, or one for every four samples if these are fewer,
        and merges them to the number with the best of `cut_scores_`. No score finds the number
        reliably: see the user guide.
    init : {"auto", "kmeans", "merged"}, default="auto"
        Partition from which the head starts; see :class:`MiniClustering`.
    generated_ratio : float, default=1.0
        Generated samples for each real one in a batch, at most 10; 0 is the same method without a
        generator.
    n_rounds : int, default=3
        How often samples are labelled and generated anew: at most once per epoch, and less often
        where that would leave fewer than ten steps between.
    confidence_threshold : float, default=0.9
        What is predicted more surely for a sample, and predicted for its neighbour too, is learned.
    size_weight : float, default=1.0
        Weight of a term that keeps the cluster sizes near those of the start. It is not in the
        paper.
    generated_weight : float, default=1.0
        Weight of the cross-entropy of generated samples on the cluster they were generated for.
    discrepancy_weight : float or "auto", default="auto"
        Weight of the class-wise discrepancy of real and generated samples (alpha). "auto" is 1 for
        images and 0 for feature arrays, where it changed nothing and cost a fifth of the time.
    matching_weight : float, default=1.0
        Weight of the distance of class-wise means (beta).
    metric_weight : float, default=0.1
        Weight of the metric learning on real and generated samples (c).
    reliability_weighting : bool, default=True
        Whether generated samples count in the metric learning by the probability that the head
        gives their cluster.
    guidance : float, default=1.5
        How far generated samples go from what is typical of all to what is typical of their
        cluster: 1 is the estimate of the generator, more exaggerates (classifier-free guidance).
    fine_tune : bool or "auto", default="auto"
        Whether a backbone that arrives trained (`pretrained`, a folder or a module) goes on
        learning. By such a one every image is embedded once, by published weights enlarged to 128
        x 128 pixels, and clusters are learned from the features as from an array. True, which
        "auto" is on an accelerator, then fine-tunes its parameters that have `requires_grad`, by
        contrast, embeds and clusters once more, and keeps what is better separated
        (`selected_stage_`). Without trained weights, or with a `pretraining` of your own, the
        backbone always learns.
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
    generation_epochs : int or "auto", default="auto"
        Passes over the data that the generator is trained for before it is used; it goes on to
        learn later. "auto" is about 300 steps for feature arrays, fewer for small ones, and 20
        passes for images.
    max_epochs : int or "auto", default="auto"
        Passes over the data in which encoder and head are trained; 0 keeps the start. "auto" is
        about 150 steps for feature arrays, fewer for small ones, and 10 passes for images.
    batch_size : int or "auto", default="auto"
        Real samples per step; "auto" is 256 (128 while the generator is trained alone).
    learning_rate : float or "auto", default="auto"
        Of the head; the encoder's is .3 of it. "auto" is 0.001 for feature arrays and 0.0001 for
        images, of Adam, along a cosine.
    generator_learning_rate : float or "auto", default="auto"
        Of the generator. "auto" is 0.005 for feature arrays and 0.001 for images; constant while
        it learns alone, then through one cycle.
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
        As MiniClustering's, from a partition of the embedding by k-means into four times as many
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
        One record per epoch: phase, epoch, epochs planned, batch size, losses, mean reliability of
        generated samples, learning rate, seconds.
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
    MiniClustering : For long-tailed data, too, in a fraction of the time.
    sklearn.mixture.GaussianMixture : Generates samples of its components.

    Notes
    -----
    Of feature arrays with more than 32,768 rows as many random ones are trained on; all get labels.

    References
    ----------
    H. Xia, H. Huang, Z. Ding. "GCC: generative calibration clustering." 2024. arXiv:2404.09115.

    J. Ho, A. Jain, P. Abbeel. "Denoising diffusion probabilistic models." Advances in Neural
    Information Processing Systems (NeurIPS), 2020.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import GenerativeCalibrationClustering
    >>> X, _ = make_blobs([300, 40, 40], n_features=6, random_state=1)
    >>> model = GenerativeCalibrationClustering(n_clusters=3, random_state=0).fit(X)
    >>> sorted(model.cluster_sizes_.tolist())
    [40, 40, 300]
    >>> model.sample(5, cluster=1).shape
    (5, 6)
    """

    _default_pretraining = SimCLR
    _feature_training = Recipe(batch_size=256, learning_rate=1e-3, max_steps=150)
    _image_training = Recipe(batch_size=256, learning_rate=1e-4, image_epochs=10)
    _head_fit = Recipe(batch_size=512, learning_rate=1e-2, max_steps=60)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **DeepClusterer._parameter_constraints,
        "init": [one_of("auto", "kmeans", "merged")],
        "generated_ratio": [real(0, 10, "both")],
        "n_rounds": [integer(1)],
        "confidence_threshold": [real(0, 1, "left")],
        "size_weight": [real(0, None, "left")],
        "generated_weight": [real(0, None, "left")],
        "discrepancy_weight": [one_of("auto"), real(0, None, "left")],
        "matching_weight": [real(0, None, "left")],
        "metric_weight": [real(0, None, "left")],
        "reliability_weighting": ["boolean"],
        "guidance": [real(0, None, "left")],
        "generation_epochs": [one_of("auto"), integer(1)],
        "generator_learning_rate": [one_of("auto"), real(0, None, "neither")],
    }

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        init: str = "auto",
        generated_ratio: float = 1.0,
        n_rounds: int = 3,
        confidence_threshold: float = 0.9,
        size_weight: float = 1.0,
        generated_weight: float = 1.0,
        discrepancy_weight: float | str = "auto",
        matching_weight: float = 1.0,
        metric_weight: float = 0.1,
        reliability_weighting: bool = True,
        guidance: float = 1.5,
        fine_tune: bool | str = "auto",
        backbone: str | os.PathLike[str] | nn.Module = "auto",
        pretrained: bool | str | os.PathLike[str] = False,
        views: Views = "auto",
        pretraining: str | Pretrainer | None = "auto",
        generation_epochs: int | str = "auto",
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        generator_learning_rate: float | str = "auto",
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
        self.generated_ratio = generated_ratio
        self.n_rounds = n_rounds
        self.confidence_threshold = confidence_threshold
        self.size_weight = size_weight
        self.generated_weight = generated_weight
        self.discrepancy_weight = discrepancy_weight
        self.matching_weight = matching_weight
        self.metric_weight = metric_weight
        self.reliability_weighting = reliability_weighting
        self.guidance = guidance
        self.fine_tune = fine_tune
        self.backbone = backbone
        self.pretrained = pretrained
        self.views = views
        self.pretraining = pretraining
        self.generation_epochs = generation_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.generator_learning_rate = generator_learning_rate
        self.calibrate = calibrate
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @undisturbed()
    def sample(
        self,
        n_samples: int = 1,
        *,
        cluster: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[Any]:
        """Return generated samples.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        cluster : int, optional
            Of which cluster. None gives equally many of each (one more of the first ones, if that
            does not come out even), sorted by cluster.
        random_state : int, RandomState instance or None, default=None
            Source of the noise they are made of.

        Returns
        -------
        samples : ndarray of shape (n_samples, n_features) or (n_samples, channels, height, width)
            In the units of X: features as float64, as scikit-learn's mixtures give them, images
            as float32. Of a backbone that was used as it came its features are generated.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If there is no such cluster, or no generator because of ``generated_ratio=0``.
        """
        check_is_fitted(self)
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        merged = self._groups is not None
        n_clusters = len(self.cluster_sizes_) if merged else self._n_clusters()
        if self._objective.diffusion is None:
            raise ValueError(
                "A model fitted with generated_ratio=0 has no generator. Fit with another value."
            )
        if cluster is not None:
            check_scalar(cluster, "cluster", Integral, min_val=0, max_val=n_clusters - 1)
            labels = torch.full((n_samples,), int(cluster))
        else:
            labels = (torch.arange(n_samples) % n_clusters).sort().values
        prepare: Any = self._model.prepare
        device = self._device_of_answers()
        generator = torch.Generator()
        generator.manual_seed(int(check_random_state(random_state).randint(MAX_SEED)))
        noise = torch.randn(n_samples, *self._seen_shape, generator=generator)
        objective = self._objective.to(device)  # predict moves no more of it than it needs
        outputs = self._outputs_of(labels).to(device)
        made = objective.generate(noise.to(device), outputs).cpu()
        made = copy.deepcopy(prepare).cpu().inverse(made if made.ndim > 2 else made.double())
        samples: NDArray[Any] = made.numpy()
        return samples

    def _fine_tunes(self) -> bool:
        """Return True: the encoder always learns, for a part of the objective acts on it alone."""
        return True

    def _own_phases(self) -> list[str]:
        generates = self.generated_ratio and not self._goes_on()
        return ["start", *(["generation"] if generates else []), "clustering"]

    def _check_enough_samples(self, source: Source) -> None:
        super()._check_enough_samples(source)
        if self.generated_ratio and max(self._seen_shape[1:], default=0) > LARGEST_GENERATED:
            raise ValueError(
                f"generated_ratio={self.generated_ratio} asks for generated images of shape "
                f"{self._seen_shape}; the generator is made for up to {LARGEST_GENERATED} pixels. "
                "Use smaller images, a pretrained backbone, whose features are generated then, or "
                "generated_ratio=0."
            )

    def _make_objective(self, model: ClusterModel) -> GenerativeObjective:
        denoiser, n_clusters = None, self._most_clusters()
        if self.generated_ratio:
            denoiser = build_denoiser(self._seen_shape, n_clusters)
        return GenerativeObjective(
            model,
            denoiser,
            sample_shape=self._seen_shape,
            n_clusters=n_clusters,
            n_parts=n_fine_clusters(n_clusters, self._n_sized),
            ratio=self.generated_ratio,
            # As many of each cluster.
            n_generated=n_clusters * math.ceil(min(MOST_GENERATED, self._n_sized) / n_clusters),
            confidence_threshold=self.confidence_threshold,
            size_weight=self.size_weight,
            generated_weight=self.generated_weight,
            discrepancy_weight=self._resolve(self.discrepancy_weight, features=0.0, images=1.0),
            matching_weight=self.matching_weight,
            metric_weight=self.metric_weight,
            reliable=self.reliability_weighting,
            guidance=self.guidance,
        )

    def _generator_recipe(self) -> tuple[Recipe, float]:
        """Return how the generator is trained, and its learning rate."""
        recipe: Recipe = self._by_kind(features=FEATURE_GENERATION, images=IMAGE_GENERATION)
        return recipe, given(self.generator_learning_rate, recipe.learning_rate)

    def _start(
        self,
        objective: GenerativeObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Start the head from a partition, then the generator from what the head says."""
        if not self.generated_ratio:
            super()._start(objective, source, views, trainer, report)
            return
        # The checkpoint of a generator that is being trained has the start, too.
        if not trainer.has_reached("generation"):
            super()._start(objective, source, views, trainer, report)
            objective.labels.copy_(self._label(objective, source, views, trainer))
        recipe, rate = self._generator_recipe()
        n = len(views)
        batch_size = min(given(self.batch_size, recipe.batch_size), n)
        epochs = given(self.generation_epochs, recipe.epochs(n, batch_size))
        generation = GenerationObjective(objective, epochs * (n // batch_size))
        clean = AugmentedViews(
            SelectedSource(source, views.rows), objective.model.prepare, [unchanged]
        )
        with report.phase("generation", epochs) as hook:
            trainer.run(
                Phase(
                    name="generation",
                    objective=generation,
                    views=IndexedViews(clean),
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=generation.parameter_groups(rate),
                    rates="generator_learning_rate",
                    optimizer=torch.optim.Adam,
                    schedule=constant,
                    hook=hook,
                )
            )

    def _label(
        self, objective: GenerativeObjective, source: Source, views: PairedViews, trainer: Trainer
    ) -> Tensor:
        """Return the clusters of the samples that are trained on."""
        labels = most_likely(objective.head, self._embed(objective, source, views.rows))
        return trainer.agreed(labels)

    def _train(
        self,
        objective: GenerativeObjective,
        source: Source,
        views: PairedViews,
        trainer: Trainer,
        report: CallbackReport,
    ) -> None:
        """Train encoder, head and generator, in rounds."""
        recipe = self._by_kind(features=self._feature_training, images=self._image_training)
        n = len(views)
        batch_size, epochs, rate = self._plan(recipe, n)
        groups = objective.parameter_groups(rate, self._generator_recipe()[1])
        n_rounds = min(self.n_rounds, max(epochs * (n // batch_size) // FEWEST_STEPS, 1))

        def begin_round() -> None:
            objective.begin_round(self._label(objective, source, views, trainer))

        with report.phase("clustering", epochs, lambda: self._fitted_attributes(objective)) as hook:
            trainer.run(
                Phase(
                    name="clustering",
                    objective=objective,
                    views=IndexedViews(self._training_views(views)),
                    n_samples=n,
                    batch_size=batch_size,
                    epochs=epochs,
                    parameter_groups=groups,
                    rates="learning_rate or generator_learning_rate",
                    optimizer=torch.optim.Adam,
                    # The generator has learned already, which the first steps of a new optimiser
                    # undo unless they are small.
                    schedule=[cosine, cosine, one_cycle][: len(groups)],
                    hook=PeriodicHook(hook, epochs, n_rounds, begin_round),
                )
            )

    def _training_views(self, views: PairedViews) -> PairedViews:
        """Return, for images, a clean view besides the two, for the generator."""
        if not isinstance(views, AugmentedViews):
            return views
        return AugmentedViews(views.source, views.prepare, [*views.augmentations, unchanged])

    def _answers(
        self, objective: GenerativeObjective, source: Source, trainer: Trainer
    ) -> Iterator[None]:
        """Yield once, after the regions of the embedding were found."""
        objective.forget_samples()
        generator = trainer.generator("regions")
        rows = torch.randperm(len(source), generator=generator)[:GRAPH_ROWS]
        # After a warm start there may be fewer samples than regions.
        n_regions = min(objective.n_parts, len(rows))
        embedding = self._embed(objective, source, rows)
        regions = kmeans(embedding, n_regions, generator=generator, n_init=1)
        objective.regions.place(trainer.agreed(regions.centers))
        yield
