"""Views are chosen that leave images what they are, and show what they are said to show."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torchvision.transforms import v2

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base import _building, _view_choice
from skdeepcluster.base._view_choice import (
    KINDS,
    NAMES,
    augmentations_of,
    choose_views,
    image_neighbors,
)
from skdeepcluster.data import (
    FunctionViews,
    ResidentSource,
    _sources,
    contrastive_views,
    unchanged,
)
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.helpers import seeded

SIDE = 16
WITH_VIEWS = [
    MiniClustering,
    CalibratedDeepClustering,
    StableClusterDiscrimination,
    GenerativeCalibrationClustering,
    SimCLR,
    BYOL,
    MoCo,
]


def chosen(images, seed=0):
    return choose_views(ResidentSource(torch.as_tensor(images)), nn.Identity(), seeded(seed))


def noisy(images, rng, scale=0.05):
    return np.clip(images + rng.normal(0, scale, images.shape), 0, 1).astype(np.float32)


def marks(n, sided, rng):
    """Arrow heads that point to the left or the right, or one upright bar or two of them."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    kinds = rng.integers(2, size=n)
    images = np.zeros((n, 1, SIDE, SIDE))
    for image, kind in zip(images, kinds, strict=True):
        y, x = rng.uniform(6, SIDE - 6, size=2)
        across, along = columns - x, np.abs(rows - y)
        length = rng.uniform(4, 6)
        if sided:
            tip = (length / 2 - along) * (1 if kind else -1)
            image[0] = (np.abs(across - tip) < 1.2) & (along < length)
        else:
            away = np.abs(across) if kind else np.abs(np.abs(across) - length / 2)
            image[0] = (away < 1.2) & (along < length)
    return noisy(0.8 * images + 0.1, rng)


def discs(n, colours, rng):
    """Discs and their backgrounds: the colour of each is one of these, give or take a little."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = rng.uniform(5, SIDE - 5, size=(2, n, 1, 1))
    inside = (rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(2.5, 5, size=(n, 1, 1)) ** 2
    colour = np.asarray(colours)[rng.integers(len(colours), size=n)] * rng.uniform(0.7, 1, (n, 1))
    return noisy(inside[:, None] * colour[:, :, None, None] + 0.1, rng)


@pytest.mark.parametrize("seed", range(3))
def test_mirror_images_are_no_views_where_they_are_another_class(seed):
    rng = np.random.default_rng(seed)
    assert "mirror" not in chosen(marks(2000, True, rng))
    assert "mirror" in chosen(marks(2000, False, rng))


@pytest.mark.parametrize("seed", range(3))
def test_colours_are_no_views_where_classes_differ_in_hue_alone(seed):
    rng = np.random.default_rng(seed)
    red_and_green = [(0.9, 0.1, 0.1), (0.1, 0.9, 0.1)]
    assert "grey" not in chosen(discs(2000, red_and_green, rng))
    tints = [(0.8, 0.7, 0.7), (0.7, 0.8, 0.7), (0.7, 0.7, 0.8)]
    assert {"colour", "grey"} <= set(chosen(discs(2000, tints, rng)))


def test_digits_are_neither_mirrored_nor_cut_but_have_neighbours():
    X, _ = load_digits(return_X_y=True)
    names = chosen((X.reshape(-1, 1, 8, 8) / 16).astype(np.float32))
    assert {"neighbor", "slight crop"} <= set(names)
    assert not {"mirror", "crop", "colour", "grey"} & set(names)


def test_images_that_bear_any_crop_have_no_neighbours_by_pixels():
    """Nothing but slopes of grey: every part of one looks like the whole."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.2, 0.8, size=(300, 1, 1, 1))
    names = chosen((level + np.zeros((1, 1, SIDE, SIDE))).astype(np.float32))
    assert {"crop", "mirror"} <= set(names)
    assert not {"neighbor", "slight crop"} & set(names)


@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_few_images_are_enough_to_choose(n):
    images = torch.rand(n, 3, 5, 9, generator=seeded())
    assert set(chosen(images)) <= set(NAMES)


def test_of_large_images_few_are_looked_at(monkeypatch):
    asked = []

    class Listening(ResidentSource):
        def rows(self, index):
            asked.append(len(index))
            return super().rows(index)

    source = Listening(torch.rand(100, 1, 8, 8, generator=seeded()))
    for most, expected in ((64 * 70, 70), (64, 20), (2**20, 100)):
        monkeypatch.setattr(_view_choice, "MOST_VALUES", most)
        choose_views(source, nn.Identity(), seeded())
        assert asked.pop() == expected


def test_a_view_does_what_its_name_says():
    images = torch.rand(40, 3, 80, 80, generator=seeded())
    alone = {name: kind.alone(images, seeded()) for name, kind in KINDS.items()}
    torch.testing.assert_close(alone["mirror"], images.flip(-1))
    grey = alone["grey"]
    torch.testing.assert_close(grey[:, 0], grey[:, 1])
    for name in ("light", "colour", "blur", "solarize", "crop", "slight crop"):
        changed = (alone[name] - images).abs().flatten(1).max(dim=1).values > 1e-3
        assert changed.float().mean() > 0.8, name


@pytest.mark.parametrize("size", [(32, 32), (96, 96)])
def test_all_published_parts_together_are_the_published_views(size):
    names = [name for name in NAMES if name not in ("neighbor", "slight crop")]
    assert augmentations_of(names, size) == contrastive_views(size)


@pytest.mark.parametrize("names", [[], ["neighbor"]])
def test_without_names_an_image_stays_as_it_is(names):
    images = torch.rand(4, 3, 16, 16, generator=seeded())
    for augment in augmentations_of(names, (16, 16)):
        torch.testing.assert_close(augment(images, seeded()), images)


def test_neighbours_are_those_by_pixels_among_the_rows_asked_for(monkeypatch):
    levels = torch.tensor([0.0, 0.5, 0.1, 0.6, 0.9])
    images = levels[:, None, None, None].expand(5, 1, 4, 4)
    source, rows = ResidentSource(images), torch.tensor([0, 1, 2, 3])
    found = image_neighbors(source, nn.Identity(), rows, 1)
    assert found.tolist() == [[2], [3], [0], [1], [4]]
    monkeypatch.setattr(_sources, "BLOCK_BYTES", 3 * images[0].nbytes)
    read, get = [], source.rows
    monkeypatch.setattr(source, "rows", lambda index: read.append(len(index)) or get(index))
    assert torch.equal(image_neighbors(source, nn.Identity(), rows, 1), found)
    assert read == [3, 1]


@pytest.mark.parametrize("method", WITH_VIEWS)
@pytest.mark.parametrize(
    "views",
    [
        "crop",
        ["crop", "rotate"],
        ["crop", "crop"],
        [],
        [["crop"]],
        {"crop"},
        3,
        None,
        v2.RandomAffine(10),  # has get_params, and no parameters
        ["crop", v2.RandomAffine(10)],
    ],
    ids=str,
)
def test_unknown_views_are_refused(method, views):
    with pytest.raises(ValueError, match=r"The 'views' parameter.*'mirror'"):
        method(views=views).fit(np.zeros((20, 1, 8, 8), dtype=np.float32))


def test_views_of_a_pretraining_are_those_of_its_clusterer():
    images = np.random.default_rng(0).uniform(size=(20, 1, 8, 8)).astype(np.float32)
    with pytest.raises(ValueError, match=r"pretraining has views=.*Set them there"):
        MiniClustering(2, pretraining=SimCLR(views=["crop"])).fit(images)


def test_digits_as_images_are_clustered_better_than_their_pixels():
    """A third of the digits; k-means on these pixels comes to .67 to .72.

    Accelerators see them with a larger network and fine-tune it.
    """
    X, y = load_digits(return_X_y=True)
    images = (X.reshape(-1, 1, 8, 8) / 16).astype(np.float32)[:600]
    model = MiniClustering(10, pretraining=SimCLR(max_epochs=70), random_state=0, device="cpu")
    model.fit(images)
    assert model.backbone_name_ == "small_convnet"
    assert model.views_ == ["neighbor", "slight crop", "light"]
    assert adjusted_rand_score(y[:600], model.labels_) > 0.74


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # noise, one epoch
@pytest.mark.parametrize("method", WITH_VIEWS)
def test_views_that_are_given_are_those_that_are_drawn(method, monkeypatch):
    asked = []
    monkeypatch.setattr(
        _building,
        "augmentations_of",
        lambda names, size: asked.append(names) or [unchanged, unchanged],
    )
    images = np.random.default_rng(0).uniform(size=(30, 1, 8, 8)).astype(np.float32)
    model = method(views=["mirror", "neighbor"], max_epochs=1, random_state=0)
    if "n_clusters" in model.get_params():
        model.set_params(n_clusters=2, calibrate=False)
    if "generated_ratio" in model.get_params():
        model.set_params(generated_ratio=0)
    model.fit(images)
    assert asked == [["mirror", "neighbor"]]
    assert model.views_ == ["mirror", "neighbor"]


def test_features_have_neighbours():
    X = np.random.default_rng(0).normal(size=(30, 4))
    assert SimCLR(max_epochs=1, random_state=0).fit(X).views_ == ["neighbor"]


def speckled(images):
    """Draws from torch's global generator, as users' functions do."""
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    return (images + 0.1 * torch.randn(images.shape, device=images.device)).clamp(0, 1)


def few_images():
    return np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # noise, one epoch
@pytest.mark.parametrize("method", WITH_VIEWS)
def test_views_may_be_a_function(method):
    model = method(views=speckled, max_epochs=1, random_state=0)
    if "n_clusters" in model.get_params():
        model.set_params(n_clusters=2, calibrate=False)
    if "generated_ratio" in model.get_params():
        model.set_params(generated_ratio=0)
    before = torch.get_rng_state()
    first = model.fit(few_images()).transform(few_images())
    assert model.views_ == ["speckled"]
    torch.manual_seed(7)
    np.testing.assert_array_equal(model.fit(few_images()).transform(few_images()), first)
    torch.set_rng_state(before)


def test_functions_come_after_the_views_that_are_named():
    turned = []

    def turn(images):
        turned.append(len(images))
        return images.rot90(dims=(2, 3))

    model = SimCLR(views=["neighbor", "mirror", turn], max_epochs=2, random_state=0)
    model.fit(few_images())
    assert [name.split(".")[-1] for name in model.views_] == ["neighbor", "mirror", "turn"]
    assert turned == [30, 30] * 2  # two views of each batch
    views = FunctionViews(unchanged, [turn, lambda images: images + 1])
    images = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(views(images, seeded()), images.rot90(dims=(2, 3)) + 1)


def test_transforms_of_torchvision_are_functions():
    views = ["neighbor", v2.Compose([v2.RandomAffine(10)])]
    model = clone(SimCLR(views=views, max_epochs=1, random_state=0)).fit(few_images())
    assert model.views_ == ["neighbor", "Compose"]


@pytest.mark.parametrize("name", ["crop", "neighbor"])
def test_functions_may_be_called_like_views(name, monkeypatch):
    def own(images):
        return images

    own.__qualname__ = name
    asked = []
    monkeypatch.setattr(
        _building,
        "augmentations_of",
        lambda names, size: asked.append(names) or [unchanged, unchanged],
    )
    views, names = _building.build_views(
        ResidentSource(torch.rand(9, 1, 8, 8)), nn.Identity(), 2, seeded(), [own]
    )
    assert (asked, names) == ([[]], [name])
    assert views.neighbors is None


@pytest.mark.parametrize(
    "wrong",
    [lambda images: images[:, :, :4], lambda images: images.cpu().numpy(), lambda images: None],
)
def test_a_function_returns_as_many_images(wrong):
    with pytest.raises(
        ValueError, match=r"views=.*lambda.* made a .* of a batch of images of shape"
    ):
        SimCLR(views=wrong, max_epochs=1).fit(few_images())


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, images):
        return images * self.factor


def scaled(images, factor):
    return images * factor


@pytest.mark.parametrize("make", [lambda: Scaled(0.5), lambda: partial(scaled, factor=0.5)])
def test_whatever_is_called_resumes(tmp_path, make):
    for _ in range(2):
        SimCLR(views=make(), max_epochs=1, random_state=0, checkpoint_dir=tmp_path).fit(
            few_images()
        )
    with pytest.raises(ValueError, match="holds a checkpoint of another fit"):
        SimCLR(views=speckled, max_epochs=1, random_state=0, checkpoint_dir=tmp_path).fit(
            few_images()
        )


def test_a_fit_with_a_function_resumes(tmp_path):
    model = SimCLR(views=speckled, max_epochs=1, random_state=0, checkpoint_dir=tmp_path)
    first = model.fit(few_images()).transform(few_images())
    np.testing.assert_array_equal(model.fit(few_images()).transform(few_images()), first)
    with pytest.raises(ValueError, match=r"views: .*speckled in the checkpoint, \['crop'\] now"):
        model.set_params(views=["crop"]).fit(few_images())


def test_a_function_is_in_no_file(tmp_path):
    model = SimCLR(views=["crop", speckled], max_epochs=1, random_state=0).fit(few_images())
    with pytest.raises(ValueError, match=r"cannot be saved.*views"):
        skdeepcluster.save(model, tmp_path)
    skdeepcluster.save(model.set_params(views="auto"), tmp_path)
    loaded = skdeepcluster.load(tmp_path)
    np.testing.assert_array_equal(loaded.transform(few_images()), model.transform(few_images()))
