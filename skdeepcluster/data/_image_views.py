"""Random views of image batches, drawn per sample, on the device the batch is on.

The operations are pure functions with one parameter per sample (tensors of length B), so each can
be checked against torchvision one image at a time. :class:`RandomImageViews` draws the parameters
and chains the operations. Images are float32 in [0, 1], of shape (B, C, H, W), throughout.

This is the hot path of training, hence three habits: crop, resize and flip are one sampling step;
hue is rotated without leaving RGB; and nothing here is a matrix product, which autocast or TF32
would round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "RandomImageViews",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "draw_crops",
    "greyscale",
    "resized_crop",
]

# Luma of ITU-R BT.601, as PIL and torchvision have it.
_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114

# Tries to draw a crop that fits before the central one is taken, as in torchvision.
_CROP_TRIES = 10

# Keeps the hue of grey pixels finite; any hue does, as they have no chroma to multiply it with.
_TINY = 1e-12


def resized_crop(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    size: int | tuple[int, int],
    flip: Tensor | None = None,
) -> Tensor:
    """Cut one box from each image, resize it, and mirror some of the results.

    Bilinear and not antialiased: equal to rounding to torchvision's ``resized_crop`` with
    ``antialias=False`` followed by ``horizontal_flip``. A crop that is enlarged, the usual case in
    training, is the same with antialiasing; one that shrinks by more than two loses detail to
    aliasing.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images.
    top, left : Tensor of shape (B,)
        Upper left corner of each box, in pixels.
    height, width : Tensor of shape (B,)
        Size of each box, in pixels, at least 1. Boxes must lie inside the image.
    size : int or (int, int)
        Side, or height and width, of the result in pixels.
    flip : bool Tensor of shape (B,), default=None
        Which results to mirror left to right; None mirrors none.

    Returns
    -------
    views : Tensor of shape (B, C, size, size)
        The resized boxes.

    Examples
    --------
    >>> import torch
    >>> images = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> one, two = torch.tensor([1]), torch.tensor([2])
    >>> resized_crop(images, one, one, two, two, 2, torch.tensor([True]))
    tensor([[[[ 6.,  5.],
              [10.,  9.]]]])
    """
    out_height, out_width = (size, size) if isinstance(size, int) else size
    rows = _sample_points(top, height, images.shape[-2], out_height, images)
    columns = _sample_points(left, width, images.shape[-1], out_width, images)
    if flip is not None:
        columns = torch.where(flip[:, None], columns.flip(-1), columns)
    grid = torch.stack(
        [
            columns[:, None, :].expand(-1, out_height, -1),
            rows[:, :, None].expand(-1, -1, out_width),
        ],
        dim=-1,
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_points(start: Tensor, length: Tensor, n_in: int, n_out: int, like: Tensor) -> Tensor:
    """Where along one axis to read: (B, n_out) points in grid_sample's -1 to 1 coordinates."""
    start, length = start[:, None].to(like), length[:, None].to(like)
    centres = torch.arange(n_out, dtype=like.dtype, device=like.device) + 0.5
    # Kept inside the box: a resized crop repeats its own edge and never sees beyond it.
    offsets = (centres * (length / n_out) - 0.5).clamp_min(0).minimum(length - 1)
    return (start + offsets + 0.5) * (2 / n_in) - 1


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
    return images.mul(_per_image(factor)).clamp_(0, 1)


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
    factor = _per_image(factor)
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
    return _luma(images).lerp(images, _per_image(factor)).clamp_(0, 1)


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
    hue = (3 - 2 * y).mul_(value - red).mul_(per_chroma).add_(y).copysign_(green_over_blue).div_(6)

    # From here on one buffer of image size is updated in place: fresh memory is the larger cost.
    turned = hue.add_(_per_image(factor) + 1.5).frac_()  # 0.5 is red
    own_hue = torch.tensor([1 / 2, 5 / 6, 1 / 6], dtype=images.dtype, device=images.device)
    channels = turned - own_hue[:, None, None]
    channels.abs_().sub_(0.5).abs_()  # 0.5 minus the distance on the circle, in turns
    return channels.clamp_(1 / 6, 1 / 3).mul_(6 * chroma).add_(value - 2 * chroma).clamp_(0, 1)


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
    return _luma(images).lerp(images, _per_image((~mask).to(images.dtype)))


def draw_crops(
    n: int,
    image_size: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw crop boxes as torchvision's ``RandomResizedCrop`` does.

    Area uniform, aspect ratio log-uniform, place uniform. A box that does not fit is drawn again,
    up to ten tries in all; then it is the largest central box of an allowed ratio.

    Parameters
    ----------
    n : int
        How many boxes.
    image_size : (int, int)
        Height and width of the images, in pixels.
    scale : (float, float)
        Smallest and largest area, as a share of the image.
    ratio : (float, float)
        Smallest and largest width / height.
    generator : torch.Generator
        Source of all randomness; the boxes lie on its device.

    Returns
    -------
    top, left, height, width : float Tensor of shape (n,)
        The boxes, in whole pixels.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> boxes = draw_crops(2, (4, 6), scale=(1, 1), ratio=(1.5, 1.5), generator=generator)
    >>> [side.tolist() for side in boxes]
    [[0.0, 0.0], [0.0, 0.0], [4.0, 4.0], [6.0, 6.0]]
    """
    image_height, image_width = image_size
    area = _uniform((_CROP_TRIES, n), scale, generator).mul_(image_height * image_width)
    aspect = _uniform((_CROP_TRIES, n), (math.log(ratio[0]), math.log(ratio[1])), generator).exp_()
    heights, widths = (area / aspect).sqrt_().round_(), (area * aspect).sqrt_().round_()
    fits = (heights >= 1) & (heights <= image_height) & (widths >= 1) & (widths <= image_width)

    # argmax names the first of equals: the first try that fits.
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    central_height = min(image_height, max(1, round(image_width / ratio[0])))
    central_width = min(image_width, max(1, round(image_height * ratio[1])))
    height = heights.gather(0, first)[0].where(found, heights.new_tensor(central_height))
    width = widths.gather(0, first)[0].where(found, widths.new_tensor(central_width))

    top, left = image_height - height, image_width - width
    place = torch.rand(2, n, generator=generator, device=generator.device)
    return (
        (place[0] * (top + 1)).floor_().where(found, (top / 2).floor_()),
        (place[1] * (left + 1)).floor_().where(found, (left / 2).floor_()),
        height,
        width,
    )


@dataclass(frozen=True)
class RandomImageViews:
    """Random crop, flip, colour jitter and greying, drawn anew for every image of a batch.

    The views of SimCLR and BYOL for small images, with the distributions of torchvision's
    ``RandomResizedCrop``, ``RandomHorizontalFlip``, ``RandomApply([ColorJitter])`` and
    ``RandomGrayscale``. Those draw once per batch; here only the order of the four jitter
    operations is shared by a batch, and everything else differs per image.

    Parameters
    ----------
    size : int, default=None
        Side of the square views in pixels; None keeps height and width of the images.
    scale : (float, float), default=(0.08, 1.0)
        Smallest and largest crop area, as a share of the image.
    ratio : (float, float), default=(3/4, 4/3)
        Smallest and largest crop width / height.
    flip : float, default=0.5
        Probability of a left-right mirror image.
    jitter : (float, float, float, float), default=(0.4, 0.4, 0.4, 0.1)
        Strengths b, c, s, h: brightness, contrast and saturation factors are uniform in
        [max(0, 1 - b), 1 + b] and so on, the hue turn in [-h, h] of the colour circle. 0 switches
        an operation off.
    jitter_probability : float, default=0.8
        Probability that an image is jittered.
    grey_probability : float, default=0.2
        Probability that an image loses its colour, after the jitter.

    Raises
    ------
    ValueError
        If a parameter is out of range; when called, if `images` is not a batch of uint8 or float
        images.

    Notes
    -----
    All randomness comes from the generator passed to the call, and none from torch's global state.
    Draw from a CPU generator, also for images on a GPU: the few numbers are moved, a GPU generator
    would make the host wait, and the views then depend on the seed alone and not on the device.
    How many numbers are drawn depends on the batch size alone.

    Images with a number of channels other than 3 have no hue, saturation or grey version: they are
    cropped, flipped, and jittered in brightness and contrast.

    References
    ----------
    T. Chen et al. "A simple framework for contrastive learning of visual representations." ICML
    2020.

    Examples
    --------
    >>> import torch
    >>> from skdeepcluster.data._image_views import RandomImageViews
    >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> views = RandomImageViews(size=24)(images, torch.Generator().manual_seed(0))
    >>> views.shape, views.dtype
    (torch.Size([2, 3, 24, 24]), torch.float32)
    """

    size: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    grey_probability: float = 0.2

    def __post_init__(self) -> None:
        """Refuse parameters that no image could be drawn with."""
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, or None; got {self.size}.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two shares, 0 < low <= high <= 1; got {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"ratio must be two positive numbers, low <= high; got {self.ratio}.")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(
                "jitter must be four strengths (brightness, contrast, saturation, hue), none "
                f"negative and hue at most 0.5; got {self.jitter}."
            )
        for name in ("flip", "jitter_probability", "grey_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} must be a probability from 0 to 1; got {getattr(self, name)}."
                )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one view of each image.

        Parameters
        ----------
        images : Tensor of shape (B, C, H, W)
            uint8, or float in [0, 1]; never changed.
        generator : torch.Generator
            Source of all randomness; best on the CPU.

        Returns
        -------
        views : float32 Tensor of shape (B, C, size, size)
            In [0, 1], on the device of `images`.
        """
        images = _as_unit_float(images)
        n, _, height, width = images.shape
        size = (height, width) if self.size is None else self.size

        crops = draw_crops(
            n, (height, width), scale=self.scale, ratio=self.ratio, generator=generator
        )
        flip, grey = _uniform((2, n), (0, 1), generator)
        order, factors = self._draw_jitter(n, generator)

        top, left, crop_height, crop_width, flip, grey, *factors = torch.stack(
            [*crops, flip, grey, *factors]
        ).to(images.device, non_blocking=True)

        views = resized_crop(images, top, left, crop_height, crop_width, size, flip < self.flip)
        for k in order:
            if self.jitter[k] > 0:
                views = _JITTER[k](views, factors[k])
        views = greyscale(views, grey < self.grey_probability)
        return views.clamp_(0, 1)

    def _draw_jitter(self, n: int, generator: torch.Generator) -> tuple[list[int], list[Tensor]]:
        """Order of the operations, and a factor per image for each; neutral where not jittered."""
        order = torch.randperm(4, generator=generator, device=generator.device).tolist()
        chosen = _uniform((n,), (0, 1), generator) < self.jitter_probability
        factors = []
        for strength, neutral in zip(self.jitter, (1.0, 1.0, 1.0, 0.0), strict=True):
            low = max(0.0, neutral - strength) if neutral else -strength
            factor = _uniform((n,), (low, neutral + strength), generator)
            factors.append(factor.where(chosen, factor.new_tensor(neutral)))
        return order, factors


_JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def _as_unit_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]; uint8 is divided by 255."""
    if images.ndim != 4:
        raise ValueError(
            f"images must be a batch of shape (B, C, H, W); got shape {tuple(images.shape)}."
        )
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255)
    if images.is_floating_point():
        return images.to(torch.float32)
    raise ValueError(f"images must be uint8, or float in [0, 1]; got {images.dtype}.")


def _luma(images: Tensor) -> Tensor:
    """Grey version, (B, 1, H, W), of RGB images (B, 3, H, W)."""
    red, green, blue = torch.chunk(images, 3, dim=1)
    return red.mul(_RED).add_(green, alpha=_GREEN).add_(blue, alpha=_BLUE)


def _per_image(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1), to act on whole images."""
    return values.view(-1, 1, 1, 1)


def _uniform(
    shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Uniform float32 numbers on the generator's device."""
    low, high = bounds
    unit = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return unit.mul_(high - low).add_(low)
