"""Where the pixels of a batch of images come from: crops, turns, blurs, squares cut out.

Pure functions, one parameter per sample: parameters are tensors of length B on the device the batch
is on, so each operation can be checked against torchvision or PIL one image at a time. Where pixels
are to be read may also be told from the CPU: a GPU is then spared dozens of tiny operations. Images
are float32 in [0, 1], of shape (B, C, H, W). Operations on colours are in ``_colour_operations``.

This is the hot path of training, hence two habits: crop, resize and flip are one sampling step,
and so is everything affine; and nothing here is a matrix product, which autocast or TF32 would
round.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skdeepcluster.data._colour_operations import per_image
from skdeepcluster.numerics import sent

__all__ = [
    "adjust_sharpness",
    "affine",
    "erase_square",
    "gaussian_blur",
    "resized_crop",
]


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
    rows = _sample_points(top, height, images.shape[-2], out_height, images.dtype)
    columns = _sample_points(left, width, images.shape[-1], out_width, images.dtype)
    if flip is not None:
        columns = torch.where(flip[:, None], columns.flip(-1), columns)
    points = sent(torch.cat([rows, columns], dim=1), images.device)
    rows, columns = torch.split(points, [out_height, out_width], dim=1)
    grid = torch.stack(
        [
            columns[:, None, :].expand(-1, out_height, -1),
            rows[:, :, None].expand(-1, -1, out_width),
        ],
        dim=-1,
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_points(
    start: Tensor, length: Tensor, n_in: int, n_out: int, dtype: torch.dtype
) -> Tensor:
    """Where along one axis to read: (B, n_out) points in grid_sample's -1 to 1 coordinates."""
    start, length = start[:, None].to(dtype), length[:, None].to(dtype)
    centres = torch.arange(n_out, dtype=dtype, device=start.device) + 0.5
    # Kept inside the box: a resized crop repeats its own edge and never sees beyond it.
    offsets = (centres * (length / n_out) - 0.5).clamp_min(0).minimum(length - 1)
    return (start + offsets + 0.5) * (2 / n_in) - 1


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from, or towards, its smoothed version.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1]. Without inner pixels (H or W below 3) they stay as they are.
    factor : Tensor of shape (B,)
        At least 0; 0 is PIL's SMOOTH filter and 1 leaves the image as it is.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        Images in [0, 1]. The outermost pixels are those of the input.
    """
    if min(images.shape[-2:]) < 3:
        return images
    inner = images[..., 1:-1, 1:-1]
    # Eight neighbours of weight 1 and a centre of 5. Sums of slices: pooling is five times slower
    # on a CPU, and a convolution would be rounded.
    rows = (images[..., :-2, :] + images[..., 1:-1, :]).add_(images[..., 2:, :])
    smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    smooth.add_(inner, alpha=4).div_(13)
    sharpened = images.clone()
    sharpened[..., 1:-1, 1:-1] = smooth.lerp_(inner, per_image(factor)).clamp_(0, 1)
    return sharpened


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Smooth each image with a Gaussian of its own width; what lies outside mirrors the inside.

    Equal to rounding to torchvision's ``gaussian_blur``, image by image.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    sigma : Tensor of shape (B,)
        Standard deviations in pixels; 0 leaves the image as it is.
    kernel_size : int
        Pixels in a row, and in a column, that a new pixel is the weighted mean of: odd, and below
        twice the shorter side of the images.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1], up to rounding.

    Raises
    ------
    ValueError
        If the kernel size is even, or too large to be mirrored at the edges.

    Examples
    --------
    >>> import torch
    >>> images = torch.tensor([0.0, 0, 1, 0, 0]).expand(2, 1, 5, 5)
    >>> gaussian_blur(images, torch.tensor([0.0, 0.8]), 3)[:, 0, 0].round(decimals=3)
    tensor([[0.0000, 0.0000, 1.0000, 0.0000, 0.0000],
            [0.0000, 0.2390, 0.5220, 0.2390, 0.0000]])
    """
    height, width = images.shape[-2:]
    if kernel_size not in range(1, 2 * min(height, width), 2):
        raise ValueError(
            f"kernel_size must be odd, from 1 to {2 * min(height, width) - 1} for images of "
            f"{height} x {width} pixels; got {kernel_size}."
        )
    radius = kernel_size // 2
    distance = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    # At a hundredth of a pixel the middle already has all the weight.
    relative = distance[:, None] / sigma.to(images).clamp_min(0.01)
    weights = torch.softmax(-relative.square() / 2, dim=0)[..., None, None, None]
    # Sums of slices: about as fast as a convolution or a product with a band matrix, which would be
    # rounded.
    for axis, padding in ((-2, (0, 0, radius, radius)), (-1, (radius, radius, 0, 0))):
        size = images.shape[axis]
        padded = F.pad(images, padding, mode="reflect")
        images = padded.narrow(axis, 0, size) * weights[0]
        for start in range(1, kernel_size):
            images.addcmul_(padded.narrow(axis, start, size), weights[start])
    return images


def affine(images: Tensor, angle: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """Rotate, shear and shift each image, in this order, in one bilinear sampling step.

    What comes in from outside takes the mean colour of the image, the one that says least about
    it. A fixed grey would be as neutral on photographs, but a bright mark on dark images, such as
    digits.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    angle : Tensor of shape (B,)
        In degrees, counter-clockwise, about the centre.
    shear : Tensor of shape (B, 2)
        Pixels that a row moves left per row below the upper edge, and that a column moves up per
        column right of the left edge: edges rather than the centre, as in AutoAugment.
    shift : Tensor of shape (B, 2)
        Way to the right, as a share of the width, and way down, as a share of the height.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    height, width = images.shape[-2:]
    radians = angle.deg2rad()[:, None]
    cos, sin = radians.cos(), radians.sin()
    (shear_x, shear_y), (right, down) = shear[:, :, None].unbind(1), shift[:, :, None].unbind(1)
    # Where to read, in pixels from the centre: first what undoes the shift, then shear and rotation
    # multiplied out, then grid_sample's -1 to 1. All while small: the sum is the one large step.
    x = torch.arange(width, device=angle.device) + (1 - width) / 2 - right * width
    y = torch.arange(height, device=angle.device) + (1 - height) / 2 - down * height
    from_x, from_y = shear_x * (height / 2), shear_y * (width / 2)
    to_unit_x, to_unit_y = 2 / width, 2 / height
    by_column = torch.stack(
        [(cos - sin * shear_y) * x * to_unit_x, (sin + cos * shear_y) * x * to_unit_y], dim=-1
    )
    by_row = torch.stack(
        [
            ((cos * shear_x - sin) * y + cos * from_x - sin * from_y) * to_unit_x,
            ((sin * shear_x + cos) * y + sin * from_x + cos * from_y) * to_unit_y,
        ],
        dim=-1,
    )
    parts = sent(torch.cat([by_column, by_row], dim=1), images.device)
    by_column, by_row = torch.split(parts, [width, height], dim=1)
    grid = by_column[:, None, :] + by_row[:, :, None]
    mean = images.mean(dim=(2, 3), keepdim=True)
    moved = F.grid_sample(images - mean, grid, padding_mode="zeros", align_corners=False)
    return moved.add_(mean).clamp_(0, 1)


def erase_square(images: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """Paint a square of each image in the mean colour of the image.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
        Float images in [0, 1].
    top, left : Tensor of shape (B,)
        Upper left corner of each square, in pixels. Squares may stick out.
    side : Tensor of shape (B,)
        Side of each square, in pixels; 0 leaves the image as it is.

    Returns
    -------
    images : Tensor of shape (B, C, H, W)
        New images in [0, 1].
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - top[:, None]
    columns = torch.arange(width, device=images.device) - left[:, None]
    rows, columns = (rows >= 0) & (rows < side[:, None]), (columns >= 0) & (columns < side[:, None])
    square = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(square, images.mean(dim=(2, 3), keepdim=True), images)
