"""Tone operations against PIL and torchvision, and the strong view against single operations."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tv

from skdeepcluster.data import RandomImageViews, StrongImageViews
from skdeepcluster.data._image_operations import affine
from skdeepcluster.data._strong_views import (
    _BOUNDS,
    _MOVES,
    _TONES,
    apply_operations,
    autocontrast,
    equalize,
    posterize,
)
from tests.helpers import seeded
from tests.virtual_cuda import CUDA, virtual_cuda

N_KINDS = len(_TONES) + len(_MOVES)

# Crops the whole image: what is left are the operations.
WHOLE = RandomImageViews(
    scale=(1, 1), ratio=(1, 1), flip=0, jitter=(0, 0, 0, 0), grey_probability=0
)


def random_pixels(n=16, channels=3, height=12, width=17, seed=0):
    """8-bit images; some with few levels, some with a narrow range, and two flat ones."""
    shape = (n, channels, height, width)
    pixels = torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)
    pixels[: n // 4] = pixels[: n // 4] // 64 * 64
    pixels[n // 4 : n // 2] = pixels[n // 4 : n // 2] // 4 + 90
    pixels[-2], pixels[-1] = 0, 131
    return pixels


def random_images(*arguments, **keywords):
    """The same as floats."""
    return random_pixels(*arguments, **keywords) / 255


def pil_images(operation, pixels, *parameters):
    """Apply a function of a PIL image to each image; one channel or three."""
    done = []
    for i, image in enumerate(pixels):
        array = np.asarray(
            operation(
                Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()),
                *(parameter[i].item() for parameter in parameters),
            )
        )
        done.append(torch.from_numpy(array.reshape(*image.shape[1:], -1).copy()).permute(2, 0, 1))
    return torch.stack(done) / 255


# Tones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(12, 17), (8, 8), (1, 1)], ids=str)
def test_autocontrast(channels, size):
    pixels = random_pixels(16, channels, *size)
    images = pixels / 255
    stretched = autocontrast(images)
    torch.testing.assert_close(
        stretched, torch.stack([tv.autocontrast(image) for image in images]), rtol=0, atol=1e-6
    )
    # PIL rounds down to 8 bits.
    torch.testing.assert_close(
        stretched, pil_images(ImageOps.autocontrast, pixels), rtol=0, atol=1.01 / 255
    )


def test_autocontrast_does_not_stretch_rounding():
    images = torch.full((1, 3, 8, 8), 0.3)
    images[..., 0] += 1e-6
    assert torch.equal(autocontrast(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_is_that_of_pil_where_its_division_is_exact(channels):
    # PIL divides all but the brightest pixels, here 1020, by 255, with integers.
    pixels = random_pixels(16, channels, 32, 32).clamp_max(254).flatten(2)
    pixels[..., 50:54] = 255
    pixels = pixels.view(16, channels, 32, 32)
    torch.testing.assert_close(
        equalize(pixels / 255), pil_images(ImageOps.equalize, pixels), rtol=0, atol=0.51 / 255
    )


def test_equalize_is_almost_that_of_pil_for_large_images():
    pixels = torch.randint(40, 180, (2, 3, 300, 300), generator=seeded(), dtype=torch.uint8)
    torch.testing.assert_close(
        equalize(pixels / 255), pil_images(ImageOps.equalize, pixels), rtol=0, atol=1.5 / 255
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(12, 17), (8, 8), (1, 1)], ids=str)
def test_equalize_counts_darker_pixels(channels, size):
    pixels = random_pixels(16, channels, *size)
    expected = (pixels / 255).numpy()
    for channel, out in zip(pixels.flatten(0, 1).numpy(), expected.reshape(-1, *size), strict=True):
        others = channel.size - (channel == channel.max()).sum()
        if others:
            for place, level in np.ndenumerate(channel):
                out[place] = (channel < level).sum() / others
    torch.testing.assert_close(equalize(pixels / 255), torch.from_numpy(expected))


@pytest.mark.parametrize("channels", [1, 3])
def test_posterize(channels):
    pixels, bits = random_pixels(24, channels), torch.arange(1, 9).repeat(3)
    expected = pil_images(ImageOps.posterize, pixels, bits)
    torch.testing.assert_close(posterize(pixels / 255, bits.float()), expected)
    torch.testing.assert_close(posterize(pixels / 255, bits + 0.9), expected)


def test_all_bits_are_the_identity():
    images = random_images()
    before = images.clone()
    torch.testing.assert_close(posterize(images, torch.full((16,), 8.0)), images)
    assert torch.equal(images, before)


# Steps -----------------------------------------------------------------------------------------


def one_by_one(images, kinds, magnitudes):
    """Every operation on every image alone."""
    done = []
    for i in range(len(images)):
        image = images[i : i + 1]
        for kind, magnitude in zip(kinds[:, i].tolist(), magnitudes[:, i], strict=True):
            if kind < len(_TONES):
                image = _TONES[kind][0](image, magnitude[None])
            else:
                move = torch.zeros(1, len(_MOVES))
                move[0, kind - len(_TONES)] = magnitude
                image = affine(image, move[:, 0], move[:, 1:3], move[:, 3:])
        done.append(image)
    return torch.cat(done)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("n_steps", [0, 1, 4])
@pytest.mark.parametrize("n", [1, 3, 60])
def test_steps_are_the_operations_one_by_one(n, n_steps, channels):
    images = random_images(max(n, 4), channels)[:n]
    before = images.clone()
    kinds, magnitudes = StrongImageViews(n_operations=n_steps)._draw_operations(n, seeded())
    torch.testing.assert_close(
        apply_operations(images, kinds, magnitudes), one_by_one(images, kinds, magnitudes)
    )
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", range(N_KINDS))
def test_one_kind_for_all(kind):
    """Every other operation gets an empty batch."""
    images = random_images()
    kinds = torch.full((1, 16), kind)
    low, high = _BOUNDS[kind].tolist()
    magnitudes = torch.linspace(low, high, 16)[None]
    result = apply_operations(images, kinds, magnitudes)
    torch.testing.assert_close(result, one_by_one(images, kinds, magnitudes))
    assert torch.equal(result, images) == (kind == 0)


def test_moves_use_their_own_parameter():
    image = torch.zeros(1, 1, 20, 20)
    image[..., 10, 10] = 1
    lit = []
    for kind, magnitude in ((12, 0.1), (13, 0.1), (12, -0.1)):
        moved = apply_operations(image, torch.tensor([[kind]]), torch.tensor([[magnitude]]))
        lit.append(divmod(moved.argmax().item(), 20))
    assert lit == [(10, 12), (12, 10), (10, 8)]


# Drawing ---------------------------------------------------------------------------------------


def test_operations_are_drawn_alike_and_within_bounds():
    kinds, magnitudes = StrongImageViews()._draw_operations(20_000, seeded())
    assert kinds.shape == magnitudes.shape == (4, 20_000)
    shares = kinds.flatten().bincount() / kinds.numel()
    torch.testing.assert_close(shares, torch.full((N_KINDS,), 1 / N_KINDS), rtol=0.05, atol=0)
    for kind, (low, high) in enumerate(_BOUNDS.tolist()):
        drawn = magnitudes[kinds == kind]
        assert drawn.min() == pytest.approx(low, abs=0.01 * (high - low))
        assert drawn.max() == pytest.approx(high, abs=0.01 * (high - low))
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    same = (kinds[0] == kinds[1]).float().mean()
    assert same == pytest.approx(1 / N_KINDS, abs=0.01)


@pytest.mark.parametrize("cutout", [0.1, 0.5, 1.0])
def test_squares_are_uniform(cutout):
    height, width = 20, 30
    top, left, side = StrongImageViews(cutout=cutout)._draw_squares(
        50_000, (height, width), seeded()
    )
    sides = torch.arange(1, round(20 * cutout) + 1)
    assert side.unique().tolist() == sides.tolist()
    assert side.mean() == pytest.approx(sides.float().mean().item(), rel=0.02)
    for start, length in ((top, height), (left, width)):
        middle = start + (side / 2).floor()
        assert middle.unique().tolist() == list(range(length))
        assert middle.mean() == pytest.approx((length - 1) / 2, rel=0.02)


def test_smallest_square_is_a_pixel():
    views = StrongImageViews(weak=WHOLE, n_operations=0, cutout=0.01)
    images = random_images(12, 1, 8, 8)[:10]
    changed = (views(images, seeded()) - images).abs().flatten(1) > 1e-4
    assert changed.sum(dim=1).max() == 1


# Views -----------------------------------------------------------------------------------------


def test_all_off_is_the_weak_view():
    images, weak = random_images(), RandomImageViews(size=9, grey_probability=1)
    strong = StrongImageViews(weak, n_operations=0, cutout=0)
    assert torch.equal(strong(images, seeded()), weak(images, seeded()))


def test_weak_view_is_crop_and_flip_only():
    weak = StrongImageViews().weak
    assert weak == RandomImageViews(jitter=(0, 0, 0, 0), grey_probability=0)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    n=st.integers(0, 20),
    channels=st.integers(1, 4),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    # Not at a multiple of 1/256, where posterising makes a step of a rounding error.
    level=st.none() | st.just(0.0) | st.integers(0, 255).map(lambda step: (step + 0.3) / 256),
    n_operations=st.integers(0, 6),
    seed=st.integers(0, 1000),
)
def test_shape_type_and_range(n, channels, height, width, level, n_operations, seed):
    images = torch.rand(n, channels, height, width, generator=seeded(seed))
    if level is not None:
        images.fill_(level)
    views = StrongImageViews(n_operations=n_operations)(images, seeded(seed))
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert ((views >= 0) & (views <= 1)).all()  # false for NaN
    if level is not None:
        # No operation invents structure.
        spread = views.amax(dim=(2, 3)) - views.amin(dim=(2, 3))
        assert (spread < 1e-4).all()


@settings(deadline=None, max_examples=30, derandomize=True)
@given(which=st.integers(0, 15), channels=st.sampled_from([1, 3]), seed=st.integers(0, 1000))
def test_an_image_does_not_depend_on_the_others(which, channels, seed):
    images, others = random_images(16, channels, seed=1), random_images(16, channels, seed=2)
    others[which] = images[which]
    views = StrongImageViews()
    torch.testing.assert_close(
        views(others, seeded(seed))[which], views(images, seeded(seed))[which], rtol=0, atol=1e-6
    )


def test_the_same_image_gets_different_views():
    images = random_images()[8:9].expand(200, 3, 12, 17)
    views = StrongImageViews(weak=WHOLE, cutout=0)(images, seeded())
    assert len(torch.unique(views.flatten(1), dim=0)) > 190
    assert len(torch.unique(StrongImageViews()(images, seeded()).flatten(1), dim=0)) == 200


def test_uint8_and_float_agree():
    pixels = random_pixels(32)
    before = pixels.clone()
    views = StrongImageViews()
    assert torch.equal(views(pixels, seeded()), views(pixels / 255, seeded()))
    assert torch.equal(pixels, before)


def test_input_is_not_changed():
    images = random_images()
    before = images.clone()
    for views in (StrongImageViews(), StrongImageViews(WHOLE, n_operations=0)):
        views(images, seeded())
        assert torch.equal(images, before)


def test_views_depend_on_the_generator_alone():
    images, views = random_images(), StrongImageViews()
    torch.manual_seed(1)
    first = views(images, seeded())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(views(images, seeded()), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(views(images, seeded(1)), first)


def test_draws_do_not_depend_on_the_images():
    views, states = StrongImageViews(), []
    for images in (random_images(), random_images(channels=1), random_images(height=40)):
        generator = seeded()
        views(images, generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_views_are_the_cpu_views():
    images, views = random_images(128, height=32, width=32), StrongImageViews()
    on_gpu = views(images.cuda(), seeded())
    assert on_gpu.is_cuda
    # Posterize, solarize and equalize jump, so that rounding may turn a few pixels over.
    apart = (on_gpu.cpu() - views(images, seeded())).abs() > 1e-4
    assert apart.float().mean() < 1e-3
    assert views(images.cuda(), torch.Generator("cuda").manual_seed(0)).is_cuda


def test_pickle():
    views = StrongImageViews(weak=WHOLE, n_operations=2)
    assert pickle.loads(pickle.dumps(views)) == views


@pytest.mark.parametrize(
    "parameters", [{"n_operations": -1}, {"cutout": -0.1}, {"cutout": 1.1}], ids=str
)
def test_bad_parameters_are_named(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"^{name} must be .*; got "):
        StrongImageViews(**parameters)


def test_bad_images_are_named():
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\); got shape \(3, 8, 8\)"):
        StrongImageViews()(torch.rand(3, 8, 8), seeded())


# A launch more is some microseconds of the host, which a fast card waits for.
@pytest.mark.skipif(torch.cuda.is_available(), reason="counted on the virtual device")
@pytest.mark.parametrize(
    ("views", "most"), [(RandomImageViews(), 57), (StrongImageViews(), 318)], ids=["weak", "strong"]
)
def test_an_accelerator_is_asked_for_little_and_never_waited_for(views, most):
    images = random_images(64)
    with virtual_cuda() as device:
        there = images.to(CUDA)
        device.launches = 0
        device.waits.clear()
        found = views(there, seeded())
        assert device.launches <= most
        assert not device.waits
        assert torch.equal(found.cpu(), views(images, seeded()))
