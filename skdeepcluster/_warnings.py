"""Warnings that point to the user's own line."""

from __future__ import annotations

import sys
import warnings

# Frames of these packages lie between the user's line and ours.
BETWEEN = {"skdeepcluster", "sklearn", "contextlib", "joblib", "threading", "concurrent"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as :func:`warnings.warn` does, about the line outside this package that led here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in BETWEEN:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
