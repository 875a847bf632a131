"""Contingency tables, and partitions numbered alike by them."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, bincount


def contingency_table(rows: Tensor, columns: Tensor, n_rows: int, n_columns: int) -> Tensor:
    """Count how often each pair of labels occurs.

    Parameters
    ----------
    rows, columns : Tensor of shape (n_samples,)
        Integer labels in ``[0, n_rows)`` and ``[0, n_columns)``.
    n_rows, n_columns : int
        Size of the table.

    Returns
    -------
    Tensor of shape (n_rows, n_columns), int64
        Entry ``(r, c)`` is the number of samples with row label ``r`` and column label ``c``.
    """
    pairs = rows.long() * n_columns + columns.long()
    return bincount(pairs, minlength=n_rows * n_columns).view(n_rows, n_columns)


def numbered_alike(labels: Tensor, like: Tensor, n_clusters: int) -> Tensor:
    """Return a partition with its clusters numbered so that most samples have those of another.

    Parameters
    ----------
    labels, like : Tensor of shape (n_samples,), int64
        The partition, and the other, with labels below ``n_clusters``.
    n_clusters : int
    """
    table = contingency_table(labels, like, n_clusters, n_clusters)
    _, numbers = linear_sum_assignment(table.cpu().numpy(), maximize=True)
    return torch.from_numpy(numbers).to(labels)[labels]
