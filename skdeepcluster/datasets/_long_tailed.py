"""Long-tailed benchmark sets."""

from __future__ import annotations

from math import floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d


def make_long_tailed(
    X: Any,
    y: ArrayLike,
    *,
    imbalance_ratio: float = 10.0,
    shuffle: bool = True,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[Any, Any]:
    """Draw a long-tailed subset: class sizes fall exponentially from the first class to the last.

    Of K classes in sorted order, class i keeps ``floor(n_max * imbalance_ratio ** (-i / (K - 1)))``
    randomly chosen rows, where ``n_max`` is the size of the smallest class, so that every class can
    supply its share. The CIFAR-10 training split (5,000 per class) keeps 20,431 of 50,000 images at
    the default ratio.

    The labels are used because this makes a benchmark, not a model: fit on ``X_lt`` alone and keep
    ``y_lt`` for the score.

    Parameters
    ----------
    X : array, memmap, dataframe, tensor or list of length n_samples
        Samples along the first axis; any number of further axes.
    y : array-like of shape (n_samples,)
        Classes; integers, strings or anything else that can be sorted.
    imbalance_ratio : float, default=10.0
        Size of the first class over size of the last, at least 1 (balanced). 10 is the ratio most
        papers report.
    shuffle : bool, default=True
        Whether to mix the rows that are kept; False leaves them in their order in `X`. Which rows
        are kept is random in both cases.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same subset every time.

    Returns
    -------
    X_lt, y_lt : same types as X and y
        The rows that are kept, copied.

    Raises
    ------
    ValueError
        If lengths differ, if `imbalance_ratio` is below 1 or not finite, or if it is so large that
        the last class would keep no row.

    References
    ----------
    Y. Cui et al. "Class-balanced loss based on effective number of samples." CVPR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepcluster.datasets import make_long_tailed
    >>> X, y = np.arange(300).reshape(150, 2), np.repeat([0, 1, 2], 50)
    >>> X_lt, y_lt = make_long_tailed(X, y, imbalance_ratio=25, random_state=0)
    >>> X_lt.shape, np.bincount(y_lt)
    ((62, 2), array([50, 10,  2]))
    """
    classes, codes = np.unique(column_or_1d(y), return_inverse=True)
    check_consistent_length(X, codes)
    if not (isfinite(imbalance_ratio) and imbalance_ratio >= 1):
        raise ValueError(
            f"imbalance_ratio must be a finite number of at least 1; got {imbalance_ratio}."
        )
    n_max = int(np.bincount(codes).min())
    sizes = _long_tailed_sizes(len(classes), n_max, imbalance_ratio)
    if sizes[-1] == 0:
        raise ValueError(
            f"imbalance_ratio={imbalance_ratio} would leave class {classes[-1]} without a "
            f"sample; the smallest class has {n_max}, so pass at most {n_max}."
        )

    rng = check_random_state(random_state)
    kept = np.concatenate(
        [
            rng.choice(np.flatnonzero(codes == k), size, replace=False)
            for k, size in enumerate(sizes)
        ]
    )
    rows = rng.permutation(kept) if shuffle else np.sort(kept)
    return _take_rows(X, rows), _take_rows(y, rows)


def _long_tailed_sizes(n_classes: int, n_max: int, imbalance_ratio: float) -> list[int]:
    """Rows per class; a single class keeps all of them."""
    steps = max(n_classes - 1, 1)
    # Powers are inexact: without the margin a size that is whole on paper could lose a row.
    return [floor(n_max / imbalance_ratio ** (i / steps) + 1e-9) for i in range(n_classes)]


def _take_rows(X: Any, rows: NDArray[np.intp]) -> Any:
    """Rows of a dataframe or series, of anything that numpy indices work on, or of a list."""
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    if hasattr(X, "shape"):
        return X[rows]
    return [X[row] for row in rows]
