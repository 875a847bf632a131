"""Inference: embeddings, logits and what follows from them, the same in fit and predict."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from skdeepcluster.data import Source, ordered_batches
from skdeepcluster.networks import ClusterModel

# Rows per forward pass. It is the same for fit and predict, always padded to full size, so that a
# sample's result does not depend on the company it keeps.
INFERENCE_BATCH = 512


@torch.no_grad()
def infer(model: ClusterModel, source: Source) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the embeddings and logits of all samples, batch by batch, on the CPU."""
    model.to(source.device).eval()
    for rows, n_valid in ordered_batches(source, INFERENCE_BATCH):
        embedding = model.embedding(model.prepare(rows))
        logits = model.head(embedding)
        yield embedding[:n_valid].float().cpu(), logits[:n_valid].float().cpu()


def embed_and_label(model: ClusterModel, source: Source) -> tuple[Tensor, Tensor]:
    """Return the embedding and the most likely cluster of every sample."""
    embeddings, labels = [], []
    for embedding, logits in infer(model, source):
        embeddings.append(embedding)
        labels.append(logits.argmax(dim=1))
    return torch.cat(embeddings), torch.cat(labels)


def probabilities_of(logits: Tensor) -> NDArray[np.float64]:
    """Return the softmax in double precision: rows sum to one, equal logits stay equal."""
    probabilities: NDArray[np.float64] = logits.double().softmax(dim=1).numpy()
    return probabilities


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy along the last axis, in nats."""
    total: NDArray[np.float64] = entr(probabilities).sum(axis=-1)
    return total
