"""The strong view: crop, flip, a few random operations of RandAugment and an erased square.

The operations on tones come first; they work at 8 bits, as PIL's, on images in [0, 1]. Those that
other views may share are in ``_image_operations``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skdeepcluster.data._colour_operations import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    per_image,
    solarize,
)
from skdeepcluster.data._image_operations import (
    adjust_sharpness,
    affine,
    erase_square,
)
from skdeepcluster.data._image_views import RandomImageViews, uniform
from skdeepcluster.numerics import sent

__all__ = ["StrongImageViews", "autocontrast", "equalize", "posterize"]

# A channel that varies by less than half a step of 8 bits is flat: what varies is rounding.
_FLAT = 0.5 / 255


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel of each image to the whole of [0, 1]; flat channels stay.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    low = images.amin(dim=(2, 3), keepdim=True)
    spread = images.amax(dim=(2, 3), keepdim=True) - low
    flat = spread < _FLAT
    return (images - low.masked_fill(flat, 0)).div_(spread.masked_fill(flat, 1)).clamp_(0, 1)


def equalize(images: Tensor) -> Tensor:
    """Spread the values of every channel of each image evenly over [0, 1]; flat channels stay.

    A pixel becomes the share of darker pixels among all but the brightest, at 8 bits: PIL's
    ``ImageOps.equalize`` without its integer division, which would leave images of less than 256
    pixels as they are and turn a quarter of one of 32 x 32 white.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    flat = images.amax(dim=(2, 3), keepdim=True) - images.amin(dim=(2, 3), keepdim=True) < _FLAT
    levels = images.mul(255).round_().long().flatten(2)
    # Whole numbers, so that the order of the additions, which a GPU leaves open, does not matter.
    counts = images.new_zeros(*levels.shape[:2], 256, dtype=torch.int32)
    counts.scatter_add_(2, levels, counts.new_ones(()).expand_as(levels))
    darker = counts.cumsum(dim=2, dtype=torch.int32).sub_(counts)
    shares = darker / darker.gather(2, levels.amax(dim=2, keepdim=True)).clamp_min_(1)
    return torch.where(flat, images, shares.gather(2, levels).view_as(images))


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the leading bits of the 8 of each pixel.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    bits : Tensor of shape (B,)
        How many, from 0 to 8; fractions are dropped. 8 rounds to 8 bits and no more.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    step = per_image(2 ** (8 - bits.floor()))
    return images.mul(255).round_().div_(step).floor_().mul_(step / 255)


# What one application draws from, each kind as often, with the bounds of its magnitude.
_Operation = Callable[[Tensor, Tensor], Tensor]
_TONES: tuple[tuple[_Operation, tuple[float, float]], ...] = (
    (lambda images, _: images, (0, 0)),
    (lambda images, _: autocontrast(images), (0, 0)),
    (lambda images, _: equalize(images), (0, 0)),
    (posterize, (4, 8)),
    (solarize, (0, 1)),
    (adjust_saturation, (0.05, 0.95)),
    (adjust_contrast, (0.05, 0.95)),
    (adjust_brightness, (0.05, 0.95)),
    (adjust_sharpness, (0.05, 0.95)),
)
# Angle, shear along x and y, shift along x and y: one sampling step does them all.
_MOVES: tuple[tuple[float, float], ...] = ((-30, 30), *4 * [(-0.1, 0.1)])

_CROP_AND_FLIP = RandomImageViews(jitter=(0, 0, 0, 0), grey_probability=0)

_BOUNDS = torch.tensor([bounds for _, bounds in _TONES] + list(_MOVES))


@dataclass(frozen=True)
class StrongImageViews:
    """Crop and flip, then some random operations and an erased square, anew for every image.

    The strong view of CDC, SCAN and FixMatch. The operations are those of RandAugment: identity,
    autocontrast, equalize, posterize, solarize, saturation, contrast, brightness, sharpness,
    rotate, and shear and translate along x and y. Each image draws its own, with replacement and
    in its own order, each with its own magnitude.

    Parameters
    ----------
    weak : RandomImageViews, default=RandomImageViews without jitter and grey
        Draws the view that the operations are applied to; by default crop and flip only.
    n_operations : int, default=4
        How many operations each image undergoes.
    cutout : float, default=0.5
        Largest side of the erased square, as a share of the shorter side of the view. The side is
        uniform from 1 pixel to this, and the middle anywhere in the view, so that part of the
        square may lie outside. 0 erases nothing.

    Raises
    ------
    ValueError
        If a parameter is out of range; when called, if `images` is not a batch of uint8 or float
        images.

    Notes
    -----
    RandAugment gives all operations one magnitude, which is to be tuned; FixMatch draws it anew
    each time, uniform, and needs no tuning. The bounds are those of FixMatch: 4 to 7 bits,
    solarize thresholds in [0, 1], factors in [0.05, 0.95] (towards grey, dark and smooth only) and
    angles in [-30, 30] degrees. Shear and translation stay within 0.1 in place of 0.3, as in SCAN.

    Where they leave holes, operations fill in the mean colour of the image.

    All randomness comes from the generator passed to the call; draw from a CPU generator, as for
    :class:`RandomImageViews`. How many numbers are drawn depends on the batch size alone.

    References
    ----------
    E. D. Cubuk et al. "RandAugment: Practical automated data augmentation with a reduced search
    space." NeurIPS 2020.

    K. Sohn et al. "FixMatch: Simplifying semi-supervised learning with consistency and
    confidence." NeurIPS 2020.

    W. Van Gansbeke et al. "SCAN: Learning to classify images without labels." ECCV 2020.

    T. DeVries and G. W. Taylor. "Improved regularization of convolutional neural networks with
    cutout." arXiv:1708.04552, 2017.

    Examples
    --------
    >>> import torch
    >>> from skdeepcluster.data import StrongImageViews
    >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> views = StrongImageViews()(images, torch.Generator().manual_seed(0))
    >>> views.shape, views.dtype
    (torch.Size([2, 3, 32, 32]), torch.float32)
    """

    weak: RandomImageViews = _CROP_AND_FLIP
    n_operations: int = 4
    cutout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse parameters that no image could be drawn with."""
        if self.n_operations < 0:
            raise ValueError(f"n_operations must be at least 0; got {self.n_operations}.")
        if not 0 <= self.cutout <= 1:
            raise ValueError(f"cutout must be a share from 0 to 1; got {self.cutout}.")

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
        views = self.weak(images, generator)
        kinds, magnitudes = self._draw_operations(len(views), generator)
        views = apply_operations(views, kinds, magnitudes)
        if self.cutout > 0:
            n, _, height, width = views.shape
            squares = self._draw_squares(n, (height, width), generator)
            views = erase_square(views, *sent(squares, views.device))
        return views

    def _draw_operations(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Kinds and magnitudes, (n_operations, n) each, on the CPU: the host needs to know them."""
        shape = (self.n_operations, n)
        kinds = torch.randint(len(_BOUNDS), shape, generator=generator, device=generator.device)
        unit = uniform(shape, (0, 1), generator).cpu()
        low, high = _BOUNDS[kinds.cpu()].unbind(-1)
        return kinds.cpu(), low + unit * (high - low)

    def _draw_squares(
        self, n: int, image_size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Top, left and side of a square per image, (3, n), in whole pixels."""
        largest = max(1, round(self.cutout * min(image_size)))
        top, left, side = uniform((3, n), (0, 1), generator)
        side = side.mul_(largest).floor_().add_(1)
        middle = torch.stack([top * image_size[0], left * image_size[1]]).floor_()
        return torch.cat([middle - (side / 2).floor(), side[None]])


def apply_operations(images: Tensor, kinds: Tensor, magnitudes: Tensor) -> Tensor:
    """Apply to each image its own operations, one after the other.

    In every step, each operation sees only the images that drew it. On a CPU this takes a seventh
    of the time of applying all operations to all images and masking.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    kinds : int64 Tensor of shape (n_steps, B), on the CPU
        Which operation, as an index into `_TONES` and, further on, `_MOVES`.
    magnitudes : Tensor of shape (n_steps, B), on the CPU
        How much of it.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    # Sorted by kind on the host, which so knows the sizes of the blocks without asking a GPU.
    kinds, order = kinds.sort(dim=1)
    magnitudes = magnitudes.gather(1, order)
    moves = magnitudes[..., None] * (kinds[..., None] == torch.arange(len(_TONES), len(_BOUNDS)))
    rows = sent(_rearrangements(order), images.device)
    magnitudes = sent(magnitudes, images.device)

    for step, kind in enumerate(kinds):
        sizes = kind.clamp_max(len(_TONES)).bincount(minlength=len(_TONES) + 1).tolist()
        *blocks, last = torch.split(images[rows[step]], sizes)
        *drawn, _ = torch.split(magnitudes[step], sizes)
        parts = [
            operation(block, magnitude)
            for (operation, _), block, magnitude in zip(_TONES, blocks, drawn, strict=True)
        ]
        move = moves[step, len(kind) - len(last) :]
        parts.append(affine(last, move[:, 0], move[:, 1:3], move[:, 3:]))
        images = torch.cat(parts)
    return images[rows[-1]]


def _rearrangements(order: Tensor) -> Tensor:
    """Return the way from one order of the images to the next, from their own and back to it.

    Parameters
    ----------
    order : int64 Tensor of shape (n_steps, B)
        Numbers of the images as they are to stand in each step.

    Returns
    -------
    rows : int64 Tensor of shape (n_steps + 1, B)
        Where each stands in the step before; the last row leads back.
    """
    own = torch.arange(order.shape[1])[None]
    places = torch.cat([own, order.argsort(dim=1)])
    return places.gather(1, torch.cat([order, own]))
