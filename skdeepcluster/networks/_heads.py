"""Heads that turn embeddings into cluster logits."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot, relu

from skdeepcluster.numerics import aligned_linear, cluster_means, kmeans

# Logits are made for so many rows at a time: never for all samples and all clusters.
CHUNK_ROWS = 2**13


def most_likely(head: nn.Module, embedding: Tensor) -> Tensor:
    """Return the number of the largest output for each row, on the CPU.

    Parameters
    ----------
    head : nn.Module
        Maps embeddings to logits.
    embedding : Tensor of shape (n_samples, embedding_dim)
        On any device; it is moved to the head's in parts.
    """
    device = next(head.parameters()).device
    parts = torch.split(embedding, CHUNK_ROWS)
    return torch.cat([head(part.to(device)).argmax(dim=1).cpu() for part in parts])


class PrototypeHead(nn.Linear):
    """A linear layer whose rows start as cluster centres.

    Parameters
    ----------
    embedding_dim : int
        Number of embedding dimensions.
    n_clusters : int
        Number of outputs.
    """

    def __init__(self, embedding_dim: int, n_clusters: int) -> None:
        super().__init__(embedding_dim, n_clusters)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the cluster logits."""
        return aligned_linear(embedding, self.weight, self.bias)

    @torch.no_grad()
    def start_from(self, centers: Tensor, scale: float) -> None:
        """Set the weights to ``scale`` times the unit centres and the biases to zero.

        On unit embeddings the logits are then ``scale`` times the cosine to each centre, so the
        head starts as the nearest-centre rule with a confidence that grows with ``scale``.

        Parameters
        ----------
        centers : Tensor of shape (n_clusters, embedding_dim)
            One centre per output.
        scale : float
            Length of the weight vectors, the inverse of the softmax temperature.
        """
        self.weight.copy_(scale * normalize(centers, dim=1))
        self.bias.zero_()


class CosineHead(nn.Module):
    """The cosine to each of some centres, over a temperature.

    Parameters
    ----------
    embedding_dim : int
        Number of embedding dimensions.
    n_clusters : int
        Number of outputs.
    temperature : float
        The lower, the surer.
    """

    def __init__(self, embedding_dim: int, n_clusters: int, temperature: float) -> None:
        super().__init__()
        # Any length does: centres are scaled to unit length where they are used.
        self.weight = nn.Parameter(normalize(torch.randn(n_clusters, embedding_dim), dim=1))
        self.temperature = temperature

    @property
    def centers(self) -> Tensor:
        """The centres, of unit length."""
        return normalize(self.weight, dim=1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits of embeddings of unit length."""
        return aligned_linear(embedding / self.temperature, self.centers)

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        self.weight.copy_(self.weight[order])


class PrototypePerceptron(nn.Module):
    """A head with one hidden layer, whose rows start as centres of the data.

    Parameters
    ----------
    embedding_dim : int
        Number of embedding dimensions.
    n_hidden : int
        Number of hidden units.
    n_clusters : int
        Number of outputs.
    """

    # Length of the logits of a typical sample at the start.
    START_SCALE = 10.0
    # The hidden centres are only a start: so many rows for each, and a few iterations, are enough.
    ROWS_PER_UNIT = 16
    KMEANS_ITERATIONS = 10

    def __init__(self, embedding_dim: int, n_hidden: int, n_clusters: int) -> None:
        super().__init__()
        # Batch normalisation brings its own shift.
        self.hidden = nn.Linear(embedding_dim, n_hidden, bias=False)
        self.norm = nn.BatchNorm1d(n_hidden)
        self.output = nn.Linear(n_hidden, n_clusters)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the cluster logits."""
        activations = self._activate(embedding)
        return aligned_linear(activations, self.output.weight, self.output.bias)

    def _activate(self, embedding: Tensor) -> Tensor:
        return relu(self.norm(aligned_linear(embedding, self.hidden.weight)))

    @torch.no_grad()
    def start_from(self, embedding: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Set the hidden layer to centres of k-means, the output layer to cluster centres.

        Parameters
        ----------
        embedding : Tensor of shape (n_samples, embedding_dim)
            At least ``n_hidden`` samples.
        labels : Tensor of shape (n_samples,), int64
            A partition into at most ``n_clusters`` clusters.
        generator : torch.Generator
            Source of the randomness of k-means.
        """
        self.eval()
        self._start_hidden(embedding, generator)
        n_clusters = self.output.out_features
        sums = embedding.new_zeros(n_clusters, self.hidden.out_features)
        length = embedding.new_zeros(())
        for index in torch.split(torch.arange(len(embedding)), CHUNK_ROWS):
            activations = self._activate(embedding[index])
            means, counts = cluster_means(activations, labels[index], n_clusters)
            sums += means * counts[:, None]
            length += activations.norm(dim=1).sum()
        scale = self.START_SCALE * len(embedding) / length.clamp(min=1e-12)
        self.output.weight.copy_(scale * normalize(sums, dim=1))
        self.output.bias.zero_()

    def _start_hidden(self, embedding: Tensor, generator: torch.Generator) -> None:
        """Start from k-means in the standardised embedding, each sample scaled to unit length."""
        n_hidden = self.hidden.out_features
        mean, deviation = embedding.mean(dim=0), embedding.std(dim=0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        rows = torch.randperm(len(embedding), generator=generator)[: self.ROWS_PER_UNIT * n_hidden]
        directions = normalize((embedding[rows] - mean) / deviation, dim=1)
        centers = kmeans(
            directions, n_hidden, generator=generator, n_init=1, max_iter=self.KMEANS_ITERATIONS
        ).centers
        # The weights take up the scale; the shift is the normalisation's.
        weight = centers / deviation
        centered = embedding - mean
        covariance = centered.T @ centered / len(embedding)
        self.hidden.weight.copy_(weight)
        self.norm.running_mean = weight @ mean
        self.norm.running_var = ((weight @ covariance) * weight).sum(dim=1)

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: the new cluster i is the old ``order[i]``."""
        for parameter in self.output.parameters():
            parameter.copy_(parameter[order])


class EmbeddingOpinion(nn.Module):
    """A head on the embedding as a second opinion."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *descriptions: Tensor) -> Tensor:
        """Return the logits; the embedding is the last description."""
        logits: Tensor = self.head(descriptions[-1])
        return logits


class MergedLabels(nn.Module):
    """A head some of whose clusters have become one: the most likely is where it was before.

    Parameters
    ----------
    head : nn.Module
        Maps embeddings to logits.
    groups : Tensor of shape (n_outputs,), int64
        To which cluster each output of the head belongs.
    """

    groups: Tensor

    def __init__(self, head: nn.Module, groups: Tensor) -> None:
        super().__init__()
        self.head = head
        self.n_groups = int(groups.max()) + 1
        self.register_buffer("groups", groups)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the largest logit of each group."""
        logits: Tensor = self.head(embedding)
        # Not new_full: exporters would take the number of rows for a constant.
        largest = torch.full_like(logits[:, : self.n_groups], -torch.inf)
        return largest.scatter_reduce(1, self.groups.expand_as(logits), logits, "amax")


class MergedOpinion(nn.Module):
    """A second opinion on clusters some of which have become one: their probabilities add up.

    Parameters
    ----------
    opinion : nn.Module
        Maps descriptions of a sample to logits.
    groups : Tensor of shape (n_outputs,), int64
        To which cluster each output belongs.
    """

    indicator: Tensor

    def __init__(self, opinion: nn.Module, groups: Tensor) -> None:
        super().__init__()
        self.opinion = opinion
        self.register_buffer("indicator", one_hot(groups).T.float())

    def forward(self, *descriptions: Tensor) -> Tensor:
        """Return the logarithm of the summed probabilities."""
        probabilities: Tensor = self.opinion(*descriptions).softmax(dim=1)
        return aligned_linear(probabilities, self.indicator).log()
