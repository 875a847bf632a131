"""Sources: where rows of a data set come from, whatever holds them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from skdeepcluster.numerics import evenly_spaced, sent, widest_dtype

# A data set is kept on the device when it takes at most this share of the device's free memory:
# the other half is for the network, its gradients and the batches.
RESIDENT_SHARE = 0.5
# Where Linux tells what a container may use.
CONTROL_GROUP = Path("/sys/fs/cgroup")
# Rows from which mean, variance and range are taken.
STATISTICS_ROWS = 2**16
STATISTICS_BATCH = 2**12
# Rows that are read at a time, by several threads where they are files.
READ_ROWS = 512
# Rows that are converted at a time when an array is copied to the device.
COPIED_ROWS = 2**12
# Of large rows fewer, so that what is read, copied or checked at a time does not fill the memory.
BLOCK_BYTES = 2**26


class Source(Protocol):
    """Rows of a data set, delivered on a device.

    Attributes
    ----------
    sample_shape : tuple of int
        ``(n_features,)`` or ``(channels, height, width)``.
    device : torch.device
        Where the rows are delivered.
    resident : bool
        Whether they lie there already, so that nobody has to wait for them.
    """

    sample_shape: tuple[int, ...]
    device: torch.device
    resident: bool

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def rows(self, index: Tensor) -> Tensor:
        """Return rows by number: float32, or float64 or uint8 if they came so."""
        ...


class ResidentSource:
    """Rows of a tensor that lies on the device."""

    resident = True

    def __init__(self, data: Tensor) -> None:
        self.data = data
        self.sample_shape = tuple(data.shape[1:])
        self.device = data.device

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.data)

    def rows(self, index: Tensor) -> Tensor:
        """Return rows by number."""
        return self.data.index_select(0, sent(index, self.device))


class SelectedSource:
    """Some rows of another source.

    Parameters
    ----------
    source : Source
        The other source.
    selected : Tensor of shape (n_rows,), int64
        Which of its rows, in which order.
    """

    def __init__(self, source: Source, selected: Tensor) -> None:
        self.source = source
        self.selected = selected.cpu()
        self.sample_shape = source.sample_shape
        self.device = source.device
        self.resident = source.resident

    def __len__(self) -> int:
        """Return the number of selected rows."""
        return len(self.selected)

    def rows(self, index: Tensor) -> Tensor:
        """Return selected rows by number."""
        return self.source.rows(self.selected[index.cpu()])


class ArraySource:
    """Rows of a numpy array or memory map, converted and moved batch by batch.

    Parameters
    ----------
    array : ndarray of shape (n_samples, ...)
        Data of any real type; read, never written.
    device : torch.device
        Where the rows are delivered.
    channels_last : bool, default=False
        Whether images have their channels on the last axis.
    """

    resident = False

    def __init__(
        self, array: np.ndarray[Any, Any], device: torch.device, channels_last: bool = False
    ) -> None:
        self.array = array
        self.device = device
        self.channels_last = channels_last
        shape = array.shape[1:]
        self.sample_shape = (shape[2], shape[0], shape[1]) if channels_last else tuple(shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.array)

    def rows(self, index: Tensor) -> Tensor:
        """Return rows by number; a memory map is read in the order in which it lies on disk."""
        wanted = index.cpu().numpy()
        order = np.argsort(wanted, kind="stable")
        picked = np.empty((len(wanted), *self.array.shape[1:]), dtype=stored_dtype(self.array))
        picked[order] = self.array[wanted[order]]
        batch = move(torch.from_numpy(picked), self.device)
        return batch.permute(0, 3, 1, 2).contiguous() if self.channels_last else batch


def open_array(
    array: np.ndarray[Any, Any], device: torch.device, channels_last: bool = False
) -> Source:
    """Choose how to deliver the rows of an array: resident on the device when it fits.

    A memory map stays on disk where training is on the CPU: whoever passes one does not want a copy
    of it in memory, and the system keeps what is read often.

    Parameters
    ----------
    array : ndarray of shape (n_samples, ...)
        The data; never written to.
    device : torch.device
        Where training happens.
    channels_last : bool, default=False
        Whether images have their channels on the last axis.
    """
    on_cpu = device.type == "cpu"
    as_it_lies = _torch_can_share(array) and not channels_last
    if on_cpu and as_it_lies:
        return ResidentSource(torch.from_numpy(array))
    source = ArraySource(array, device, channels_last)
    n_bytes = array.size * stored_dtype(array).itemsize
    too_large = n_bytes > RESIDENT_SHARE * free_memory(device)
    if too_large or (on_cpu and _is_memory_map(array)):
        return source
    # In parts, because the copies on the way, pinned ones too, take memory that nobody has counted.
    dtype = move(torch.from_numpy(np.empty(0, stored_dtype(array))), device).dtype
    data = torch.empty(len(array), *source.sample_shape, dtype=dtype, device=device)
    n_rows = rows_in_block(source.sample_shape, COPIED_ROWS)
    for index in torch.split(torch.arange(len(array)), n_rows):
        data[index[0] : index[-1] + 1] = source.rows(index)
    return ResidentSource(data)


def rows_in_block(sample_shape: Sequence[int], most: int) -> int:
    """Return how many rows to take at a time, at least one: `most`, unless they are large."""
    n_bytes = math.prod(sample_shape) * torch.float32.itemsize
    return max(min(most, BLOCK_BYTES // max(n_bytes, 1)), 1)


def move(batch: Tensor, device: torch.device) -> Tensor:
    """Bring a batch to a device, in a type that it has."""
    if batch.dtype == torch.float64:
        batch = batch.to(widest_dtype(device))
    return sent(batch, device)


def stored_dtype(array: np.ndarray[Any, Any]) -> np.dtype[Any]:
    """Return the type in which rows are delivered.

    It is uint8 for uint8 images, and float64 for what float32 would round before it is centred.
    """
    if array.dtype == np.uint8 and array.ndim > 2:
        return np.dtype(np.uint8)
    return np.dtype(np.float32 if np.can_cast(array.dtype, np.float32) else np.float64)


def deliverable(X: Tensor, *, images: bool) -> Tensor:
    """Return a tensor in the type in which its rows are delivered, see :func:`stored_dtype`."""
    if X.dtype == torch.uint8 and images:
        return X
    wide = X.dtype in (torch.float64, torch.int32, torch.int64)
    return X.to(widest_dtype(X.device)) if wide else X.float()


def _is_memory_map(array: Any) -> bool:
    """Whether the memory of an array is a file, however many views lie between."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def _torch_can_share(array: np.ndarray[Any, Any]) -> bool:
    """Whether a tensor can lie on the array's memory without a conversion or a warning."""
    whole_steps = all(s >= 0 and s % array.itemsize == 0 for s in array.strides)
    return array.dtype == stored_dtype(array) and array.flags.writeable and whole_steps


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept  # by torch, for what comes next
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(line for line in lines if line.startswith("MemAvailable"))
        return int(min(int(available.split()[1]) * 1024, _free_in_container()))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**31  # Windows, macOS: nobody to ask without a further dependency


def _free_in_container() -> float:
    """Return the bytes that are left of a container's own limit, if it has one (Linux, cgroup v2).

    Files that the system keeps in memory count as free: it drops them before it refuses.
    """
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text()
        used = (CONTROL_GROUP / "memory.current").read_text()
        lines = (CONTROL_GROUP / "memory.stat").read_text().splitlines()
        kept = next(line for line in lines if line.startswith("inactive_file "))
        return max(int(limit) - int(used) + int(kept.split()[1]), 0)
    except (OSError, StopIteration, ValueError):  # "max": no limit
        return math.inf


def ordered_batches(source: Source, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield all rows in order, in batches of exactly one shape.

    The last batch is filled up with zeros: some matrix products round differently for other
    shapes, and a sample's result must not depend on its neighbours in the batch. Rows are read for
    several batches at a time.

    Yields
    ------
    batch : Tensor of shape (batch_size, ...)
        Rows on the source's device.
    n_valid : int
        How many of them are real.
    """
    # Threads have more to do in several blocks, and what they read is mostly bytes.
    n_rows = min(4 * rows_in_block(source.sample_shape, READ_ROWS), READ_ROWS)
    n_read = max(n_rows // batch_size, 1) * batch_size
    for start in range(0, len(source), n_read):
        index = torch.arange(start, min(start + n_read, len(source)))
        for rows in torch.split(source.rows(index), batch_size):
            n_valid = len(rows)
            if n_valid < batch_size:
                padding = rows.new_zeros(batch_size - n_valid, *rows.shape[1:])
                rows = torch.cat([rows, padding])
            yield rows, n_valid


def value_range(source: Source) -> tuple[float, float]:
    """Return the smallest and largest value that a pixel can have: by type, or else by the data."""
    if source.rows(torch.tensor([0])).dtype == torch.uint8:
        return 0.0, 255.0
    low, high = torch.inf, -torch.inf
    for index in _spaced_rows(source):
        rows = source.rows(index)
        low, high = min(low, rows.min().item()), max(high, rows.max().item())
    return low, high


def moments(source: Source, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return mean and variance over the given axes, from at most 65,536 evenly spaced rows.

    Chan's pairwise update in float64 keeps the variance right for data far from zero.
    """
    count = 0
    mean = squares = torch.zeros((), dtype=torch.float64)
    for index in _spaced_rows(source):
        values = source.rows(index).cpu().double()  # not every accelerator has float64
        batch_squares, batch_mean = torch.var_mean(values, tuple(axes), correction=0, keepdim=True)
        added = len(index)
        total = count + added
        delta = batch_mean[0] - mean
        mean = mean + delta * (added / total)
        squares = squares + batch_squares[0] * added + delta.square() * (count * added / total)
        count = total
    return mean, squares / count


def _spaced_rows(source: Source) -> tuple[Tensor, ...]:
    """Return row numbers spread evenly over the whole data set, in batches."""
    n_rows = rows_in_block(source.sample_shape, STATISTICS_BATCH)
    return torch.split(evenly_spaced(len(source), STATISTICS_ROWS), n_rows)
