"""Accuracy against the share of samples kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skdeepcluster.display._drawing import finish_axes, given_or_new_axes, legend_label, plot_curve
from skdeepcluster.metrics import area_under_risk_coverage, rejection_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class RejectionDisplay:
    """Accuracy of the kept samples against the share kept, most confident first.

    The further the curve rises to the left, the better confidence tells right samples from wrong
    ones: it says how accurate the rest becomes if doubtful samples are set aside, for a person to
    look at, say. Confidence that tells nothing gives a level line.

    Use :meth:`from_estimator` or :meth:`from_predictions` to make one.

    Parameters
    ----------
    coverage : ndarray of shape (n_points,)
        Shares of samples kept, in increasing order.
    accuracy : ndarray of shape (n_points,)
        Share of the kept samples that is right.
    risk_area : float or None, default=None
        Area under the risk-coverage curve for the legend; None leaves it out.
    name : str or None, default=None
        Name for the legend; None leaves it out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    line_ : matplotlib Line2D
        Accuracy against the share kept.

    See Also
    --------
    skdeepcluster.metrics.rejection_curve : The numbers alone.
    ReliabilityDisplay : Whether confidence equals accuracy.

    References
    ----------
    Y. Geifman, R. El-Yaniv. "Selective classification for deep neural networks." NeurIPS 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skdeepcluster.display import RejectionDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> mixture = GaussianMixture(n_components=3, random_state=0).fit(X)
    >>> display = RejectionDisplay.from_estimator(mixture, X, y)
    >>> _ = display.ax_.set_title("Iris")
    """

    def __init__(
        self,
        coverage: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        *,
        risk_area: float | None = None,
        name: str | None = None,
    ) -> None:
        self.coverage = coverage
        self.accuracy = accuracy
        self.risk_area = risk_area
        self.name = name

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **line_options: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure. Several displays may share one axes.
        name : str or None, default=None
            Name for the legend; None takes the one the display was made with.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : RejectionDisplay
            The display itself, with the matplotlib objects as attributes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = given_or_new_axes(ax)
        self.figure_ = self.ax_.figure
        label = legend_label(self.name if name is None else name, "AURC", self.risk_area)
        self.line_ = plot_curve(
            self.ax_, self.coverage, self.accuracy, label, {"linewidth": 1.2}, line_options
        )
        finish_axes(self.ax_, "Share kept, most confident first", "Accuracy of the samples kept")
        return self

    @classmethod
    def from_predictions(
        cls,
        labels_true: ArrayLike,
        probabilities: ArrayLike,
        /,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        **line_options: Any,
    ) -> Self:
        """Draw the curve of cluster probabilities against known classes.

        Parameters
        ----------
        labels_true : array-like of shape (n_samples,)
            Known classes; clusters are matched to them as in
            :func:`~skdeepcluster.metrics.clustering_accuracy`.
        probabilities : array-like of shape (n_samples, n_clusters)
            Cluster probabilities as `predict_proba` returns them; every row sums to 1.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        name : str or None, default=None
            Name for the legend; None leaves it out.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : RejectionDisplay
            The drawn display.

        Raises
        ------
        ValueError
            As in :func:`~skdeepcluster.metrics.area_under_risk_coverage`.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from skdeepcluster.display import RejectionDisplay
        >>> probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]
        >>> display = RejectionDisplay.from_predictions([0, 0, 1, 1], probabilities, name="toy")
        >>> display.line_.get_label()
        'toy (AURC = 0.146)'
        """
        display = cls(
            *rejection_curve(labels_true, probabilities),
            risk_area=area_under_risk_coverage(labels_true, probabilities),
            name=name,
        )
        return display.plot(ax, **line_options)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        **line_options: Any,
    ) -> Self:
        """Draw the curve of a fitted clusterer on samples with known classes.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `predict_proba`.
        X : array-like of shape (n_samples, ...)
            Samples as the estimator takes them.
        y : array-like of shape (n_samples,)
            Known classes; clusters are matched to them as in
            :func:`~skdeepcluster.metrics.clustering_accuracy`.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        name : str or None, default=None
            Name for the legend; None takes the name of the estimator's class.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : RejectionDisplay
            The drawn display.

        Raises
        ------
        AttributeError
            If the estimator has no `predict_proba`.
        ValueError
            As in :func:`~skdeepcluster.metrics.area_under_risk_coverage`.
        ImportError
            If matplotlib is not installed.
        """
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            ax=ax,
            name=type(estimator).__name__ if name is None else name,
            **line_options,
        )
