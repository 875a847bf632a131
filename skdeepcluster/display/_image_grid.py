"""Typical images of each cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from skdeepcluster.datasets import ImageFiles
from skdeepcluster.display._drawing import given_or_new_axes
from skdeepcluster.report import ClusterReport, cluster_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Image = NDArray[Any]

# Inches of a picture, and of what is written beside the rows.
_SIDE, _LABEL_WIDTH = 0.6, 1.9
# Gap between pictures as a share of their side.
_GAP = 0.06
_CHANNEL_COUNTS = (1, 3, 4)


class ImageGridDisplay:
    """Representative images of each cluster, a row for each, with its size and mean confidence.

    The first picture of a row is the medoid, the member nearest to the mean of its cluster in the
    embedding; the others follow it by their distance from that mean. A cluster without members
    keeps its row, which is empty.

    Use :meth:`from_estimator` to make one, or pass a report of which you have one already.

    Parameters
    ----------
    report : ClusterReport
        With the representatives to show: it was made with X.
    images : sequence of images
        The image of each row of the X of the report: an array of shape (n_samples, height, width),
        (n_samples, height, width, channels) or (n_samples, channels, height, width) with 1, 3 or 4
        channels, PIL images, :class:`~skdeepcluster.datasets.ImageFiles`, or anything else that
        gives an image for the number of a row. Images need not have the same size.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    images_ : list of list of matplotlib AxesImage
        The pictures of each cluster, from left to right.

    See Also
    --------
    ClusterMapDisplay : Where the clusters lie.
    skdeepcluster.report.cluster_report : The rows of these images, and those at the edges.

    Notes
    -----
    Pixels of type uint8 are shown from 0 to 255, and others from 0 to 1 if all that are shown lie
    between these. What has another range is stretched from the smallest to the largest value
    shown, the same for all images.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepcluster import MiniClustering
    >>> from skdeepcluster.display import ImageGridDisplay
    >>> digits = load_digits(n_class=3)
    >>> model = MiniClustering(n_clusters=3, random_state=0).fit(digits.data)
    >>> display = ImageGridDisplay.from_estimator(model, digits.data, images=digits.images)
    >>> len(display.images_), len(display.images_[0])
    (3, 8)
    """

    def __init__(self, report: ClusterReport, images: Any) -> None:
        self.report = report
        self.images = images

    def plot(self, ax: Axes | None = None, **image_options: Any) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure that suits the number of pictures.
        **image_options
            Passed to :meth:`matplotlib.axes.Axes.imshow`; `cmap`, which is "gray" otherwise, or
            `interpolation`, say.

        Returns
        -------
        display : ImageGridDisplay
            The display itself, with the matplotlib objects as attributes.

        Raises
        ------
        ValueError
            If the report was made without X, or `images` does not hold images.
        ImportError
            If matplotlib is not installed.
        """
        records = self.report.records
        if "representatives" not in records[0]:
            raise ValueError(
                "report names no representatives, for it was made without X. Make it with "
                "cluster_report(model, X)."
            )
        rows = [_images_of(self.images, record["representatives"]) for record in records]
        n_columns = max(map(len, rows))
        size = (_SIDE * n_columns + _LABEL_WIDTH, _SIDE * len(rows))
        # The layout for axes of a fixed aspect: in others what is written at the left is cut off.
        self.ax_ = given_or_new_axes(ax, figsize=size, layout="compressed")
        self.figure_ = self.ax_.figure

        low, high = _range_of([image for row in rows for image in row])
        style: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} | image_options
        self.images_ = [
            [
                self.ax_.imshow(_scaled(image, low, high), extent=_square(x, y, image), **style)
                for x, image in enumerate(row)
            ]
            for y, row in enumerate(rows)
        ]
        self._finish_axes(n_columns)
        return self

    def _finish_axes(self, n_columns: int) -> None:
        """Write what each row is, and leave nothing else around the pictures."""
        records = self.report.records
        self.ax_.set(xlim=(0, n_columns), ylim=(len(records), 0), xticks=[], aspect="equal")
        centres = np.arange(len(records)) + 0.5
        self.ax_.set_yticks(centres, map(_row_label, records), fontsize="small")
        self.ax_.tick_params(length=0)
        # A grey that neither dark nor light pictures run into.
        self.ax_.set_facecolor("0.5")
        self.ax_.spines[:].set_visible(False)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        images: Any = None,
        n_images: int = 8,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
        **image_options: Any,
    ) -> Self:
        """Draw the images that are typical of each cluster of a fitted clusterer.

        Parameters
        ----------
        estimator : estimator
            A fitted clusterer of this package, or a Pipeline that ends in one.
        X : array-like or other source of samples
            Samples as the estimator takes them.
        images : sequence of images, default=None
            The images that the rows of X stand for, where X holds features of them, or is
            standardised. None shows X itself, also where it is a folder or a list of files.
        n_images : int, default=8
            Most images of each cluster.
        names : sequence of str of length n_clusters, default=None
            What to call the clusters instead of their numbers.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure that suits the number of pictures.
        **image_options
            Passed to :meth:`matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ImageGridDisplay
            The drawn display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If there is not one image for each row of X, what is given as images holds none, or
            `names` has not one entry for each cluster.
        ImportError
            If matplotlib is not installed.
        """
        report = cluster_report(estimator, X, names=names, n_representatives=n_images)
        shown = _opened(X if images is None else images)
        n_samples = sum(record["size"] for record in report.records)
        if len(shown) != n_samples:
            raise ValueError(
                f"images must hold one image per row of X; got {len(shown)} images for "
                f"{n_samples} rows. Pass the images that the rows were made from, in the same "
                "order."
            )
        return cls(report, shown).plot(ax, **image_options)


def _opened(images: Any) -> Any:
    """Return images by the number of their row, those of files as they are read for a fit."""
    is_path = isinstance(images, str | os.PathLike)
    if is_path or (isinstance(images, list | tuple) and isinstance(images[0], str | os.PathLike)):
        return ImageFiles(images)
    # The columns of a table have names, and no numbers.
    return np.asarray(images) if hasattr(images, "iloc") else images


def _images_of(images: Any, rows: Sequence[int]) -> list[_Image]:
    return [_height_width_channels(np.asarray(images[row]), row) for row in rows]


def _height_width_channels(image: _Image, row: int) -> _Image:
    """Return a grey image with two axes, or a coloured one with its channels last."""
    if image.ndim == 2:
        return image
    if image.ndim == 3 and image.shape[0] in _CHANNEL_COUNTS:
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[-1] in _CHANNEL_COUNTS:
        return image[..., 0] if image.shape[-1] == 1 else image
    raise ValueError(
        f"images must have shape (height, width), (height, width, channels) or (channels, height, "
        f"width) with 1, 3 or 4 channels; got shape {image.shape} at row {row}. Pass what can be "
        "shown as images, rows of pixels as X.reshape(-1, height, width)."
    )


def _range_of(images: Sequence[_Image]) -> tuple[float, float]:
    """Return the values that stand for black and white."""
    if all(image.dtype == np.uint8 for image in images):
        return 0.0, 255.0
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _scaled(image: _Image, low: float, high: float) -> NDArray[np.float64]:
    return (image.astype(np.float64) - low) / ((high - low) or 1.0)


def _square(x: int, y: int, image: _Image) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of a picture: in the middle of its square, undistorted."""
    height, width = np.array(image.shape[:2]) / max(image.shape[:2]) * (1 - _GAP) / 2
    return x + 0.5 - width, x + 0.5 + width, y + 0.5 + height, y + 0.5 - height


def _row_label(record: dict[str, Any]) -> str:
    first = record.get("name", f"cluster {record['label']}")
    if not record["size"]:
        return f"{first}\nn = 0"
    return f"{first}\nn = {record['size']}, confidence {record['confidence']:.2f}"
