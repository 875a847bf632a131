"""Displays of clusters: where points and pictures are drawn, and in which colours."""

import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepcluster import MiniClustering, StableClusterDiscrimination
from skdeepcluster.datasets import ImageFiles
from skdeepcluster.display import (
    ChoiceDisplay,
    ClusterMapDisplay,
    ImageGridDisplay,
    MergeTreeDisplay,
)
from skdeepcluster.report import cluster_report
from tests.instances import METHODS, brief, fitted
from tests.samples import IMAGES, X

METHOD = pytest.mark.parametrize("method", METHODS)
PICTURES = np.random.default_rng(0).integers(0, 256, size=(len(X), 6, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def model():
    return fitted(METHODS["default"])


def written(display):
    return [text.get_text() for text in display.texts_]


def row_labels(display):
    return [text.get_text() for text in display.ax_.get_yticklabels()]


@METHOD
def test_the_map_shows_the_embedding(method):
    model = fitted(METHODS[method])
    display = ClusterMapDisplay.from_estimator(model, X)

    pca = PCA(2)
    positions = pca.fit_transform(model.transform(X))
    np.testing.assert_allclose(display.points_.get_offsets(), positions, atol=1e-4)
    np.testing.assert_array_equal(display.labels, model.labels_)
    confidence = model.predict_proba(X).max(axis=1)
    np.testing.assert_array_equal(display.confidence, confidence)
    colours = display.points_.get_facecolors()
    np.testing.assert_allclose(
        colours[:, :3], np.array(mpl.color_sequences["tab10"])[model.labels_]
    )
    np.testing.assert_allclose(colours[:, 3], 0.15 + 0.85 * confidence)

    report = cluster_report(model, X, n_representatives=1)
    medoids = [record["representatives"][0] for record in report.records]
    np.testing.assert_array_equal(display.medoids, medoids)
    assert written(display) == ["0", "1", "2"]
    for text, medoid in zip(display.texts_, medoids, strict=True):
        assert text.get_position() == pytest.approx(positions[medoid], abs=1e-4)
    share = pca.explained_variance_ratio_[0]
    assert display.ax_.get_xlabel() == f"First principal component ({100 * share:.0f} %)"
    assert display.figure_ is display.ax_.figure


def test_t_sne_keeps_clusters_together(model):
    display = ClusterMapDisplay.from_estimator(model, X, method="tsne")
    again = ClusterMapDisplay.from_estimator(model, X, method="tsne")
    np.testing.assert_array_equal(display.positions, again.positions)
    found = KMeans(3, n_init=5, random_state=0).fit_predict(display.positions)
    assert len(set(zip(found, model.labels_, strict=True))) == 3
    assert display.ax_.get_xlabel() == ""


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_of_many_samples_some_are_drawn_and_every_medoid(model, method):
    display = ClusterMapDisplay.from_estimator(model, X, method=method, max_samples=12)
    assert 12 <= len(display.positions) <= 15
    whole = ClusterMapDisplay.from_estimator(model, X)
    assert written(display) == ["0", "1", "2"]
    np.testing.assert_array_equal(display.labels[display.medoids], [0, 1, 2])
    certain = whole.confidence[whole.medoids]
    np.testing.assert_array_equal(display.confidence[display.medoids], certain)


def test_a_pipeline_has_a_map():
    pipeline = make_pipeline(StandardScaler(), brief(MiniClustering)).fit(X)
    display = ClusterMapDisplay.from_estimator(pipeline, X)
    np.testing.assert_array_equal(display.labels, pipeline.predict(X))


def test_without_confidences_points_are_solid_and_an_empty_cluster_is_not_named():
    display = ClusterMapDisplay.from_predictions(X[:6], [0, 0, 3, 3, 3, 0], names=list("abcd"))
    assert (display.points_.get_facecolors()[:, 3] == 1).all()
    assert written(display) == ["a", "d"]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_what_has_no_directions_is_one_point(method):
    for n_samples in (1, 5):
        same = np.ones((n_samples, 4))
        display = ClusterMapDisplay.from_predictions(same, [0] * n_samples, method=method)
        assert (display.positions == 0).all()
    two = ClusterMapDisplay.from_predictions(np.eye(2), [0, 1], method=method)
    assert (two.positions[0] != two.positions[1]).any()


def test_a_single_direction_is_drawn():
    line = ClusterMapDisplay.from_predictions(np.arange(8.0)[:, None], [0] * 4 + [1] * 4)
    assert (line.positions[:, 1] == 0).all()
    assert line.ax_.get_ylabel() == "Second principal component (0 %)"


@pytest.mark.parametrize("n_clusters", [10, 11, 20, 21, 60])
def test_each_cluster_has_a_colour_of_its_own(n_clusters):
    labels = np.arange(2 * n_clusters) % n_clusters
    display = ClusterMapDisplay(np.zeros((len(labels), 2)), labels).plot()
    colours = display.points_.get_facecolors()[:n_clusters, :3]
    assert len(np.unique(colours.round(3), axis=0)) == n_clusters
    # Seen on white and on black.
    assert colours.min(axis=1).max() < 0.9
    assert colours.max(axis=1).min() > 0.4
    np.testing.assert_array_equal(display.points_.get_facecolors()[n_clusters:, :3], colours)


def test_map_options_override_ours_and_axes_are_kept(model):
    _, ax = plt.subplots()
    display = ClusterMapDisplay.from_estimator(model, X, ax=ax, s=3, marker="s", names="abc")
    assert display.ax_ is ax
    assert display.points_.get_sizes().tolist() == [3]
    assert written(display) == ["a", "b", "c"]
    assert display.plot().ax_ is not ax


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "umap"}, "method must be 'pca' or 'tsne'; got 'umap'"),
        ({"names": ["a"]}, r"names must hold one name for each cluster; got 1 .* number 1\."),
        ({"labels": [0, -1, 1]}, "labels must be numbers of clusters from 0 on; got -1"),
        ({"labels": [0, 1]}, "inconsistent numbers of samples"),
        ({"confidence": [0.5]}, "inconsistent numbers of samples"),
        ({"embedding": [[0.0, np.nan]] * 3}, "embedding contains NaN"),
    ],
)
def test_what_no_map_is_made_of_is_named(options, message):
    given = {"embedding": X[:3], "labels": [0, 1, 1]} | options
    with pytest.raises(ValueError, match=message):
        ClusterMapDisplay.from_predictions(**given)


def test_names_without_an_order_are_refused():
    with pytest.raises(TypeError, match=r"names must be a sequence of str.*got a dict"):
        ClusterMapDisplay.from_predictions(X[:3], [0, 1, 1], names={0: "a", 1: "b"})


def test_a_map_wants_an_embedding():
    with pytest.raises(AttributeError, match="predict_proba"):
        ClusterMapDisplay.from_estimator(KMeans(3), X)


@METHOD
def test_the_grid_shows_the_representatives(method):
    model = fitted(METHODS[method])
    names = ["one", "two", "three"]
    display = ImageGridDisplay.from_estimator(model, X, images=PICTURES, n_images=4, names=names)
    report = cluster_report(model, X, names=names, n_representatives=4)
    for record, pictures in zip(report.records, display.images_, strict=True):
        assert len(pictures) == 4
        for column, (row, picture) in enumerate(
            zip(record["representatives"], pictures, strict=True)
        ):
            np.testing.assert_array_equal(picture.get_array(), PICTURES[row] / 255)
            left, right, bottom, top = picture.get_extent()
            assert column < left < right < column + 1
            assert record["label"] < top < bottom < record["label"] + 1
            assert (bottom - top) / (right - left) == pytest.approx(6 / 4)
    assert row_labels(display) == [
        f"{record['name']}\nn = {record['size']}, confidence {record['confidence']:.2f}"
        for record in report.records
    ]
    again = ImageGridDisplay(report, PICTURES).plot()
    assert row_labels(again) == row_labels(display)


def shown(images, **options):
    """Return the first picture that is drawn of some images."""
    display = ImageGridDisplay.from_estimator(
        fitted(METHODS["default"]), X, images=images, n_images=2, **options
    )
    first = display.report.records[0]["representatives"][0]
    return display.images_[0][0], first


@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_channels_may_come_first_or_last(n_channels):
    last = np.random.default_rng(0).integers(
        0, 256, size=(len(X), 6, 5, n_channels), dtype=np.uint8
    )
    picture, row = shown(last)
    expected = last[row] / 255
    np.testing.assert_array_equal(picture.get_array(), expected.squeeze())
    picture, row = shown(np.moveaxis(last, 3, 1))
    np.testing.assert_array_equal(picture.get_array(), expected.squeeze())


def test_floats_are_shown_as_they_are_or_stretched():
    units = PICTURES / 510
    picture, row = shown(units)
    np.testing.assert_array_equal(picture.get_array(), units[row])
    picture, row = shown(units * 40 - 7)
    drawn = [image for line in picture.axes.images for image in [line.get_array()]]
    assert min(image.min() for image in drawn) == 0
    assert max(image.max() for image in drawn) == 1
    picture, _ = shown(np.full_like(units, 7.0))  # nothing to stretch
    assert np.isfinite(picture.get_array()).all()


def test_images_of_several_sizes_and_kinds():
    images = [Image.fromarray(PICTURES[row][: 3 + row % 3]) for row in range(len(X))]
    picture, row = shown(images, cmap="gray_r")
    np.testing.assert_array_equal(picture.get_array(), PICTURES[row][: 3 + row % 3] / 255)
    assert picture.get_cmap().name == "gray_r"


def test_images_and_files_are_their_own_pictures(tmp_path):
    paths = [str(tmp_path / f"{row:02}.png") for row in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    model = brief(MiniClustering, n_clusters=2, pretraining=None, calibrate=False, n_epochs=1)
    model.fit(IMAGES)
    expected = ImageGridDisplay.from_estimator(model, IMAGES)
    assert expected.images_[0][0].get_array().shape == (8, 8, 3)
    for given in (str(tmp_path), tmp_path, paths, ImageFiles(tmp_path)):
        display = ImageGridDisplay.from_estimator(model, given)
        for a, b in zip(expected.ax_.images, display.ax_.images, strict=True):
            np.testing.assert_array_equal(a.get_array(), b.get_array())


def test_an_empty_cluster_keeps_its_row(model):
    rows = np.flatnonzero(model.labels_ != 1)
    display = ImageGridDisplay.from_estimator(model, X[rows], images=PICTURES[rows])
    assert [len(pictures) for pictures in display.images_] == [8, 0, 8]
    assert row_labels(display)[1] == "cluster 1\nn = 0"


def test_what_no_grid_is_made_of_is_named(model):
    with pytest.raises(ValueError, match=r"images must have shape .*; got shape \(5,\) at row"):
        ImageGridDisplay.from_estimator(model, X)
    with pytest.raises(ValueError, match="images must hold one image per row of X; got 3 images"):
        ImageGridDisplay.from_estimator(model, X, images=PICTURES[:3])
    with pytest.raises(ValueError, match="made without X"):
        ImageGridDisplay(cluster_report(model), PICTURES).plot()
    with pytest.raises(NotFittedError):
        ImageGridDisplay.from_estimator(MiniClustering(3), X, images=PICTURES)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_everything_is_drawn_inside_the_figure(model, style):
    with plt.style.context(style):
        names = ["a rather long name of a cluster", "b", "c"]
        grid = ImageGridDisplay.from_estimator(model, X, images=PICTURES, names=names)
        for display in (grid, ClusterMapDisplay.from_estimator(model, X)):
            display.figure_.canvas.draw()
            box, frame = display.ax_.get_tightbbox(), display.figure_.bbox
            assert frame.x0 <= box.x0 < box.x1 <= frame.x1
            assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_a_missing_matplotlib_is_named_with_its_extra(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skdeepcluster\[display\]'"):
        ClusterMapDisplay.from_estimator(model, X)
    with pytest.raises(ImportError, match=r"pip install 'skdeepcluster\[display\]'"):
        ImageGridDisplay.from_estimator(model, X, images=PICTURES)


# --- the tree ------------------------------------------------------------------------------------

# The first two merge, then the last two, then all.
TREE = np.array([[0.0, 1.0, 0.2, 2.0], [2.0, 3.0, 0.6, 2.0], [4.0, 5.0, 1.0, 4.0]])


def link_colours(display):
    """Return the colours of mergers, lowest first."""
    links = [
        (path.vertices[:, 0].max(), mpl.colors.to_hex(colour))
        for collection in display.ax_.collections
        for path, colour in zip(
            collection.get_paths(),
            np.resize(collection.get_colors(), (len(collection.get_paths()), 4)),
            strict=True,
        )
    ]
    return [colour for _, colour in sorted(links)]


@METHOD
def test_the_tree_has_a_leaf_for_each_cluster(method):
    model = fitted(METHODS[method])
    display = MergeTreeDisplay.from_estimator(model)
    labels = [f"{k}  (n = {size})" for k, size in enumerate(model.cluster_sizes_)]
    assert row_labels(display) == [labels[leaf] for leaf in reversed(display.leaves_)]
    heights = sorted(
        path.vertices[:, 0].max() for c in display.ax_.collections for path in c.get_paths()
    )
    np.testing.assert_allclose(heights, model.merge_tree_[:, 2])


def test_colours_are_those_of_the_clusters_of_a_cut():
    first, second = (mpl.colors.to_hex(c) for c in mpl.color_sequences["tab10"][:2])
    display = MergeTreeDisplay(TREE, list("abcd"), groups=[0, 0, 1, 1]).plot()
    assert link_colours(display) == [first, second, "#000000"]
    assert link_colours(MergeTreeDisplay(TREE, list("abcd")).plot()) == [first] * 3
    with mpl.rc_context({"axes.edgecolor": "white"}):
        display = MergeTreeDisplay(TREE, list("abcd"), groups=np.array([0, 1, 2, 3])).plot()
    assert link_colours(display) == ["#ffffff"] * 3


def test_a_cut_is_coloured_as_it_will_be_numbered():
    X, _ = make_blobs(300, centers=10, n_features=5, random_state=2)
    model = brief(MiniClustering, 1, n_clusters=10).fit(X)
    for k in range(1, 11):  # most of them meet at the same distance, with nothing in common
        groups = MergeTreeDisplay.from_estimator(model, n_clusters=k).groups
        np.testing.assert_array_equal(groups[model.labels_], model.cut(k).labels_)
        plt.close("all")


def test_clusters_of_a_tree_have_the_names_that_are_given(model):
    display = MergeTreeDisplay.from_estimator(model, names=["one", "two", "three"])
    assert sorted(label.split("  ")[0] for label in row_labels(display)) == ["one", "three", "two"]


def test_a_tree_is_drawn_where_asked(model):
    _, ax = plt.subplots()
    display = MergeTreeDisplay.from_estimator(model, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_a_tree_that_is_too_large_to_read_is_refused():
    def draw(n):
        first = [0, *range(n, 2 * n - 2)]  # one after the other, which makes it as deep as can be
        tree = np.column_stack([first, range(1, n), np.linspace(0, 1, n - 1), range(2, n + 1)])
        return MergeTreeDisplay(tree.astype(float), [""] * n).plot()

    assert len(draw(500).leaves_) == 500
    with pytest.raises(ValueError, match=r"501 clusters.*estimator.cut"):
        draw(501)


def test_there_is_no_tree_of_a_single_cluster_nor_a_cut_into_more(model):
    with pytest.raises(ValueError, match="single cluster"):
        MergeTreeDisplay.from_estimator(model.cut(1))
    with pytest.raises(ValueError, match="n_clusters == 4"):
        MergeTreeDisplay.from_estimator(model, n_clusters=4)
    with pytest.raises(ValueError, match="names"):
        MergeTreeDisplay.from_estimator(model, names=["one"])
    with pytest.raises(NotFittedError):
        MergeTreeDisplay.from_estimator(MiniClustering(3))


SCORES = {5: 0.3, 2: 0.1, 3: 0.4, 4: 0.2}


def test_the_best_number_is_marked():
    display = ChoiceDisplay(SCORES).plot()
    assert display.line_.get_xdata().tolist() == [2, 3, 4, 5]
    assert display.line_.get_ydata().tolist() == [0.1, 0.4, 0.2, 0.3]
    assert (display.mark_.get_xdata(), display.mark_.get_ydata()) == ([3], [0.4])
    assert [text.get_text() for text in display.ax_.texts] == ["3"]
    assert display.ax_.get_legend() is None
    other = ChoiceDisplay({2: 0.5, 3: 0.1}, chosen=3, name="other").plot(display.ax_, c="black")
    assert other.ax_ is display.ax_
    assert other.mark_.get_xdata() == [3]
    assert other.line_.get_color() == other.mark_.get_color() == "black"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["other"]


@METHOD
def test_scores_of_the_fit_are_drawn_or_of_all_cuts(method):
    auto = brief(type(METHODS[method]), n_clusters="auto").fit(X)
    display = ChoiceDisplay.from_estimator(auto)
    assert display.scores == auto.cut_scores_
    assert display.chosen == auto.n_clusters_
    cut = auto.cut(2)
    assert ChoiceDisplay.from_estimator(cut).chosen == 2
    assert ChoiceDisplay.from_estimator(auto.cut(1)).mark_.get_xdata() == [auto.n_clusters_]
    model = fitted(METHODS[method])
    assert ChoiceDisplay.from_estimator(model, X).scores == model.cut_scores(X)
    with pytest.raises(ValueError, match=r"one number of clusters.*X=.*n_clusters='auto'"):
        ChoiceDisplay.from_estimator(model)
    with pytest.raises(ValueError, match="at most one number of clusters"):
        ChoiceDisplay.from_estimator(model.cut(2), X)


def test_scores_of_several_heads_are_drawn():
    model = StableClusterDiscrimination([2, 3, 4], random_state=0, max_epochs=1).fit(X)
    display = ChoiceDisplay.from_estimator(model.choose(4))
    assert display.scores == model.head_scores_
    assert display.chosen == 4


def test_pipelines_that_end_in_a_clusterer_are_drawn():
    pipeline = make_pipeline(StandardScaler(), brief(MiniClustering, n_clusters="auto")).fit(X)
    last, seen = pipeline[-1], pipeline[:-1].transform(X)
    assert ChoiceDisplay.from_estimator(pipeline).scores == last.cut_scores_
    assert ChoiceDisplay.from_estimator(pipeline, X).scores == last.cut_scores(seen)
    tree = MergeTreeDisplay.from_estimator(pipeline, n_clusters=2).tree
    np.testing.assert_array_equal(tree, last.merge_tree_)
    grid = ImageGridDisplay.from_estimator(pipeline, X, images=PICTURES)
    assert grid.report.records == cluster_report(last, seen, n_representatives=8).records
    nested = make_pipeline(StandardScaler(), make_pipeline(brief(MiniClustering))).fit(X)
    assert cluster_report(nested, X).records == cluster_report(nested[-1][-1], seen).records
    alone = make_pipeline(brief(MiniClustering)).fit(X)
    assert cluster_report(alone, X).records == cluster_report(alone[-1], X).records
    with pytest.raises(NotFittedError):
        MergeTreeDisplay.from_estimator(make_pipeline(StandardScaler(), MiniClustering(3)))


def test_a_table_is_no_pictures(model):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=list("abcde"))
    of_table = brief(MiniClustering).fit(table)
    with pytest.raises(ValueError, match="images must have shape"):
        ImageGridDisplay.from_estimator(of_table, table)
    with pytest.raises(ValueError, match="images must have shape"):
        ImageGridDisplay.from_estimator(model, X, images=table)


def test_choices_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="no number of clusters"):
        ChoiceDisplay({}).plot()
    with pytest.raises(ValueError, match=r"chosen=7 has no score; there are \[5, 2, 3, 4\]"):
        ChoiceDisplay(SCORES, chosen=7).plot()
    with pytest.raises(NotFittedError):
        ChoiceDisplay.from_estimator(MiniClustering(3))
