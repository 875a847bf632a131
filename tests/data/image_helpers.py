"""Random images for the tests of this folder, and what their operations are compared with."""

from __future__ import annotations

from functools import partial

import torch
from torchvision.transforms.v2 import functional as tv

from skdeepcluster.data._colour_operations import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from skdeepcluster.data._image_views import draw_crops
from tests.helpers import seeded

JITTER = {
    "brightness": (adjust_brightness, tv.adjust_brightness),
    "contrast": (adjust_contrast, tv.adjust_contrast),
    "saturation": (adjust_saturation, tv.adjust_saturation),
    "hue": (adjust_hue, tv.adjust_hue),
}

draw_default_crops = partial(draw_crops, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))


def random_images(n=16, channels=3, height=12, width=17, seed=0):
    """Float images; a third with few levels, so that channels tie, and a black and a white one."""
    images = torch.rand(n, channels, height, width, generator=seeded(seed))
    images[: n // 3] = (images[: n // 3] * 3).round() / 3
    images[-2], images[-1] = 0, 1
    return images


def per_image(operation, images, *parameters):
    """Apply an operation with scalar parameters to each image, the slow and certain way."""
    return torch.stack(
        [
            operation(image, *(parameter[i].item() for parameter in parameters))
            for i, image in enumerate(images)
        ]
    )
