"""The tree in which clusters merge."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import dendrogram
from sklearn.utils import check_scalar

from skdeepcluster.display._drawing import cluster_colours, given_or_new_axes
from skdeepcluster.report import cluster_report, last_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Deeper trees are more than SciPy draws, and more than anybody reads.
_MOST_LEAVES = 500
# Inches: of a leaf, of the whole tree besides, and from side to side.
_LEAF, _BESIDES, _WIDTH = 0.24, 0.9, 6.0


class MergeTreeDisplay:
    """The order in which clusters merge, as a dendrogram with a line for each cluster.

    Two clusters meet at their distance: near 0 where many samples of one have neighbours in the
    other, close to 1 where none have. What merges far below 1 may be one class in pieces.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    tree : ndarray of shape (n_clusters - 1, 4)
        In SciPy's format, as ``merge_tree_`` has it; two clusters or more.
    labels : sequence of str of length n_clusters
        What to write at the leaves.
    groups : array-like of shape (n_clusters,), default=None
        To which cluster of a cut each belongs. These get a colour each.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    leaves_ : list of int
        The clusters from top to bottom.

    See Also
    --------
    ClusterMapDisplay : Where the clusters lie.
    scipy.cluster.hierarchy.dendrogram : What draws it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster import MiniClustering
    >>> from skdeepcluster.display import MergeTreeDisplay
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> model = MiniClustering(n_clusters=6, random_state=0).fit(X)
    >>> display = MergeTreeDisplay.from_estimator(model, n_clusters=3)
    >>> sorted(display.leaves_)
    [0, 1, 2, 3, 4, 5]
    """

    def __init__(
        self,
        tree: NDArray[np.float64],
        labels: Sequence[str],
        *,
        groups: ArrayLike | None = None,
    ) -> None:
        self.tree = tree
        self.labels = labels
        self.groups = groups

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the tree.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure that suits the number of clusters.

        Returns
        -------
        display : MergeTreeDisplay
            The display itself, with the matplotlib objects as attributes.

        Raises
        ------
        ValueError
            If there is a single cluster, which has no tree, or more than 500.
        ImportError
            If matplotlib is not installed.
        """
        if not len(self.tree):
            raise ValueError("tree has no merger: a single cluster has no tree. Fit with more.")
        n = len(self.labels)
        if n > _MOST_LEAVES:
            raise ValueError(
                f"tree has {n} clusters, more than the {_MOST_LEAVES} that can be drawn. Draw the "
                "upper part, the tree of estimator.cut(100)."
            )
        self.ax_ = given_or_new_axes(ax, figsize=(_WIDTH, _LEAF * n + _BESIDES))
        self.figure_ = self.ax_.figure
        drawn = dendrogram(
            self.tree,
            ax=self.ax_,
            orientation="right",  # the first leaf is drawn at the bottom
            labels=list(self.labels),
            link_color_func=self._link_colours().__getitem__,
            leaf_font_size=9,
        )
        self.leaves_ = [int(leaf) for leaf in reversed(drawn["leaves"])]
        self.ax_.set(xlabel="Distance (1: no neighbours in common)", xlim=(0, 1.02))
        self.ax_.spines[["top", "left", "right"]].set_visible(False)
        self.ax_.tick_params(axis="y", length=0)
        return self

    def _link_colours(self) -> list[str]:
        """Return a colour for each leaf and merger: of its cluster in the cut, if it has one."""
        from matplotlib import rcParams
        from matplotlib.colors import to_hex

        n = len(self.labels)
        groups = np.zeros(n, dtype=int) if self.groups is None else np.asarray(self.groups)
        colours = [to_hex(colour) for colour in cluster_colours(int(groups.max()) + 1)]
        group = [{int(number)} for number in groups]
        for first, second in self.tree[:, :2].astype(int).tolist():
            group.append(group[first] | group[second])
        several = rcParams["axes.edgecolor"]  # seen on light and on dark
        return [colours[min(members)] if len(members) == 1 else several for members in group]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        n_clusters: int | None = None,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the tree of a fitted clusterer.

        Parameters
        ----------
        estimator : estimator
            A fitted clusterer of this package, or a Pipeline that ends in one.
        n_clusters : int, default=None
            Show in colours what ``estimator.cut(n_clusters)`` would merge; None shows one colour.
            At most the number that there is: of ``n_clusters="auto"`` the whole tree is that of
            ``estimator.cut(30)``, or of as many as were learned.
        names : sequence of str, default=None
            What to call the clusters of the estimator instead of their numbers.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure that suits the number of clusters.

        Returns
        -------
        display : MergeTreeDisplay
            The drawn display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If `names` has not one entry for each cluster, there are fewer clusters than
            `n_clusters`, only one, or more than 500.
        ImportError
            If matplotlib is not installed.
        """
        estimator, _ = last_step(estimator)
        records = cluster_report(estimator, names=names).records
        labels = [
            f"{record.get('name', record['label'])}  (n = {record['size']})" for record in records
        ]
        tree, groups = estimator.merge_tree_, None
        if n_clusters is not None:
            check_scalar(n_clusters, "n_clusters", Integral, min_val=1, max_val=len(labels))
            groups = _groups_of_cut(tree, n_clusters)
        return cls(tree, labels, groups=groups).plot(ax)


def _groups_of_cut(tree: NDArray[np.float64], n_clusters: int) -> NDArray[np.int64]:
    """Return to which cluster of a cut each cluster belongs; SciPy's may cut ties another way."""
    n = len(tree) + 1
    members = {leaf: [leaf] for leaf in range(n)}
    for step, (first, second) in enumerate(tree[: n - n_clusters, :2].astype(int).tolist()):
        members[n + step] = members.pop(first) + members.pop(second)
    groups = np.empty(n, dtype=np.int64)
    for number, leaves in enumerate(sorted(members.values(), key=min)):
        groups[leaves] = number
    return groups
