"""Rows spread evenly over a data set."""

import torch
from torch import Tensor


def evenly_spaced(n_rows: int, most: int) -> Tensor:
    """Return the numbers of all rows, or of so many that are spread evenly from first to last.

    Parameters
    ----------
    n_rows : int
        Rows there are.
    most : int
        Rows to return at most.

    Returns
    -------
    Tensor of shape (min(n_rows, most),), int64
        In increasing order, on the CPU.
    """
    # In double precision: in single, the last of more than 2^24 rows is rounded beyond the end.
    return torch.linspace(0, n_rows - 1, min(n_rows, most), dtype=torch.float64).round().long()
