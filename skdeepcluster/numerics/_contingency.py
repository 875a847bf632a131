"""Contingency tables."""

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
