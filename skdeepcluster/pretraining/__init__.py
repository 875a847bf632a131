"""Pretraining: transformers that learn an embedding from pairs of views, without clusters."""

from skdeepcluster.pretraining._byol import BYOL
from skdeepcluster.pretraining._moco import MoCo
from skdeepcluster.pretraining._simclr import SimCLR

__all__ = ["BYOL", "MoCo", "SimCLR"]


def __dir__() -> list[str]:
    return __all__
