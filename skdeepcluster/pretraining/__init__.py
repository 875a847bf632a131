"""Pretraining: transformers that learn an embedding from pairs of views, without clusters."""

from skdeepcluster.estimators._byol import BYOL
from skdeepcluster.estimators._moco import MoCo
from skdeepcluster.estimators._simclr import SimCLR

__all__ = ["BYOL", "MoCo", "SimCLR"]


def __dir__() -> list[str]:
    return __all__
