"""A linear layer with which a sample's result does not depend on the company it keeps."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear, pad

# Rows begin at multiples of so many numbers: 64 bytes in single precision.
ALIGNED_NUMBERS = 16


def aligned_linear(X: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``X @ weight.T + bias``, where equal rows have equal results wherever they stand.

    Matrix products read numbers in groups. Some libraries (MKL on AMD's processors) begin the
    groups where memory is aligned, and so round rows of, say, 67 numbers differently depending on
    their place. Zeros at the end of each row change nothing but that.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        The samples.
    weight : Tensor of shape (n_outputs, n_features)
        As :class:`torch.nn.Linear` has them.
    bias : Tensor of shape (n_outputs,), optional
        Added to each row.
    """
    missing = -X.shape[1] % ALIGNED_NUMBERS
    if missing:
        X, weight = pad(X, (0, missing)), pad(weight, (0, missing))
    return linear(X, weight, bias)
