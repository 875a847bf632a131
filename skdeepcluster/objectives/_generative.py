r"""GCC: generated samples, equally many of each cluster, take part in clustering.

The paper's equations were not available; these are reconstructed from its description. Symbols:
embeddings z of real samples r with their cluster y, and of samples g generated with condition y.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from skdeepcluster.networks import ClusterModel, PrototypeHead, full_precision
from skdeepcluster.numerics import cluster_means
from skdeepcluster.objectives._calibrated import size_divergence
from skdeepcluster.objectives._diffusion import Diffusion
from skdeepcluster.objectives._mini import pseudo_labels, self_training_loss
from skdeepcluster.objectives._regions import Regions

# Widths of the kernels, in powers of two of the mean squared distance.
KERNEL_EXPONENTS = (-2, -1, 0, 1, 2)
# Numbers (of features, of channels and pixels) in the samples that are generated at a time, for
# which a U-Net needs some 500 MiB.
GENERATED_AT_ONCE = 2**18


def gaussian_kernels(squared_distances: Tensor) -> Tensor:
    r"""Return the mean of five Gaussian kernels of different widths.

    .. math:: k(u, v) = \frac{1}{5} \sum_{i=-2}^{2} \exp\left(-\frac{\|u - v\|^2}{2^i s}\right)

    Parameters
    ----------
    squared_distances : Tensor of shape (n, n)
        Of all pairs; their mean is s, through which no gradient flows.
    """
    width = squared_distances.detach().mean().clamp(min=1e-12)
    # Each is the square of the next wider one, and a product costs less than an exponential.
    kernel = torch.exp(-squared_distances / (2.0 ** KERNEL_EXPONENTS[-1] * width))
    total = kernel
    for _ in KERNEL_EXPONENTS[1:]:
        kernel = kernel.square()
        total = total + kernel
    return total / len(KERNEL_EXPONENTS)


def class_averages(x: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return what averages the rows of x by class, (n_classes, len(x)), and which have any."""
    members = one_hot(labels, n_classes).T.to(x.dtype)
    counts = members.sum(dim=1)
    return members / counts.clamp(min=1)[:, None], counts > 0


def class_discrepancy(
    real: Tensor, real_labels: Tensor, made: Tensor, made_labels: Tensor, n_classes: int
) -> Tensor:
    r"""Return how much real and generated samples differ within classes, less how much between.

    .. math:: L_d = \operatorname*{mean}_k D(R_k, G_k)
        - \operatorname*{mean}_{k \ne l} D(R_k, G_l), \qquad
        D(A, B) = \overline{k(A, A)} + \overline{k(B, B)} - 2\, \overline{k(A, B)}

    over the classes that the batch has samples of; D is the squared maximum mean discrepancy.

    Parameters
    ----------
    real, made : Tensor of shape (n_real, embedding_dim) and (n_made, embedding_dim)
        The embeddings R and G.
    real_labels, made_labels : Tensor of shape (n_real,) and (n_made,), int64
        Their clusters and conditions.
    n_classes : int
        Labels are below it.
    """
    both = torch.cat([real, made])
    norms = both.square().sum(dim=1)
    kernel = gaussian_kernels((norms[:, None] + norms - 2 * both @ both.T).clamp(min=0))
    averages, there = class_averages(
        both, _kinds(real_labels, made_labels, n_classes), 2 * n_classes
    )
    within = averages @ kernel @ averages.T
    own_real, own_made = within.diagonal().chunk(2)
    across = within[:n_classes, n_classes:]
    discrepancy = own_real[:, None] + own_made - 2 * across
    has_real, has_made = there.chunk(2)
    there = has_real[:, None] & has_made
    same = torch.eye(n_classes, dtype=torch.bool, device=there.device)
    return _mean_where(discrepancy, there & same) - _mean_where(discrepancy, there & ~same)


def _kinds(real_labels: Tensor, made_labels: Tensor, n_classes: int) -> Tensor:
    """Return a number for each class of real samples, then for each of generated ones."""
    return torch.cat([real_labels, made_labels + n_classes])


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def mean_matching(
    real: Tensor, real_labels: Tensor, made: Tensor, made_labels: Tensor, n_classes: int
) -> Tensor:
    r"""Return how far apart the means of real and generated samples of a class are.

    .. math:: L_{cwm} = \operatorname*{mean}_k \|\bar R_k - \bar G_k\|^2

    Parameters
    ----------
    real, real_labels, made, made_labels, n_classes
        See :func:`class_discrepancy`.
    """
    both = torch.cat([real, made])
    averages, there = class_averages(
        both, _kinds(real_labels, made_labels, n_classes), 2 * n_classes
    )
    real_means, made_means = (averages @ both).chunk(2)
    has_real, has_made = there.chunk(2)
    return _mean_where((real_means - made_means).square().sum(dim=1), has_real & has_made)


def metric_loss(embedding: Tensor, labels: Tensor, weights: Tensor, temperature: float) -> Tensor:
    r"""Return the supervised contrastive loss in which samples count by their reliability.

    .. math:: L_{ml} = -\frac{\sum_i w_i \sum_{p \in P(i)} w_p \log q_{ip} / W_i}{\sum_i w_i},
        \qquad q_{ip} = \frac{\exp(z_i \cdot z_p / T)}{\sum_{j \ne i} \exp(z_i \cdot z_j / T)}

    with the others of the same cluster P(i) and the sum :math:`W_i` of their weights. Samples
    without others are left out.

    Parameters
    ----------
    embedding : Tensor of shape (batch, embedding_dim)
        Unit embeddings z.
    labels : Tensor of shape (batch,), int64
        Their clusters.
    weights : Tensor of shape (batch,)
        The weights w, not negative.
    temperature : float
        The T of the formula.
    """
    itself = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    similarities = (embedding @ embedding.T / temperature).masked_fill(itself, -1e9)
    pulls = ((labels[:, None] == labels) & ~itself) * weights
    totals = pulls.sum(dim=1)
    weights = weights * (totals > 0)
    losses = (pulls * log_softmax(similarities, dim=1)).sum(dim=1) / totals.clamp(min=1e-12)
    return -(weights * losses).sum() / weights.sum().clamp(min=1e-12)


def reliability(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability that a head gives each sample's label; no gradient flows through."""
    return logits.detach().softmax(dim=1).gather(1, labels[:, None])[:, 0]


class GenerativeObjective(nn.Module):
    """The training objective of GenerativeCalibrationClustering, with head and generator.

    Parameters
    ----------
    model : ClusterModel
        Its head becomes a linear one.
    denoiser : nn.Module or None
        Of the generator; None is a model without.
    sample_shape : tuple of int
        Of the samples that it generates.
    n_clusters, n_parts : int
        K, and the number of regions that class weights are estimated from.
    ratio : float
        Generated samples for each real one in a batch.
    n_generated : int
        Number of generated samples that there are to draw from.
    confidence_threshold : float
        Predictions surer than this are learned by the neighbour.
    size_weight, generated_weight, discrepancy_weight, matching_weight, metric_weight : float
        Of the sizes, of the cross-entropy of generated samples, and a, b and c of the paper.
    reliable : bool
        Whether generated samples count by :func:`reliability` in :func:`metric_loss`.
    guidance : float
        See :class:`Diffusion`.
    """

    LOGIT_SCALE = 30.0
    METRIC_TEMPERATURE = 0.1
    # Learning rate of the encoder relative to the head's.
    ENCODER_RATE = 0.3
    prior: Tensor
    labels: Tensor
    generated: Tensor

    def __init__(
        self,
        model: ClusterModel,
        denoiser: nn.Module | None,
        *,
        sample_shape: tuple[int, ...],
        n_clusters: int,
        n_parts: int,
        ratio: float,
        n_generated: int,
        confidence_threshold: float,
        size_weight: float,
        generated_weight: float,
        discrepancy_weight: float,
        matching_weight: float,
        metric_weight: float,
        reliable: bool,
        guidance: float,
    ) -> None:
        super().__init__()
        width = model.embedding.embedding_dim
        self.model = model
        self.head = PrototypeHead(width, n_clusters)
        self.model.head = self.head
        # None, or a Diffusion: who generates has asked for one.
        self.diffusion: Any = None
        if denoiser is not None:
            self.diffusion = Diffusion(denoiser, n_clusters, guidance)
        self.register_buffer("prior", torch.full((n_clusters,), 1 / n_clusters))
        self.regions = Regions(n_parts, width)
        # Clusters of the real samples in this round, and the samples generated for it.
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("generated", torch.zeros(0, *sample_shape))
        self.ratio = ratio
        self.n_generated = n_generated
        self.confidence_threshold = confidence_threshold
        self.size_weight = size_weight
        self.generated_weight = generated_weight
        self.discrepancy_weight = discrepancy_weight
        self.matching_weight = matching_weight
        self.metric_weight = metric_weight
        self.reliable = reliable

    @property
    def n_clusters(self) -> int:
        """Number of clusters, K."""
        return len(self.prior)

    @property
    def n_parts(self) -> int:
        """Number of parts of the fine partition, the regions."""
        return len(self.regions)

    def remember_samples(self, n_samples: int) -> None:
        """Make room for the clusters of so many samples, and for generated ones."""
        self.labels = self.labels.new_zeros(n_samples)
        if self.diffusion is not None:
            self.generated = self.generated.new_zeros(self.n_generated, *self.generated.shape[1:])

    def forget_samples(self) -> None:
        """Drop both, which a finished model has no use for."""
        self.labels, self.generated = self.labels[:0].clone(), self.generated[:0].clone()

    @torch.no_grad()
    def start(
        self, embedding: Tensor, labels: Tensor, mini_labels: Tensor, generator: torch.Generator
    ) -> None:
        """Start the head from a partition of the data."""
        centers, sizes = cluster_means(embedding, labels, self.n_clusters)
        self.head.start_from(centers, self.LOGIT_SCALE)
        # One sample more for each, so that no share is zero.
        self.prior.copy_((sizes + 1) / (sizes + 1).sum())

    def parameter_groups(
        self, learning_rate: float, generator_learning_rate: float
    ) -> list[dict[str, Any]]:
        """Return what training may change: head, encoder, and the generator if there is one."""
        encoder = list(self.model.embedding.parameters())
        groups = [
            {"params": list(self.head.parameters()), "lr": learning_rate},
            {"params": encoder, "lr": self.ENCODER_RATE * learning_rate},
        ]
        if self.diffusion is not None:
            denoiser = list(self.diffusion.denoiser.parameters())
            groups.append({"params": denoiser, "lr": generator_learning_rate})
        return groups

    def train(self, mode: bool = True) -> Self:
        """Switch to training; generated samples do not enter the statistics of the encoder."""
        super().train(mode)
        self.model.embedding.eval()
        return self

    def begin_epoch(self, progress: float) -> None:
        """Let the average of the generator, which is no beginner any more, be slow."""
        if self.diffusion is not None:
            self.diffusion.average.momentum = Diffusion.MOMENTUM

    @torch.no_grad()
    def begin_round(self, labels: Tensor) -> None:
        """Take new clusters of the real samples, and generate new samples."""
        self.labels.copy_(labels)
        if self.diffusion is not None:
            noise = torch.randn(self.generated.shape, device=self.generated.device)
            numbers = torch.arange(len(noise), device=noise.device)
            self.generated.copy_(self.generate(noise, numbers % self.n_clusters))

    @torch.no_grad()
    def generate(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return samples, prepared as for the encoder, of these clusters."""
        self.diffusion.eval()
        n_rows = max(GENERATED_AT_ONCE // math.prod(noise.shape[1:]), 1)
        parts = zip(torch.split(noise, n_rows), torch.split(labels, n_rows), strict=True)
        made = torch.cat([self.diffusion.sample(*part) for part in parts])
        return made if made.ndim == 2 else ((made + 1) / 2).clamp(0, 1)

    def denoise(self, prepared: Tensor, labels: Tensor) -> Tensor:
        """Return the generator's loss."""
        # Images lie between 0 and 1, the generator's between -1 and 1.
        loss: Tensor = self.diffusion(prepared if prepared.ndim == 2 else 2 * prepared - 1, labels)
        return loss

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        order = order.to(self.prior.device)
        for tensor in (self.head.weight, self.head.bias, self.prior):
            tensor.copy_(tensor[order])
        if self.diffusion is not None:
            self.diffusion.reorder(order)

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return class weights as MiniClustering's, with regions as the mini-clusters."""
        return self.regions.weigh_classes(embedding, labels, self.n_clusters)

    def forward(
        self, index: Tensor, first: Tensor, second: Tensor, clean: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of clustering and of the generator, each of which reaches its own.

        Views of feature arrays are clean; of images there is a clean one besides.
        """
        n, labels = len(index), self.labels[index]
        views, made_labels = [first, second], labels[:0]
        if self.diffusion is not None:
            n_made = max(1, round(self.ratio * n))  # there is no mean of none
            pick = torch.randint(len(self.generated), (n_made,), device=index.device)
            views.append(self.generated[pick])
            made_labels = pick % self.n_clusters
        z = self.model.embedding(torch.cat(views))
        scalars: dict[str, Tensor] = {}
        with full_precision(z.device):
            logits = self.head(z)
            loss = self._agree(logits[:n], logits[n : 2 * n])
            weights = torch.ones_like(labels, dtype=z.dtype)
            if self.diffusion is not None:
                made, made_logits = z[2 * n :], logits[2 * n :]
                loss = loss + self._compare(z[:n], labels, made, made_logits, made_labels)
                trust = reliability(made_logits, made_labels)
                scalars["reliability"] = trust.mean()
                weights = torch.cat([weights, trust if self.reliable else torch.ones_like(trust)])
            if self.metric_weight:
                metric = metric_loss(
                    torch.cat([z[:n], z[2 * n :]]),
                    torch.cat([labels, made_labels]),
                    weights,
                    self.METRIC_TEMPERATURE,
                )
                loss = loss + self.metric_weight * metric
        if self.diffusion is not None:
            denoising = self.denoise(first if clean is None else clean, labels)
            loss, scalars = loss + denoising, {**scalars, "denoising": denoising}
        return loss, scalars

    def _agree(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss by which neighbours learn from each other what both say already."""
        labels, selected = pseudo_labels(first, self.confidence_threshold)
        selected = selected & (second.argmax(dim=1) == labels)
        sizes = size_divergence(torch.cat([first, second]).softmax(dim=1), self.prior)
        return self_training_loss(second, labels, selected) + self.size_weight * sizes

    def _compare(
        self, real: Tensor, labels: Tensor, made: Tensor, made_logits: Tensor, made_labels: Tensor
    ) -> Tensor:
        """Return the losses between real and generated samples."""
        loss = self.generated_weight * cross_entropy(made_logits, made_labels)
        for weight, compare in (
            (self.discrepancy_weight, class_discrepancy),
            (self.matching_weight, mean_matching),
        ):
            if weight:
                loss = loss + weight * compare(real, labels, made, made_labels, self.n_clusters)
        return loss


class GenerationObjective(nn.Module):
    """The generator alone learns, from the clusters as they are.

    Parameters
    ----------
    objective : GenerativeObjective
        With a generator, and the clusters of the samples.
    n_steps : int
        Number of steps of the whole training.
    """

    def __init__(self, objective: GenerativeObjective, n_steps: int) -> None:
        super().__init__()
        self.objective = objective
        self.n_steps = n_steps

    def begin_epoch(self, progress: float) -> None:
        """Let the average become slower as there is more to remember."""
        self.objective.diffusion.remember(round(progress * self.n_steps))

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        denoiser = self.objective.diffusion.denoiser
        return [{"params": list(denoiser.parameters()), "lr": learning_rate}]

    def forward(self, index: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch."""
        return self.objective.denoise(clean, self.objective.labels[index]), {}
