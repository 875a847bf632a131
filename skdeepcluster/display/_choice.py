"""Scores of numbers of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skdeepcluster.display._drawing import given_or_new_axes, name_curves, plot_curve
from skdeepcluster.report import last_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ChoiceDisplay:
    """A score for each number of clusters, as a curve on which the chosen number is marked.

    A clear peak says more than the number under it: where the curve is level, others do as well.

    Use :meth:`from_estimator` to make one, or pass scores of your own.

    Parameters
    ----------
    scores : mapping from int to float
        From number of clusters to score, as ``cut_scores_``, ``cut_scores(X)`` and ``head_scores_``
        have it. Higher is better.
    chosen : int, default=None
        The number to mark; None marks the one with the highest score.
    name : str or None, default=None
        Name for the legend; None leaves it out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    line_ : matplotlib Line2D
        The curve.
    mark_ : matplotlib Line2D
        What marks the chosen number.

    See Also
    --------
    MergeTreeDisplay : Which clusters a cut merges.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import MiniClustering
    >>> from skdeepcluster.display import ChoiceDisplay
    >>> X, _ = make_blobs(300, centers=4, n_features=6, random_state=0)
    >>> model = MiniClustering("auto", random_state=0).fit(X)
    >>> display = ChoiceDisplay.from_estimator(model)
    >>> display.chosen
    4
    """

    def __init__(
        self,
        scores: Mapping[int, float],
        *,
        chosen: int | None = None,
        name: str | None = None,
    ) -> None:
        self.scores = scores
        self.chosen = chosen
        self.name = name

    def plot(self, ax: Axes | None = None, **line_options: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : ChoiceDisplay
            The display itself, with the matplotlib objects as attributes.

        Raises
        ------
        ValueError
            If there is no score, or none for the chosen number.
        ImportError
            If matplotlib is not installed.
        """
        if not self.scores:
            raise ValueError(
                "scores has no number of clusters: all samples are in one. Fit with more."
            )
        if self.chosen is not None and self.chosen not in self.scores:
            raise ValueError(f"chosen={self.chosen} has no score; there are {list(self.scores)}.")
        self.ax_ = given_or_new_axes(ax, figsize=(5.5, 3.5))
        self.figure_ = self.ax_.figure
        from matplotlib.ticker import MaxNLocator

        numbers = sorted(self.scores)
        best = max(numbers, key=self.scores.__getitem__) if self.chosen is None else self.chosen
        values = [self.scores[number] for number in numbers]
        x, y = np.array(numbers, dtype=float), np.array(values, dtype=float)
        self.line_ = plot_curve(self.ax_, x, y, self.name, {"marker": "."}, line_options)
        (self.mark_,) = self.ax_.plot(
            best, self.scores[best], "o", color=self.line_.get_color(), markersize=9
        )
        self.ax_.annotate(
            str(best),
            (best, self.scores[best]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
            color=self.line_.get_color(),
        )
        self.ax_.set(xlabel="Number of clusters", ylabel="Score (higher is better)")
        self.ax_.margins(y=0.2)  # the number of the highest is written above it
        self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True))
        self.ax_.spines[["top", "right"]].set_visible(False)
        name_curves(self.ax_)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        **line_options: Any,
    ) -> Self:
        """Draw the scores of a fitted clusterer.

        Parameters
        ----------
        estimator : estimator
            A fitted clusterer of this package, or a Pipeline that ends in one.
        X : array-like or other source of samples, default=None
            The samples of the fit, for the scores of all numbers to which the clusters that there
            are can be cut. None takes the scores by which the fit has chosen: of
            ``n_clusters="auto"``, or of several numbers of
            :class:`~skdeepcluster.StableClusterDiscrimination`.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        name : str or None, default=None
            Name for the legend; None leaves it out.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : ChoiceDisplay
            The drawn display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If there is only one number to choose from.
        ImportError
            If matplotlib is not installed.
        """
        estimator, X = last_step(estimator, X)
        if X is not None:
            scores, chosen = estimator.cut_scores(X), None
        else:
            scores = getattr(estimator, "cut_scores_", None)
            if scores is None:
                scores = getattr(estimator, "head_scores_", {})
            chosen = estimator.n_clusters_ if estimator.n_clusters_ in scores else None
        if len(scores) < 2:
            raise ValueError(
                f"This {type(estimator).__name__} has at most one number of clusters to choose "
                "from. Pass X=..., the samples of the fit, for scores of the numbers that its "
                "clusters can be cut to, or fit with more clusters or n_clusters='auto'."
            )
        return cls(scores, chosen=chosen, name=name).plot(ax, **line_options)
