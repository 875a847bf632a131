r"""Calibrated deep clustering (CDC): one head finds clusters, the other how far to trust them.

Symbols as in the paper: samples i of a batch, clusters k = 1..K, clustering head with probabilities
:math:`p^{clu}`, calibration head with :math:`p^{cal}`, regions r with their samples :math:`Q_r`.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from skdeepcluster.networks import ClusterModel, PrototypePerceptron, full_precision
from skdeepcluster.numerics import cluster_means, label_counts, widest_dtype
from skdeepcluster.objectives._mini import pseudo_labels, self_training_loss
from skdeepcluster.objectives._regions import Regions


def region_targets(probabilities: Tensor, regions: Tensor, n_regions: int) -> Tensor:
    r"""Return for each sample the mean prediction of its region.

    .. math:: q_{r(i)} = \frac{1}{|Q_r|} \sum_{j \in Q_r} p^{clu}_j

    Where neighbours disagree the mean is unsure, however sure each of them is.

    Parameters
    ----------
    probabilities : Tensor of shape (batch, n_clusters)
        Predictions of the clustering head.
    regions : Tensor of shape (batch,), int64
        Region r(i) of each sample.
    n_regions : int
        Number of regions; some may have no sample in this batch.

    Returns
    -------
    Tensor of shape (batch, n_clusters)
    """
    means, _ = cluster_means(probabilities, regions, n_regions)
    return means[regions]


def calibration_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Return the cross-entropy of the calibration head on its region targets.

    .. math:: L_{cal} = -\frac{1}{B} \sum_i q_{r(i)} \cdot \log p^{cal}_i

    Parameters
    ----------
    logits : Tensor of shape (batch, n_clusters)
        Of the calibration head.
    targets : Tensor of shape (batch, n_clusters)
        See :func:`region_targets`; rows sum to one.
    """
    return -(targets * log_softmax(logits, dim=1)).sum(dim=1).mean()


def size_divergence(probabilities: Tensor, prior: Tensor) -> Tensor:
    r"""Return how far the mean prediction is from the expected cluster sizes.

    .. math:: L_{en} = \sum_k \bar p_k \log \frac{\bar p_k}{\pi_k}

    With equal sizes :math:`\pi` this is, up to a constant, the negative entropy of the paper.

    Parameters
    ----------
    probabilities : Tensor of shape (batch, n_clusters)
        Predictions of the calibration head; their mean is :math:`\bar p`.
    prior : Tensor of shape (n_clusters,)
        Expected shares of the clusters, positive.
    """
    # A cluster that nobody expects has probability zero, where the logarithm has no gradient.
    marginal = probabilities.mean(dim=0)
    logarithm = marginal.clamp(min=torch.finfo(marginal.dtype).tiny).log()
    return (marginal * (logarithm - prior.log())).sum()


def candidates_per_cluster(prior: Tensor, batch_size: int) -> Tensor:
    r"""Return how many samples of a batch each cluster may propose: :math:`B \pi_k`, at least one.

    Equal shares give the paper's B / K.
    """
    return (prior * batch_size).round().long().clamp(min=1, max=batch_size)


def select_confident(
    probabilities: Tensor, n_candidates: Tensor, owed: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return which samples to learn from; their most likely clusters are the pseudo-labels.

    The candidates of cluster k are the samples with its highest probabilities. If these can be
    trusted, their sum is how many of the candidates belong to k; so many, rounded down, are kept,
    the most likely first, as far as k is their most likely cluster. What rounding took is owed and
    added in the next batch: small clusters, of which a batch holds less than one sample, would
    otherwise never learn.

    Parameters
    ----------
    probabilities : Tensor of shape (batch, n_clusters)
        Predictions of the calibration head for the weak view; no gradient flows through the result.
    n_candidates : Tensor of shape (n_clusters,), int64
        See :func:`candidates_per_cluster`.
    owed : Tensor of shape (n_clusters,)
        Fractions of samples left over from earlier batches; zero gives the paper's rule.

    Returns
    -------
    selected : Tensor of shape (batch,), bool
    owed : Tensor of shape (n_clusters,)
        What is left over now.
    """
    n, n_clusters = probabilities.shape
    ranked, order = probabilities.detach().sort(dim=0, descending=True, stable=True)
    sums = ranked.cumsum(dim=0, dtype=widest_dtype(ranked.device))
    expected = sums.gather(0, n_candidates[None] - 1)[0]
    due = expected.to(owed.dtype) + owed
    # A sum of ones must not fall short of the whole number that it is.
    n_kept = torch.minimum((due * (1 + 1e-6)).floor().long(), n_candidates)
    within = torch.arange(n, device=ranked.device)[:, None] < n_kept
    clusters = torch.arange(n_clusters, device=ranked.device)
    kept = within & (probabilities.argmax(dim=1)[order] == clusters)
    selected = torch.zeros_like(kept).scatter(0, order, kept).any(dim=1)
    return selected, (due - kept.sum(dim=0)).clamp(0, 1)


class CalibratedObjective(nn.Module):
    """The training objective of CalibratedDeepClustering, with its two heads and its regions.

    Parameters
    ----------
    model : ClusterModel
        Its head becomes the clustering head.
    n_clusters, n_regions : int
        K, and the number of regions of the whole data set.
    n_hidden : int
        Units of the hidden layer of the heads.
    proportional : bool
        Whether clusters are expected to keep the sizes of the start; otherwise, equal ones.
    confidence_threshold : float or None
        A fixed threshold for the selection instead of the dynamic one.
    entropy_weight : float
        Weight of :func:`size_divergence`, w_en in the paper.
    calibration_head : bool
        Without it the clustering head judges its own predictions.
    stop_gradient : bool
        Whether the calibration head leaves the encoder alone.
    fine_tune : bool
        Whether views are samples to be embedded, or (False) embeddings that stay as they are.
    """

    # Learning rate of the encoder relative to the heads', as in the paper.
    ENCODER_RATE = 0.5
    prior: Tensor
    owed: Tensor

    def __init__(
        self,
        model: ClusterModel,
        *,
        n_clusters: int,
        n_regions: int,
        n_hidden: int,
        proportional: bool,
        confidence_threshold: float | None,
        entropy_weight: float,
        calibration_head: bool,
        stop_gradient: bool,
        fine_tune: bool,
    ) -> None:
        super().__init__()
        width = model.embedding.embedding_dim
        self.model = model
        self.clustering_head = PrototypePerceptron(width, n_hidden, n_clusters)
        self.model.head = self.clustering_head
        self.calibration_head = (
            PrototypePerceptron(width, n_hidden, n_clusters) if calibration_head else None
        )
        self.regions = Regions(n_regions, width)
        self.register_buffer("prior", torch.full((n_clusters,), 1 / n_clusters))
        self.register_buffer("owed", torch.zeros(n_clusters))
        self.proportional = proportional
        self.confidence_threshold = confidence_threshold
        self.entropy_weight = entropy_weight
        self.stop_gradient = stop_gradient
        self.fine_tune = fine_tune

    @property
    def n_parts(self) -> int:
        """Number of parts of the fine partition, the regions."""
        return len(self.regions)

    @torch.no_grad()
    def start(
        self,
        embedding: Tensor,
        labels: Tensor | None,
        mini_labels: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Start clustering head and regions from a partition and a fine partition of the data.

        Parameters
        ----------
        embedding : Tensor of shape (n_samples, embedding_dim)
            Embedding of all samples.
        labels : Tensor of shape (n_samples,), int64, or None
            A partition into at most K parts; None leaves the heads as they are.
        mini_labels : Tensor of shape (n_samples,), int64
            A partition into the regions, none of them empty.
        generator : torch.Generator
            Source of the randomness of the heads' start.
        """
        centers, _ = cluster_means(embedding, mini_labels, self.n_parts)
        self.regions.place(centers)
        if labels is None:
            return
        self.clustering_head.start_from(embedding, labels, generator)
        if self.proportional:
            # One sample more for each, so that no share is zero.
            counts = label_counts(labels, len(self.prior)) + 1.0
            self.prior.copy_(counts / counts.sum())

    @torch.no_grad()
    def copy_head(self) -> None:
        """Make the calibration head equal to the clustering head, as the paper starts it."""
        if self.calibration_head is not None:
            self.calibration_head.load_state_dict(self.clustering_head.state_dict())

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        heads = list(self.clustering_head.parameters())
        if self.calibration_head is not None:
            heads += self.calibration_head.parameters()
        groups = [{"params": heads, "lr": learning_rate}]
        if self.fine_tune:
            encoder = list(self.model.embedding.parameters())
            groups.append({"params": encoder, "lr": self.ENCODER_RATE * learning_rate})
        return groups

    def train(self, mode: bool = True) -> Self:
        """Switch to training; an embedding that does not learn keeps its statistics."""
        super().train(mode)
        if not self.fine_tune:
            self.model.embedding.eval()
        return self

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        order = order.to(self.prior.device)
        for buffer in (self.prior, self.owed):
            buffer.copy_(buffer[order])
        self.clustering_head.reorder(order)
        if self.calibration_head is not None:
            self.calibration_head.reorder(order)

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return class weights as MiniClustering's, with regions as the mini-clusters."""
        return self.regions.weigh_classes(embedding, labels, len(self.prior))

    def forward(
        self, clean: Tensor, strong: Tensor, weak: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        r"""Return :math:`L_{clu} + L_{cal} + w_{en} L_{en}` and what the history records.

        Feature vectors have no weak view beside themselves: without one the clean view stands in.
        Without a calibration head, a batch of which nothing is selected is marked as skipped; with
        one, it still learns.
        """
        z_strong = self._embed(strong)
        with torch.set_grad_enabled(self.calibration_head is not None and not self.stop_gradient):
            z_clean = self._embed(clean)
        with torch.no_grad():
            z_weak = z_clean if weak is None else self._embed(weak)
        with full_precision(z_strong.device):
            return self._compare(z_strong, z_clean, z_weak)

    def _compare(
        self, z_strong: Tensor, z_clean: Tensor, z_weak: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and scalars of a batch, given the embeddings of its three views."""
        loss = z_strong.new_zeros(())
        if self.calibration_head is not None:
            logits = self.calibration_head(z_clean)
            loss = loss + self._calibration_terms(z_clean, logits)
        judge = self.calibration_head or self.clustering_head
        with torch.no_grad():
            labels, selected = self._select(judge(z_weak))
        loss = loss + self_training_loss(self.clustering_head(z_strong), labels, selected)
        scalars = {"selected": selected.float().mean()}
        if self.calibration_head is None:
            scalars["skipped"] = 1 - selected.any().float()
        return loss, scalars

    def _embed(self, view: Tensor) -> Tensor:
        embedding: Tensor = self.model.embedding(view) if self.fine_tune else view
        return embedding

    def _calibration_terms(self, z_clean: Tensor, logits: Tensor) -> Tensor:
        with torch.no_grad():
            regions = self._find_regions(z_clean)
            predictions = self.clustering_head(z_clean).softmax(dim=1)
            targets = region_targets(predictions, regions, self.n_parts)
        loss = calibration_loss(logits, targets)
        if self.entropy_weight:
            probabilities = logits.softmax(dim=1)
            loss = loss + self.entropy_weight * size_divergence(probabilities, self.prior)
        return loss

    def _find_regions(self, z: Tensor) -> Tensor:
        """Return the region of each sample; where the encoder moves, regions follow it."""
        regions = self.regions.find(z)
        if self.fine_tune:
            self.regions.follow(z, regions)
        return regions

    def _select(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return pseudo-labels, and which of them to learn from."""
        labels, selected = pseudo_labels(logits, self.confidence_threshold or 0.0)
        if self.confidence_threshold is None:
            n_candidates = candidates_per_cluster(self.prior, len(logits))
            probabilities = logits.softmax(dim=1)
            selected, owed = select_confident(probabilities, n_candidates, self.owed)
            self.owed.copy_(owed)
        return labels, selected
