"""RegionCalibrator: probabilities for clusterers that have none, or too sure ones."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from skdeepcluster.calibration._accuracy import accuracy_interval
from skdeepcluster.calibration._confidence import ConfidenceHead, confident_in, fit_confidence
from skdeepcluster.calibration._votes import MOST_ROWS, collect_votes, overruled
from skdeepcluster.data import check_targets, rows_in_block, unpack
from skdeepcluster.numerics import full_digits
from skdeepcluster.training import (
    MAX_SEED,
    SilentHook,
    Trainer,
    choose_device,
    intra_op_threads,
    undisturbed,
)

Features = NDArray[np.float64] | NDArray[np.float32]
# Rows in double precision at a time; of wide ones fewer.
BLOCK_ROWS = 2**13


class RegionCalibrator(ClusterMixin, MetaEstimatorMixin, BaseEstimator):
    """Give any clusterer probabilities: how far independent partitions agree with its labels.

    The labels of the clusterer are compared with those of independent partitions: k-means, or
    merged mini-clusters, of random halves of the samples in random directions. A linear head learns
    from the features which share of them agrees, that is, their mean over regions of the data.
    No known classes are used, and the labels stay as they are.

    Parameters
    ----------
    clusterer : estimator
        Has ``fit`` and either ``predict`` or ``labels_``. A copy of it is fitted. Where it has no
        ``predict``, a new sample gets the label of the nearest training sample.
    n_voters : int, default=16
        Number of independent partitions; more make the probabilities less noisy, at a cost in
        proportion.
    device : str or torch.device, default="auto"
        Where the partitions are made and the head learns: "auto" is CUDA where there is a device,
        else Apple's MPS (from torch 2.14 on), else the CPU. Predictions need no device.
    random_state : int, RandomState instance or None, default=None
        Source of the randomness of the partitions. It is not passed to the clusterer.

    Attributes
    ----------
    clusterer_ : estimator
        The fitted copy.
    classes_ : ndarray of shape (n_classes,), int64
        The labels in use, in the order of the columns of :meth:`predict_proba`.
    labels_ : ndarray of shape (n_samples,), int64
        Labels of the training samples.
    expected_accuracy_ : float
        Share of the labels that are right, as far as independent partitions can tell: the mean of
        the largest probabilities of the training samples.
    expected_accuracy_interval_ : tuple of (float, float)
        Low and high bound of that share. On tasks that its width was not chosen on, it held the
        true one nine times in ten or more often; images were not among them.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names for all.

    See Also
    --------
    sklearn.calibration.CalibratedClassifierCV : For classifiers, where the classes are known.

    Notes
    -----
    What is estimated is the accuracy after a one-to-one matching of clusters to classes, which
    counts the second half of a class that was split as wrong. It is estimated from the agreement
    between partitions, so an error that all partitions make stays unseen, and a clusterer
    that is much better than k-means and linkage gets confidences that are too low.

    References
    ----------
    Y. Jia, J. Cheng, et al. "Towards calibrated deep clustering network." International Conference
    on Learning Representations (ICLR), 2025. The average over regions is theirs; they average the
    predictions of the model itself, which know nothing of its own mistakes.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster.calibration import RegionCalibrator
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = RegionCalibrator(KMeans(10, random_state=0), random_state=0).fit(X)
    >>> probabilities = model.predict_proba(X)
    >>> bool((probabilities.argmax(axis=1) == model.predict(X)).all())
    True
    """

    def __init__(
        self,
        clusterer: Any,
        *,
        n_voters: int = 16,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.clusterer = clusterer
        self.n_voters = n_voters
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the clusterer, then the probabilities of its labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Feature vectors.
        y : Ignored
            Accepted for scikit-learn's sake, if it has as many entries as X; known classes are
            never used.

        Returns
        -------
        self : object
            The fitted calibrator.

        Raises
        ------
        ValueError
            If X is not a finite array of at least two feature vectors, n_voters is below 1, or the
            device is not there.
        TypeError
            If the clusterer has neither ``predict`` nor ``labels_``, or n_voters is no integer.
        """
        check_scalar(self.n_voters, "n_voters", Integral, min_val=1)
        device = choose_device(self.device)
        X = unpack(X)
        features = self._check(X, reset=True)
        check_targets(y, len(features))
        self.clusterer_ = clone(self.clusterer).fit(X)  # which is the user's, settings and all
        self._labeler = self._make_labeler(features)
        self.labels_ = self._label(X, features)
        self.classes_, codes = np.unique(self.labels_, return_inverse=True)
        self._mean = features.mean(axis=0, dtype=np.float64)
        squares = (np.square(features[rows] - self._mean).sum(axis=0) for rows in _blocks(features))
        scale = np.sqrt(np.mean(sum(squares) / len(features)))
        self._scale = scale if scale > 0 else 1.0
        # In double precision, where it makes no difference how many are asked about at a time.
        self._head = self._fit_head(features, torch.from_numpy(codes), device).double()
        self.expected_accuracy_ = float(self._head.mean_confidence)
        self.expected_accuracy_interval_ = accuracy_interval(self.expected_accuracy_)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the labels of the clusterer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Feature vectors.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Members of ``classes_``.
        """
        check_is_fitted(self)
        X = unpack(X)
        return self._label(X, self._check(X, reset=False))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability that each label is the right one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Feature vectors.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns as in ``classes_``. Rows sum to one, and the largest entry of each belongs to
            the label that :meth:`predict` returns.
        """
        check_is_fitted(self)
        X = unpack(X)
        features = self._check(X, reset=False)
        columns = torch.from_numpy(np.searchsorted(self.classes_, self._label(X, features)))
        probabilities = np.empty((len(features), len(self.classes_)))
        with undisturbed(), torch.no_grad(), full_digits(), intra_op_threads(1):
            for rows in _blocks(features):
                opinion = self._head(self._prepare(features[rows])).softmax(dim=1)
                probabilities[rows] = confident_in(columns[rows], opinion).numpy()
        return probabilities

    def _check(self, X: ArrayLike, *, reset: bool) -> Features:
        checked: Features = validate_data(
            self,
            X,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2 if reset else 1,
            reset=reset,
        )
        return checked

    def _make_labeler(self, features: Features) -> Any:
        """Return what labels samples: the clusterer, or the nearest training sample."""
        if hasattr(self.clusterer_, "predict"):
            return self.clusterer_
        if not hasattr(self.clusterer_, "labels_"):
            raise TypeError(
                f"clusterer={self.clusterer!r} has neither predict nor labels_ after fit. Pass a "
                "clusterer, for example KMeans()."
            )
        # Imported here: few clusterers need it, and it takes its time.
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(n_neighbors=1).fit(features, self.clusterer_.labels_)

    def _label(self, X: ArrayLike, features: Features) -> NDArray[np.int64]:
        # The clusterer gets what the user passed: it may know the names of the columns.
        seen = X if self._labeler is self.clusterer_ else features
        return np.asarray(self._labeler.predict(seen), dtype=np.int64)

    def _prepare(self, features: Features) -> Tensor:
        """Centre and scale as a whole: the relative sizes of features are information."""
        prepared = np.empty(features.shape, dtype=np.float32)
        for rows in _blocks(features):
            prepared[rows] = (features[rows] - self._mean) / self._scale
        return torch.from_numpy(prepared)

    @undisturbed()
    def _fit_head(
        self, features: Features, columns: Tensor, device: torch.device
    ) -> ConfidenceHead:
        trainer = Trainer(
            ["calibration"],
            device=device,
            precision="32-true",
            seed=int(check_random_state(self.random_state).randint(MAX_SEED)),
        )
        generator = trainer.generator("votes")
        rows = torch.randperm(len(features), generator=generator)[:MOST_ROWS]
        prepared, n_classes = self._prepare(features[rows.numpy()]).to(device), len(self.classes_)
        with intra_op_threads(1):  # as in the clusterers: the products are small
            labels = columns[rows].to(device)
            votes = collect_votes(
                prepared, labels, n_classes, self.n_voters, generator, project=True
            )
            votes = overruled(votes, prepared, labels, n_classes, generator)
            head = fit_confidence([prepared], votes, labels, n_classes, trainer, SilentHook())
        return head.cpu()  # a product so small is soonest done where the features are

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_head")


def _blocks(features: Features) -> Iterator[slice]:
    """Yield numbers of rows, as many at a time as may be converted."""
    n_rows = rows_in_block(features.shape[1:], BLOCK_ROWS)
    for start in range(0, len(features), n_rows):
        yield slice(start, start + n_rows)
