"""Fitted estimators as files: save, load, and to_onnx for programs without this package."""

from skdeepcluster.persistence._models import load, save
from skdeepcluster.persistence._onnx import to_onnx

__all__ = ["load", "save", "to_onnx"]
