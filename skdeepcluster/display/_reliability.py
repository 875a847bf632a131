"""Reliability diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skdeepcluster.display._drawing import finish_axes, given_or_new_axes, legend_label, plot_curve
from skdeepcluster.metrics import expected_calibration_error, reliability_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DIAGONAL_LABEL = "Perfect calibration"

# Area in square points of a marker that stands for all samples. The line is pale, so that the
# markers speak, and has small dots of its own, so that a bin with few samples is still seen.
_FULL_MARKER_AREA = 250.0
_LINE_STYLE = {"linewidth": 1.0, "marker": "o", "markersize": 2.5, "alpha": 0.5}


class ReliabilityDisplay:
    """Reliability diagram: accuracy against confidence in bins of the confidence.

    Below the diagonal the probabilities promise too much, above it too little. The area of a marker
    is the share of samples in its bin, so that bins which decide nothing do not catch the eye.

    Use :meth:`from_estimator` or :meth:`from_predictions` to make one.

    Parameters
    ----------
    confidence : ndarray of shape (n_filled_bins,)
        Mean over the samples of each bin of their largest probability.
    accuracy : ndarray of shape (n_filled_bins,)
        Share of the samples of each bin that is right.
    share : ndarray of shape (n_filled_bins,)
        Share of all samples that is in each bin.
    calibration_error : float or None, default=None
        Expected calibration error for the legend; None leaves it out.
    name : str or None, default=None
        Name for the legend; None leaves it out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    line_ : matplotlib Line2D
        Accuracy against confidence.
    markers_ : matplotlib PathCollection
        One marker per bin on the line.
    diagonal_ : matplotlib Line2D or None
        Where confidence equals accuracy; None if it was not asked for or was there already.

    See Also
    --------
    skdeepcluster.metrics.reliability_curve : The numbers alone.
    RejectionDisplay : Whether confidence tells right from wrong, calibrated or not.

    References
    ----------
    M. H. DeGroot, S. E. Fienberg. "The comparison and evaluation of forecasters." The Statistician
    32, 1983.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On calibration of modern neural networks."
    ICML 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skdeepcluster.display import ReliabilityDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> mixture = GaussianMixture(n_components=3, random_state=0).fit(X)
    >>> display = ReliabilityDisplay.from_estimator(mixture, X, y)
    >>> _ = display.ax_.set_title("Iris")
    """

    def __init__(
        self,
        confidence: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        share: NDArray[np.float64],
        *,
        calibration_error: float | None = None,
        name: str | None = None,
    ) -> None:
        self.confidence = confidence
        self.accuracy = accuracy
        self.share = share
        self.calibration_error = calibration_error
        self.name = name

    def plot(
        self,
        ax: Axes | None = None,
        *,
        name: str | None = None,
        diagonal: bool = True,
        **line_options: Any,
    ) -> Self:
        """Draw the diagram.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure. Several displays may share one axes.
        name : str or None, default=None
            Name for the legend; None takes the one the display was made with.
        diagonal : bool, default=True
            Whether to draw the line of perfect calibration; on a shared axes it is drawn once.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`; the markers take the colour of the line.

        Returns
        -------
        display : ReliabilityDisplay
            The display itself, with the matplotlib objects as attributes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = given_or_new_axes(ax)
        self.figure_ = self.ax_.figure

        self.diagonal_ = None
        if diagonal and _DIAGONAL_LABEL not in self.ax_.get_legend_handles_labels()[1]:
            (self.diagonal_,) = self.ax_.plot(
                [0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label=_DIAGONAL_LABEL
            )
        label = legend_label(self.name if name is None else name, "ECE", self.calibration_error)
        self.line_ = plot_curve(
            self.ax_, self.confidence, self.accuracy, label, _LINE_STYLE, line_options
        )
        self.markers_ = self.ax_.scatter(
            self.confidence,
            self.accuracy,
            s=_FULL_MARKER_AREA * np.asarray(self.share),
            color=self.line_.get_color(),
            alpha=0.75,
            linewidths=0,
        )
        finish_axes(self.ax_, "Confidence (area: share of samples)", "Accuracy")
        return self

    @classmethod
    def from_predictions(
        cls,
        labels_true: ArrayLike,
        probabilities: ArrayLike,
        /,
        *,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        ax: Axes | None = None,
        name: str | None = None,
        diagonal: bool = True,
        **line_options: Any,
    ) -> Self:
        """Draw the diagram of cluster probabilities against known classes.

        Parameters
        ----------
        labels_true : array-like of shape (n_samples,)
            Known classes; clusters are matched to them as in
            :func:`~skdeepcluster.metrics.clustering_accuracy`.
        probabilities : array-like of shape (n_samples, n_clusters)
            Cluster probabilities as `predict_proba` returns them; every row sums to 1.
        n_bins : int, default=15
            Number of bins; 15 is the number most papers report.
        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equally many samples.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        name : str or None, default=None
            Name for the legend; None leaves it out.
        diagonal : bool, default=True
            Whether to draw the line of perfect calibration.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The drawn display.

        Raises
        ------
        ValueError
            As in :func:`~skdeepcluster.metrics.expected_calibration_error`.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from skdeepcluster.display import ReliabilityDisplay
        >>> probabilities = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]
        >>> display = ReliabilityDisplay.from_predictions([0, 0, 1, 1], probabilities, name="toy")
        >>> display.line_.get_label()
        'toy (ECE = 0.225)'
        """
        bins: dict[str, Any] = {"n_bins": n_bins, "strategy": strategy}
        display = cls(
            *reliability_curve(labels_true, probabilities, **bins),
            calibration_error=expected_calibration_error(labels_true, probabilities, **bins),
            name=name,
        )
        return display.plot(ax, diagonal=diagonal, **line_options)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        n_bins: int = 15,
        strategy: Literal["uniform", "quantile"] = "uniform",
        ax: Axes | None = None,
        name: str | None = None,
        diagonal: bool = True,
        **line_options: Any,
    ) -> Self:
        """Draw the diagram of a fitted clusterer on samples with known classes.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `predict_proba`.
        X : array-like of shape (n_samples, ...)
            Samples as the estimator takes them.
        y : array-like of shape (n_samples,)
            Known classes; clusters are matched to them as in
            :func:`~skdeepcluster.metrics.clustering_accuracy`.
        n_bins : int, default=15
            Number of bins; 15 is the number most papers report.
        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, or of equally many samples.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        name : str or None, default=None
            Name for the legend; None takes the name of the estimator's class.
        diagonal : bool, default=True
            Whether to draw the line of perfect calibration.
        **line_options
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The drawn display.

        Raises
        ------
        AttributeError
            If the estimator has no `predict_proba`.
        ValueError
            As in :func:`~skdeepcluster.metrics.expected_calibration_error`.
        ImportError
            If matplotlib is not installed.
        """
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            n_bins=n_bins,
            strategy=strategy,
            ax=ax,
            name=type(estimator).__name__ if name is None else name,
            diagonal=diagonal,
            **line_options,
        )
