r"""Stable cluster discrimination (SeCu): encoder and clusters learn together from the first step.

Symbols as in the paper: unit embeddings :math:`x_i` of a batch of B samples, unit centres
:math:`w_k`, k = 1..K, clusters :math:`y_i`, predictions :math:`p_{ik} \propto \exp(x_i^\top w_k/t)`
with the temperature t.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize, one_hot, softplus
from torch.nn.utils.rnn import pad_sequence

from skdeepcluster.networks import ClusterModel, CosineHead, full_precision, most_likely
from skdeepcluster.numerics import cluster_means, sent
from skdeepcluster.objectives._contrastive import info_nce
from skdeepcluster.objectives._mini import occupancy_weights, pseudo_labels, self_training_loss


def center_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the cross-entropy by which centres learn, each from its own cluster alone.

    .. math:: L_w = -\frac{1}{B} \sum_i \log p_{i y_i}, \qquad
        \nabla_{w_k} L_w = -\frac{1}{B t} \sum_{i : y_i = k} (1 - p_{ik}) x_i

    A step is k-means in which hard samples weigh more. With the gradient of the other logits, a
    centre would also be pushed away from the samples of all other clusters: a batch holds many of
    those and few of its own, if any.

    Parameters
    ----------
    logits : Tensor of shape (..., batch, n_clusters)
        :math:`x_i^\top w_k / t`; gradient flows through those of the own clusters only.
    labels : Tensor of shape (..., batch), int64
        The clusters y.

    Returns
    -------
    Tensor of shape (...)
        One loss for each head.
    """
    columns = labels[..., None]
    own = logits.gather(-1, columns)[..., 0]
    others = logits.detach().scatter(-1, columns, -torch.inf).logsumexp(dim=-1)
    return softplus(others - own).mean(dim=-1)


def encoder_loss(
    logits: Tensor, other_logits: Tensor, labels: Tensor, label_share: float
) -> Tensor:
    r"""Return the cross-entropy of one view on the cluster and on what the other view says.

    .. math:: L_x = -\frac{1}{B} \sum_i q_i \cdot \log p_i, \qquad
        q_i = \tau e_{y_i} + (1 - \tau) p'_i

    Parameters
    ----------
    logits : Tensor of shape (..., batch, n_clusters)
        Of the view, by the centres as they were when the epoch began.
    other_logits : Tensor of shape (..., batch, n_clusters)
        Of the other view; no gradient flows through them.
    labels : Tensor of shape (..., batch), int64
        The clusters y of the last epoch.
    label_share : float
        The share tau of the cluster in the target.

    Returns
    -------
    Tensor of shape (...)
        One loss for each head.
    """
    log_p = log_softmax(logits, dim=-1)
    by_label = log_p.gather(-1, labels[..., None])[..., 0]
    by_other = (other_logits.detach().softmax(dim=-1) * log_p).sum(dim=-1)
    return -(label_share * by_label + (1 - label_share) * by_other).mean(dim=-1)


def raised_duals(
    duals: Tensor,
    counts: Tensor,
    lower_bound: float,
    rate: float | Tensor,
    n_clusters: int | Tensor | None = None,
) -> Tensor:
    r"""Return dual variables that make clusters more attractive while they are too small.

    .. math:: \rho_k \leftarrow \max(0, \rho_k + \eta (r / K - n_k / B))

    Parameters
    ----------
    duals : Tensor of shape (..., n_clusters)
        The variables rho, added to the cosines where clusters are assigned.
    counts : Tensor of shape (..., n_clusters)
        How many samples :math:`n_k` of a batch each cluster got.
    lower_bound : float
        The least size of a cluster, r, as a share of the mean size.
    rate : float or Tensor
        The learning rate eta.
    n_clusters : int or Tensor of shape (..., 1), optional
        K, where the last axis may be longer than that.
    """
    n_clusters = duals.shape[-1] if n_clusters is None else n_clusters
    missing = lower_bound / n_clusters - counts / counts.sum(dim=-1, keepdim=True)
    return (duals + rate * missing).clamp(min=0)


def entropy_cost(counts: Tensor) -> Tensor:
    r"""Return by how much one more sample in a cluster unbalances the sizes.

    .. math:: \Delta_k = f(n_k + 1) - f(n_k), \qquad f(n) = n \log (n / N)

    The difference of two such costs is N times what moving the sample from one cluster to the other
    adds to :math:`\sum_k p_k \log p_k`, the negative entropy of the sizes.

    Parameters
    ----------
    counts : Tensor of shape (..., n_clusters)
        Sizes of the clusters without the sample in question.
    """
    # f(n + 1) - f(n) without the difference of large numbers.
    n = counts.sum(dim=-1, keepdim=True) + 1
    return counts * torch.log1p(1 / counts.clamp(min=1)) + torch.log((counts + 1) / n)


class DiscriminationHead(nn.Module):
    """Centres, and what is remembered of every sample and cluster.

    Parameters
    ----------
    embedding_dim, n_clusters : int
        The embedding's dimensions, and K.
    constraint : {"size", "entropy"} or None
        What keeps clusters from dying; see :func:`raised_duals` and :func:`entropy_cost`.
    lower_bound : float
        See :func:`raised_duals`.
    entropy_weight : float
        Cosines by which a sample has to be closer for each unit of :func:`entropy_cost`: the
        alpha of the paper over N.
    label_share : float
        See :func:`encoder_loss`.
    temperature : float
        Of all predictions, t.
    """

    # The paper's rate of .1 for ten clusters. With more of them, what is missing in each is
    # smaller, and a rate that does not grow would take as many more steps to make up for it.
    DUAL_RATE_PER_CLUSTER = 0.01
    previous: Tensor
    assignments: Tensor
    duals: Tensor

    def __init__(
        self,
        embedding_dim: int,
        n_clusters: int,
        *,
        constraint: str | None,
        lower_bound: float,
        entropy_weight: float,
        label_share: float,
        temperature: float,
    ) -> None:
        super().__init__()
        self.head = CosineHead(embedding_dim, n_clusters, temperature)
        self.register_buffer("previous", self.head.centers.detach())
        # The cluster of each sample at the last visit; -1 before the first.
        self.register_buffer("assignments", torch.empty(0, dtype=torch.long))
        self.register_buffer("duals", torch.zeros(n_clusters))
        self.constraint = constraint
        self.lower_bound = lower_bound
        self.entropy_weight = entropy_weight
        self.label_share = label_share
        self.temperature = temperature

    @property
    def n_clusters(self) -> int:
        """Number of clusters, K."""
        return len(self.duals)

    @torch.no_grad()
    def start_from(self, embedding: Tensor, labels: Tensor) -> None:
        """Start from a partition of the training set, given with its embedding."""
        means, counts = cluster_means(embedding, labels, self.n_clusters)
        # A cluster without samples keeps its random direction: zero has none to learn from.
        self.head.weight.copy_(torch.where(counts[:, None] > 0, means, self.head.weight))
        self.assignments.copy_(labels)
        self.begin_epoch()

    @torch.no_grad()
    def begin_epoch(self) -> None:
        """Keep the centres as they are now for the encoder to learn from."""
        # The longer a weight, the slower its direction learns; in an epoch it hardly grows.
        self.head.weight.copy_(self.head.centers)
        self.previous.copy_(self.head.weight)

    def forward(self, index: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return what :func:`discriminate` does, for this head alone."""
        losses, changes = discriminate([self], index, first, second)
        return losses[0], changes[0]

    def counts_without(self, index: Tensor) -> Tensor:
        """Return for each sample of a batch how many others each cluster holds."""
        counts = self.duals.new_zeros(self.n_clusters + 1)  # the first: those without a cluster
        counts.index_add_(0, self.assignments + 1, counts.new_ones(len(self.assignments)))
        own = one_hot(self.assignments[index] + 1, self.n_clusters + 1)
        return (counts - own)[:, 1:]

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        self.head.reorder(order)
        for buffer in (self.previous, self.duals):
            buffer.copy_(buffer[order])
        moved = torch.argsort(order)[self.assignments.clamp(min=0)]
        self.assignments.copy_(torch.where(self.assignments >= 0, moved, -1))

    def remember_samples(self, n_samples: int) -> None:
        """Make room for the clusters of so many samples, none of which was seen."""
        self.assignments = self.assignments.new_full((n_samples,), -1)

    def forget_samples(self) -> None:
        """Drop their clusters, which a finished model has no use for."""
        self.assignments = self.assignments[:0].clone()


class SideBySide:
    """What heads have of each cluster, in one tensor for all of them.

    Where their numbers of clusters differ, clusters that do not exist fill up the smaller ones.

    Parameters
    ----------
    n_clusters : sequence of int
        Of each head.
    like : Tensor
        On the device, and of the type, of what is computed.

    Attributes
    ----------
    n_clusters : int or Tensor of shape (n_heads, 1)
        Of all heads, or of each.
    shape : (int, int)
        Number of heads, and their largest number of clusters.
    """

    def __init__(self, n_clusters: Sequence[int], like: Tensor) -> None:
        self.shape = len(n_clusters), max(n_clusters)
        self.n_clusters: int | Tensor = n_clusters[0]
        self.rows: Tensor | None = None
        self.absent: Tensor | None = None
        if min(n_clusters) < max(n_clusters):
            sizes, column = torch.tensor(n_clusters)[:, None], torch.arange(max(n_clusters))
            rows = sizes.cumsum(dim=0) - sizes + column.minimum(sizes - 1)
            self.rows = sent(rows.flatten(), like.device)
            self.absent = sent((column >= sizes)[:, None], like.device)
            self.n_clusters = sent(sizes.to(like.dtype), like.device)

    def stack(self, parts: Sequence[Tensor]) -> Tensor:
        """Return (n_heads, most clusters, ...); the last cluster stands for those that fill up."""
        rows = torch.cat(list(parts))
        if self.rows is not None:
            rows = rows.index_select(0, self.rows)
        return rows.view(*self.shape, *rows.shape[1:])

    def logits(self, x: Tensor, centers: Tensor) -> Tensor:
        """Return (n_heads, batch, most clusters); no sample is like a cluster that fills up."""
        logits = x @ centers.mT
        if self.absent is None:
            return logits
        # Not infinite: a probability of zero times its logarithm has to be zero.
        return logits.masked_fill(self.absent, torch.finfo(logits.dtype).min / 4)


def discriminate(
    heads: Sequence[DiscriminationHead], index: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Return :math:`L_w + L_x` of two views for each head, and the share of new assignments.

    Heads are computed side by side: one of them alone would leave most of the device idle.

    Parameters
    ----------
    heads : sequence of DiscriminationHead
        With the same settings.
    index : Tensor of shape (batch,), int64
        Numbers of the samples.
    first, second : Tensor of shape (batch, embedding_dim)
        Embeddings of their views.

    Returns
    -------
    losses, changes : Tensor of shape (n_heads,)
    """
    temperature, label_share = heads[0].temperature, heads[0].label_share
    both = torch.cat([first, second]) / temperature
    beside = SideBySide([head.n_clusters for head in heads], both)
    centers = normalize(beside.stack([head.head.weight for head in heads]), dim=-1)
    previous = beside.stack([head.previous for head in heads])
    last = torch.stack([head.assignments[index] for head in heads])

    logits = beside.logits(both.detach(), centers)
    labels = _assign(heads, beside, logits.detach(), index)
    losses = center_loss(logits, labels.repeat(1, 2))
    # The encoder learns from what was known before this step.
    known = torch.where(last >= 0, last, labels).repeat(1, 2)
    encoded = beside.logits(both, previous)
    swapped = encoded.roll(len(index), dims=1)
    losses = losses + encoder_loss(encoded, swapped, known, label_share)
    return losses, (labels != last).float().mean(dim=1)


@torch.no_grad()
def _assign(
    heads: Sequence[DiscriminationHead], beside: SideBySide, logits: Tensor, index: Tensor
) -> Tensor:
    r"""Return the clusters :math:`\arg\max_k (x_i^\top w_k - c_k)`, and keep them.

    The cosines are the mean of both views, the costs :math:`c_k` are those of the constraint. A
    sample that stands twice in a batch, as samplers pad with, is remembered once.
    """
    one = heads[0]
    duals = beside.stack([head.duals for head in heads])
    first, second = logits.chunk(2, dim=1)
    cosines = (first + second) * (one.temperature / 2)
    if one.constraint == "size":
        cosines = cosines + duals[:, None]
    elif one.constraint == "entropy":
        counts = pad_sequence([head.counts_without(index).mT for head in heads], batch_first=True)
        cosines = cosines - one.entropy_weight * entropy_cost(counts.mT)
    labels = cosines.argmax(dim=-1)
    if one.constraint == "size":
        counts = torch.zeros_like(duals).scatter_add(1, labels, torch.ones_like(cosines[..., 0]))
        rate = one.DUAL_RATE_PER_CLUSTER * beside.n_clusters
        duals = raised_duals(duals, counts, one.lower_bound, rate, beside.n_clusters)
        own_duals = [row[: head.n_clusters] for head, row in zip(heads, duals, strict=True)]
        torch._foreach_copy_([head.duals for head in heads], own_duals)
    for head, own_labels in zip(heads, labels, strict=True):
        head.assignments[index] = own_labels
    return labels


class DiscriminationObjective(nn.Module):
    """The training objective of StableClusterDiscrimination, with its heads.

    Parameters
    ----------
    model : ClusterModel
        Its head becomes one of the heads: see :meth:`select`.
    n_clusters : sequence of int
        Numbers of clusters of the heads to choose from.
    n_over_clusters : sequence of int
        Numbers of clusters of the other heads, which are there for the encoder and, the last, for
        the class weights.
    neighbor_weight : float
        Weight of :func:`~skdeepcluster.objectives.info_nce` between the two views.
    neighbor_temperature : float
        Its temperature.
    **state : object
        See :class:`DiscriminationHead`.
    """

    def __init__(
        self,
        model: ClusterModel,
        *,
        n_clusters: Sequence[int],
        n_over_clusters: Sequence[int],
        neighbor_weight: float,
        neighbor_temperature: float,
        **state: Any,
    ) -> None:
        super().__init__()
        width = model.embedding.embedding_dim
        self.model = model
        self.n_candidates = len(n_clusters)
        self.all_heads = nn.ModuleList(
            DiscriminationHead(width, k, **state) for k in [*n_clusters, *n_over_clusters]
        )
        self.neighbor_weight = neighbor_weight
        self.neighbor_temperature = neighbor_temperature
        self.select(0)

    @property
    def heads(self) -> list[DiscriminationHead]:
        """Those to choose from, then the others, the finest last."""
        return list(self.all_heads)  # type: ignore[arg-type]  # a ModuleList hides what it holds

    @property
    def candidates(self) -> list[DiscriminationHead]:
        """The heads to choose from."""
        return self.heads[: self.n_candidates]

    @property
    def selected_head(self) -> DiscriminationHead:
        """The head that the model predicts with."""
        return self.heads[self.selected]

    def _groups(self) -> list[list[DiscriminationHead]]:
        """Return the heads that are computed side by side: few, and with little to fill up."""
        alike = groupby(self.candidates, key=lambda head: head.n_clusters)
        groups = [*(list(heads) for _, heads in alike), self.heads[self.n_candidates :]]
        return [heads for heads in groups if heads]

    def select(self, number: int) -> None:
        """Let the model predict with the head of this number."""
        self.selected = number
        self.model.head = self.selected_head.head

    def parameter_groups(
        self, learning_rate: float, center_learning_rate: float
    ) -> list[dict[str, Any]]:
        """Return what training may change, encoder first, as a torch optimiser wants it."""
        encoder = list(self.model.embedding.parameters())
        centers = [head.head.weight for head in self.heads]
        return [
            {"params": encoder, "lr": learning_rate},
            # Their length is of no meaning, so there is nothing to decay.
            {"params": centers, "lr": center_learning_rate, "weight_decay": 0.0},
        ]

    def begin_epoch(self, progress: float) -> None:
        """Tell all heads."""
        for head in self.heads:
            head.begin_epoch()

    def remember_samples(self, n_samples: int) -> None:
        """Tell all heads."""
        for head in self.heads:
            head.remember_samples(n_samples)

    def forget_samples(self) -> None:
        """Tell all heads."""
        for head in self.heads:
            head.forget_samples()

    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters of the selected head."""
        self.selected_head.reorder(order.to(self.selected_head.duals.device))

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return class weights as MiniClustering's, with the last head's clusters as the minis."""
        head, over_head = self.selected_head, self.heads[-1]
        over_labels = most_likely(over_head.head, embedding)
        shape = (head.n_clusters, over_head.n_clusters)
        return occupancy_weights(labels, over_labels, shape)

    def forward(
        self, index: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of the heads plus that of the neighbours.

        The history records which share of the samples changed cluster since their last visit.
        """
        z1, z2 = self.model.embedding(torch.cat([first, second])).chunk(2)
        with full_precision(z1.device):
            results = [discriminate(heads, index, z1, z2) for heads in self._groups()]
            losses, changes = (torch.cat(parts) for parts in zip(*results, strict=True))
            loss = losses.mean()
            if self.neighbor_weight:
                contrast = info_nce(z1, z2, self.neighbor_temperature)
                loss = loss + self.neighbor_weight * contrast
        return loss, {"changed": changes.mean()}


class RefinementObjective(nn.Module):
    """Self-labelling: confident predictions for one view are the targets of the other.

    Parameters
    ----------
    objective : DiscriminationObjective
        Its encoder and the heads to choose from are trained on.
    """

    CONFIDENCE_THRESHOLD = 0.99

    def __init__(self, objective: DiscriminationObjective) -> None:
        super().__init__()
        self.embedding = objective.model.embedding
        self.heads = nn.ModuleList(head.head for head in objective.candidates)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of the heads; a batch of which none is confident is skipped."""
        z1, z2 = self.embedding(torch.cat([first, second])).chunk(2)
        losses, shares = [], []
        with full_precision(z1.device):
            for head in self.heads:
                labels, selected = pseudo_labels(head(z1), self.CONFIDENCE_THRESHOLD)
                losses.append(self_training_loss(head(z2), labels, selected))
                shares.append(selected.float().mean())
        share = torch.stack(shares).mean()
        return torch.stack(losses).mean(), {"selected": share, "skipped": (share == 0).float()}
