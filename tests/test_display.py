"""Displays: the arrays they compute, and what is drawn from them."""

from __future__ import annotations

import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

from skdeepcluster.display import RejectionDisplay, ReliabilityDisplay
from skdeepcluster.metrics import (
    area_under_risk_coverage,
    expected_calibration_error,
    rejection_curve,
    reliability_curve,
)

DISPLAYS = [ReliabilityDisplay, RejectionDisplay]

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    mixture = GaussianMixture(n_components=3, random_state=0).fit(X)
    return mixture, X, y


def legend_texts(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


@pytest.mark.parametrize("options", [{}, {"n_bins": 4, "strategy": "quantile"}])
def test_reliability_shows_the_curve_and_its_error(iris, options):
    mixture, X, y = iris
    probabilities = mixture.predict_proba(X)
    display = ReliabilityDisplay.from_predictions(y, probabilities, name="mixture", **options)

    confidence, accuracy, share = reliability_curve(y, probabilities, **options)
    np.testing.assert_array_equal(display.confidence, confidence)
    np.testing.assert_array_equal(display.accuracy, accuracy)
    np.testing.assert_array_equal(display.share, share)
    error = expected_calibration_error(y, probabilities, **options)
    assert display.calibration_error == error

    np.testing.assert_array_equal(display.line_.get_xydata(), np.c_[confidence, accuracy])
    np.testing.assert_array_equal(display.markers_.get_offsets(), np.c_[confidence, accuracy])
    sizes = display.markers_.get_sizes()
    np.testing.assert_allclose(sizes / sizes.sum(), share)
    np.testing.assert_array_equal(display.diagonal_.get_xydata(), [[0, 0], [1, 1]])
    assert legend_texts(display) == ["Perfect calibration", f"mixture (ECE = {error:.3f})"]
    assert display.ax_.get_xlabel().startswith("Confidence")
    assert display.ax_.get_ylabel() == "Accuracy"


def test_rejection_shows_the_curve_and_its_area(iris):
    mixture, X, y = iris
    probabilities = mixture.predict_proba(X)
    display = RejectionDisplay.from_predictions(y, probabilities, name="mixture")

    coverage, accuracy = rejection_curve(y, probabilities)
    np.testing.assert_array_equal(display.coverage, coverage)
    np.testing.assert_array_equal(display.accuracy, accuracy)
    assert display.risk_area == area_under_risk_coverage(y, probabilities)
    np.testing.assert_array_equal(display.line_.get_xydata(), np.c_[coverage, accuracy])
    assert legend_texts(display) == [f"mixture (AURC = {display.risk_area:.3f})"]
    assert display.ax_.get_xlabel().startswith("Share kept")
    assert display.ax_.get_ylabel().startswith("Accuracy")


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_from_estimator_is_from_predictions(iris, display_class):
    mixture, X, y = iris
    drawn = display_class.from_estimator(mixture, X, y)
    expected = display_class.from_predictions(y, mixture.predict_proba(X), name="GaussianMixture")
    np.testing.assert_array_equal(drawn.line_.get_xydata(), expected.line_.get_xydata())
    assert legend_texts(drawn) == legend_texts(expected)
    named = display_class.from_estimator(mixture, X, y, name="mine")
    assert named.line_.get_label().startswith("mine (")


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_from_estimator_wants_probabilities(iris, display_class):
    _, X, y = iris
    with pytest.raises(AttributeError, match=r"KMeans.*predict_proba"):
        display_class.from_estimator(KMeans(3), X, y)


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_several_on_one_axes(iris, display_class):
    mixture, X, y = iris
    first = display_class.from_estimator(mixture, X, y, name="first")
    second = display_class.from_predictions(
        y, np.full((len(y), 1), 1.0), ax=first.ax_, name="second"
    )
    assert second.ax_ is first.ax_
    assert second.figure_ is first.figure_
    assert first.line_.get_color() != second.line_.get_color()
    texts = legend_texts(second)
    assert len(texts) == len(set(texts))
    assert [text.split()[0] for text in texts if "=" in text] == ["first", "second"]
    # A second line of perfect calibration would only be drawn over the first.
    assert len(first.ax_.lines) == len(texts)


def test_markers_have_the_colour_of_their_line(iris):
    mixture, X, y = iris
    display = ReliabilityDisplay.from_estimator(mixture, X, y, c="purple")
    np.testing.assert_allclose(display.markers_.get_facecolor()[0, :3], mpl.colors.to_rgb("purple"))


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_line_options_override_ours_by_any_name(iris, display_class):
    mixture, X, y = iris
    display = display_class.from_estimator(mixture, X, y, lw=4, linestyle=":", label="as I say")
    assert display.line_.get_linewidth() == 4
    assert display.line_.get_linestyle() == ":"
    assert "as I say" in legend_texts(display)


def test_plot_again_under_another_name(iris):
    mixture, X, y = iris
    display = RejectionDisplay.from_estimator(mixture, X, y)
    first_axes = display.ax_
    assert display.plot(name="again") is display
    assert display.ax_ is not first_axes
    assert legend_texts(display)[0].startswith("again (")


def test_nothing_to_say_makes_no_legend():
    arrays = np.array([0.5, 1.0]), np.array([1.0, 0.75])
    assert RejectionDisplay(*arrays).plot().ax_.get_legend() is None
    bare = ReliabilityDisplay(*arrays, np.array([0.5, 0.5])).plot(diagonal=False)
    assert bare.ax_.get_legend() is None
    assert bare.diagonal_ is None
    assert legend_texts(RejectionDisplay(*arrays, name="name").plot()) == ["name"]
    assert legend_texts(RejectionDisplay(*arrays, risk_area=0.25).plot()) == ["AURC = 0.250"]


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_everything_drawn_is_inside_the_figure(iris, display_class):
    mixture, X, y = iris
    display = display_class.from_estimator(mixture, X, y, name="a rather long name of a model")
    display.figure_.canvas.draw()
    box, frame = display.ax_.get_tightbbox(), display.figure_.bbox
    assert frame.x0 <= box.x0 < box.x1 <= frame.x1
    assert frame.y0 <= box.y0 < box.y1 <= frame.y1
    assert display.ax_.get_aspect() == 1
    for low, high in (display.ax_.get_xlim(), display.ax_.get_ylim()):
        assert -0.05 < low <= 0
        assert 1 <= high < 1.05


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_a_missing_matplotlib_is_named_with_its_extra(iris, display_class, monkeypatch):
    mixture, X, y = iris
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skdeepcluster\[display\]'"):
        display_class.from_estimator(mixture, X, y)
