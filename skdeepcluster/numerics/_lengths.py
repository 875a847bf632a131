"""Lengths of rows without a copy of all of them."""

import torch
from torch import Tensor

# Squares are formed of this many entries at a time (4 MiB of float32), and of 64 rows at least, so
# that every row is added up in the same order whatever lies beside it.
BLOCK_ENTRIES = 2**20
FEWEST_ROWS = 64


def squared_lengths(X: Tensor) -> Tensor:
    """Return the squared Euclidean length of each row, in blocks.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)

    Returns
    -------
    Tensor of shape (n_samples,)
    """
    block = max(BLOCK_ENTRIES // X.shape[1], FEWEST_ROWS)
    return torch.cat([rows.square().sum(dim=1) for rows in torch.split(X, block)])
