"""Pipelines that end in a clusterer."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def last_step(model: Any, X: Any = None) -> tuple[Any, Any]:
    """Return the clusterer at the end of a pipeline, and X as it arrives there.

    Parameters
    ----------
    model : estimator
    X : array-like or other source of samples, default=None
        None stays None.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    TypeError
        If there is no clusterer of this package at the end.
    """
    check_is_fitted(model)
    if not isinstance(model, Pipeline):
        if not hasattr(type(model), "cut_scores"):
            raise TypeError(
                f"{type(model).__name__} is no clusterer of this package, nor a Pipeline that ends "
                "in one. Of a search pass the best_estimator_."
            )
        return model, X
    if X is not None and len(model) > 1:
        X = model[:-1].transform(X)
    return last_step(model[-1], X)
