"""Pretraining: transformers that learn an embedding from pairs of views, without clusters."""

from skdeepcluster.estimators._pretraining import BYOL, MoCo, SimCLR

__all__ = ["BYOL", "MoCo", "SimCLR"]
