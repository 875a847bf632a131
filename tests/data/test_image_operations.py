"""Image operations against torchvision and scipy, one image at a time."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from skdeepcluster.data._colour_operations import (
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    greyscale,
    solarize,
)
from skdeepcluster.data._image_operations import (
    adjust_sharpness,
    affine,
    erase_square,
    gaussian_blur,
    resized_crop,
)
from tests.data.image_helpers import JITTER, draw_default_crops, per_image, random_images
from tests.helpers import seeded


@pytest.mark.parametrize("size", [(12, 17), (32, 32), (5, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resized_crop(size, channels):
    images = random_images(40, channels)
    top, left, height, width = draw_default_crops(40, (12, 17), generator=seeded())
    flip = torch.rand(40, generator=seeded(1)) < 0.5

    def expected(image, top, left, height, width, flip):
        box = tv.resized_crop(
            image, int(top), int(left), int(height), int(width), list(size), antialias=False
        )
        return tv.horizontal_flip(box) if flip else box

    torch.testing.assert_close(
        resized_crop(images, top, left, height, width, size, flip),
        per_image(expected, images, top, left, height, width, flip),
        rtol=0,
        atol=1e-5,
    )


def test_enlarging_crops_are_the_same_with_antialiasing():
    images = random_images(40)
    boxes = draw_default_crops(40, (12, 17), generator=seeded())

    def expected(image, *box):
        return tv.resized_crop(image, *map(int, box), [20, 20], antialias=True)

    torch.testing.assert_close(
        resized_crop(images, *boxes, 20), per_image(expected, images, *boxes), rtol=0, atol=1e-5
    )


def test_whole_box_is_the_identity():
    images = random_images()
    zero, height, width = (torch.full((16,), side) for side in (0, 12, 17))
    whole = partial(resized_crop, images, zero, zero, height, width, (12, 17))
    torch.testing.assert_close(whole(), images, rtol=0, atol=1e-5)
    mirrored = whole(torch.ones(16, dtype=torch.bool))
    torch.testing.assert_close(mirrored, images.flip(-1), rtol=0, atol=1e-5)


def test_crops_never_see_beyond_their_box():
    images = torch.ones(1, 1, 8, 8)
    images[:, :, 2:5, 3:6] = 0.25
    box = (torch.tensor([side]) for side in (2, 3, 3, 3))
    torch.testing.assert_close(resized_crop(images, *box, 16), torch.full((1, 1, 16, 16), 0.25))


@pytest.mark.parametrize("name", JITTER)
def test_jitter_operation(name):
    ours, theirs = JITTER[name]
    images = random_images(60)
    if name == "hue":
        factor = torch.linspace(-0.5, 0.5, 60)[torch.randperm(60, generator=seeded())]
    else:
        factor = torch.rand(60, generator=seeded()) * 2.5
    before = images.clone()
    torch.testing.assert_close(
        ours(images, factor), per_image(theirs, images, factor), rtol=0, atol=3e-6
    )
    assert torch.equal(images, before)


@pytest.mark.parametrize("turn", [-0.5, -1 / 3, -1 / 6, 0, 1 / 6, 1 / 3, 0.5])
def test_hue_of_pure_greyish_and_equal_channels(turn):
    levels = torch.tensor([0, 1e-7, 0.2, 0.5, 1 - 1e-6, 1])
    images = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 6, 36)
    torch.testing.assert_close(
        adjust_hue(images, torch.tensor([turn])), tv.adjust_hue(images, turn), rtol=0, atol=3e-6
    )


@pytest.mark.parametrize("name", JITTER)
def test_neutral_factor_is_the_identity(name):
    images = random_images()
    neutral = torch.full((16,), 0.0 if name == "hue" else 1.0)
    torch.testing.assert_close(JITTER[name][0](images, neutral), images, rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_jitter_of_one_channel(name):
    ours, theirs = JITTER[name]
    images, factor = random_images(channels=1), torch.linspace(0, 2, 16)
    torch.testing.assert_close(ours(images, factor), per_image(theirs, images, factor))


def test_contrast_of_four_channels_moves_from_the_plain_mean():
    images = random_images(channels=4)
    flat = adjust_contrast(images, torch.zeros(16))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(flat, mean.expand_as(images))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("operation", [adjust_saturation, adjust_hue, greyscale])
def test_no_colour_operation_without_colour(operation, channels):
    images = random_images(channels=channels)
    parameter = torch.ones(16, dtype=torch.bool if operation is greyscale else torch.float32)
    assert torch.equal(operation(images, parameter), images)


def test_greyscale():
    images = random_images()
    mask = torch.rand(16, generator=seeded()) < 0.5
    grey = greyscale(images, mask)
    torch.testing.assert_close(grey[mask], tv.rgb_to_grayscale(images[mask], 3))
    assert torch.equal(grey[~mask], images[~mask])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_solarize(channels):
    images, threshold = random_images(24, channels), torch.linspace(0, 1, 24)
    before = images.clone()
    torch.testing.assert_close(
        solarize(images, threshold), per_image(tv.solarize, images, threshold)
    )
    assert torch.equal(images, before)


def test_solarize_at_the_middle_of_8_bits():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    torch.testing.assert_close(
        solarize(pixels / 255, torch.tensor([0.5])), tv.solarize(pixels, 128) / 255
    )


def test_no_pixel_is_above_the_threshold():
    images = random_images()
    assert torch.equal(solarize(images, torch.full((16,), 1.01)), images)


# Sharpness, blur, moves, squares ---------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(12, 17), (8, 8), (3, 3), (2, 9)], ids=str)
def test_sharpness(channels, size):
    images, factor = random_images(24, channels, *size), torch.linspace(0, 2, 24)
    before = images.clone()
    torch.testing.assert_close(
        adjust_sharpness(images, factor),
        per_image(tv.adjust_sharpness, images, factor),
        rtol=0,
        atol=1e-6,
    )
    assert torch.equal(images, before)


def test_sharpness_treats_channels_alike():
    images, factor = random_images(16, 4), torch.linspace(0, 2, 16)
    expected = [adjust_sharpness(channel[:, None], factor) for channel in images.unbind(1)]
    torch.testing.assert_close(adjust_sharpness(images, factor), torch.cat(expected, dim=1))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("size", "kernel_size"),
    [((12, 17), 3), ((12, 17), 23), ((33, 32), 9), ((5, 4), 7), ((2, 9), 3), ((1, 1), 1)],
    ids=str,
)
def test_blur(channels, size, kernel_size):
    images, sigma = random_images(24, channels, *size), torch.linspace(0.05, 3, 24)
    before = images.clone()

    def expected(image, sigma):
        return tv.gaussian_blur(image, [kernel_size, kernel_size], [sigma, sigma])

    torch.testing.assert_close(
        gaussian_blur(images, sigma, kernel_size),
        per_image(expected, images, sigma),
        rtol=0,
        atol=2e-6,
    )
    assert torch.equal(images, before)


def test_blur_of_a_wide_kernel_is_that_of_scipy():
    images, sigma = random_images(height=40, width=50), torch.linspace(0.5, 3, 16)
    expected = [
        ndimage.gaussian_filter(
            image.double().numpy(), width, mode="mirror", radius=20, axes=(1, 2)
        )
        for image, width in zip(images, sigma.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        gaussian_blur(images, sigma, 41).double(),
        torch.from_numpy(np.stack(expected)),
        rtol=0,
        atol=2e-6,
    )


def test_blur_of_no_width_is_the_identity():
    images, sigma = random_images(), torch.linspace(0, 2, 16)
    sigma[::2] = 0
    blurred = gaussian_blur(images, sigma, 5)
    assert torch.equal(blurred[::2], images[::2])
    assert not torch.isclose(blurred[7], images[7]).all()


def test_blur_of_one_image_does_not_depend_on_the_others():
    images, sigma = random_images(seed=1), torch.linspace(0, 2, 16)
    others, other_sigma = random_images(seed=2), sigma.flip(0)
    others[5], other_sigma[5] = images[5], sigma[5]
    blurred = gaussian_blur(images, sigma, 5)
    assert torch.equal(gaussian_blur(others, other_sigma, 5)[5], blurred[5])


@pytest.mark.parametrize("operation", [gaussian_blur, adjust_sharpness])
def test_smoothing_is_not_rounded_under_autocast(operation):
    images, parameter = random_images(), torch.linspace(0, 2, 16)
    arguments = (images, parameter, 5)[: 3 if operation is gaussian_blur else 2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = operation(*arguments)
    assert result.dtype == torch.float32
    assert torch.equal(result, operation(*arguments))


@pytest.mark.parametrize("kernel_size", [-1, 0, 4, 25])
def test_bad_kernel_size_is_named(kernel_size):
    message = f"^kernel_size must be odd, from 1 to 23 for .* 12 x 17 pixels; got {kernel_size}."
    with pytest.raises(ValueError, match=message):
        gaussian_blur(random_images(), torch.ones(16), kernel_size)


def still(n=16):
    """Parameters of affine that leave images where they are."""
    return {"angle": torch.zeros(n), "shear": torch.zeros(n, 2), "shift": torch.zeros(n, 2)}


def tv_move(kind, image, amount):
    """One move by torchvision; its holes are black, hence the mean is taken off before."""
    mean = image.mean(dim=(1, 2), keepdim=True)
    bilinear = InterpolationMode.BILINEAR
    if kind == "rotate":
        moved = tv.rotate(image - mean, amount, interpolation=bilinear)
    else:
        height, width = image.shape[-2:]
        degrees = math.degrees(math.atan(amount))
        moved = tv.affine(
            image - mean,
            angle=0,
            scale=1,
            translate={"shift x": [amount * width, 0], "shift y": [0, amount * height]}.get(
                kind, [0, 0]
            ),
            shear={"shear x": [degrees, 0], "shear y": [0, degrees]}.get(kind, [0, 0]),
            interpolation=bilinear,
            center=[0, 0],
        )
    return moved + mean


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["rotate", "shear x", "shear y", "shift x", "shift y"])
def test_moves_are_those_of_torchvision(kind, channels):
    images = random_images(16, channels)
    parameters = still()
    if kind == "rotate":
        amount = parameters["angle"] = torch.linspace(-50, 50, 16)
    else:
        amount = torch.linspace(-0.4, 0.4, 16)
        parameters[kind[:5]][:, "xy".index(kind[-1])] = amount
    torch.testing.assert_close(
        affine(images, **parameters),
        per_image(partial(tv_move, kind), images, amount),
        rtol=0,
        atol=2e-5,
    )


def affine_oracle(image, angle, shear, shift):
    """The three matrices multiplied, in rows and columns from the centre, and read by scipy."""
    _, height, width = image.shape
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    (shear_x, shear_y), (right, down) = shear, shift
    rotate = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    sheared = np.array([[1, shear_y, shear_y * width / 2], [shear_x, 1, shear_x * height / 2]])
    shifted = np.array([[1, 0, -down * height], [0, 1, -right * width], [0, 0, 1]])
    centre = np.array([[1, 0, (height - 1) / 2], [0, 1, (width - 1) / 2], [0, 0, 1]])
    matrix = centre @ rotate @ np.vstack([sheared, [0, 0, 1]]) @ shifted @ np.linalg.inv(centre)
    return np.stack(
        [
            ndimage.affine_transform(
                channel, matrix, order=1, mode="grid-constant", cval=channel.mean()
            )
            for channel in image.double().numpy()
        ]
    )


def test_moves_at_once():
    images, generator = random_images(40), seeded()
    angle = torch.rand(40, generator=generator) * 120 - 60
    shear, shift = torch.rand(2, 40, 2, generator=generator) - 0.5
    expected = [
        affine_oracle(image, angle[i].item(), shear[i].tolist(), shift[i].tolist())
        for i, image in enumerate(images)
    ]
    torch.testing.assert_close(
        affine(images, angle, shear, shift).double(),
        torch.from_numpy(np.stack(expected)),
        rtol=0,
        atol=2e-5,
    )


@pytest.mark.parametrize("size", [(12, 17), (8, 8), (1, 1)], ids=str)
def test_no_move_is_the_identity(size):
    images = random_images(16, 3, *size)
    torch.testing.assert_close(affine(images, **still()), images, rtol=0, atol=1e-5)


def test_holes_take_the_mean_colour():
    images = random_images(16)
    parameters = still() | {"shift": torch.full((16, 2), 2.0)}
    mean = images.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(affine(images, **parameters), mean.expand_as(images))


def test_squares():
    images, generator = random_images(60), seeded()
    top, left = torch.randint(-6, 17, (2, 60), generator=generator).float()
    side = torch.randint(0, 9, (60,), generator=generator).float()
    before = images.clone()

    def expected(image, top, left, side):
        image, mean = image.clone(), image.mean(dim=(1, 2))
        for row in range(int(top), int(top + side)):
            for column in range(int(left), int(left + side)):
                if 0 <= row < 12 and 0 <= column < 17:
                    image[:, row, column] = mean
        return image

    torch.testing.assert_close(
        erase_square(images, top, left, side), per_image(expected, images, top, left, side)
    )
    assert torch.equal(images, before)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    level=st.floats(0, 1, width=32),
    seed=st.integers(0, 100),
)
def test_flat_images_stay(channels, height, width, level, seed):
    images = torch.full((5, channels, height, width), level)
    generator = seeded(seed)
    angle = torch.rand(5, generator=generator) * 360
    pairs, squares = torch.rand(2, 5, 2, generator=generator), torch.rand(3, 5, generator=generator)
    for result in (
        adjust_sharpness(images, angle / 100),
        gaussian_blur(images, angle / 100, 2 * min(height, width) - 1).clamp(0, 1),
        affine(images, angle, *pairs),
        erase_square(images, *(squares * 8).round()),
    ):
        torch.testing.assert_close(result, images, rtol=0, atol=1e-5)
        assert result.max() <= 1
