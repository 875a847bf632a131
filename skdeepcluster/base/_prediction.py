"""What a fitted clusterer says about samples."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClusterMixin
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skdeepcluster.base._estimator import DeepEstimator
from skdeepcluster.base._inference import Predictions, entropy
from skdeepcluster.calibration import (
    ConfidenceHead,
    NearestMean,
    accuracy_interval,
    outlier_ranks,
)


class PredictingEstimator(ClusterMixin, DeepEstimator):
    """Labels, probabilities and a score from the networks of a fitted clusterer."""

    _NETWORKS = ("_objective", "_confidence", "_frozen")

    _objective: Any
    _confidence: ConfidenceHead | None
    _familiar_means: NDArray[np.float32]
    _familiar_distances: NDArray[np.float32]

    def predict(
        self, X: Any, *, reject_below: float | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[np.int64]:
        """Return the most likely cluster of each sample.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`; samples of the shape seen there.
        reject_below : float, optional
            Samples whose largest probability is lower get the label -1 instead of a cluster. With
            ``verbose`` their share is printed. None rejects nothing.
        out : ndarray of shape (n_samples,), optional
            Where to write the labels, for example a memory map; it is returned.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Numbers of clusters. On the training data they equal ``labels_`` unless rejected.

        Raises
        ------
        ValueError
            If ``reject_below`` is not between 0 and 1, or ``out`` does not suit the labels.
        TypeError
            If ``reject_below`` is no number.
        """
        if reject_below is None:
            return self._infer(X, lambda batch: batch.labels.numpy(), out)
        check_scalar(reject_below, "reject_below", Real)
        if not 0 <= reject_below <= 1:
            raise ValueError(
                f"reject_below={reject_below} is no probability. Use None or a number from 0 to 1."
            )

        def label_or_reject(batch: Predictions) -> NDArray[np.int64]:
            confident = batch.probabilities.max(dim=1).values >= reject_below
            return torch.where(confident, batch.labels, -1).numpy()

        labels = self._infer(X, label_or_reject, out)
        if self.verbose > 0:
            rejected = np.mean(labels == -1)
            print(f"{rejected:.1%} of {len(labels)} samples were rejected (below {reject_below})")
        return labels

    def predict_proba(self, X: Any, *, out: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Return the probability of each cluster for each sample.

        With ``calibrate=True`` they say how far independent partitions of the data agree. Of the
        samples with a probability of .8 about eight in ten should then be right; on data that this
        was not developed on it has been off by .1 to .2.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`; samples of the shape seen there.
        out : ndarray of shape (n_samples, n_clusters), optional
            Where to write the probabilities, for example a memory map; it is returned. A narrower
            type than float64 rounds them, and can make ties of the largest.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_clusters)
            Rows sum to one, and their largest entry is the cluster that :meth:`predict` returns.

        Raises
        ------
        ValueError
            If ``out`` does not suit the probabilities.
        """
        return self._infer(X, lambda batch: batch.probabilities.numpy(), out)

    def predict_top(self, X: Any, k: int = 5) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the k most likely clusters of each sample, and their probabilities.

        Unlike :meth:`predict_proba` it never holds probabilities of all clusters for all samples.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`; samples of the shape seen there.
        k : int, default=5
            How many; all, if there are fewer clusters.

        Returns
        -------
        clusters : ndarray of shape (n_samples, k), int64
            The most likely first, which is the label of :meth:`predict`.
        probabilities : ndarray of shape (n_samples, k)
            Theirs.
        """
        check_scalar(k, "k", Integral, min_val=1)

        def top(batch: Predictions) -> NDArray[np.float64]:
            # Sorted, not picked, because ties have to go to the lower number, as in predict.
            ranked = batch.probabilities.sort(dim=1, descending=True, stable=True)
            return torch.stack([ranked.indices[:, :k], ranked.values[:, :k]], dim=1).numpy()

        both = self._infer(X, top)
        return both[:, 0].astype(np.int64), both[:, 1]

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mutual information between samples and clusters, in nats.

        It is the entropy of the cluster sizes less the mean entropy of the predictions: high
        when the clusters are many and every sample is sure of its own. It needs no labels.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`; samples of the shape seen there.
        y : Ignored
            Accepted for scikit-learn's sake; labels are never used.

        Returns
        -------
        score : float
            Between 0 and ``log(n_clusters)``; higher is better.
        """
        sizes, conditional = np.zeros(1), 0.0
        with self._predictions(X) as (n_samples, batches):
            for batch in batches:
                probabilities = batch.probabilities.numpy()
                sizes = sizes + probabilities.sum(axis=0)
                conditional += float(entropy(probabilities).sum())
        return float(entropy(sizes / n_samples) - conditional / n_samples)

    def outlier_score(self, X: Any, *, out: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Return how unlike all training samples each sample is: which share of them is less so.

        A label is given to any sample, and one from far away is often a sure one:
        ``reject_below`` tells which labels are unsure, this tells what is like nothing seen.
        New samples like those of the fit have scores that are spread about evenly over [0, 1], so
        that one in a hundred lies above .99.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`; samples of the shape seen there.
        out : ndarray of shape (n_samples,), optional
            Where to write the scores, for example a memory map; it is returned.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In [0, 1], higher for what is stranger.

        Raises
        ------
        ValueError
            If ``out`` does not suit the scores.

        Notes
        -----
        The score is the rank, among training samples, of the distance to the nearest mean of many
        small clusters: of features as they came, or of images in the embedding. For the ranks a
        training sample is compared with means without itself; a model keeps means and no samples.
        """
        check_is_fitted(self)
        known = self._familiar_distances
        means = NearestMean(torch.from_numpy(self._familiar_means))

        def rank(batch: Predictions) -> NDArray[np.float64]:
            assert batch.opinion is not None
            return outlier_ranks(batch.opinion[:, 0].numpy(), known)

        return self._infer(X, rank, out, opinion=means)

    @property
    def expected_accuracy_(self) -> float:
        """Mean confidence in ``labels_``."""
        head: ConfidenceHead | None = getattr(self, "_confidence", None)
        if head is None:
            raise AttributeError(
                f"This {type(self).__name__} has no expected_accuracy_. Fit it with calibrate=True."
            )
        return float(head.mean_confidence)

    @property
    def expected_accuracy_interval_(self) -> tuple[float, float]:
        """What the accuracy lies between in nine of ten cases or more."""
        return accuracy_interval(self.expected_accuracy_)
