"""Pipelines that end in a clusterer."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def last_step(model: Any, X: Any = None) -> tuple[Any, Any]:
    """Return the clusterer at the end of a pipeline, and X as it arrives there; others as they are.

    Parameters
    ----------
    model : estimator
    X : array-like or other source of samples, default=None
        None stays None.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    """
    check_is_fitted(model)
    if not isinstance(model, Pipeline):
        return model, X
    if X is not None and len(model) > 1:
        X = model[:-1].transform(X)
    return last_step(model[-1], X)
