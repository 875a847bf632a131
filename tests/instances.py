"""All estimators, in one list: a new method is one line in METHODS.

scikit-learn's checks run on it with its defaults, and what every estimator promises on three
clusters. Where a method has an option that changes its course, VARIANTS has a line for that, too.
"""

import inspect
import pickle
from functools import cache

import pytest
import torch
from sklearn.base import clone
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests import samples

METHODS = {
    "default": MiniClustering(3, random_state=0),
    "calibrated": CalibratedDeepClustering(3, random_state=0),
    "one stage": StableClusterDiscrimination(3, random_state=0),
    "proximity": ProximityDeepClustering(3, random_state=0),
    "generative": GenerativeCalibrationClustering(3, random_state=0),
}
VARIANTS = {
    "fine-tuned": MiniClustering(3, random_state=0, fine_tune=True, learning_rate=1e-3),
    "no pretraining": MiniClustering(3, random_state=0, pretraining=None),
    "merged": MiniClustering(3, random_state=0, init="merged"),
    "one head": CalibratedDeepClustering(
        3, random_state=0, calibration_head=False, confidence_threshold=0.9
    ),
    "random start": CalibratedDeepClustering(
        3, random_state=0, init="random", selection="balanced"
    ),
    "refined": StableClusterDiscrimination(3, random_state=0, init="kmeans", refine=True),
    "random centers": StableClusterDiscrimination(
        3, random_state=0, init="random", constraint="entropy"
    ),
    "all at once": ProximityDeepClustering(
        3, random_state=0, filters=None, centroid="medoid", interpolation_weight=0.0
    ),
    "nothing generated": GenerativeCalibrationClustering(3, random_state=0, generated_ratio=0),
}
ESTIMATORS = METHODS | VARIANTS
# Ablations whose clusters need not be right, nor all be there.
CRIPPLED = {"random start", "random centers"}
LOST_CLUSTERS = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CLUSTERERS = [type(method) for method in METHODS.values()]
PRETRAINERS = [SimCLR, MoCo, BYOL]
TAKING_A_PRETRAINING = [
    method for method in CLUSTERERS if "pretraining" in inspect.signature(method).parameters
]
EVERYONE = pytest.mark.parametrize("estimator", CLUSTERERS + PRETRAINERS)


@cache
def _fitted(made_by, name):
    estimator = next(e for e in ESTIMATORS.values() if repr(e) == made_by)
    return pickle.dumps(clone(estimator).fit(getattr(samples, name)))


def fitted(estimator, to="X"):
    """Return a fitted copy of one of ESTIMATORS; each is fitted to a shared array only once.

    For tests of what is there after a fit. Whoever tests the fit itself calls it.
    """
    return pickle.loads(_fitted(repr(estimator), to))


def brief(estimator, n_epochs=2, **parameters):
    """Return an estimator, given as its class, with so few epochs in each phase of its own.

    Of all these parameters it gets those that it has.
    """
    usual = {"n_clusters": 3, "max_epochs": n_epochs, "random_state": 0}
    usual |= {"pretraining_epochs": n_epochs, "generation_epochs": n_epochs, "n_rounds": 1}
    own = inspect.signature(estimator).parameters
    known = {name: value for name, value in (usual | parameters).items() if name in own}
    return estimator(**known)


def tiny_backbone():
    """Return the smallest encoder of colour images, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


def image_model(method=MiniClustering, pretraining=None, **parameters):
    return method(
        2,
        backbone=tiny_backbone(),
        random_state=0,
        max_epochs=1,
        pretraining=pretraining,
        **parameters,
    )


IMAGE_METHODS = {
    "default": image_model(),
    "fine-tuned": image_model(fine_tune=True),
    "end to end": image_model(pretraining=SimCLR(max_epochs=0), fine_tune=True),
    # So few steps lead nowhere from a random start; these stay near the start.
    "one stage": image_model(
        StableClusterDiscrimination,
        init="kmeans",
        learning_rate=1e-3,
        center_learning_rate=1e-2,
    ),
}
