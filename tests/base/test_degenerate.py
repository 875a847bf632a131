"""Training that goes wrong is announced, and leaves a model that is finite all the same."""

import numpy as np
import pytest
import torch

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.base.soundness_helpers import fit, flat_backbone
from tests.instances import CLUSTERERS, PRETRAINERS, brief

RNG = np.random.default_rng(0)
BLOBS = (RNG.normal(size=(30, 4)) + 6 * np.eye(4)[np.arange(30) % 3]).astype(np.float32)
PICTURES = RNG.integers(0, 128, size=(12, 3, 8, 8), dtype=np.uint8)
PICTURES[::2, :, :4] += 127
DATA = {"features": BLOBS, "images": PICTURES}
EPOCHS = 3


def end_of(estimator, X, **parameters):
    """Fit until the model is sound or says that it diverged; return it and the error, if any."""
    if X.ndim == 4:
        parameters["backbone"] = flat_backbone(X.shape[1])
    # Where none is the default, there is none here either.
    pretraining = None if estimator is StableClusterDiscrimination else SimCLR(max_epochs=2)
    model = brief(estimator, max_epochs=EPOCHS, pretraining=pretraining).set_params(**parameters)
    outcome = fit(model, X)
    error = outcome if isinstance(outcome, Exception) else None
    assert error is None or isinstance(error, DivergenceError), error
    assert model.n_iter_ <= EPOCHS
    return model, error


@pytest.fixture(params=DATA)
def X(request):
    return DATA[request.param]


# Steps far too long -----------------------------------------------------------------------------

TRAINED = {
    MiniClustering: {"fine_tune": True},
    CalibratedDeepClustering: {"fine_tune": True},
    StableClusterDiscrimination: {"center_learning_rate": 1e3},
    ProximityDeepClustering: {},
    GenerativeCalibrationClustering: {},
    **{pretrainer: {} for pretrainer in PRETRAINERS},
}


@pytest.mark.parametrize("learning_rate", [10.0, 1e6, 1e10, 1e38])
@pytest.mark.parametrize("estimator", TRAINED)
def test_steps_far_too_long(estimator, learning_rate, X):
    for max_epochs in (1, EPOCHS):
        end_of(
            estimator, X, learning_rate=learning_rate, max_epochs=max_epochs, **TRAINED[estimator]
        )


# Extremes of other parameters -------------------------------------------------------------------

EXTREMES = {
    MiniClustering: [
        {"mini_weight": 1e6, "alignment_weight": 1e6, "marginal_weight": 1e6},
        {"mini_weight": 0, "alignment_weight": 0, "marginal_weight": 0},
        {"mini_weight": 1e30, "fine_tune": True},
        {"occupancy_threshold": 1 - 1e-12, "n_mini_clusters": 10**6},
        {"confidence_threshold": 0.0, "occupancy_threshold": 0.0},
        {"confidence_threshold": 0.999999},
        {"init": "merged", "n_mini_clusters": 3},
    ],
    CalibratedDeepClustering: [
        {"entropy_weight": 1e6},
        {"entropy_weight": 1e30, "fine_tune": True, "stop_gradient": False},
        {"confidence_threshold": 0.999999},
        {"confidence_threshold": 0.999999, "calibration_head": False},
        {"n_regions": 10**6, "init": "random"},
        {"n_regions": 3, "selection": "balanced"},
    ],
    StableClusterDiscrimination: [
        {"temperature": 1e-6},
        {"temperature": 1e6},
        {"neighbor_weight": 1e6},
        {"neighbor_weight": 0, "init": "random"},
        {"constraint": "entropy", "entropy_weight": 1e6},
        {"constraint": None, "init": "random", "label_share": 1.0},
        {"lower_bound": 1.0, "label_share": 0.0, "refine": True},
        {"over_clusterings": [1]},
    ],
    ProximityDeepClustering: [
        {"n_neighbors": 10**6},
        {"n_neighbors": 10**6, "centroid": "medoid", "filters": None},
        {"n_neighbors": 1, "filters": "edge"},
        {"interpolation_weight": 1e6, "code_weight": 1e6},
        {"interpolation_weight": 1e30, "code_weight": 1e30},
        {"interpolation_weight": 0, "code_weight": 0, "schedule": "hard"},
        {"pretraining_epochs": 0},
    ],
    GenerativeCalibrationClustering: [
        {"generated_weight": 1e6, "metric_weight": 1e6, "size_weight": 1e6},
        {"discrepancy_weight": 1e30, "matching_weight": 1e30},
        {"generated_weight": 0, "matching_weight": 0, "metric_weight": 0, "size_weight": 0},
        {"generated_ratio": 0, "init": "merged", "pretraining": None},
        {"generated_ratio": 1e-6, "discrepancy_weight": 1.0},
        {"generated_ratio": 10.0, "guidance": 1e6},
        {"guidance": 1e30, "discrepancy_weight": 1.0},
        {"guidance": 0, "generation_epochs": 1, "n_rounds": 10**6},
        {"generator_learning_rate": 1e38},
        {"confidence_threshold": 0.0, "generator_learning_rate": 1e-30, "n_rounds": 3},
        {"reliability_weighting": False, "n_rounds": 2},
    ],
    SimCLR: [{"temperature": 1e-6}, {"temperature": 1e6}],
    MoCo: [
        {"temperature": 1e-6},
        {"temperature": 1e6, "queue_size": 1},
        {"momentum": 0.0, "final_momentum": 0.0},
        {"momentum": 1.0, "final_momentum": 0.0},
        {"momentum": 0.0, "final_momentum": 1.0},
    ],
    BYOL: [{"momentum": 0.0}, {"momentum": 1.0, "hidden_dim": 1, "embedding_dim": 1}],
}
COMMON = [
    {"batch_size": 2},
    {"batch_size": 10**6},
    {"learning_rate": 1e-30},
    {"precision": "bf16-mixed"},
    {"precision": "16-mixed"},
]
COUNTS = [{"n_clusters": 1}, {"n_clusters": 12}, {"n_clusters": 12, "calibrate": False}]


@pytest.mark.parametrize("estimator", EXTREMES)
def test_extremes(estimator, X):
    counts = COUNTS if estimator in CLUSTERERS else []
    for parameters in EXTREMES[estimator] + COMMON + counts:
        end_of(estimator, X[:12], **parameters)


@pytest.mark.parametrize(
    ("estimator", "parameters"),
    [(MiniClustering, {}), (CalibratedDeepClustering, {"calibration_head": False})],
    ids=["Mini", "Calibrated"],
)
def test_nothing_is_learned_where_nothing_is_sure(estimator, parameters, X):
    unsure = {"confidence_threshold": 1 - 1e-12, "pretraining": None, **parameters}
    after, _ = end_of(estimator, X, **unsure)
    before, _ = end_of(estimator, X, **unsure, max_epochs=0)
    assert after.n_skipped_steps_ == EPOCHS
    assert before.n_skipped_steps_ == 0
    for ours, theirs in zip(after._model.parameters(), before._model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# Fewer kinds of samples than clusters -----------------------------------------------------------

KINDS = {
    "zeros": (1, lambda X: 0 * X),
    "equal rows": (1, lambda X: X[:1].repeat(len(X), axis=0)),
    "two kinds": (2, lambda X: X[[0, 1] * (len(X) // 2)]),
    "one other": (2, lambda X: X[[0] * (len(X) - 1) + [1]]),
}


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("estimator", CLUSTERERS + PRETRAINERS)
def test_fewer_kinds_of_samples_than_clusters(estimator, kinds, X):
    n_kinds, make = KINDS[kinds]
    few = make(X)
    model, _ = end_of(estimator, few)
    assert len(np.unique(model.transform(few), axis=0)) <= n_kinds
    if estimator in CLUSTERERS:
        assert len(np.unique(model.labels_)) <= n_kinds
