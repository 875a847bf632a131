"""The distributions of draws, and views as chains of operations."""

from __future__ import annotations

import math
import pickle
from functools import partial

import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop

from skdeepcluster.data import _image_views
from skdeepcluster.data._image_operations import resized_crop
from skdeepcluster.data._image_views import RandomImageViews, draw_crops
from tests.data.image_helpers import JITTER, draw_default_crops, per_image, random_images
from tests.helpers import seeded

# Drawing ---------------------------------------------------------------------------------------


def test_crops_lie_inside_and_keep_to_their_bounds():
    n, height, width = 20_000, 64, 96
    top, left, crop_height, crop_width = draw_default_crops(n, (height, width), generator=seeded())
    for start, length, limit in ((top, crop_height, height), (left, crop_width, width)):
        assert torch.equal(start, start.round())
        assert torch.equal(length, length.round())
        assert start.min() == 0
        assert length.min() >= 1
        assert (start + length).max() == limit
    # Rounding to whole pixels moves either side by half a pixel at most.
    assert ((crop_width + 0.5) / (crop_height - 0.5)).min() >= 3 / 4
    assert ((crop_width - 0.5) / (crop_height + 0.5)).max() <= 4 / 3
    assert ((crop_height + 0.5) * (crop_width + 0.5)).min() >= 0.08 * height * width


@pytest.mark.parametrize("image_size", [(32, 32), (64, 40)], ids=str)
def test_crops_are_distributed_as_in_torchvision(image_size):
    n = 3_000
    transform = RandomResizedCrop(8)
    image = torch.empty(3, *image_size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([image]) for _ in range(n)]
    ours = draw_default_crops(20 * n, image_size, generator=seeded())
    for values, name in zip(ours, ("top", "left", "height", "width"), strict=True):
        theirs = torch.tensor([float(parameters[name]) for parameters in drawn])
        standard_error = theirs.std() / math.sqrt(n)
        assert abs(values.mean() - theirs.mean()) < 4 * standard_error
        assert values.std() == pytest.approx(theirs.std().item(), rel=0.08)


def test_area_is_uniform_and_ratio_log_uniform_where_every_crop_fits():
    _, _, height, width = draw_crops(
        50_000, (1000, 1000), scale=(0.1, 0.5), ratio=(1 / 2, 2), generator=seeded()
    )
    area, log_ratio = height * width / 1e6, (width / height).log2()
    quantiles = torch.linspace(0.1, 0.9, 9)
    torch.testing.assert_close(area.quantile(quantiles), 0.1 + 0.4 * quantiles, rtol=0, atol=0.01)
    torch.testing.assert_close(log_ratio.quantile(quantiles), 2 * quantiles - 1, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("image_size", "box"),
    [((100, 10), (43, 0, 13, 10)), ((10, 100), (0, 43, 10, 13)), ((20, 20), (0, 0, 20, 20))],
    ids=["tall", "wide", "square"],
)
def test_crop_that_never_fits_is_central(image_size, box):
    # A box of the whole area fits only if the image's ratio is drawn, to half a pixel.
    crops = draw_crops(50, image_size, scale=(1, 1), ratio=(3 / 4, 4 / 3), generator=seeded())
    assert torch.stack(crops, dim=1).unique(dim=0).tolist() == [list(box)]


@pytest.mark.parametrize("side", [1, 2, 3])
def test_crops_of_tiny_images(side):
    top, left, height, width = draw_default_crops(500, (side, side), generator=seeded())
    assert min(height.min(), width.min()) == 1
    assert max((top + height).max(), (left + width).max()) == side


def test_jitter_factors():
    views = RandomImageViews(jitter=(0.4, 1.5, 0.0, 0.1), jitter_probability=0.7)
    n = 20_000
    order, factors = views._draw_jitter(n, seeded())
    assert sorted(order) == [0, 1, 2, 3]
    for factor, low, high, neutral in [
        (factors[0], 0.6, 1.4, 1),
        (factors[1], 0, 2.5, 1),
        (factors[2], 1, 1, 1),
        (factors[3], -0.1, 0.1, 0),
    ]:
        assert low - 1e-6 <= factor.min()
        assert factor.max() <= high + 1e-6
        mean = 0.3 * neutral + 0.7 * (low + high) / 2
        assert factor.mean() == pytest.approx(mean, abs=0.02)
    unjittered = (factors[0] == 1) & (factors[1] == 1) & (factors[3] == 0)
    assert unjittered.float().mean() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(factors[0] == 1, unjittered)


def test_every_order_of_the_jitter_is_drawn():
    generator = seeded()
    orders = {tuple(RandomImageViews()._draw_jitter(1, generator)[0]) for _ in range(500)}
    assert len(orders) == 24


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_share(probability):
    ramp = torch.linspace(0, 1, 8).expand(4_000, 1, 8, 8)
    views = RandomImageViews(flip=probability, jitter_probability=0)(ramp, seeded())
    flipped = views[:, 0, 0, 0] > views[:, 0, 0, -1]
    assert flipped.float().mean() == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_grey_share(probability):
    images = torch.tensor([0.9, 0.1, 0.4]).reshape(1, 3, 1, 1).expand(4_000, 3, 4, 4)
    views = RandomImageViews(grey_probability=probability)(images, seeded())
    grey = (views.amax(dim=1) - views.amin(dim=1)).flatten(1).amax(dim=1) < 1e-5
    assert grey.float().mean() == pytest.approx(probability, abs=0.03)


# Views -----------------------------------------------------------------------------------------


def test_views_are_the_operations_in_the_drawn_order(monkeypatch):
    applied = []

    def record(name, operation, images, *parameters):
        applied.append((name, parameters[0]))
        return operation(images, *parameters)

    monkeypatch.setattr(
        _image_views,
        "_JITTER",
        tuple(partial(record, name, ours) for name, (ours, _) in JITTER.items()),
    )
    images = random_images(8)
    views = RandomImageViews(scale=(1, 1), ratio=(17 / 12, 17 / 12), flip=0, grey_probability=0)
    result = views(images, seeded())
    assert sorted(name for name, _ in applied) == sorted(JITTER)

    expected = images
    for name, factor in applied:
        expected = per_image(JITTER[name][1], expected, factor)
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("size", "shape"), [(None, (12, 17)), (9, (9, 9)), (40, (40, 40))])
def test_shape_type_and_range(channels, size, shape):
    images = random_images(64, channels)
    views = RandomImageViews(size=size)(images, seeded())
    assert views.shape == (64, channels, *shape)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_and_float_agree(channels):
    pixels = (random_images(32, channels) * 255).round().to(torch.uint8)
    before = pixels.clone()
    views = RandomImageViews()
    from_uint8 = views(pixels, seeded())
    assert torch.equal(from_uint8, views(pixels / 255, seeded()))
    torch.testing.assert_close(views(pixels.double() / 255, seeded()), from_uint8)
    assert torch.equal(pixels, before)


def test_float_input_is_not_changed():
    images = random_images()
    before = images.clone()
    RandomImageViews()(images, seeded())
    assert torch.equal(images, before)


def test_the_same_image_gets_different_views():
    images = random_images()[6:7].expand(50, 3, 12, 17)
    views = RandomImageViews()(images, seeded())
    assert len(torch.unique(views.flatten(1), dim=0)) == 50
    colours = RandomImageViews(scale=(1, 1), ratio=(17 / 12, 17 / 12), flip=0, jitter_probability=1)
    assert len(torch.unique(colours(images, seeded()).flatten(1), dim=0)) == 50


def test_views_depend_on_the_generator_alone():
    images, views = random_images(), RandomImageViews()
    torch.manual_seed(1)
    first = views(images, seeded())
    torch.manual_seed(2)
    assert torch.equal(views(images, seeded()), first)
    assert not torch.equal(views(images, seeded(1)), first)


def test_global_state_is_untouched():
    state = torch.get_rng_state()
    RandomImageViews()(random_images(), seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_moves_on():
    images, views, generator = random_images(), RandomImageViews(), seeded()
    assert not torch.equal(views(images, generator), views(images, generator))


def test_draws_do_not_depend_on_the_images():
    views, states = RandomImageViews(), []
    for images in (random_images(), random_images(channels=1), random_images(height=40)):
        generator = seeded()
        views(images, generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_everything_off_is_the_identity():
    views = RandomImageViews(
        scale=(1, 1), ratio=(1, 1), flip=0, jitter=(0, 0, 0, 0), grey_probability=0
    )
    images = random_images(height=15, width=15)
    torch.testing.assert_close(views(images, seeded()), images, rtol=0, atol=1e-5)


def test_crop_and_flip_only():
    """The weak view of CDC: nothing but the sampling step."""
    images = random_images(64)
    views = RandomImageViews(jitter=(0, 0, 0, 0), grey_probability=0)(images, seeded())
    generator = seeded()
    crops = draw_default_crops(64, (12, 17), generator=generator)
    flip = torch.rand(64, generator=generator) < 0.5
    torch.testing.assert_close(views, resized_crop(images, *crops, (12, 17), flip).clamp(0, 1))


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches(n):
    assert RandomImageViews()(torch.rand(n, 3, 8, 8), seeded()).shape == (n, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_views_are_the_cpu_views():
    images, views = random_images(), RandomImageViews()
    on_gpu = views(images.cuda(), seeded())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), views(images, seeded()), rtol=0, atol=1e-4)
    assert views(images.cuda(), torch.Generator("cuda").manual_seed(0)).is_cuda


def test_pickle():
    views = RandomImageViews(size=8, flip=0.25)
    assert pickle.loads(pickle.dumps(views)) == views


@pytest.mark.parametrize(
    "parameters",
    [
        {"size": 0},
        {"scale": (0, 1)},
        {"scale": (0.5, 0.2)},
        {"scale": (0.5, 2)},
        {"ratio": (0, 1)},
        {"ratio": (2, 1)},
        {"jitter": (0.4, 0.4, 0.4)},
        {"jitter": (0.4, 0.4, -0.4, 0.1)},
        {"jitter": (0.4, 0.4, 0.4, 0.6)},
        {"flip": 1.5},
        {"jitter_probability": -0.1},
        {"grey_probability": math.nan},
    ],
    ids=str,
)
def test_bad_parameters_are_named(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"^{name} must be .*; got "):
        RandomImageViews(**parameters)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"shape \(B, C, H, W\); got shape \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "uint8, or float in .* got torch.int64"),
    ],
)
def test_bad_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        RandomImageViews()(images, seeded())
