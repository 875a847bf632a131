"""A callback that looks at the embedding every few epochs."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.callback import CallbackContext
from sklearn.utils import check_scalar
from torch import Tensor

from skdeepcluster.numerics import centroid_silhouette, kmeans, nearest_neighbors


class EmbeddingMonitor:
    """Score the embedding while it is learned, without labels unless they are passed to ``fit``.

    Register it with ``set_callbacks`` of a pretraining or a clusterer; it looks on and changes
    nothing. Of a clusterer it sees the clustering, not the pretraining before it: to watch that,
    fit the pretraining alone and pass its ``backbone_``.

    Parameters
    ----------
    every : int, default=10
        Epochs between two looks; the last epoch of a phase is not special.
    n_clusters : int, default=8
        Number of k-means clusters by which separation is measured.
    n_neighbors : int, default=5
        Neighbours that vote in the accuracy.
    n_samples : int, default=2048
        Samples that are looked at, spread evenly over X: an array, a dataframe or a list.

    Attributes
    ----------
    log : list of dict
        One record per look: ``phase``, ``epoch`` (from zero), ``silhouette`` (the median centroid
        silhouette of k-means clusters of the embedding, from -1 to 1) and, if y was passed,
        ``knn_accuracy``: the share of samples whose nearest others in the embedding vote for their
        class. What is recorded in other processes, as those of a parallel grid search, stays there.

    Notes
    -----
    A silhouette compares epochs of one fit, not methods: an embedding can look well separated
    without being right.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster.callbacks import EmbeddingMonitor
    >>> from skdeepcluster.pretraining import SimCLR
    >>> X, y = load_digits(return_X_y=True)
    >>> monitor = EmbeddingMonitor(every=5, n_clusters=10)
    >>> model = SimCLR(max_epochs=10, random_state=0).set_callbacks(monitor).fit(X, y)
    >>> [(record["phase"], record["epoch"]) for record in monitor.log]
    [('pretraining', 4), ('pretraining', 9)]
    >>> bool(monitor.log[-1]["knn_accuracy"] > 0.9)
    True
    """

    def __init__(
        self,
        *,
        every: int = 10,
        n_clusters: int = 8,
        n_neighbors: int = 5,
        n_samples: int = 2048,
    ) -> None:
        for name, value in (
            ("every", every),
            ("n_clusters", n_clusters),
            ("n_neighbors", n_neighbors),
            ("n_samples", n_samples),
        ):
            check_scalar(value, name, Integral, min_val=1)
        self.every = every
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.n_samples = n_samples
        self.log: list[dict[str, Any]] = []

    def setup(self, estimator: Any, context: CallbackContext) -> None:
        """Begin a fit."""

    def teardown(self, estimator: Any, context: CallbackContext) -> None:
        """End a fit."""

    def on_fit_task_begin(self, estimator: Any, context: CallbackContext) -> None:
        """Do nothing: there is nothing to see yet."""

    def on_fit_task_end(
        self,
        estimator: Any,
        context: CallbackContext,
        *,
        X: Any = None,
        y: Any = None,
        fitted_estimator: Any = None,
    ) -> None:
        """Look at the embedding after every few epochs."""
        epoch = context.task_id
        due = context.task_name == "epoch" and (epoch + 1) % self.every == 0
        if not due or fitted_estimator is None or X is None:
            return
        rows = np.linspace(0, len(X) - 1, min(len(X), self.n_samples)).round().astype(int)
        embedding = torch.from_numpy(fitted_estimator.transform(_take(X, rows)))
        record = {
            "phase": context.parent.task_name,
            "epoch": epoch,
            "silhouette": self._silhouette(embedding),
        }
        if y is not None:
            record["knn_accuracy"] = self._accuracy(embedding, np.asarray(y)[rows])
        self.log.append(record)

    def _silhouette(self, embedding: Tensor) -> float:
        n_clusters = min(self.n_clusters, len(embedding))
        generator = torch.Generator().manual_seed(0)  # the same start at every look
        labels = kmeans(embedding, n_clusters, generator=generator, n_init=1).labels
        return centroid_silhouette(embedding, labels, n_clusters)

    def _accuracy(self, embedding: Tensor, y: np.ndarray[Any, Any]) -> float:
        n_neighbors = min(self.n_neighbors, len(embedding) - 1)
        _, neighbors = nearest_neighbors(embedding, n_neighbors)
        classes, codes = np.unique(y, return_inverse=True)
        votes = np.zeros((len(y), len(classes)), dtype=int)
        for column in codes[neighbors.numpy()].T:
            votes[np.arange(len(y)), column] += 1
        return float((votes.argmax(axis=1) == codes).mean())


def _take(X: Any, rows: np.ndarray[Any, Any]) -> Any:
    """Return some rows of what fit was given."""
    if isinstance(X, list):
        return [X[row] for row in rows]
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]
