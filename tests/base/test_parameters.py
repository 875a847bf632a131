"""Parameters out of range are named, with what they have to be."""

import numpy as np
import pytest
from sklearn.base import clone
from torch import nn

from skdeepcluster import MiniClustering, StableClusterDiscrimination
from skdeepcluster.pretraining import BYOL, SimCLR
from tests.base.container_helpers import E, short
from tests.base.input_helpers import GOOD, QUICK, pattern
from tests.instances import CLUSTERERS, TAKING_A_PRETRAINING
from tests.samples import X

PARAMETERS = {
    "n_clusters": [0, -1, 1.5, "8", None],
    "max_epochs": [-1, 1.5, "many"],
    "batch_size": [0, 1, -5, 2.5, "large"],
    "learning_rate": [0, -1.0, float("nan"), "fast"],
    "device": ["gpu", "cuda:77", 3],
    "precision": ["8", 32, "64-true", None],
    "backbone": [3, "no_such_network", "resnet18"],
    "pretrained": [3, None],
    "views": ["crop", ["rotate"], 3, None],
    "pretraining": ["BYOL", 3, BYOL],
    "num_workers": [-1, 1.5],
    "checkpoint_dir": [3],
    "random_state": [-1, "seed", 1.5],
    "verbose": ["yes", -1],
    "warm_start": ["yes", 1.5],
    "calibrate": ["yes", None],
    "init": ["random", None, 3],
    "n_mini_clusters": [0, 2, "many"],
    "confidence_threshold": [-0.1, 1.0, "high"],
    "occupancy_threshold": [-0.1, 1.0],
    "mini_weight": [-1],
    "alignment_weight": [-1, None],
    "marginal_weight": [-1, None],
    "reweight": ["yes"],
    "fine_tune": [None, 3],
}
# Of the right type, but with something wrong inside.
INSIDE = [
    ("backbone", nn.Linear(4, 2), "The backbone cannot take samples of shape (3,): ...2x3 and 4x2"),
    ("pretraining", BYOL(max_epochs=-1), "The 'max_epochs' parameter of BYOL ... Got -1 instead."),
    (
        "pretraining",
        BYOL(backbone="resnet18"),
        "pretraining has backbone='resnet18', but ... backbone='auto'. Set it there.",
    ),
]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [(name, value, None) for name, values in PARAMETERS.items() for value in values] + INSIDE,
    ids=lambda value: str(value)[:30],
)
def test_parameters_out_of_range_are_named(name, value, message):
    model = clone(QUICK).set_params(**{name: value})
    theirs = f"The '{name}' parameter of MiniClustering must be ... Got {value!r} instead."
    ours = f"{name}={value!r} "
    expected = pattern(message) if message else f"^({pattern(theirs)}|{pattern(ours)})"
    with pytest.raises((ValueError, TypeError), match=expected):
        model.fit(GOOD)
    model.set_params(**{name: getattr(QUICK, name)}).fit(GOOD)
    assert len(model.labels_) == len(GOOD)


def test_the_table_of_parameters_is_complete():
    # "deep" parameters are those of the pretraining.
    assert PARAMETERS.keys() == QUICK.get_params(deep=False).keys()


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match=r"device='gpu'"):
        MiniClustering(3, device="gpu").fit(X)


@pytest.mark.parametrize("value", [[2, 3], (2, 3), np.array([2, 3])], ids=repr)
@pytest.mark.parametrize(
    "estimator",
    [method for method in CLUSTERERS if method is not StableClusterDiscrimination],
)
def test_several_numbers_of_clusters_are_sent_to_who_takes_them(estimator, value):
    message = r"or 'auto' \(StableClusterDiscrimination alone takes .* n_clusters=\[8, 10, 12\]\)"
    with pytest.raises(ValueError, match=message):
        estimator(value).fit(E)


@pytest.mark.parametrize("value", ["BYOL", "SimCLR", BYOL], ids=repr)
@pytest.mark.parametrize(
    "estimator",
    TAKING_A_PRETRAINING,
)
def test_a_pretraining_that_is_none_is_sent_to_the_public_classes(estimator, value):
    message = r"must be 'auto', .*skdeepcluster\.pretraining\.BYOL\(\), MoCo\(\) or SimCLR\(\)"
    with pytest.raises(ValueError, match=message):
        estimator(2, pretraining=value).fit(E)
    short(estimator, pretraining=SimCLR(max_epochs=1)).fit(E)
