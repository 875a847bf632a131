"""Rows of a torch Dataset, or of what quacks like one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeepcluster.data._containers import (
    describe_sample,
    is_nested_numbers,
    is_picture,
    picture_array,
)
from skdeepcluster.data._sources import deliverable, move, stored_dtype
from skdeepcluster.numerics import OwnDraws, entered_draws


class DatasetSource:
    """Rows of a map-style torch Dataset whose items are samples, or tuples that start with one.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        Items are tensors, arrays, PIL images or lists of numbers, of one common shape; a label
        beside a sample is ignored.
    device : torch.device
        Where the rows are delivered.
    num_workers : int, default=0
        Threads that read items at the same time; 0 reads them one after the other.

    Raises
    ------
    ValueError
        If the items are not tensors or arrays of real numbers of one common shape, or one is not
        finite.
    """

    resident = False

    def __init__(self, dataset: Any, device: torch.device, num_workers: int = 0) -> None:
        self.dataset = dataset
        self.device = device
        self.num_workers = num_workers
        if len(dataset) == 0:
            raise ValueError("X is a Dataset without items.")
        self._item_shape = tuple(self._item(0).shape)
        if len(self._item_shape) not in (1, 3):
            raise ValueError(
                "X is a Dataset; its items have to be feature vectors (1-D) or images (3-D, "
                f"channels first), but item 0 has shape {self._item_shape}. Grey images need an "
                "axis of one channel."
            )
        self.sample_shape = self._item_shape
        self._channels_last = False

    def read_channels_last(self) -> None:
        """Take the last axis of the items for the channels, not the first."""
        height, width, channels = self._item_shape
        self.sample_shape = (channels, height, width)
        self._channels_last = True

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.dataset)

    def rows(self, index: Tensor) -> Tensor:
        """Read items by number and stack them."""
        numbers = index.tolist()
        if self.num_workers:
            items = self._read_side_by_side(numbers)
        else:
            items = [self._item(i) for i in numbers]
        for number, item in zip(numbers, items, strict=True):
            if item.shape != self._item_shape:
                raise ValueError(
                    f"X is a Dataset; item {number} has shape {tuple(item.shape)}, but item 0 has "
                    f"{self._item_shape}. All items need one shape: resize or pad them."
                )
        batch = torch.stack(items)
        if batch.is_floating_point():
            finite = batch.flatten(1).isfinite().all(1)
            if not bool(finite.all()):
                bad = numbers[int(finite.int().argmin())]
                raise ValueError(f"X is a Dataset; item {bad} contains NaN or infinity.")
        if self._channels_last:
            batch = batch.permute(0, 3, 1, 2).contiguous()
        return move(batch, self.device)

    def _read_side_by_side(self, numbers: list[int]) -> list[Tensor]:
        """Read items in several threads; what one draws does not depend on who comes first."""
        draws = entered_draws()
        with ThreadPoolExecutor(self.num_workers) as pool:
            if draws is None:
                return list(pool.map(self._item, numbers))
            return list(pool.map(self._seeded_item, numbers, draws.seeds(len(numbers))))

    def _seeded_item(self, number: int, seed: int) -> Tensor:
        with OwnDraws(seed):
            return self._item(number)

    def _item(self, number: int) -> Tensor:
        item = self.dataset[number]
        has_label = isinstance(item, tuple | list) and item and not is_nested_numbers(item)
        sample = item[0] if has_label else item
        try:
            return _as_tensor(sample)
        except TypeError as flaw:
            raise ValueError(
                "X is a Dataset; its items have to be tensors or arrays of real numbers (or tuples "
                f"that start with one), but item {number} is {flaw}"
            ) from flaw


def _as_tensor(sample: Any) -> Tensor:
    """Return an item of a Dataset as a tensor, or raise TypeError with what it is instead."""
    if is_picture(sample):
        return torch.from_numpy(picture_array(sample))
    if is_nested_numbers(sample):
        sample = _as_array(sample)
    if not isinstance(sample, Tensor | np.ndarray):
        raise TypeError(describe_sample(sample))
    if "complex" in str(sample.dtype):
        raise TypeError(f"complex ({sample.dtype}). Put real and imaginary part side by side.")
    if isinstance(sample, Tensor):
        if sample.layout != torch.strided:
            raise TypeError(f"a tensor of layout {sample.layout}. Use Tensor.to_dense() first.")
        return deliverable(sample.detach(), images=sample.ndim > 1)
    if np.ma.is_masked(sample):
        raise TypeError("an array with masked entries. Fill or drop them.")
    try:
        # torch takes neither negative strides nor memory that it may not write to.
        return torch.from_numpy(np.require(sample, stored_dtype(sample[None]), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise TypeError(f"an array of {sample.dtype}: {error}. Convert it to numbers.") from error


def _as_array(numbers: list[Any]) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(numbers)
    except ValueError as error:
        raise TypeError(f"a list of lists of different lengths: {error}") from error
