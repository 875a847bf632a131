"""The methods, each brief, their backbones, and clusterers that begin with them."""

import torch
from torch import nn

from skdeepcluster import MiniClustering
from skdeepcluster.networks import multilayer_perceptron
from tests.instances import LOST_CLUSTERS, PRETRAINERS, brief

EPOCHS = 4
METHODS = {method.__name__: brief(method, EPOCHS, hidden_dim=16) for method in PRETRAINERS}
# So few steps lead nowhere; that is no matter here.
FEW_STEPS = LOST_CLUSTERS


def image_backbone():
    """Return a network with running statistics: one used in the wrong mode is found out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )


def feature_backbone(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(multilayer_perceptron([5, 8, 8]), nn.Dropout(dropout))


def clusterer(kind=MiniClustering, n_clusters=3, **parameters):
    return kind(n_clusters, random_state=0, **{"max_epochs": 1, "calibrate": False, **parameters})


def phases(model):
    return [record["phase"] for record in model.history_]


def same_states(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name].cpu(), two[name].cpu()) for name in one)
