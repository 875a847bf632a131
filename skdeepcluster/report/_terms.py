"""The words that tell the texts of one cluster from those of the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

# As many as the paper shows of a topic.
_N_TERMS = 10


def checked_texts(texts: Iterable[str], n_samples: int) -> list[str]:
    """Return the texts as a list of one string per row."""
    checked = list(texts)
    if len(checked) != n_samples:
        raise ValueError(
            f"texts must hold one string per row of X; got {len(checked)} strings for "
            f"{n_samples} rows. Pass the texts that the rows were made from, in the same order."
        )
    for row, text in enumerate(checked):
        if not isinstance(text, str):
            raise ValueError(
                f"texts must hold strings; got {text!r} at position {row}. Replace what is "
                "missing by an empty string."
            )
    return checked


def distinctive_terms(
    texts: list[str], labels: NDArray[np.int64], n_clusters: int
) -> list[list[str]]:
    """Return the terms of each cluster with the largest class-based TF-IDF, the largest first.

    Of terms that weigh the same, the first in the alphabet comes first. Terms that a cluster does
    not have are no terms of it: a cluster of few words gets fewer than others, an empty one none.
    """
    vectorizer = CountVectorizer(stop_words="english")
    counts = csr_array(vectorizer.fit_transform(texts))
    weights = class_based_tf_idf(_sum_by_cluster(counts, labels, n_clusters))
    terms = vectorizer.get_feature_names_out()
    return [terms[_heaviest(weights[[cluster]])].tolist() for cluster in range(n_clusters)]


def class_based_tf_idf(counts: csr_array) -> csr_array:
    r"""Weigh the terms of each cluster, with all its texts taken as one.

    .. math:: W_{t,c} = \mathrm{tf}_{t,c} \cdot \log\left(1 + \frac{A}{\mathrm{tf}_t}\right)

    :math:`\mathrm{tf}_{t,c}` says how often the term t comes in cluster c, :math:`\mathrm{tf}_t`
    how often in all clusters, and A is the mean number of words of a cluster (Grootendorst 2022).

    Parameters
    ----------
    counts : csr_array of shape (n_clusters, n_terms)
        How often each term comes in each cluster.

    Returns
    -------
    weights : csr_array of shape (n_clusters, n_terms)
        Zero where the term does not come.
    """
    n_filled = np.count_nonzero(counts.sum(axis=1))
    mean_length = counts.sum() / max(n_filled, 1)
    return csr_array(counts * np.log1p(mean_length / counts.sum(axis=0))[None, :])


def _sum_by_cluster(counts: csr_array, labels: NDArray[np.int64], n_clusters: int) -> csr_array:
    n_samples = len(labels)
    ones, starts = np.ones(n_samples, dtype=np.int64), np.arange(n_samples + 1)
    belongs = csr_array((ones, labels, starts), shape=(n_samples, n_clusters))
    return csr_array(belongs.T @ counts)


def _heaviest(weights: csr_array) -> NDArray[Any]:
    """Return the columns of the largest entries of one row."""
    order = np.lexsort((weights.indices, -weights.data))
    return np.asarray(weights.indices[order[:_N_TERMS]])
