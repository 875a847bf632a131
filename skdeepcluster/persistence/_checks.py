"""Refusals that say what does not fit, and in which file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skdeepcluster.base import DeepEstimator


def check_is_ours(estimator: Any, function: str) -> None:
    """Raise TypeError or NotFittedError unless this is a fitted estimator of this package."""
    if not isinstance(estimator, DeepEstimator):
        found = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(
            f"{function} takes a fitted estimator of skdeepcluster, got {found}. Of a Pipeline or "
            "a search pass the step or best_estimator_; joblib.dump keeps anything."
        )
    check_is_fitted(estimator)


def check_names(
    what: str, found: Any, expected: Collection[str], optional: Collection[str] = ()
) -> None:
    """Raise ValueError unless a dict has all expected keys, and no others but the optional ones."""
    if not isinstance(found, dict):
        raise ValueError(f"{what}: expected names and values, got {type(found).__name__}.")
    unknown = sorted(found.keys() - set(expected) - set(optional))
    missing = sorted(set(expected) - found.keys())
    if unknown or missing:
        raise ValueError(f"{what}: {_list(unknown)} unknown, {_list(missing)} missing.")


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Let an error say what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _list(names: list[str]) -> str:
    if not names:
        return "none is"
    return f"{', '.join(map(repr, names[:5]))}{' and others are' if names[5:] else ' is'}"
