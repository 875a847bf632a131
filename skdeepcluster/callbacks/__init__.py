"""Callbacks beside scikit-learn's own: watch an embedding while it is learned."""

from skdeepcluster.callbacks._embedding_monitor import EmbeddingMonitor

__all__ = ["EmbeddingMonitor"]


def __dir__() -> list[str]:
    return __all__
