"""What "auto" became, as attributes, in the history, in print and in a notebook."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch import nn

from skdeepcluster import MiniClustering, ProximityDeepClustering
from skdeepcluster.pretraining import SimCLR
from tests.instances import CLUSTERERS, EVERYONE, LOST_CLUSTERS

X, _ = make_blobs(90, centers=3, n_features=5, random_state=0)
IMAGES = np.random.default_rng(0).integers(0, 256, size=(24, 1, 8, 8), dtype=np.uint8)
NAMES = ["max_epochs_", "batch_size_", "learning_rate_", "backbone_name_", "device_", "precision_"]
pytestmark = LOST_CLUSTERS


def new(estimator, **parameters):
    if estimator in CLUSTERERS:
        parameters["n_clusters"] = 3
    return estimator(random_state=0, **parameters)


@EVERYONE
def test_what_auto_became_is_told(estimator, capsys):
    model = new(estimator, verbose=1).fit(X)
    main = "clustering" if estimator in CLUSTERERS else "pretraining"
    records = [record for record in model.history_ if record["phase"] == main]
    assert model.max_epochs_ == records[-1]["n_epochs"] == len(records) == model.n_iter_
    assert model.batch_size_ == records[-1]["batch_size"] <= len(X)
    assert model.learning_rate_ > 0
    assert model.device_ == "cpu" or torch.cuda.is_available() or torch.backends.mps.is_available()
    assert model.precision_ == "32-true"
    printed = capsys.readouterr().out
    assert f"backbone {model.backbone_name_}, on {model.device_} in 32-true" in printed
    plan = f"{main}: {model.max_epochs_} epoch"
    (line,) = [line for line in printed.splitlines() if line.startswith(plan)]
    assert f"x {model.batch_size_} samples, learning rate {model.learning_rate_:.2g}: " in line
    html = model._repr_html_()
    for name in NAMES:
        assert f"{name}" in html
        assert f"{name} :" in estimator.__doc__


@EVERYONE
def test_what_was_given_is_told_as_it_is(estimator):
    model = new(estimator, max_epochs=2, batch_size=1000, learning_rate=2e-4, device="cpu").fit(X)
    assert (model.max_epochs_, model.batch_size_, model.learning_rate_) == (2, len(X), 2e-4)


def test_a_pretraining_inside_a_clusterer_is_left_as_it_is():
    method = SimCLR(max_epochs=3)
    model = MiniClustering(3, pretraining=method, max_epochs=1, random_state=0).fit(X)
    assert not [name for name in vars(method) if name.endswith("_")]
    assert model.max_epochs_ == 1
    assert model.history_[0]["n_epochs"] == 3


@pytest.mark.parametrize(
    ("backbone", "data", "pretraining", "name"),
    [
        ("auto", X, "auto", "multilayer perceptron"),
        ("auto", X, None, "none"),
        (nn.Linear(5, 4), X, "auto", "Linear"),
        ("test_resnet", IMAGES, None, "test_resnet"),
    ],
    ids=["auto", "auto, not trained", "a module", "of timm"],
)
def test_backbones_have_names(backbone, data, pretraining, name):
    model = MiniClustering(2, backbone=backbone, pretraining=pretraining, max_epochs=1)
    assert model.fit(data).backbone_name_ == name


def test_the_default_backbone_of_images_has_one():
    model = SimCLR(max_epochs=0, device="cpu").fit(IMAGES[:4])
    assert model.backbone_name_ == "small_convnet"


def test_without_epochs_the_plan_is_none():
    model = ProximityDeepClustering(3, max_epochs=0, random_state=0).fit(X)
    assert (model.max_epochs_, model.n_iter_) == (0, 0)
