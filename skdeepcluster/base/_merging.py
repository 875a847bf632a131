"""Fewer clusters without a new fit: the tree in which they merge, and copies with some merged."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import pairwise_distances, silhouette_score
from sklearn.utils import check_scalar
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skdeepcluster.base._adjacency import merge_tree, merged_counts, modularity
from skdeepcluster.base._prediction import PredictingEstimator
from skdeepcluster.networks import ClusterModel, EmbeddingOpinion, MergedLabels, MergedOpinion
from skdeepcluster.numerics import (
    cut_tree,
    cuts,
    evenly_spaced,
    in_order_of_leaves,
)

# Samples whose silhouettes tell how compact the clusters of a cut are.
SCORED_ROWS = 1000
# What is known of clusters, and changes when they merge.
KNOWN = ("labels_", "cluster_sizes_", "cluster_centers_", "class_weights_", "_neighbor_counts")
# What modularity, which tells how separate they are, counts beside the silhouette.
MODULARITY_WEIGHT = 0.5


class MergingEstimator(PredictingEstimator):
    """Clusters that can become fewer after the fit.

    A model with merged clusters keeps all networks. Their outputs go to its clusters as ``_groups``
    says, or one to one where that is None.
    """

    # scikit-learn asks every `split` for the metadata of a splitter, which this is none of.
    __metadata_request__split: ClassVar[dict[str, str]] = {"cluster": UNUSED}

    _groups: NDArray[np.int64] | None = None
    # If so, KNOWN of the outputs.
    _outputs: dict[str, Any] | None = None
    # How many pairs of neighbours there are between which clusters, see neighbor_counts.
    _neighbor_counts: NDArray[np.int64] | None

    labels_: NDArray[np.int64]
    cluster_sizes_: NDArray[np.int64]
    cluster_centers_: NDArray[np.float32]
    class_weights_: NDArray[np.float64]

    # Scores of the numbers of clusters, and the mean confidence in the one that was chosen, where
    # the fit was to find it.
    cut_scores_: dict[int, float]
    _merged_confidence: float

    @property
    def n_clusters_(self) -> int:
        """The number of clusters."""
        if getattr(self, "cluster_sizes_", None) is None:
            raise AttributeError(
                f"This {type(self).__name__} has no n_clusters_ before it is fitted."
            )
        return len(self.cluster_sizes_)

    @property
    def merge_tree_(self) -> NDArray[np.float64]:
        """In which order clusters become one, in the format of SciPy's ``linkage``.

        A row holds the two that merge, their distance and of how many clusters they are. The two
        are those between whose samples there are most pairs of neighbours, for their sizes: among
        standardised features or, of images, in the embedding. The distance is 0.5 where there are
        as many as if neighbours were drawn at random, and close to 1 where there are none.
        """
        self._known_neighbor_counts()
        return merge_tree(self._known(), np.arange(self.n_clusters_))

    def _known(self) -> dict[str, Any]:
        """Return what is known of the clusters."""
        return {name: getattr(self, name) for name in KNOWN}

    def _known_neighbor_counts(self) -> NDArray[np.int64]:
        """Return :func:`neighbor_counts` of the fit, if it has ended."""
        check_is_fitted(self)
        counts: NDArray[np.int64] | None = getattr(self, "_neighbor_counts", None)
        if counts is None:
            raise NotFittedError(
                f"The fit of this {type(self).__name__} is still under way. Clusters can be merged "
                "when it has ended."
            )
        return counts

    def cut(self, n_clusters: int) -> Self:
        """Return a fitted copy with fewer clusters, merged in the order of ``merge_tree_``.

        Nothing is trained, and no samples are needed. After a merger, be it by
        ``n_clusters="auto"``, there can also be more clusters than now: then the cut is made as if
        none had been merged before.

        Parameters
        ----------
        n_clusters : int
            How many to leave: from 1 to as many as the fit has learned.

        Returns
        -------
        other : object
            See :meth:`merge`.

        Raises
        ------
        ValueError
            If the fit has learned fewer: to divide them takes a new fit.
        TypeError
            If it is no integer.
        """
        tree = self.merge_tree_
        check_scalar(n_clusters, "n_clusters", Integral, min_val=1)
        if n_clusters <= self.n_clusters_:
            return self._with_groups(cut_tree(tree, n_clusters))
        n_learned = self.n_clusters_ if self._groups is None else len(self._groups)
        if self._outputs is None or n_clusters > n_learned:
            raise ValueError(
                f"n_clusters={n_clusters} is more than the {n_learned} clusters that the fit has "
                "learned, and a cut only merges. Fit with more."
            )
        learned = merge_tree(self._outputs, np.arange(n_learned))
        return self._with_outputs_grouped(cut_tree(learned, n_clusters))

    def cut_scores(self, X: Any) -> dict[int, float]:
        r"""Return a score for each number of clusters that :meth:`cut` can leave.

        It needs no labels, and the highest is a hint at how many clusters there are, if the fit
        had clearly more. It hits the number a little more often than silhouettes of KMeans do,
        and clusters of the cut are closer to the classes. With some dozens of clusters each number
        takes some milliseconds.

        Parameters
        ----------
        X : array-like or other source of samples
            See :meth:`fit`: the samples of the fit, or some of them.

        Returns
        -------
        scores : dict
            From number of clusters, 2 or more, to its score. Where all samples are in one cluster
            there is none.

        Notes
        -----
        The score is :math:`S + Q / 2`. The mean silhouette S of 1,000 samples says how compact
        clusters are. The modularity of the neighbours among training samples,

        .. math:: Q = \sum_c \left( e_{cc} - a_c^2 \right)

        with the share :math:`e_{cc}` of pairs inside cluster c and the share :math:`a_c` of all
        that begin or end there, says how separate they are, and knows no shapes. Both compare
        samples as ``merge_tree_`` does.
        """
        self._known_neighbor_counts()
        return self._scores_of_cuts(*self._described_and_labelled(X))

    def _scores_of_cuts(self, described: Tensor, labels: Tensor) -> dict[int, float]:
        """Return :meth:`cut_scores` by some samples."""
        counts, scores = self._known_neighbor_counts(), dict[int, float]()
        distances = pairwise_distances(described)
        *fine, _ = cuts(self.merge_tree_)
        for groups in reversed(fine):
            merged = groups[labels]
            if 1 < len(np.unique(merged)) < len(merged):
                silhouette = silhouette_score(distances, merged, metric="precomputed")
                separation = modularity(merged_counts(counts, groups))
                scores[int(groups.max()) + 1] = float(silhouette + MODULARITY_WEIGHT * separation)
        return scores

    def _best_cut(self) -> NDArray[np.int64]:
        """Return the groups of clusters with the best of ``cut_scores_``; one, if there is none."""
        best = max(self.cut_scores_, key=self.cut_scores_.__getitem__, default=1)
        return cut_tree(self.merge_tree_, best)

    def _described_and_labelled(self, X: Any) -> tuple[Tensor, Tensor]:
        """Return what some of the samples are compared by, and their clusters."""
        with self._predictions(X, FirstDescription(), most=SCORED_ROWS) as (_, batches):
            both = [(batch.opinion, batch.labels) for batch in batches]
        described, labels = zip(*both, strict=True)
        return torch.cat(described), torch.cat(labels)

    def merge(self, groups: Iterable[Iterable[int]]) -> Self:
        """Return a fitted copy in which some clusters have become one.

        Parameters
        ----------
        groups : iterable of iterables of int
            The numbers of the clusters of each group. Whatever is in none stays as it is.

        Returns
        -------
        other : object
            The same networks with fewer clusters, numbered in the order of the lowest number that
            each had. It predicts, saves and can be merged again. Labels are those of before. The
            probability of a merged cluster is the share of votes for any of its parts; where a
            label had fewer votes than chance gives it, that is not the sum of `predict_proba`.
            Weights are as if no parts of a cluster shared a mini-cluster. Parameters stay those of
            the fit, so that a further fit, or a clone, knows nothing of the merger.

        Raises
        ------
        ValueError
            If a number is no cluster's, or occurs twice.
        TypeError
            If ``groups`` does not hold groups of integers.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skdeepcluster import MiniClustering
        >>> X, _ = load_digits(n_class=5, return_X_y=True)
        >>> model = MiniClustering(5, random_state=0).fit(X)
        >>> merged = model.merge([[1, 4]])
        >>> len(merged.cluster_sizes_)
        4
        >>> bool(((merged.labels_ == 1) == np.isin(model.labels_, [1, 4])).all())
        True
        """
        self._known_neighbor_counts()
        n = len(self.cluster_sizes_)
        numbers, seen = np.arange(n), set[int]()
        for group in _as_lists(groups):
            for number in group:
                if not 0 <= number < n:
                    raise ValueError(
                        f"groups={groups!r} names cluster {number}, but there are those from 0 to "
                        f"{n - 1}."
                    )
                if number in seen:
                    raise ValueError(f"groups={groups!r} names cluster {number} twice.")
                seen.add(number)
            numbers[group] = min(group, default=0)
        return self._with_groups(in_order_of_leaves(numbers))

    def split(self, cluster: int) -> Self:
        """Return a fitted copy in which a cluster that was merged is two again.

        Only what was merged can be divided, by :meth:`cut`, :meth:`merge` or
        ``n_clusters="auto"``. The two are those of which, in the order of ``merge_tree_``, it was
        merged last.

        Parameters
        ----------
        cluster : int
            The number of the cluster.

        Returns
        -------
        other : object
            See :meth:`merge`. One half keeps the number, the other comes last.

        Raises
        ------
        ValueError
            If there is no such cluster, or it was not merged: to divide what the fit has learned as
            one takes a fit with more clusters.
        TypeError
            If it is no integer.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skdeepcluster import MiniClustering
        >>> X, _ = load_digits(n_class=5, return_X_y=True)
        >>> model = MiniClustering(10, random_state=0).fit(X).cut(5)
        >>> larger = int(model.cluster_sizes_.argmax())
        >>> model.split(larger).n_clusters_
        6
        """
        self._known_neighbor_counts()
        check_scalar(cluster, "cluster", Integral, min_val=0, max_val=self.n_clusters_ - 1)
        groups = np.arange(self.n_clusters_) if self._groups is None else self._groups.copy()
        sizes = self.cluster_sizes_ if self._outputs is None else self._outputs["cluster_sizes_"]
        n_parts = np.bincount(groups, sizes > 0)
        if self._outputs is None or n_parts[cluster] < 2:
            raise ValueError(
                f"cluster={cluster} was not merged, and what the fit has learned as one cannot be "
                f"divided. Those that were merged: {np.flatnonzero(n_parts > 1).tolist()}. To "
                "divide others fit with more clusters, and cut(...) the model."
            )
        members = np.flatnonzero(groups == cluster)
        halves = cut_tree(merge_tree(self._outputs, members), 2)
        groups[members[halves == 1]] = self.n_clusters_
        return self._with_outputs_grouped(groups)

    def _with_groups(self, groups: NDArray[np.int64]) -> Self:
        """Return a copy in which the clusters are groups of those that there are."""
        if groups.max() + 1 == len(groups):
            return self._separate_copy()
        return self._with_outputs_grouped(groups if self._groups is None else groups[self._groups])

    def _with_outputs_grouped(self, groups: NDArray[np.int64]) -> Self:
        """Return a copy in which the clusters are groups of the outputs of the head."""
        other = self._separate_copy()
        other.__dict__.pop("_merged_confidence", None)
        other._group(groups)
        return other

    def _group(self, groups: NDArray[np.int64]) -> None:
        """Make the clusters groups of the outputs of the head."""
        outputs = self._known() if self._outputs is None else self._outputs
        n_groups, sizes = int(groups.max()) + 1, outputs["cluster_sizes_"]
        if np.array_equal(groups, np.arange(len(sizes))):
            self._groups = self._outputs = None
            self.__dict__.update(outputs)
            return
        self._groups, self._outputs = groups, outputs
        weight = np.where(sizes > 0, sizes, 1e-9)
        indicator = (groups == np.arange(n_groups)[:, None]) * weight
        indicator /= indicator.sum(axis=1, keepdims=True)
        self._neighbor_counts = merged_counts(outputs["_neighbor_counts"], groups)
        self.labels_ = groups[outputs["labels_"]]
        self.cluster_sizes_ = np.bincount(groups, sizes, n_groups).astype(sizes.dtype)
        centers, weights = outputs["cluster_centers_"], outputs["class_weights_"]
        self.cluster_centers_ = (indicator @ centers).astype(centers.dtype)
        # A weight is the inverse of the share of mini-clusters that a cluster occupies. Where there
        # are samples besides, clusters without any occupy none.
        counted = (sizes > 0) | (self.cluster_sizes_ == 0)[groups]
        occupied = np.bincount(groups, counted / weights, n_groups)
        self.class_weights_ = (1 / occupied.clip(max=1)).astype(weights.dtype)

    def _separate_copy(self) -> Self:
        """Return a copy that shares nothing that either may change."""
        other = copy.copy(self)  # with networks of its own, see __getstate__
        for name, value in vars(other).items():
            if isinstance(value, BaseEstimator):
                setattr(other, name, clone(value))
            elif isinstance(value, np.ndarray | list | dict):
                setattr(other, name, copy.deepcopy(value))
        return other

    @property
    def expected_accuracy_(self) -> float:
        """Mean confidence in ``labels_``."""
        before = super().expected_accuracy_
        if self._groups is None or self.n_clusters_ == len(self._groups):
            return before
        if not hasattr(self, "_merged_confidence"):
            raise AttributeError(
                "expected_accuracy_ was measured before clusters were merged. The mean of "
                "predict_proba(X).max(axis=1) over the samples of the fit is what it is now."
            )
        return self._merged_confidence

    @property
    def _model(self) -> ClusterModel:
        model: ClusterModel = self._objective.model
        if self._groups is None:
            return model
        head = MergedLabels(model.head, torch.from_numpy(self._groups))
        return ClusterModel(model.prepare, model.embedding, head)

    def _second_opinion(self) -> nn.Module | None:
        opinion = self._opinion_on_outputs()
        if self._groups is None:
            return opinion
        if opinion is None:
            opinion = EmbeddingOpinion(self._objective.model.head)
        return MergedOpinion(opinion, torch.from_numpy(self._groups))

    def _opinion_on_outputs(self) -> nn.Module | None:
        """Return what judges the outputs of the head, if anything does."""
        opinion: nn.Module | None = getattr(self, "_confidence", None)
        return opinion

    def _outputs_of(self, clusters: Tensor) -> Tensor:
        """Return outputs of the head that belong to clusters, as often as they have samples."""
        if self._groups is None or self._outputs is None:
            return clusters
        outputs = clusters.clone()
        for number in set(clusters.tolist()):
            members = np.flatnonzero(self._groups == number)
            sizes = np.maximum(self._outputs["cluster_sizes_"][members], 1e-9)
            rows = torch.nonzero(clusters == number)[:, 0]
            ends = np.cumsum(sizes) / sizes.sum()
            turns = (np.arange(len(rows)) + 0.5) / len(rows)
            outputs[rows] = torch.from_numpy(members[np.searchsorted(ends, turns)])
        return outputs


class FirstDescription(nn.Module):
    """What samples are compared by, as an opinion: see :func:`consult`."""

    def forward(self, *descriptions: Tensor) -> Tensor:
        """Return the first description."""
        return descriptions[0]


def scored_rows(n_samples: int) -> Tensor:
    """Return the numbers of the samples by which cuts are scored."""
    return evenly_spaced(n_samples, SCORED_ROWS)


def _as_lists(groups: Any) -> list[list[int]]:
    """Return groups of numbers as lists, or raise TypeError."""
    try:
        lists = [list(group) for group in groups]
    except TypeError as error:
        raise TypeError(
            f"groups={groups!r} should be groups of clusters, as [[2, 5], [1, 7]]"
        ) from error
    numbers = [number for group in lists for number in group]
    # A mask is no list of numbers.
    if any(isinstance(number, bool) or not isinstance(number, Integral) for number in numbers):
        raise TypeError(f"groups={groups!r} should hold numbers of clusters, which are integers")
    return [[int(number) for number in group] for group in lists]
