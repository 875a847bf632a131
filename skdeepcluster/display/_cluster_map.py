"""A map of the samples in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d

from skdeepcluster.display._drawing import cluster_colours, given_or_new_axes
from skdeepcluster.report import list_of_names, members_of, nearest_to_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

# Total area of all markers in square points, and the smallest and the largest of one.
_INK, _SMALLEST, _LARGEST = 20_000, 3, 25
# A sample of which nothing is sure is still seen.
_LEAST_OPACITY = 0.15
_PERPLEXITY = 30


class _Map(NamedTuple):
    """Where samples lie, and what the two directions are."""

    positions: NDArray[np.float64]
    axis_labels: tuple[str, str]


class ClusterMapDisplay:
    """Map of the samples: one point each, near to those that the clusterer takes for alike.

    The colour of a point says its cluster, how solid it is how sure the model is of that. The
    number of a cluster, or its name, is written at its medoid, the member nearest to its mean in
    the embedding. A flat map cannot keep all distances of an embedding: clusters that overlap in it
    may be apart. The axes of "pca" say how much of the variance they show; of "tsne" only who is
    near whom means something, not the distances between clusters and not their extent.

    Use :meth:`from_estimator` or :meth:`from_predictions` to make one.

    Parameters
    ----------
    positions : ndarray of shape (n_points, 2)
        Where the points lie.
    labels : ndarray of shape (n_points,)
        Cluster of each.
    confidence : ndarray of shape (n_points,) or None, default=None
        Probability of that cluster, from 0 to 1; None draws all points alike.
    medoids : ndarray of shape (n_named,) or None, default=None
        The points at which the label of their cluster is written; None writes none.
    names : sequence of str of length n_clusters or None, default=None
        What to write instead of the numbers of clusters.
    axis_labels : tuple of str, default=("", "")
        What to write at the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    points_ : matplotlib PathCollection
        The points, in the order of `positions`.
    texts_ : list of matplotlib Text
        What is written at the medoids, in their order.

    See Also
    --------
    ImageGridDisplay : The samples that are typical of each cluster.
    skdeepcluster.report.cluster_report : Which cluster is nearest to which, in numbers.

    References
    ----------
    L. van der Maaten, G. Hinton. "Visualizing data using t-SNE." Journal of Machine Learning
    Research 9, 2008.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import MiniClustering
    >>> from skdeepcluster.display import ClusterMapDisplay
    >>> X, _ = make_blobs(200, n_features=6, random_state=1)
    >>> model = MiniClustering(n_clusters=3, random_state=0).fit(X)
    >>> display = ClusterMapDisplay.from_estimator(model, X, names=["one", "two", "three"])
    >>> [text.get_text() for text in display.texts_]
    ['one', 'two', 'three']
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        labels: NDArray[np.int64],
        confidence: NDArray[np.float64] | None = None,
        *,
        medoids: NDArray[np.intp] | None = None,
        names: Sequence[str] | None = None,
        axis_labels: tuple[str, str] = ("", ""),
    ) -> None:
        self.positions = positions
        self.labels = labels
        self.confidence = confidence
        self.medoids = medoids
        self.names = names
        self.axis_labels = axis_labels

    def plot(self, ax: Axes | None = None, **scatter_options: Any) -> Self:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        **scatter_options
            Passed to :meth:`matplotlib.axes.Axes.scatter`; `s`, `marker` and `edgecolors`, say.

        Returns
        -------
        display : ClusterMapDisplay
            The display itself, with the matplotlib objects as attributes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = given_or_new_axes(ax)
        self.figure_ = self.ax_.figure
        style = {
            "c": cluster_colours(int(self.labels.max()) + 1)[self.labels],
            "alpha": _opacity(self.labels, self.confidence),
            "s": np.clip(_INK / len(self.labels), _SMALLEST, _LARGEST),
            "linewidths": 0,
        }
        self.points_ = self.ax_.scatter(*self.positions.T, **(style | scatter_options))
        medoids = () if self.medoids is None else self.medoids
        self.texts_ = [self._write_label(int(point)) for point in medoids]
        first, second = self.axis_labels
        self.ax_.set(xlabel=first, ylabel=second, xticks=[], yticks=[])
        return self

    def _write_label(self, point: int) -> Text:
        """Write the label of a point's cluster on it, legible on any colour."""
        from matplotlib.patheffects import withStroke

        cluster = int(self.labels[point])
        x, y = self.positions[point]
        background = self.ax_.get_facecolor()
        return self.ax_.text(
            x,
            y,
            str(cluster) if self.names is None else self.names[cluster],
            ha="center",
            va="center",
            fontsize="small",
            fontweight="bold",
            clip_on=True,
            path_effects=[withStroke(linewidth=2, foreground=background, alpha=0.8)],
        )

    @classmethod
    def from_predictions(
        cls,
        embedding: ArrayLike,
        labels: ArrayLike,
        confidence: ArrayLike | None = None,
        *,
        method: Literal["pca", "tsne"] = "pca",
        max_samples: int = 2000,
        random_state: int | np.random.RandomState | None = 0,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
        **scatter_options: Any,
    ) -> Self:
        """Draw the map of an embedding and the clusters of any clusterer.

        Parameters
        ----------
        embedding : array-like of shape (n_samples, n_dimensions)
            What the map is made of.
        labels : array-like of shape (n_samples,)
            Cluster of each sample, from 0 on.
        confidence : array-like of shape (n_samples,), default=None
            Probability of that cluster, from 0 to 1; None draws all points alike.
        method : {"pca", "tsne"}, default="pca"
            "pca" shows the two directions with most variance: fast, and distances mean something.
            "tsne" is scikit-learn's :class:`~sklearn.manifold.TSNE`: slow, but it keeps apart what
            two directions lay on top of each other.
        max_samples : int, default=2000
            Of more samples so many are drawn by lot, and the medoid of every cluster with them.
            More points cover each other, and t-SNE takes about ten seconds for so many.
        random_state : int, RandomState instance or None, default=0
            For the samples to draw, and t-SNE. An int makes the same map again.
        names : sequence of str of length n_clusters, default=None
            What to write instead of the numbers of clusters.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        **scatter_options
            Passed to :meth:`matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : ClusterMapDisplay
            The drawn display.

        Raises
        ------
        ValueError
            If the arguments differ in their number of samples, a label is negative, there are
            fewer names than clusters, or `method` is neither of the two.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from sklearn.cluster import KMeans
        >>> from sklearn.datasets import load_iris
        >>> from skdeepcluster.display import ClusterMapDisplay
        >>> X, _ = load_iris(return_X_y=True)
        >>> labels = KMeans(n_clusters=3, random_state=0).fit_predict(X)
        >>> display = ClusterMapDisplay.from_predictions(X, labels)
        >>> display.ax_.get_xlabel()
        'First principal component (92 %)'
        """
        vectors = check_array(embedding, input_name="embedding")
        names = None if names is None else list_of_names(names)
        clusters = _checked_labels(labels, names)
        sureness = None if confidence is None else column_or_1d(confidence, dtype=np.float64)
        check_consistent_length(vectors, clusters, sureness)

        random = check_random_state(random_state)
        medoids = _medoids(vectors, clusters)
        rows = _rows_to_draw(len(clusters), max_samples, medoids, random)
        drawn = _project(vectors[rows], method, random)
        display = cls(
            drawn.positions,
            clusters[rows],
            None if sureness is None else sureness[rows],
            medoids=np.searchsorted(rows, medoids),
            names=names,
            axis_labels=drawn.axis_labels,
        )
        return display.plot(ax, **scatter_options)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        method: Literal["pca", "tsne"] = "pca",
        max_samples: int = 2000,
        random_state: int | np.random.RandomState | None = 0,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
        **scatter_options: Any,
    ) -> Self:
        """Draw the map of a fitted clusterer's embedding.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `transform` and `predict_proba`.
        X : array-like or other source of samples
            Samples as the estimator takes them.
        method : {"pca", "tsne"}, default="pca"
            See :meth:`from_predictions`.
        max_samples : int, default=2000
            See :meth:`from_predictions`.
        random_state : int, RandomState instance or None, default=0
            See :meth:`from_predictions`.
        names : sequence of str of length n_clusters, default=None
            What to write instead of the numbers of clusters.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        **scatter_options
            Passed to :meth:`matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : ClusterMapDisplay
            The drawn display.

        Raises
        ------
        AttributeError
            If the estimator has no `transform` or no `predict_proba`.
        ValueError
            As in :meth:`from_predictions`.
        ImportError
            If matplotlib is not installed.
        """
        probabilities = np.asarray(estimator.predict_proba(X))
        return cls.from_predictions(
            estimator.transform(X),
            probabilities.argmax(axis=1),
            probabilities.max(axis=1),
            method=method,
            max_samples=max_samples,
            random_state=random_state,
            names=names,
            ax=ax,
            **scatter_options,
        )


def _opacity(
    labels: NDArray[np.int64], confidence: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    certain = np.ones(len(labels)) if confidence is None else confidence
    return _LEAST_OPACITY + (1 - _LEAST_OPACITY) * np.clip(certain, 0, 1)


def _checked_labels(labels: ArrayLike, names: Sequence[str] | None) -> NDArray[np.int64]:
    """Return labels as numbers of clusters, all of which have a name if any has."""
    clusters = column_or_1d(labels)
    if clusters.min() < 0:
        raise ValueError(
            f"labels must be numbers of clusters from 0 on; got {clusters.min()}. Leave out the "
            "rows that belong to no cluster."
        )
    if names is not None and len(names) <= clusters.max():
        raise ValueError(
            f"names must hold one name for each cluster; got {len(names)} for clusters up to "
            f"number {clusters.max()}. Pass them in the order of the clusters' numbers."
        )
    return np.asarray(clusters, dtype=np.int64)


def _medoids(embedding: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the row of the medoid of each cluster that has members."""
    members = members_of(labels, int(labels.max()) + 1)
    return np.concatenate([nearest_to_mean(embedding, rows, 1) for rows in members])


def _rows_to_draw(
    n_samples: int, max_samples: int, medoids: NDArray[np.intp], random: np.random.RandomState
) -> NDArray[np.intp]:
    """Return the rows of the map in increasing order, the medoids among them."""
    if n_samples <= max_samples:
        return np.arange(n_samples)
    return np.union1d(random.choice(n_samples, max_samples, replace=False), medoids)


def _project(vectors: NDArray[Any], method: str, random: np.random.RandomState) -> _Map:
    if method not in ("pca", "tsne"):
        raise ValueError(f"method must be 'pca' or 'tsne'; got {method!r}.")
    if not np.ptp(vectors, axis=0).any():  # one sample, or all the same: there are no directions
        return _Map(np.zeros((len(vectors), 2)), ("", ""))
    if method == "pca":
        return _principal_components(vectors, random)
    return _neighbourhoods(vectors, random)


def _neighbourhoods(vectors: NDArray[Any], random: np.random.RandomState) -> _Map:
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)  # it must be below their number
    tsne = TSNE(perplexity=perplexity, random_state=random)
    return _Map(tsne.fit_transform(vectors).astype(np.float64), ("", ""))


def _principal_components(vectors: NDArray[Any], random: np.random.RandomState) -> _Map:
    n_components = min(2, *vectors.shape)
    pca = PCA(n_components, random_state=random)
    positions = np.zeros((len(vectors), 2))  # the second direction of a single one is empty
    positions[:, :n_components] = pca.fit_transform(vectors)
    shares = np.zeros(2)
    shares[:n_components] = pca.explained_variance_ratio_
    first, second = (
        f"{which} principal component ({share:.0%})".replace("%", " %")
        for which, share in zip(("First", "Second"), shares, strict=True)
    )
    return _Map(positions, (first, second))
