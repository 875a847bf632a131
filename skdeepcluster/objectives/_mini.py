r"""MiniClustering: a fine partition into mini-clusters tells head classes from tail classes.

Symbols as in the paper: samples i, clusters k = 1..K with probabilities :math:`p_t`, mini-clusters
j = 1..M with probabilities :math:`p_m`, confidence c = max p and pseudo-label y = argmax p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from skdeepcluster.networks import ClusterModel, PrototypeHead, full_precision, most_likely
from skdeepcluster.numerics import cluster_means, contingency_table

# The label of samples that are not learned from.
IGNORED = -1
# The share of a mini-cluster that a cluster has to hold to occupy it (delta), in the paper.
OCCUPANCY_THRESHOLD = 0.3


def pseudo_labels(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the most likely outputs, and which samples are confident enough to learn from.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_outputs)
        Predictions for one view; no gradient flows through the result.
    threshold : float
        The confidence has to exceed it (tau); 0 accepts all.

    Returns
    -------
    labels : Tensor of shape (batch,), int64
    selected : Tensor of shape (batch,), bool
    """
    confidence, labels = logits.detach().softmax(dim=1).max(dim=1)
    return labels, confidence > threshold


def self_training_loss(
    logits: Tensor, labels: Tensor, selected: Tensor, weights: Tensor | None = None
) -> Tensor:
    r"""Return the cross-entropy on the pseudo-labels of the selected samples.

    .. math:: L = -\frac{\sum_{i \in S} w_{y_i} \log p_{i, y_i}}{\sum_{i \in S} w_{y_i}}

    With weights this is :math:`L_r`, without them :math:`L_m`. Dividing by the weights, as the
    authors' program does, keeps the step size whatever their level: only ratios act. The loss of an
    empty selection is zero, with zero gradient.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_outputs)
        Predictions for the other view.
    labels : Tensor of shape (batch,), int64
        Pseudo-labels y.
    selected : Tensor of shape (batch,), bool
        Members of S.
    weights : Tensor of shape (n_outputs,), optional
        Class weights w; all one if left out.
    """
    learned = labels.where(selected, IGNORED)
    total = (selected if weights is None else selected * weights[labels]).sum()
    loss = cross_entropy(logits, learned, weights, ignore_index=IGNORED, reduction="sum")
    return loss / torch.where(total > 0, total, 1.0)


def class_weights(table: Tensor, occupancy_threshold: float) -> Tensor:
    r"""Return a weight for each cluster that falls with the mini-clusters it occupies.

    .. math:: w_k = \frac{M}{\max(|\{j : |T_{kj}| / |T_j| > \delta\}|, 1/2)}

    Head classes spread over many mini-clusters, tail classes over few.

    Parameters
    ----------
    table : Tensor of shape (n_clusters, n_mini_clusters)
        :math:`|T_{kj}|`: how many samples of mini-cluster j belong to cluster k; counts or any
        multiple of them.
    occupancy_threshold : float
        The share delta of a mini-cluster that a cluster must hold to occupy it.

    Returns
    -------
    Tensor of shape (n_clusters,)
    """
    totals = table.sum(dim=0)
    share = table / torch.where(totals > 0, totals, 1.0)
    occupied = (share > occupancy_threshold).sum(dim=1)
    return table.shape[1] / occupied.clamp(min=0.5)


def occupancy_weights(
    labels: Tensor,
    mini_labels: Tensor,
    shape: Sequence[int],
    occupancy_threshold: float = OCCUPANCY_THRESHOLD,
) -> Tensor:
    """Return :func:`class_weights` from the clusters and mini-clusters of all samples.

    Parameters
    ----------
    labels, mini_labels : Tensor of shape (n_samples,), int64
        On any device.
    shape : (n_clusters, n_mini_clusters)
        Of the table of counts.
    occupancy_threshold : float, default=0.3
        See :func:`class_weights`.

    Returns
    -------
    Tensor of shape (n_clusters,), on the CPU
    """
    table = contingency_table(labels.to(mini_labels.device), mini_labels, *shape)
    return class_weights(table.cpu().double(), occupancy_threshold)


def alignment_loss(p_target: Tensor, p_mini: Tensor) -> Tensor:
    r"""Return how much the two partitions disagree about which samples belong together.

    .. math:: L_s = \frac{1}{B^2} \| P_t P_t^\top - P_m P_m^\top \|_F^2

    with rows of P scaled to unit length, as in the authors' program: without that, the many outputs
    of the mini head make all its products small.

    Parameters
    ----------
    p_target : Tensor of shape (batch, n_clusters)
    p_mini : Tensor of shape (batch, n_mini_clusters)
        Probabilities of the same samples.
    """
    p_target, p_mini = normalize(p_target, dim=1), normalize(p_mini, dim=1)
    n = len(p_target)
    if p_mini.shape[1] >= n:
        return (p_target @ p_target.T - p_mini @ p_mini.T).square().mean()
    # The same number from small matrices: |AA' - BB'|^2 = |A'A|^2 - 2 |A'B|^2 + |B'B|^2.
    both = torch.cat([p_target, p_mini], dim=1)
    signs = both.new_ones(both.shape[1])
    signs[p_target.shape[1] :] = -1
    return signs @ (both.T @ both).square() @ signs / n**2


def marginal_loss(marginal: Tensor, running: Tensor, prior: Tensor) -> Tensor:
    r"""Return a term that keeps the cluster sizes near those of the start.

    .. math:: L_a = \sum_k \bar p_k \left( \log \bar p^{ema}_k - \log \pi_k \right)

    This is the divergence KL(:math:`\bar p` || :math:`\pi`) with the logarithm taken of a running
    mean: a batch alone knows little about small clusters. It is not in the paper; without it
    self-training on many clusters loses some.

    Parameters
    ----------
    marginal : Tensor of shape (n_clusters,)
        Mean prediction of the batch, the one argument that carries gradient.
    running : Tensor of shape (n_clusters,)
        Its running mean over recent batches.
    prior : Tensor of shape (n_clusters,)
        Shares of the clusters at the start, pi.
    """
    return (marginal * (running.log() - prior.log())).sum()


class HeadFit(nn.Module):
    """Cross-entropy of a head on given labels.

    A cluster that was merged from several need not lie nearest to its own centre; a head that
    starts from centres is then fitted to the partition itself.

    Parameters
    ----------
    head : nn.Module
        Maps embeddings to logits.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, embedding: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy; nothing else is recorded."""
        with full_precision(embedding.device):
            return cross_entropy(self.head(embedding), labels), {}


class MiniObjective(nn.Module):
    """The training objective of MiniClustering, with its two heads and its running table.

    Parameters
    ----------
    model : ClusterModel
        Its head becomes the target head.
    n_clusters, n_mini_clusters : int
        K and M.
    confidence_threshold, occupancy_threshold : float
        tau and delta.
    mini_weight, alignment_weight : float
        alpha and beta; a term with weight zero is not computed.
    marginal_weight : float
        Weight of the term that keeps the cluster sizes near those of the start.
    reweight : bool
        Whether the class weights act.
    fine_tune : bool
        Whether views are samples to be embedded, or (False) embeddings that stay as they are.
    neighbor_views : bool
        Whether the strong view is another sample, a neighbour. A pair then counts only where both
        predictions agree: where they do not, one of the two may rightly be in another cluster.
    logit_scale : float
        Length of the heads' weight vectors at the start: how sure they are.
    """

    # Share of the running statistics that a batch replaces: the last ten to twenty batches count.
    TABLE_RATE = 0.05
    MARGINAL_RATE = 0.1
    table: Tensor
    marginal: Tensor
    prior: Tensor

    def __init__(
        self,
        model: ClusterModel,
        *,
        n_clusters: int,
        n_mini_clusters: int,
        confidence_threshold: float,
        occupancy_threshold: float,
        mini_weight: float,
        alignment_weight: float,
        marginal_weight: float,
        reweight: bool,
        fine_tune: bool,
        neighbor_views: bool,
        logit_scale: float,
    ) -> None:
        super().__init__()
        width = model.embedding.embedding_dim
        self.model = model
        self.model.head = PrototypeHead(width, n_clusters)
        self.mini_head = PrototypeHead(width, n_mini_clusters)
        self.register_buffer("table", torch.zeros(n_clusters, n_mini_clusters))
        self.register_buffer("marginal", torch.full((n_clusters,), 1 / n_clusters))
        self.register_buffer("prior", torch.full((n_clusters,), 1 / n_clusters))
        self.confidence_threshold = confidence_threshold
        self.occupancy_threshold = occupancy_threshold
        self.mini_weight = mini_weight
        self.alignment_weight = alignment_weight
        self.marginal_weight = marginal_weight
        self.reweight = reweight
        self.fine_tune = fine_tune
        self.neighbor_views = neighbor_views
        self.logit_scale = logit_scale

    @property
    def n_parts(self) -> int:
        """Number of parts of the fine partition, M."""
        return self.mini_head.out_features

    @property
    def target_head(self) -> PrototypeHead:
        """The head of the K clusters, which is the model's."""
        return cast("PrototypeHead", self.model.head)

    @torch.no_grad()
    def start(
        self, embedding: Tensor, labels: Tensor, mini_labels: Tensor, generator: torch.Generator
    ) -> None:
        """Start heads and table from a partition and a fine partition of the data.

        Parameters
        ----------
        embedding : Tensor of shape (n_samples, embedding_dim)
            Embedding of all samples.
        labels, mini_labels : Tensor of shape (n_samples,), int64
            The partitions, into at most K and M parts.
        generator : torch.Generator
            For heads whose start is random; these are not.
        """
        for head, partition in ((self.target_head, labels), (self.mini_head, mini_labels)):
            centers, _ = cluster_means(embedding, partition, head.out_features)
            head.start_from(centers, self.logit_scale)
        n_clusters, n_mini_clusters = self.table.shape
        counts = contingency_table(labels, mini_labels, n_clusters, n_mini_clusters)
        self.table.copy_(counts / len(labels))
        # One sample more for each, so that no share is zero.
        smoothed = counts.sum(dim=1) + 1.0
        self.prior.copy_(smoothed / smoothed.sum())
        self.marginal.copy_(self.prior)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        parameters = [*self.target_head.parameters(), *self.mini_head.parameters()]
        if self.fine_tune:
            parameters += self.model.embedding.parameters()
        return [{"params": parameters, "lr": learning_rate}]

    def train(self, mode: bool = True) -> Self:
        """Switch to training; an embedding that does not learn keeps its statistics."""
        super().train(mode)
        if not self.fine_tune:
            self.model.embedding.eval()
        return self

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        order = order.to(self.table.device)
        head = self.target_head
        for tensor in (head.weight, head.bias, self.table, self.prior, self.marginal):
            tensor.copy_(tensor[order])

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return the class weights w from the predictions for the whole data set."""
        mini_labels = most_likely(self.mini_head, embedding)
        return occupancy_weights(labels, mini_labels, self.table.shape, self.occupancy_threshold)

    def forward(self, weak: Tensor, strong: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        r"""Return :math:`L_r + \alpha L_m + \beta L_s + \gamma L_a` and what the history records.

        The confident pseudo-labels of the weak view are the targets of the strong one. A batch
        without any is marked as skipped.
        """
        both = torch.cat([weak, strong])
        embedding = self.model.embedding(both) if self.fine_tune else both
        with full_precision(embedding.device):
            return self._compare(embedding)

    def _compare(self, embedding: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and scalars of a batch: the weak views' embeddings, then the strong."""
        target = self.target_head(embedding)
        probabilities = target.softmax(dim=1)
        target_weak, target_strong = target.chunk(2)
        labels, selected = pseudo_labels(target_weak, self.confidence_threshold)
        if self.neighbor_views:
            selected = selected & (target_strong.argmax(dim=1) == labels)
        mini_weak, mini_strong = self.mini_head(embedding).chunk(2)
        mini_labels, mini_selected = pseudo_labels(mini_weak, self.confidence_threshold)

        weights = None
        if self.reweight:
            self._update_table(labels, mini_labels)
            weights = class_weights(self.table, self.occupancy_threshold)
        loss = self_training_loss(target_strong, labels, selected, weights)
        if self.mini_weight:
            loss = loss + self.mini_weight * self_training_loss(
                mini_strong, mini_labels, mini_selected
            )
        if self.alignment_weight:
            loss = loss + self.alignment_weight * alignment_loss(
                probabilities.chunk(2)[0], mini_weak.softmax(dim=1)
            )
        if self.marginal_weight:
            marginal = probabilities.mean(dim=0)
            self.marginal.lerp_(marginal.detach(), self.MARGINAL_RATE)
            loss = loss + self.marginal_weight * marginal_loss(marginal, self.marginal, self.prior)
        return loss, {
            "selected": selected.float().mean(),
            "skipped": 1 - selected.any().float(),
        }

    @torch.no_grad()
    def _update_table(self, labels: Tensor, mini_labels: Tensor) -> None:
        """Move the running table towards the counts of a batch.

        One batch alone may hold fewer samples than there are clusters.
        """
        n_clusters, n_mini_clusters = self.table.shape
        counts = contingency_table(labels, mini_labels, n_clusters, n_mini_clusters)
        self.table.lerp_(counts / len(labels), self.TABLE_RATE)
