"""Colours of a batch of images: brightness, contrast, saturation, hue, grey, solarisation.

Pure functions like those of ``_image_operations``. Hue is rotated without leaving RGB.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skdeepcluster.numerics import sent

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "greyscale",
    "per_image",
    "solarize",
]

# Luma of ITU-R BT.601, as PIL and torchvision have it.
_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114

# Keeps the hue of grey pixels finite; any hue does, as they have no chroma to multiply it with.
_TINY = 1e-12


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply each image by its factor.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    factor : Tensor of shape (B,)
        At least 0; 0 is black and 1 leaves the image as it is.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].

    Examples
    --------
    >>> import torch
    >>> adjust_brightness(torch.full((2, 1, 1, 1), 0.5), torch.tensor([0.5, 3.0])).flatten()
    tensor([0.2500, 1.0000])
    """
    return images.mul(per_image(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from, or towards, its mean grey value.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    factor : Tensor of shape (B,)
        At least 0; 0 is flat grey and 1 leaves the image as it is.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1]. The grey value is the luma for three channels, else the plain mean.

    Examples
    --------
    >>> import torch
    >>> adjust_contrast(torch.tensor([0.2, 0.6]).reshape(1, 1, 1, 2), torch.tensor([0.5])).flatten()
    tensor([0.3000, 0.5000])
    """
    factor = per_image(factor)
    # Luma is linear: the luma of the mean colour is the mean luma, and needs no grey image.
    colour = images.mean(dim=(2, 3), keepdim=True)
    grey = _luma(colour) if images.shape[1] == 3 else colour.mean(dim=1, keepdim=True)
    return images.mul(factor).add_((1 - factor) * grey).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from, or towards, its grey version.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1]. Unless C is 3 they have no saturation and are returned as they are.
    factor : Tensor of shape (B,)
        At least 0; 0 is grey and 1 leaves the image as it is.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        Images in [0, 1].

    Examples
    --------
    >>> import torch
    >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    >>> adjust_saturation(red, torch.tensor([0.0])).flatten()
    tensor([0.2989, 0.2989, 0.2989])
    """
    if images.shape[1] != 3:
        return images
    return _luma(images).lerp(images, per_image(factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn each image's hue, keeping saturation and value of the HSV colour model.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1]. Unless C is 3 they have no hue and are returned as they are.
    factor : Tensor of shape (B,)
        In turns of the colour circle: 0 leaves the image as it is, 1/3 makes red green, and -0.5
        and 0.5 both give the opposite colour.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        Images in [0, 1].

    Notes
    -----
    With value v (largest channel) and chroma c (largest minus smallest channel), each channel is v
    while the hue is within a sixth of a turn of its own colour, v - c from a third of a turn on,
    and linear in between, so the way back from HSV needs no table of sextants.

    The way there needs no cases either. In sixths of a turn from red, with x = (v - red) / c and
    y = abs(green - blue) / c, the hue is x + y + 2 x (1 - y): y where red is the largest channel
    (x = 0), 1 + x where it is the middle one (y = 1) and 3 - y where it is the smallest (x = 1).
    Its sign is that of green - blue.

    References
    ----------
    A. R. Smith. "Color gamut transform pairs." SIGGRAPH 1978.

    Examples
    --------
    >>> import torch
    >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([0.5])).flatten().round(decimals=3)
    tensor([0., 1., 1.])
    """
    if images.shape[1] != 3:
        return images
    red, green, blue = torch.chunk(images, 3, dim=1)
    value = torch.maximum(red, green).maximum(blue)
    chroma = value - torch.minimum(red, green).minimum(blue)
    per_chroma = chroma.clamp_min(_TINY).reciprocal_()

    green_over_blue = (green - blue).mul_(per_chroma)
    y = green_over_blue.abs()
    x = (value - red).mul_(per_chroma)
    hue = torch.rsub(y, 3, alpha=2).mul_(x).add_(y).copysign_(green_over_blue)  # in sixths

    # From here on one buffer of image size is updated in place: fresh memory is the larger cost.
    turned = hue.div_(6).add_(per_image(factor) + 1.5).frac_()  # in turns, and 0.5 is red
    own_hue = torch.tensor([1 / 2, 5 / 6, 1 / 6], dtype=images.dtype)
    channels = turned - sent(own_hue, images.device)[:, None, None]
    channels.abs_().sub_(0.5).abs_()  # 0.5 minus the distance on the circle, in turns
    channels.clamp_(1 / 6, 1 / 3)
    return value.sub(chroma, alpha=2).addcmul(channels, chroma, value=6).clamp_(0, 1)


def greyscale(images: Tensor, mask: Tensor) -> Tensor:
    """Take the colour out of some images.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1]. Unless C is 3 they have no colour and are returned as they are.
    mask : bool Tensor of shape (B,)
        Which images to turn grey; they keep three, equal, channels.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        Images in [0, 1].

    Examples
    --------
    >>> import torch
    >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    >>> greyscale(red, torch.tensor([True])).flatten()
    tensor([0.2989, 0.2989, 0.2989])
    """
    if images.shape[1] != 3:
        return images
    return _luma(images).lerp(images, per_image((~mask).to(images.dtype)))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Turn the bright part of each image into its negative.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    threshold : Tensor of shape (B,)
        Least value that is turned; 0 gives the negative and above 1 nothing changes.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    return torch.where(images < per_image(threshold), images, 1 - images)


def _luma(images: Tensor) -> Tensor:
    """Grey version, (B, 1, H, W), of RGB images (B, 3, H, W)."""
    red, green, blue = torch.chunk(images, 3, dim=1)
    return red.mul(_RED).add_(green, alpha=_GREEN).add_(blue, alpha=_BLUE)


def per_image(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1), to act on whole images."""
    return values.view(-1, 1, 1, 1)
