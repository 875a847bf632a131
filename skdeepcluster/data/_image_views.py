"""Random views of image batches, drawn per sample.

The classes here draw the parameters and chain the operations of ``_image_operations``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skdeepcluster.data._colour_operations import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    greyscale,
    solarize,
)
from skdeepcluster.data._image_operations import (
    gaussian_blur,
    resized_crop,
)
from skdeepcluster.numerics import sent

__all__ = ["LARGEST_UNBLURRED", "RandomImageViews", "contrastive_views", "draw_crops", "uniform"]

# Tries to draw a crop that fits before the central one is taken, as in torchvision.
_CROP_TRIES = 10

# The middle of 8 bits, as in BYOL: 128 is turned, 127 is not.
_SOLARIZE_THRESHOLD = 0.5

# Small images have little detail to lose; SimCLR does not blur them either.
LARGEST_UNBLURRED = 64


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
    area = uniform((_CROP_TRIES, n), scale, generator).mul_(image_height * image_width)
    aspect = uniform((_CROP_TRIES, n), (math.log(ratio[0]), math.log(ratio[1])), generator).exp_()
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
    """Random crop, flip, colour jitter, greying and so on, drawn anew for every image of a batch.

    The views of SimCLR and BYOL, by default those for small images, with the distributions of
    torchvision's ``RandomResizedCrop``, ``RandomHorizontalFlip``, ``RandomApply([ColorJitter])``,
    ``RandomGrayscale``, ``RandomApply([GaussianBlur])`` and ``RandomSolarize``. Those draw once per
    batch; here only the order of the four jitter operations is shared by a batch, and everything
    else differs per image.

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
    blur_probability : float, default=0.0
        Probability that an image is then blurred, with a Gaussian kernel of about a tenth of the
        shorter side of the view.
    blur_sigma : (float, float), default=(0.1, 2.0)
        Smallest and largest standard deviation of the kernel, in pixels of the view; uniform.
    solarize_probability : float, default=0.0
        Probability that, last of all, pixels of at least 0.5 become their negative.

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
    How many numbers are drawn depends on the batch size alone. Those for blur and solarisation come
    last, and are drawn only where the probability is not 0.

    Images with a number of channels other than 3 have no hue, saturation or grey version: they are
    cropped, flipped, jittered in brightness and contrast, blurred and solarised.

    References
    ----------
    T. Chen et al. "A simple framework for contrastive learning of visual representations." ICML
    2020.

    J.-B. Grill et al. "Bootstrap your own latent: A new approach to self-supervised learning."
    NeurIPS 2020.

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
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0

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
        if not 0 <= self.blur_sigma[0] <= self.blur_sigma[1] < math.inf:
            raise ValueError(
                f"blur_sigma must be two finite widths, 0 <= low <= high; got {self.blur_sigma}."
            )
        for name in (
            "flip",
            "jitter_probability",
            "grey_probability",
            "blur_probability",
            "solarize_probability",
        ):
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
        flip, grey = uniform((2, n), (0, 1), generator)
        order, factors = self._draw_jitter(n, generator)
        blurred, sigma = self._draw_blur(n, generator)
        solarized = _draw_chosen(n, self.solarize_probability, generator)

        grey, *factors = sent(torch.stack([grey, *factors]), images.device)
        views = resized_crop(images, *crops, size, flip < self.flip)
        for k in order:
            if self.jitter[k] > 0:
                views = _JITTER[k](views, factors[k])
        if self.grey_probability > 0:
            views = greyscale(views, grey < self.grey_probability)
        if len(blurred):
            blurred, sigma = (sent(v, images.device) for v in (blurred, sigma))
            smooth = gaussian_blur(views[blurred], sigma, _blur_kernel_size(views))
            views.index_copy_(0, blurred, smooth)
        if len(solarized):
            solarized = sent(solarized, images.device)
            threshold = views.new_full((len(solarized),), _SOLARIZE_THRESHOLD)
            views.index_copy_(0, solarized, solarize(views[solarized], threshold))
        return views.clamp_(0, 1)

    def _draw_jitter(self, n: int, generator: torch.Generator) -> tuple[list[int], list[Tensor]]:
        """Order of the operations, and a factor per image for each; neutral where not jittered."""
        order = torch.randperm(4, generator=generator, device=generator.device).tolist()
        chosen = uniform((n,), (0, 1), generator) < self.jitter_probability
        factors = []
        for strength, neutral in zip(self.jitter, (1.0, 1.0, 1.0, 0.0), strict=True):
            low = max(0.0, neutral - strength) if neutral else -strength
            factor = uniform((n,), (low, neutral + strength), generator)
            factors.append(factor.where(chosen, factor.new_tensor(neutral)))
        return order, factors

    def _draw_blur(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which images are blurred, and the width of the kernel for each of them."""
        chosen = _draw_chosen(n, self.blur_probability, generator)
        if self.blur_probability == 0:
            return chosen, torch.empty(0)
        return chosen, uniform((n,), self.blur_sigma, generator)[chosen]


_JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def contrastive_views(image_size: tuple[int, int]) -> list[RandomImageViews]:
    """Return what draws the two views of an image that contrastive learning and BYOL compare.

    Parameters
    ----------
    image_size : (int, int)
        Height and width of the images, in pixels.

    Returns
    -------
    views : list of two RandomImageViews
        The same twice where the shorter side is at most 64 pixels, without blur. Above that the
        views of BYOL for ImageNet: one is always blurred, the other rarely, and sometimes
        solarised.

    References
    ----------
    J.-B. Grill et al. "Bootstrap your own latent: A new approach to self-supervised learning."
    NeurIPS 2020.

    Examples
    --------
    >>> [views.blur_probability for views in contrastive_views((96, 96))]
    [1.0, 0.1]
    >>> [views.blur_probability for views in contrastive_views((32, 32))]
    [0.0, 0.0]
    """
    if min(image_size) <= LARGEST_UNBLURRED:
        return 2 * [RandomImageViews()]
    jitter = (0.4, 0.4, 0.2, 0.1)
    return [
        RandomImageViews(jitter=jitter, blur_probability=1.0),
        RandomImageViews(jitter=jitter, blur_probability=0.1, solarize_probability=0.2),
    ]


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


def _draw_chosen(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw which of n images an operation changes; for a probability of 0, draw nothing.

    Indices rather than a mask: the host then knows how many they are without asking a GPU.
    """
    if probability == 0:
        return torch.empty(0, dtype=torch.int64)
    return (uniform((n,), (0, 1), generator) < probability).nonzero()[:, 0]


def _blur_kernel_size(images: Tensor) -> int:
    """About a tenth of the shorter side, odd, at least 3 unless the image is a single pixel."""
    side = min(images.shape[-2:])
    return 2 * min(max(1, side // 20), side - 1) + 1


def uniform(
    shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Uniform float32 numbers on the generator's device."""
    low, high = bounds
    unit = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return unit.mul_(high - low).add_(low)
