"""What all displays share, so that they look alike. Only drawing imports matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def given_or_new_axes(
    ax: Axes | None,
    figsize: tuple[float, float] = (5, 5),
    layout: Literal["constrained", "compressed"] = "constrained",
) -> Axes:
    """`ax` itself, or the axes of a new figure, square if nothing else is asked for."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Displays are drawn with matplotlib, which is not installed; install it with: "
            "pip install 'skdeepcluster[display]'"
        ) from error
    if ax is not None:
        return ax
    _, new_axes = plt.subplots(figsize=figsize, layout=layout)
    return new_axes


def legend_label(name: str | None, score_name: str, score: float | None) -> str | None:
    """Name and score for the legend, either or both; None for neither."""
    if score is None:
        return name
    text = f"{score_name} = {score:.3f}"
    return text if name is None else f"{name} ({text})"


def plot_curve(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    label: str | None,
    style: dict[str, Any],
    line_options: dict[str, Any],
) -> Line2D:
    """Draw one line; `line_options` of the user override our `style`, short names like "c" too."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    options = {"label": label} | style | normalize_kwargs(line_options, Line2D)
    (line,) = ax.plot(x, y, **options)
    return line


def finish_axes(ax: Axes, xlabel: str, ylabel: str) -> None:
    """Limits, labels and legend where both directions are shares."""
    # Room for what lies on the edge: much of what is drawn does, and half a marker looks like less.
    limits, ticks = (-0.04, 1.04), np.linspace(0, 1, 6)
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=limits, ylim=limits, xticks=ticks, yticks=ticks)
    ax.set_aspect("equal")
    name_curves(ax)


def name_curves(ax: Axes) -> None:
    """Draw a legend, if a curve has a name."""
    if ax.get_legend_handles_labels()[0]:
        # Away from the curves as far as there is room, and legible where there is none.
        ax.legend(loc="best", fontsize="small", edgecolor="none", framealpha=0.8)


def cluster_colours(n_clusters: int) -> NDArray[np.float64]:
    """Return one colour for each cluster, as rows of red, green and blue.

    Up to 20 they are those of matplotlib that are easiest to tell apart. Beyond, no colours can be
    told apart by themselves; hues that go around in steps of the golden angle, lighter and
    darker in turn, at least keep clusters of neighbouring numbers apart.
    """
    from matplotlib import colormaps
    from matplotlib.colors import hsv_to_rgb

    for name in ("tab10", "tab20"):
        colours = colormaps[name].colors  # type: ignore[attr-defined]  # lists have them
        if n_clusters <= len(colours):
            return np.array(colours[:n_clusters])
    numbers = np.arange(n_clusters)
    golden_ratio = (1 + np.sqrt(5)) / 2
    hues = (numbers / golden_ratio) % 1
    # Neither so light that they are lost on white, nor so dark that they are on black.
    values = np.array([0.9, 0.65, 0.78])[numbers % 3]
    return np.asarray(hsv_to_rgb(np.column_stack([hues, np.full(n_clusters, 0.65), values])))
