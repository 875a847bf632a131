"""A small head that learns the votes, and what its opinion means for a given label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from skdeepcluster.data import TensorViews
from skdeepcluster.networks import full_precision
from skdeepcluster.numerics import aligned_linear, cluster_means, full_digits, squared_lengths
from skdeepcluster.training import EpochHook, Phase, Trainer, cosine

# A row has about this length, so that one learning rate suits all data.
ROW_LENGTH = 8.0
# Samples that all lie at their means would start with infinite weights.
LEAST_SPREAD = 1e-3 * ROW_LENGTH**2
# How sure it may start, tried on so many samples at most.
SHARPNESSES = (0.0, *(2.0**power for power in range(-10, 2)))
START_ROWS = 2**11
LEARNING_RATE = 5e-2
BATCH_SIZE = 512
STEPS = 100
# The label's cluster is ahead of the others by at least these factors, far above rounding.
LEAST_LEAD = 1e-4
LEAST_ADVANCE = 1e-5


class ConfidenceHead(nn.Module):
    """A linear layer on one or more descriptions of a sample.

    Parameters
    ----------
    views : sequence of Tensor of shape (n_samples, n_features)
        Descriptions of some samples, to learn the widths and the scale of each.
    n_clusters : int
        Number of outputs.

    Attributes
    ----------
    mean_confidence : Tensor of shape ()
        How sure it is, on average, of the labels that it has learned; NaN before.
    """

    scales: Tensor
    mean_confidence: Tensor

    def __init__(self, views: Sequence[Tensor], n_clusters: int) -> None:
        super().__init__()
        lengths = torch.stack([squared_lengths(view).mean().sqrt().float() for view in views])
        self.register_buffer("scales", ROW_LENGTH / torch.where(lengths > 0, lengths, ROW_LENGTH))
        width = sum(view.shape[1] for view in views)
        # Not nn.Linear, whose random start would be drawn from torch's global generator.
        self.weight = nn.Parameter(torch.zeros(n_clusters, width))
        self.bias = nn.Parameter(torch.zeros(n_clusters))
        self.register_buffer("mean_confidence", torch.tensor(torch.nan))

    @torch.no_grad()
    def start_from(self, views: Sequence[Tensor], labels: Tensor, votes: Tensor) -> None:
        r"""Set weights and biases so that they tell clusters apart by their means.

        .. math:: \log \frac{n_k}{n} - \frac{\beta}{2V} \sum_v \frac{|x_v - \mu_{vk}|^2}{s_v^2}

        are the logits up to a constant, with :math:`s_v^2` the mean squared distance of a sample to
        its cluster's mean and the :math:`\beta` of :data:`SHARPNESSES` that the votes bear out
        best. From zero, many clusters in few dimensions would take thousands of steps.

        Parameters
        ----------
        views : sequence of Tensor of shape (n_samples, n_features)
            Descriptions of the samples, in random order.
        labels : Tensor of shape (n_samples,), int64
            Their clusters.
        votes : Tensor of shape (n_samples, n_voters), int64
        """
        n_clusters = len(self.bias)
        weights, biases = [], []
        for scale, view in zip(self.scales, views, strict=True):
            scaled = scale * view.float()
            means, counts = cluster_means(scaled, labels, n_clusters)
            scaled -= means[labels]  # in place: it is as large as what the votes were asked about
            spread = scaled.square_().sum(dim=1).mean()
            means_by_spread = means / (len(views) * spread.clamp(min=LEAST_SPREAD))
            weights.append(means_by_spread)
            biases.append(-(means_by_spread * means).sum(dim=1) / 2)
        weight, bias = torch.cat(weights, dim=1), torch.stack(biases).sum(dim=0)
        # A cluster without samples is not expected.
        prior = (counts.clamp(min=0.5) / len(labels)).log()
        rows = slice(START_ROWS)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        lead = self(*(view[rows] for view in views))
        losses = [vote_loss(prior + beta * lead, votes[rows]) for beta in SHARPNESSES]
        beta = torch.tensor(SHARPNESSES, device=lead.device)[torch.stack(losses).argmin()]
        self.weight.copy_(beta * weight)
        self.bias.copy_(prior + beta * bias)

    @classmethod
    def from_tensors(
        cls, scales: Tensor, weight: Tensor, bias: Tensor, mean_confidence: Tensor
    ) -> Self:
        """Return a head that has learned already.

        Parameters
        ----------
        scales : Tensor of shape (n_views,)
        weight : Tensor of shape (n_clusters, n_features), of all views together
        bias : Tensor of shape (n_clusters,)
        mean_confidence : Tensor of shape ()

        Raises
        ------
        ValueError
            If the shapes do not fit each other, or the mean is no probability.
        """
        if mean_confidence.ndim or not 0 <= mean_confidence <= 1:
            raise ValueError(f"A mean confidence is from 0 to 1, but this is {mean_confidence}.")
        if scales.ndim != 1 or weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(
                "A confidence head has scales of shape (n_views,), weight of shape (n_clusters, "
                f"n_features) and bias of shape (n_clusters,), but these have {tuple(scales.shape)}"
                f", {tuple(weight.shape)} and {tuple(bias.shape)}."
            )
        head = cls([torch.ones(1, weight.shape[1])], len(weight))
        head.scales, head.mean_confidence = scales, mean_confidence
        head.weight, head.bias = nn.Parameter(weight), nn.Parameter(bias)
        return head

    def check(self, n_clusters: int, widths: Sequence[int]) -> None:
        """Raise ValueError if the head is not made for so many clusters and views so wide."""
        expected = (n_clusters, sum(widths)), (len(widths),)
        found = tuple(self.weight.shape), tuple(self.scales.shape)
        if found != expected:
            raise ValueError(
                f"the confidence head has weights and scales of the shapes {found}, which should "
                f"be {expected}"
            )

    def forward(self, *views: Tensor) -> Tensor:
        """Return the logits of the votes."""
        in_precision = [view.to(self.weight.dtype) for view in views]
        scaled = [scale * view for scale, view in zip(self.scales, in_precision, strict=True)]
        return aligned_linear(torch.cat(scaled, dim=1), self.weight, self.bias)


def vote_loss(logits: Tensor, votes: Tensor) -> Tensor:
    r"""Return the cross-entropy of predictions on the votes.

    .. math:: -\frac{1}{BV} \sum_{i, v} \log p_{i, y_{iv}}

    The minimum is the share of the votes that samples like i get, which is their average over the
    region where the head cannot tell them apart.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_clusters)
    votes : Tensor of shape (batch, n_voters), int64
        The clusters :math:`y_{iv}`.
    """
    return -log_softmax(logits, dim=1).gather(1, votes).mean()


class VoteObjective(nn.Module):
    """:func:`vote_loss` of a head.

    Parameters
    ----------
    head : ConfidenceHead
    """

    def __init__(self, head: ConfidenceHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, votes: Tensor, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; nothing else is recorded."""
        with full_precision(votes.device):
            return vote_loss(self.head(*views), votes), {}


def n_epochs(n_samples: int) -> int:
    """Return the number of passes that :func:`fit_confidence` takes."""
    n_batches = max(n_samples // BATCH_SIZE, 1)
    return max(round(min(STEPS, max(n_samples // 7, 6)) / n_batches), 1)


@full_digits()
def fit_confidence(
    views: Sequence[Tensor],
    votes: Tensor,
    labels: Tensor,
    n_clusters: int,
    trainer: Trainer,
    hook: EpochHook,
) -> ConfidenceHead:
    """Return a head fitted to votes.

    Parameters
    ----------
    views : sequence of Tensor of shape (n_samples, n_features)
        Descriptions of the samples.
    votes : Tensor of shape (n_samples, n_voters), int64
        See :func:`~skdeepcluster.calibration.collect_votes`.
    labels : Tensor of shape (n_samples,), int64
        What was voted about.
    n_clusters : int
        Votes and labels are below it.
    trainer : Trainer
        Runs a phase named "calibration".
    hook : EpochHook
        Told about every epoch.
    """
    head = ConfidenceHead(views, n_clusters).to(votes.device)
    head.start_from(views, labels, votes)
    for parameter in head.parameters():
        parameter.data = trainer.agreed(parameter.data)
    n = len(votes)
    trainer.run(
        Phase(
            name="calibration",
            objective=VoteObjective(head),
            views=TensorViews(votes, *views),
            n_samples=n,
            batch_size=min(BATCH_SIZE, n),
            epochs=n_epochs(n),
            parameter_groups=[{"params": list(head.parameters()), "lr": LEARNING_RATE}],
            optimizer=torch.optim.Adam,
            schedule=cosine,
            hook=hook,
            resumable=False,
        )
    )
    confidence = torch.tensor(mean_confidence(head, views, labels), device=labels.device)
    head.mean_confidence = trainer.agreed(confidence)
    return head


@torch.no_grad()
def mean_confidence(opinion: nn.Module, views: Sequence[Tensor], labels: Tensor) -> float:
    """Return the mean probability of labels.

    Parameters
    ----------
    opinion : nn.Module
        Maps views to logits, as :class:`ConfidenceHead`.
    views : sequence of Tensor of shape (n_samples, n_features)
    labels : Tensor of shape (n_samples,), int64
    """
    total = 0.0
    for start in range(0, len(labels), START_ROWS):
        rows = slice(start, start + START_ROWS)
        # Not every device has double precision.
        said = opinion(*(view[rows] for view in views)).cpu().double().softmax(dim=1)
        total += _confidences(labels[rows].cpu(), said).sum().item()
    return min(total / len(labels), 1.0)


def _confidences(labels: Tensor, opinion: Tensor) -> Tensor:
    """Return the probability that each label keeps, in a column."""
    n_clusters = opinion.shape[1]
    if n_clusters == 1:
        return torch.ones_like(opinion)
    return opinion.gather(1, labels[:, None]).clamp(min=(1 + LEAST_LEAD) / n_clusters)


def confident_in(labels: Tensor, opinion: Tensor) -> Tensor:
    """Return probabilities whose largest entry is the label, as sure of it as an opinion is.

    The label keeps the probability that the opinion gives it (if it is above chance). The others
    share the rest as in the opinion, made just as even as it takes for none to exceed the label.

    Parameters
    ----------
    labels : Tensor of shape (n_samples,), int64
    opinion : Tensor of shape (n_samples, n_clusters)
        Probabilities, in double precision.

    Returns
    -------
    Tensor of shape (n_samples, n_clusters)
        Rows sum to one, and the label is strictly ahead.
    """
    n_clusters = opinion.shape[1]
    if n_clusters == 1:
        return torch.ones_like(opinion)
    own, confidence = labels[:, None], _confidences(labels, opinion)
    others = opinion.scatter(1, own, 0.0)
    even = torch.full_like(opinion, 1 / (n_clusters - 1)).scatter(1, own, 0.0)
    total = others.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, others / total.clamp(min=1e-300), even)
    # The largest share that leaves the label ahead; with even shares it always is.
    limit = (1 - LEAST_ADVANCE) * confidence / (1 - confidence).clamp(min=1e-300)
    top = shares.max(dim=1, keepdim=True).values
    surplus = (top - limit) / (top - 1 / (n_clusters - 1)).clamp(min=1e-300)
    shares = shares + surplus.clamp(0, 1) * (even - shares)
    return ((1 - confidence) * shares).scatter(1, own, confidence)
