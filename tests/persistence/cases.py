"""Whatever can be saved, fitted once, and what has to be the same of what is loaded."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    DeepClusterer,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
    save,
)
from skdeepcluster.base import Pretrainer
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.instances import ESTIMATORS, PRETRAINERS, tiny_backbone
from tests.samples import NOISE

TINY = "test_resnet"  # 0.4 million parameters, made by timm for tests
FILES = ["model.json", "tensors.safetensors"]
IMAGES = np.random.default_rng(0).integers(0, 256, size=(24, 3, 8, 8), dtype=np.uint8)
LARGE_IMAGES = np.random.default_rng(0).random(size=(8, 72, 72, 1)).astype(np.float32)
BRIEF = {"max_epochs": 1, "batch_size": 8, "random_state": 0}
BRIEF_CLUSTERER = {**BRIEF, "pretraining": None, "n_clusters": 2}


def dropping_backbone():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 6))


class Half(nn.Linear):
    """Its weights are of another type than the rest."""

    def forward(self, x):
        return super().forward(x.to(self.weight.dtype)).float()


class Shared(nn.Linear):
    """One of its buffers is a part of another."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.register_buffer("shift", torch.arange(n_out).float())
        self.register_buffer("first", self.shift[:2])

    def forward(self, x):
        return super().forward(x) + self.shift + self.first.sum()


def tied_backbone():
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.ReLU(), layer)


# What ways there are to an own kind of file: estimator and data.
CASES = {
    **{name: (estimator, NOISE) for name, estimator in ESTIMATORS.items()},
    "several numbers": (StableClusterDiscrimination([4, 2, 3], random_state=0, refine=True), NOISE),
    "one cluster": (MiniClustering(1, random_state=0), NOISE),
    "two heads, no votes": (CalibratedDeepClustering(3, random_state=0, calibrate=False), NOISE),
    "no votes": (StableClusterDiscrimination([2, 3], random_state=0, calibrate=False), NOISE),
    "other pretraining": (
        CalibratedDeepClustering(
            3, random_state=0, pretraining=BYOL(hidden_dim=32, embedding_dim=9, max_epochs=2)
        ),
        NOISE,
    ),
    "few samples": (CalibratedDeepClustering(2, random_state=0), NOISE[:20]),
    **{method.__name__: (method(max_epochs=2, random_state=0), NOISE) for method in PRETRAINERS},
    "module": (MiniClustering(3, random_state=0, backbone=dropping_backbone()), NOISE),
    "half module": (
        StableClusterDiscrimination(
            3, random_state=0, backbone=Half(5, 6).bfloat16(), max_epochs=1
        ),
        NOISE,
    ),
    "module with shared memory": (
        SimCLR(max_epochs=1, random_state=0, backbone=Shared(5, 5)),
        NOISE,
    ),
    "tied module": (SimCLR(max_epochs=1, random_state=0, backbone=tied_backbone()), NOISE),
    "images": (MiniClustering(**BRIEF_CLUSTERER), IMAGES),
    "images, module": (MiniClustering(**BRIEF_CLUSTERER, backbone=tiny_backbone()), IMAGES),
    "images, two heads": (
        CalibratedDeepClustering(**BRIEF_CLUSTERER, backbone=TINY, calibrate=False),
        IMAGES,
    ),
    "images, transformer": (
        SimCLR(max_epochs=0, random_state=0, backbone="test_vit"),
        np.tile(IMAGES[:4], (1, 1, 20, 20)),
    ),
    "images, pretrained anew": (
        MiniClustering(
            2, **BRIEF, backbone=TINY, pretraining=MoCo(max_epochs=1, batch_size=8), fine_tune=False
        ),
        IMAGES,
    ),
    "images, one stage": (
        StableClusterDiscrimination(
            [2, 3], **BRIEF, backbone=TINY, init="kmeans", over_clusterings=range(2, 4)
        ),
        IMAGES,
    ),
    "images, proximity": (
        ProximityDeepClustering(2, **BRIEF, pretraining_epochs=1, backbone=TINY),
        IMAGES,
    ),
    "images, generative": (
        GenerativeCalibrationClustering(**BRIEF_CLUSTERER, generation_epochs=1, backbone=TINY),
        IMAGES,
    ),
    "images, BYOL": (BYOL(**BRIEF, backbone=TINY, hidden_dim=16), IMAGES),
    "large images": (MiniClustering(**BRIEF_CLUSTERER, backbone=TINY), LARGE_IMAGES),
}
FITTED = {}


def fitted(name):
    """Fit each case once: a test may not change what it gets."""
    if name not in FITTED:
        estimator, data = CASES[name]
        FITTED[name] = clone(estimator).fit(data), data
    return FITTED[name]


def cases(names=CASES):
    return pytest.mark.parametrize("name", names)


def module_of(model):
    return model.backbone if isinstance(model.backbone, nn.Module) else None


def save_and_load(model, folder):
    save(model, folder)
    return skdeepcluster.load(folder, backbone=module_of(model))


def assert_same(a, b):
    """The same value and type, all the way down."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, nn.Module):
        state, other = a.state_dict(), b.state_dict()
        assert list(state) == list(other)
        assert all(torch.equal(state[key].cpu(), other[key].cpu()) for key in state)
        assert all(state[key].dtype == other[key].dtype for key in state)
        assert a.training == b.training
    elif isinstance(a, DeepClusterer | Pretrainer):
        assert_same(a.get_params(), b.get_params())
    else:
        assert a == b


def assert_same_answers(a, b, data):
    np.testing.assert_array_equal(a.transform(data), b.transform(data))
    if isinstance(a, DeepClusterer):
        np.testing.assert_array_equal(a.predict(data), b.predict(data))
        np.testing.assert_array_equal(a.predict_proba(data), b.predict_proba(data))
        expected = [getattr(model, "expected_accuracy_", None) for model in (a, b)]
        assert expected[0] == expected[1]
        assert_same(a.predict_top(data, 2), b.predict_top(data, 2))
        assert a.score(data) == b.score(data)
