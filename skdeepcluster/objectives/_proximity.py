r"""R-DC: deep clustering without pseudo-labels.

First an auto-encoder f, g whose interpolations look real to a critic d, then a movement of every
code :math:`z_i = f(x_i)` towards its nearest neighbours. The paper's own equations were not
available: those of the first phase are ACAI's (Berthelot et al., 2019), as in its authors' earlier
method; those of the second are a reconstruction from its description.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize

from skdeepcluster.networks import (
    ClusterModel,
    EmbeddingNetwork,
    PrototypeHead,
    frozen_parameters,
    full_precision,
)
from skdeepcluster.numerics import full_digits, nearest_neighbors
from skdeepcluster.objectives._regions import Regions

# Medoids are searched for so many samples at a time.
MEDOID_ROWS = 2**13


def reconstruction_loss(x: Tensor, decoded: Tensor) -> Tensor:
    r"""Return the mean squared error :math:`\frac{1}{B d} \sum_i \|x_i - \hat x_i\|^2`."""
    return (x - decoded).square().mean()


def interpolate(codes: Tensor, shares: Tensor) -> Tensor:
    r"""Return points between each code of a batch and the one of the reversed batch.

    .. math:: z^a_i \propto (1 - a_i) z_i + a_i z_{B + 1 - i}

    Parameters
    ----------
    codes : Tensor of shape (batch, embedding_dim)
        Of unit length, as the result is.
    shares : Tensor of shape (batch,)
        The partner's share a, from 0 to 1/2: which of the two is nearer is known.
    """
    return normalize(torch.lerp(codes, codes.flip(0), shares[:, None]), dim=1)


def critic_loss(on_mixed: Tensor, shares: Tensor, on_real: Tensor) -> Tensor:
    r"""Return the error of the critic, who is to guess how much samples are mixed.

    .. math:: \frac{1}{B} \sum_i (d(x^a_i) - a_i)^2 + \frac{1}{B} \sum_i d(r_i)^2

    Parameters
    ----------
    on_mixed : Tensor of shape (batch,)
        Guesses :math:`d(x^a)` for decoded interpolations.
    shares : Tensor of shape (batch,)
        The truth a about them.
    on_real : Tensor of shape (batch,)
        Guesses for samples r that are not mixed; see :func:`nearly_real`.
    """
    return (on_mixed - shares).square().mean() + on_real.square().mean()


def nearly_real(x: Tensor, decoded: Tensor, share: float = 0.2) -> Tensor:
    r"""Return reconstructions with some of the sample in them.

    .. math:: r = \hat x + .2 (x - \hat x)

    They make the critic's task possible even where reconstructions are poor.
    """
    return torch.lerp(decoded, x, share)


def realism_loss(on_mixed: Tensor) -> Tensor:
    r"""Return :math:`\frac{1}{B} \sum_i d(x^a_i)^2`: interpolations are to look unmixed."""
    return on_mixed.square().mean()


def edge_filter(distances: Tensor, neighbors: Tensor, quantile: float) -> Tensor:
    r"""Return which edges of the graph of neighbours are short and mutual.

    .. math:: e_{ij} = [\|z_i - z_j\| \le Q_q] \; [i \in N(j)], \quad j \in N(i)

    where :math:`Q_q` is the quantile of the lengths of all edges. Every edge passes at q = 1.

    Parameters
    ----------
    distances, neighbors : Tensor of shape (n_samples, n_neighbors)
        Lengths of the edges, and N(i), as of :func:`~skdeepcluster.numerics.nearest_neighbors`.
    quantile : float
        The q of the formula.
    """
    if quantile >= 1:
        return torch.ones_like(neighbors, dtype=torch.bool)
    own = torch.arange(len(neighbors), device=neighbors.device)[:, None]
    # One column at a time: the neighbours of all neighbours would take k times the memory.
    columns = [(neighbors[column] == own).any(dim=1) for column in neighbors.T]
    mutual = torch.stack(columns, dim=1)
    return mutual & (distances <= lower_quantile(distances.flatten(), quantile))


def point_filter(edges: Tensor, quantile: float) -> Tensor:
    r"""Return which samples lie in a crowd, with edges enough.

    .. math:: p_i = [n_i \ge \max(1, (1 - q) k / 2)]

    for :math:`n_i` edges that passed the other filter, and k neighbours. Their mean length is below
    that filter's quantile. Every sample that has an edge passes at q = 1.

    Parameters
    ----------
    edges : Tensor of shape (n_samples, n_neighbors), bool
        Which of the edges passed the filter before.
    quantile : float
        The q of the formula.
    """
    return edges.sum(dim=1) >= max(1.0, (1 - quantile) * edges.shape[1] / 2)


def lower_quantile(values: Tensor, quantile: float) -> Tensor:
    """Return the largest of the lowest values that make up this share of all."""
    # torch.quantile refuses more than 2^24 of them.
    return values.kthvalue(max(math.ceil(quantile * len(values)), 1)).values


def neighbor_means(codes: Tensor, neighbors: Tensor, edges: Tensor) -> Tensor:
    r"""Return the mean of each code and those that its edges lead to.

    .. math:: c_i \propto z_i + \sum_{j \in N(i)} e_{ij} z_j

    Parameters
    ----------
    codes : Tensor of shape (n_samples, embedding_dim)
        Of unit length, as the result is.
    neighbors, edges : Tensor of shape (n_samples, n_neighbors)
        N(i) and e.
    """
    sums = codes.clone()
    for column, passed in zip(neighbors.T, edges.T, strict=True):  # a gather of all takes memory
        sums += codes[column] * passed[:, None]
    return normalize(sums, dim=1)


@full_digits()
def neighbor_medoids(codes: Tensor, neighbors: Tensor, edges: Tensor) -> Tensor:
    """Return of each code and those that its edges lead to the one nearest to all of them.

    Parameters
    ----------
    codes : Tensor of shape (n_samples, embedding_dim)
        Of unit length, as the result is.
    neighbors, edges : Tensor of shape (n_samples, n_neighbors)
        See :func:`neighbor_means`.
    """
    own = torch.arange(len(codes), device=codes.device)[:, None]
    members = torch.cat([own, neighbors], dim=1)
    passed = torch.cat([torch.ones_like(own, dtype=torch.bool), edges], dim=1)
    chosen = []
    parts = (torch.split(table, MEDOID_ROWS) for table in (members, passed))
    for rows, present in zip(*parts, strict=True):
        lengths = torch.cdist(codes[rows], codes[rows])
        sums = (lengths * present[:, None]).sum(dim=2).masked_fill(~present, torch.inf)
        chosen.append(rows.gather(1, sums.argmin(dim=1, keepdim=True))[:, 0])
    return codes[torch.cat(chosen)]


def proximity_loss(codes: Tensor, centroids: Tensor, moved: Tensor) -> Tensor:
    r"""Return how far the samples that move are from their centroids.

    .. math:: \frac{1}{B} \sum_i p_i \|z_i - c_i\|^2

    Parameters
    ----------
    codes, centroids : Tensor of shape (batch, embedding_dim)
        z and c; gradient flows through z.
    moved : Tensor of shape (batch,), bool
        The samples p that passed the filters.
    """
    return ((codes - centroids).square().sum(dim=1) * moved).mean()


class InterpolationObjective(nn.Module):
    """The first phase: an auto-encoder, and a critic of its interpolations.

    Parameters
    ----------
    embedding : EmbeddingNetwork
        The encoder f.
    decoder : nn.Module
        The decoder g.
    critic : nn.Module or None
        The critic d, with one output for each sample. None turns interpolation off.
    standardize : nn.Module
        What brings prepared samples to the scale of the decoder's output.
    weight : float
        Of :func:`realism_loss`.
    """

    def __init__(
        self,
        embedding: EmbeddingNetwork,
        decoder: nn.Module,
        critic: nn.Module | None,
        standardize: nn.Module,
        weight: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.decoder = decoder
        self.critic = critic
        self.standardize = standardize
        self.weight = weight

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of auto-encoder and critic, of which each reaches its own part only."""
        codes = self.embedding(x)
        x = self.standardize(x)
        decoded = self.decoder(codes).float()
        loss = reconstruction = reconstruction_loss(x, decoded)
        scalars = {"reconstruction": reconstruction}
        if self.critic is not None:
            shares = torch.rand(len(x), device=x.device) / 2
            mixed = self.decoder(interpolate(codes, shares)).float()
            real = nearly_real(x, decoded)
            on_mixed, on_real = self.critic(torch.cat([mixed, real]).detach()).float().chunk(2)
            frozen = frozen_parameters(self.critic)
            realism = realism_loss(functional_call(self.critic, frozen, (mixed,)).float())
            criticism = critic_loss(on_mixed, shares, on_real)
            loss = loss + self.weight * realism + criticism
            scalars |= {"realism": realism, "critic": criticism}
        return loss, scalars


class ProximityObjective(nn.Module):
    """The second phase: codes move to their neighbours, in crowds first.

    Of each sample it remembers whether it moves, and where to, until :meth:`refresh` is called.
    Whenever the share of samples that pass the filters has not grown, they let more through.

    Parameters
    ----------
    model : ClusterModel
        Its head becomes the nearest-centre rule of :meth:`divide`; it is all zero before.
    decoder : nn.Module
        The decoder g.
    standardize : nn.Module
        See :class:`InterpolationObjective`.
    n_clusters, n_regions : int
        What :meth:`divide` is given, and how many regions class weights are estimated from.
    n_neighbors : int
        Of each sample, k.
    filters : {"both", "edge"} or None
        Which are used; without the point filter all samples that have an edge move.
    medoids : bool
        Whether centroids are :func:`neighbor_medoids`, else :func:`neighbor_means`.
    code_weight : float
        Of :func:`proximity_loss`, relative to :func:`reconstruction_loss`.
    """

    FIRST_QUANTILE = 0.5
    # The share of samples that passes has grown if it has by so much.
    GROWTH = 0.01
    # Of the softmax over minus squared distances, when probabilities are not calibrated.
    SHARPNESS = 15.0
    centroids: Tensor
    moved: Tensor
    quantile: Tensor
    share: Tensor

    def __init__(
        self,
        model: ClusterModel,
        decoder: nn.Module,
        standardize: nn.Module,
        *,
        n_clusters: int,
        n_regions: int,
        n_neighbors: int,
        filters: str | None,
        medoids: bool,
        code_weight: float,
    ) -> None:
        super().__init__()
        width = model.embedding.embedding_dim
        self.model = model
        self.head = PrototypeHead(width, n_clusters)
        self.model.head = self.head
        self.decoder = decoder
        self.target_decoder: nn.Module = nn.Identity()
        self.standardize = standardize
        self.regions = Regions(n_regions, width)
        self.n_neighbors = n_neighbors
        self.filters = filters
        self.medoids = medoids
        self.code_weight = code_weight
        self.register_buffer("quantile", torch.tensor(self.FIRST_QUANTILE))
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("centroids", torch.zeros(0, width))
        self.register_buffer("moved", torch.zeros(0, dtype=torch.bool))
        self.forget_clusters()

    def remember_samples(self, n_samples: int) -> None:
        """Make room for where each of so many samples moves, and for what decodes the targets."""
        self.centroids = self.centroids.new_zeros(n_samples, self.centroids.shape[1])
        self.moved = self.moved.new_zeros(n_samples)
        self.target_decoder = copy.deepcopy(self.decoder).requires_grad_(False)

    @torch.no_grad()
    def forget_samples(self) -> None:
        """Drop both, which a finished model has no use for; filters are as strict as at first."""
        self.centroids, self.moved = self.centroids[:0].clone(), self.moved[:0].clone()
        self.target_decoder = nn.Identity()
        self.quantile.fill_(self.FIRST_QUANTILE)
        self.share.zero_()

    @torch.no_grad()
    def fix_targets(self) -> None:
        """Let the decoder as it is now decode the targets from here on."""
        self.target_decoder.load_state_dict(self.decoder.state_dict())

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what training may change, as a torch optimiser wants it."""
        parameters = [*self.model.embedding.parameters(), *self.decoder.parameters()]
        return [{"params": parameters, "lr": learning_rate}]

    def train(self, mode: bool = True) -> Self:
        """Switch to training; what decodes the targets stays as it was."""
        super().train(mode)
        self.target_decoder.eval()
        return self

    @torch.no_grad()
    def refresh(self, codes: Tensor, step: float) -> None:
        """Find the samples that are to move, and where to.

        Parameters
        ----------
        codes : Tensor of shape (n_samples, embedding_dim)
            Of all samples, in evaluation mode.
        step : float
            By how much the quantile of the filters rises if the share of moving samples has not.
        """
        distances, neighbors = nearest_neighbors(codes, self.n_neighbors)
        quantile = self.quantile.item()
        edges = torch.ones_like(neighbors, dtype=torch.bool)
        if self.filters is not None:
            edges = edge_filter(distances, neighbors, quantile)
        if self.filters == "both":
            self.moved.copy_(point_filter(edges, quantile))
        else:
            self.moved.copy_(edges.any(dim=1))
        find = neighbor_medoids if self.medoids else neighbor_means
        self.centroids.copy_(find(codes, neighbors, edges))
        share = self.moved.float().mean()
        if share - self.share < self.GROWTH:
            self.quantile.add_(step).clamp_(max=1)
        self.share.copy_(share)

    @torch.no_grad()
    def divide(self, centers: Tensor, region_centers: Tensor) -> None:
        """Let the head assign samples to the nearest of some centres.

        Parameters
        ----------
        centers : Tensor of shape (n_clusters, embedding_dim)
            Of the clusters.
        region_centers : Tensor of shape (n_regions, embedding_dim)
            Of a finer partition, for class weights; see :class:`Regions`.
        """
        self.head.weight.copy_(2 * self.SHARPNESS * centers)
        self.head.bias.copy_(-self.SHARPNESS * centers.square().sum(dim=1))
        self.regions.place(region_centers)

    @torch.no_grad()
    def forget_clusters(self) -> None:
        """Undo :meth:`divide`: while codes move there are no clusters, not even earlier ones."""
        for parameter in self.head.parameters():
            parameter.zero_()

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        order = order.to(self.centroids.device)
        for parameter in self.head.parameters():
            parameter.copy_(parameter[order])

    @torch.no_grad()
    def weigh_classes(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return class weights as MiniClustering's, with regions as the mini-clusters."""
        return self.regions.weigh_classes(embedding, labels, len(self.head.weight))

    def forward(self, index: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch.

        A sample that moves has its centroid, and what that is decoded to, as targets; any other
        has itself.
        """
        codes = self.model.embedding(x)
        moved, centroids = self.moved[index], self.centroids[index]
        decoded = self.decoder(codes).float()
        with torch.no_grad():
            x = self.standardize(x)
            target = self.target_decoder(centroids).float()
            target = torch.where(moved.view(-1, *[1] * (x.ndim - 1)), target, x)
        with full_precision(codes.device):
            reconstruction = reconstruction_loss(target, decoded)
            proximity = proximity_loss(codes, centroids, moved)
        return reconstruction + self.code_weight * proximity, {
            "reconstruction": reconstruction,
            "proximity": proximity,
            "moved": moved.float().mean(),
        }
