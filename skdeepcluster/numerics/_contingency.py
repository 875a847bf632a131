"""Contingency tables, and partitions numbered alike by them."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def label_counts(labels: Tensor, n_labels: int) -> Tensor:
    """Count how often each label occurs, without waiting for an accelerator as ``bincount`` does.

    Parameters
    ----------
    labels : Tensor of shape (n_samples,), int64
        In ``[0, n_labels)``.
    n_labels : int

    Returns
    -------
    Tensor of shape (n_labels,), int64
    """
    counts = torch.zeros(n_labels, dtype=torch.int32, device=labels.device)
    # Integers: in whatever order they are added.
    return counts.index_add_(0, labels, torch.ones_like(labels, dtype=torch.int32)).long()


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
    return label_counts(pairs, n_rows * n_columns).view(n_rows, n_columns)


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
