"""The distributions of draws, and views as chains of operations."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from skdeepcluster.data import RandomImageViews, _image_views, contrastive_views
from skdeepcluster.data._image_operations import gaussian_blur, resized_crop
from skdeepcluster.data._image_views import _blur_kernel_size, draw_crops
from tests.data.image_helpers import JITTER, draw_default_crops, per_image, random_images
from tests.helpers import seeded

# What only holds, or only breaks, with blur and solarisation is tested on both.
BOTH = pytest.mark.parametrize(
    "views",
    [RandomImageViews(), RandomImageViews(blur_probability=0.5, solarize_probability=0.5)],
    ids=["plain", "blurred"],
)
# Crops the whole image, and by default that is all.
whole_views = partial(
    RandomImageViews,
    scale=(1, 1),
    ratio=(17 / 12, 17 / 12),
    flip=0,
    jitter_probability=0,
    grey_probability=0,
)

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


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_blur_share_and_widths(probability):
    views = RandomImageViews(blur_probability=probability, blur_sigma=(0.5, 3))
    blurred, sigma = views._draw_blur(50_000, seeded())
    assert blurred.shape == sigma.shape
    assert len(blurred.unique()) == len(blurred)
    assert len(blurred) / 50_000 == pytest.approx(probability, abs=0.005)
    if probability > 0:
        quantiles = torch.linspace(0, 1, 11)
        torch.testing.assert_close(
            sigma.quantile(quantiles), 0.5 + 2.5 * quantiles, rtol=0, atol=0.06
        )


def test_some_images_are_blurred_and_others_solarized():
    images = torch.tensor([0.9, 0.9, 0.6, 0.6]).expand(20_000, 1, 4, 4)
    views = whole_views(
        ratio=(1, 1), blur_probability=0.3, blur_sigma=(0.5, 2), solarize_probability=0.2
    )(images, seeded())
    blurred = (views[:, 0, 0, 0] - views[:, 0, 0, 1]).abs() > 1e-3
    solarized = views[:, 0, 0, 0] < 0.5
    assert blurred.float().mean() == pytest.approx(0.3, abs=0.015)
    assert solarized.float().mean() == pytest.approx(0.2, abs=0.015)
    assert (blurred & solarized).float().mean() == pytest.approx(0.06, abs=0.01)


@pytest.mark.parametrize(
    ("size", "kernel_size"),
    [((1, 8), 1), ((2, 2), 3), ((28, 28), 3), ((32, 32), 3), ((96, 96), 9), ((224, 300), 23)],
    ids=str,
)
def test_kernel_is_a_tenth_of_the_shorter_side(size, kernel_size):
    assert _blur_kernel_size(torch.empty(1, 3, *size)) == kernel_size


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


def test_grey_comes_before_blur_and_blur_before_solarisation(monkeypatch):
    widths = []

    def record(images, sigma, kernel_size):
        widths.append(sigma)
        return gaussian_blur(images, sigma, kernel_size)

    monkeypatch.setattr(_image_views, "gaussian_blur", record)
    views = whole_views(grey_probability=1, blur_probability=1, solarize_probability=1)
    images = random_images()

    def expected(image, sigma):
        image = tv.gaussian_blur(tv.rgb_to_grayscale(image, 3), [3, 3], [sigma, sigma])
        return tv.solarize(image, 0.5)

    torch.testing.assert_close(
        views(images, seeded()), per_image(expected, images, *widths), rtol=0, atol=5e-5
    )


def test_blur_and_solarisation_change_some_images_and_leave_the_draws_of_all():
    images = random_images(64)
    plain = RandomImageViews()(images, seeded())
    for parameters in ({"blur_probability": 0.4}, {"solarize_probability": 0.4}):
        views = RandomImageViews(**parameters)(images, seeded())
        changed = (views != plain).flatten(1).any(dim=1)
        assert 0.2 < changed.float().mean() < 0.6


@BOTH
def test_an_image_does_not_depend_on_the_others(views):
    images, others = random_images(seed=1), random_images(seed=2)
    others[7] = images[7]
    assert torch.equal(views(others, seeded())[7], views(images, seeded())[7])


@BOTH
def test_views_are_not_rounded_under_autocast(views):
    images = random_images()
    expected = views(images, seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = views(images, seeded())
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


@pytest.mark.parametrize("image_size", [(28, 28), (64, 64), (64, 300)], ids=str)
def test_small_images_are_not_blurred(image_size):
    assert contrastive_views(image_size) == 2 * [RandomImageViews()]


@pytest.mark.parametrize("image_size", [(65, 65), (224, 300)], ids=str)
def test_large_images_get_the_two_views_of_byol(image_size):
    first, second = contrastive_views(image_size)
    assert (first.blur_probability, first.solarize_probability) == (1, 0)
    assert (second.blur_probability, second.solarize_probability) == (0.1, 0.2)
    for views in (first, second):
        assert views.jitter == (0.4, 0.4, 0.2, 0.1)
        assert (views.scale, views.blur_sigma) == ((0.08, 1), (0.1, 2))
        assert (views.flip, views.jitter_probability, views.grey_probability) == (0.5, 0.8, 0.2)
        result = views(torch.rand(2, 3, *image_size), seeded())
        assert result.shape == (2, 3, *image_size)


@BOTH
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("size", "shape"), [(None, (12, 17)), (9, (9, 9)), (40, (40, 40))])
def test_shape_type_and_range(views, channels, size, shape):
    images = random_images(64, channels)
    views = replace(views, size=size)(images, seeded())
    assert views.shape == (64, channels, *shape)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_and_float_agree(views, channels):
    pixels = (random_images(32, channels) * 255).round().to(torch.uint8)
    before = pixels.clone()
    from_uint8 = views(pixels, seeded())
    assert torch.equal(from_uint8, views(pixels / 255, seeded()))
    torch.testing.assert_close(views(pixels.double() / 255, seeded()), from_uint8)
    assert torch.equal(pixels, before)


@BOTH
def test_float_input_is_not_changed(views):
    images = random_images()
    before = images.clone()
    views(images, seeded())
    assert torch.equal(images, before)


def test_the_same_image_gets_different_views():
    images = random_images()[6:7].expand(50, 3, 12, 17)
    views = RandomImageViews()(images, seeded())
    assert len(torch.unique(views.flatten(1), dim=0)) == 50
    colours = RandomImageViews(scale=(1, 1), ratio=(17 / 12, 17 / 12), flip=0, jitter_probability=1)
    assert len(torch.unique(colours(images, seeded()).flatten(1), dim=0)) == 50


@BOTH
def test_views_depend_on_the_generator_alone(views):
    images = random_images()
    torch.manual_seed(1)
    first = views(images, seeded())
    torch.manual_seed(2)
    assert torch.equal(views(images, seeded()), first)
    assert not torch.equal(views(images, seeded(1)), first)


@BOTH
def test_global_state_is_untouched(views):
    state = torch.get_rng_state()
    views(random_images(), seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_moves_on():
    images, views, generator = random_images(), RandomImageViews(), seeded()
    assert not torch.equal(views(images, generator), views(images, generator))


@BOTH
def test_draws_do_not_depend_on_the_images(views):
    states = []
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


@BOTH
@pytest.mark.parametrize("n", [0, 1])
def test_small_batches(views, n):
    assert views(torch.rand(n, 3, 8, 8), seeded()).shape == (n, 3, 8, 8)


@BOTH
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_views_are_the_cpu_views(views):
    images = random_images()
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
        {"blur_probability": 1.1},
        {"blur_sigma": (-1, 2)},
        {"blur_sigma": (2, 1)},
        {"blur_sigma": (0, math.inf)},
        {"blur_sigma": (math.nan, 2)},
        {"solarize_probability": -0.1},
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
