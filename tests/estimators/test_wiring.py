"""What an estimator is told arrives where it acts: at its objective and at its phases.

Each fit builds everything and trains nothing. What was handed over is recorded under the name of
who got it: ``MiniObjective.mini_weight``, or ``clustering.epochs`` of a phase.
"""

import inspect

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base import _clusterer, _encoder_origin, _protection, _two_stage
from skdeepcluster.estimators import _discrimination, _generative
from skdeepcluster.networks import EmbeddingNetwork
from skdeepcluster.objectives import (
    BYOLObjective,
    CalibratedObjective,
    ContrastiveObjective,
    DiscriminationObjective,
    GenerativeObjective,
    InterpolationObjective,
    MiniObjective,
    MoCoObjective,
    ProximityObjective,
)
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from skdeepcluster.training import PeriodicHook, Plan, Trainer
from tests.mutants import NOT_WIRED

# Heads that were not trained need not use all clusters.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

K = 9  # not the default
FEATURES, _ = make_blobs(200, centers=K, n_features=5, cluster_std=0.1, random_state=0)
IMAGES = np.random.default_rng(0).uniform(size=(60, 1, 8, 8)).astype(np.float32)
BACKBONE = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
TRAINING = {"max_epochs": 3, "batch_size": 50, "learning_rate": 0.123}


def trained(phase, **changes):
    """Return what a phase is handed for TRAINING."""
    fields = {"epochs": 3, "batch_size": 50, "rate 0": 0.123, **changes}
    return {f"{phase}.{field}": value for field, value in fields.items()}


def objective(name, **arguments):
    """Return what the constructor of an objective is handed."""
    return {f"{name}.{argument}": value for argument, value in arguments.items()}


# For each method: arguments, and who is to get what for them. Values differ, so that none can
# take another's place; what is not given keeps its default.
WIRES = {
    MiniClustering: [
        (
            {
                **TRAINING,
                "n_clusters": 7,
                "n_mini_clusters": 11,
                "init": "merged",
                "confidence_threshold": 0.7,
                "occupancy_threshold": 0.2,
                "mini_weight": 0.4,
                "alignment_weight": 0.6,
                "marginal_weight": 0.8,
                "reweight": False,
                "fine_tune": True,
                "pretraining": BYOL(momentum=0.65, batch_size=33),
                "calibrate": False,
            },
            trained("clustering")
            | objective(
                "MiniObjective",
                n_clusters=7,
                n_mini_clusters=11,
                confidence_threshold=0.7,
                occupancy_threshold=0.2,
                mini_weight=0.4,
                alignment_weight=0.6,
                marginal_weight=0.8,
                reweight=False,
                fine_tune=True,
            )
            | {
                "candidate_partitions.init": "merged",
                "BYOLObjective.momentum": 0.65,
                "pretraining.batch_size": 33,
                "ran": ["pretraining", "start", "clustering"],
            },
        ),
        (
            {"init": "kmeans", "pretraining": None},
            {
                "MiniObjective.n_mini_clusters": 4 * K,
                "candidate_partitions.n_clusters": K,
                "candidate_partitions.init": "kmeans",
                "ran": ["start", "clustering", "calibration"],
            },
        ),
        ({"n_clusters": 3, "n_mini_clusters": 5}, {"MiniObjective.n_mini_clusters": 5}),
        (
            {},
            {
                "build_views.n_clusters": K,
                "candidate_partitions.init": "auto",
                "choose_partition.n_clusters": K,
                "protected.n_clusters": K,
            },
        ),
        # Who names a partition is not sent back to another.
        ({"init": "kmeans"}, {"protected.n_clusters": None}),
    ],
    CalibratedDeepClustering: [
        (
            {
                **TRAINING,
                "n_clusters": 7,
                "n_regions": 11,
                "init": "merged",
                "selection": "balanced",
                "confidence_threshold": 0.7,
                "entropy_weight": 0.4,
                "calibration_head": False,
                "stop_gradient": False,
                "fine_tune": True,
                "pretraining": None,
                "calibrate": False,
            },
            trained("clustering")
            | objective(
                "CalibratedObjective",
                n_clusters=7,
                n_regions=11,
                proportional=False,
                confidence_threshold=0.7,
                entropy_weight=0.4,
                calibration_head=False,
                stop_gradient=False,
                fine_tune=True,
            )
            | {"candidate_partitions.init": "merged", "ran": ["start", "clustering"]},
        ),
        (
            {"init": "random"},
            {
                "CalibratedObjective.n_regions": 4 * K,
                "candidate_partitions.init": None,
                "ran": ["pretraining", "clustering", "calibration"],
            },
        ),
    ],
    StableClusterDiscrimination: [
        (
            {
                **TRAINING,
                "n_clusters": 7,
                "init": "merged",
                "constraint": "entropy",
                "lower_bound": 0.7,
                "entropy_weight": 0.4,
                "over_clusterings": [3, 2],
                "label_share": 0.6,
                "temperature": 0.07,
                "neighbor_weight": 2.0,
                "refine": True,
                "center_learning_rate": 0.3,
                "pretraining": BYOL(momentum=0.65),
            },
            trained("clustering", **{"rate 1": 0.3})
            | objective(
                "DiscriminationObjective",
                n_clusters=[7, 7],
                n_over_clusters=[14, 21],
                constraint="entropy",
                lower_bound=0.7,
                entropy_weight=0.4,
                label_share=0.6,
                temperature=0.07,
                neighbor_weight=2.0,
            )
            | {
                "candidate_partitions.init": "merged",
                "BYOLObjective.momentum": 0.65,
                "ran": ["pretraining", "clustering", "refinement", "calibration"],
            },
        ),
        (
            {"n_clusters": [3, 5]},
            {
                "DiscriminationObjective.n_clusters": [3] * 3 + [5] * 3,
                "ran": ["clustering", "calibration", "calibration"],
            },
        ),
        ({}, {"protected.n_clusters": K}),
        ({"init": "kmeans"}, {"protected.n_clusters": None}),
        (
            {"n_clusters": [3, 5], "init": "kmeans", "calibrate": False},
            {"DiscriminationObjective.n_clusters": [3, 5], "ran": ["clustering"]},
        ),
    ],
    ProximityDeepClustering: [
        (
            {
                **TRAINING,
                "n_clusters": 7,
                "n_neighbors": 3,
                "filters": "edge",
                "centroid": "medoid",
                "interpolation_weight": 0.7,
                "code_weight": 0.4,
                "pretraining_epochs": 6,
                "calibrate": False,
            },
            trained("pretraining", epochs=6)
            | trained("clustering")
            | objective(
                "ProximityObjective",
                n_clusters=7,
                n_neighbors=3,
                filters="edge",
                medoids=True,
                code_weight=0.4,
            )
            | {
                "InterpolationObjective.weight": 0.7,
                "ran": ["pretraining", "clustering"],
            },
        ),
        (
            {"interpolation_weight": 0.0, "schedule": "hard", "max_epochs": 100},
            {
                "InterpolationObjective.critic": None,
                "ProximityObjective.n_regions": 4 * K,
                "refresh.step": 0.5,  # all the way at once
            },
        ),
    ],
    GenerativeCalibrationClustering: [
        (
            {
                **TRAINING,
                "max_epochs": 100,  # enough for all rounds
                "n_clusters": 7,
                "init": "merged",
                "generated_ratio": 0.5,
                "n_rounds": 4,
                "confidence_threshold": 0.7,
                "size_weight": 0.4,
                "generated_weight": 0.6,
                "discrepancy_weight": 0.8,
                "matching_weight": 0.2,
                "metric_weight": 0.3,
                "reliability_weighting": False,
                "guidance": 2.5,
                "pretraining": BYOL(momentum=0.65),
                "generation_epochs": 6,
                "generator_learning_rate": 0.03,
                "calibrate": False,
            },
            trained("generation", epochs=6, **{"rate 0": 0.03})
            | trained("clustering", epochs=100, **{"rate 2": 0.03})
            | objective(
                "GenerativeObjective",
                n_clusters=7,
                ratio=0.5,
                n_generated=29 * 7,  # 200 samples are 28.6 for each
                confidence_threshold=0.7,
                size_weight=0.4,
                generated_weight=0.6,
                discrepancy_weight=0.8,
                matching_weight=0.2,
                metric_weight=0.3,
                reliable=False,
                guidance=2.5,
            )
            | {
                "build_denoiser.n_classes": 7,
                "candidate_partitions.init": "merged",
                "BYOLObjective.momentum": 0.65,
                "PeriodicHook.times": 4,
                "ran": ["pretraining", "start", "generation", "clustering"],
            },
        ),
        (
            {"generated_ratio": 0.0},
            {
                "GenerativeObjective.denoiser": None,
                "GenerativeObjective.n_parts": 4 * K,
                "ran": ["pretraining", "start", "clustering", "calibration"],
            },
        ),
    ],
    SimCLR: [
        (
            {**TRAINING, "temperature": 0.3},
            trained("pretraining") | objective("ContrastiveObjective", temperature=0.3),
        ),
    ],
    MoCo: [
        (
            {
                **TRAINING,
                "queue_size": 13,
                "temperature": 0.3,
                "momentum": 0.7,
                "final_momentum": 0.6,
            },
            trained("pretraining")
            | objective(
                "MoCoObjective", queue_size=13, temperature=0.3, momentum=0.7, final_momentum=0.6
            ),
        ),
    ],
    BYOL: [
        (
            {**TRAINING, "hidden_dim": 13, "embedding_dim": 12, "momentum": 0.7},
            trained("pretraining")
            | objective("BYOLObjective", hidden_dim=13, momentum=0.7)
            | {"EmbeddingNetwork.embedding_dim": 12},
        ),
    ],
}
# A backbone that arrives trained is trained by the method itself.
BY_THE_HEADS = {"pretraining": SimCLR(max_epochs=0), "fine_tune": True}
ROUND = ["pretraining", "start", "clustering", "calibration"]
# The same for images: what they get where nothing is said, and what features do not show.
IMAGE_WIRES = {
    MiniClustering: [
        (
            BY_THE_HEADS,
            {
                "candidate_partitions.init": "kmeans",
                "frozen_backbone.backbone": None,
                "ran": ["pretraining", "clustering", "calibration"],
            }
            | objective(
                "MiniObjective",
                alignment_weight=0.2,
                marginal_weight=0.0,
                fine_tune=True,
                neighbor_views=False,
            ),
        ),
        (
            {"fine_tune": False},  # of a backbone that arrives trained the features are clustered
            {
                "frozen_backbone.backbone": BACKBONE,
                "candidate_partitions.init": "auto",
                "ran": ["pretraining", "start", "clustering", "calibration"],
            }
            | objective(
                "MiniObjective",
                alignment_weight=0.0,
                marginal_weight=1.0,
                fine_tune=False,
                neighbor_views=True,
            ),
        ),
        (
            {"fine_tune": True},
            {
                "frozen_backbone.backbone": BACKBONE,
                "MiniObjective.fine_tune": False,
                "fine-tuning.batch_size": min(64, len(IMAGES)),
                "fine-tuning.rate 0": 1e-4,
                "ran": [*ROUND, "fine-tuning", *ROUND],
            },
        ),
        ({"fine_tune": True, "batch_size": 17}, {"fine-tuning.batch_size": 17}),
        (
            {"init": "merged", **BY_THE_HEADS},
            {"candidate_partitions.init": "merged"},
        ),
        (
            {"pretraining": SimCLR(batch_size=33), "fine_tune": False},
            {
                "frozen_backbone.backbone": None,
                "pretraining.batch_size": 33,
                "MiniObjective.fine_tune": False,
            },
        ),
    ],
    StableClusterDiscrimination: [
        (
            {},
            {
                "frozen_backbone.backbone": None,
                "DiscriminationObjective.lower_bound": 0.9,
                "DiscriminationObjective.n_clusters": [K],
                "candidate_partitions.init": None,
            },
        ),
        ({"init": "kmeans"}, {"candidate_partitions.init": "kmeans"}),
        (
            {"fine_tune": False},
            {"frozen_backbone.backbone": BACKBONE, "ran": ["clustering", "calibration"]},
        ),
    ],
    ProximityDeepClustering: [
        ({}, {"frozen_backbone.backbone": None}),
        ({"fine_tune": False}, {"frozen_backbone.backbone": BACKBONE}),
    ],
    GenerativeCalibrationClustering: [
        ({}, {"frozen_backbone.backbone": BACKBONE}),
        (
            {"generated_ratio": 0.0, **BY_THE_HEADS},
            {
                "frozen_backbone.backbone": None,
                "GenerativeObjective.discrepancy_weight": 1.0,
            },
        ),
    ],
    BYOL: [
        (
            {"hidden_dim": 13, "embedding_dim": 12},
            {"BYOLObjective.hidden_dim": 13, "EmbeddingNetwork.embedding_dim": 12},
        ),
    ],
}


@pytest.fixture
def handed(monkeypatch):
    """Record what a fit hands over, and let it train nothing."""
    record = {"ran": []}

    def listen(owner, name, getter):
        original = getattr(owner, name)

        def listener(*args, **kwargs):
            bound = inspect.signature(original).bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = {**bound.arguments, **bound.arguments.get("state", {})}
            if f"{getter}.phases" in record:  # that of the fit comes first, others are beside it
                arguments = {}
            for argument, value in arguments.items():
                record[f"{getter}.{argument}"] = value
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, listener)

    def run(trainer, phase):
        if phase.name == "teaching":  # of an encoder, where a start asks for it
            return
        trainer.plans[phase.name] = Plan(phase.epochs, phase.batch_size, 0.1)
        record["ran"].append(phase.name)
        for field in ("epochs", "batch_size"):
            record[f"{phase.name}.{field}"] = getattr(phase, field)
        for number, group in enumerate(phase.parameter_groups):
            record[f"{phase.name}.rate {number}"] = group["lr"]
        if isinstance(phase.hook, PeriodicHook):
            phase.hook.act()

    for listening in (
        BYOLObjective,
        CalibratedObjective,
        ContrastiveObjective,
        DiscriminationObjective,
        EmbeddingNetwork,
        GenerativeObjective,
        InterpolationObjective,
        MiniObjective,
        MoCoObjective,
        PeriodicHook,
        ProximityObjective,
        Trainer,
    ):
        listen(listening, "__init__", listening.__name__)
    listen(ProximityObjective, "refresh", "refresh")
    listen(_generative, "build_denoiser", "build_denoiser")
    listen(_clusterer, "build_views", "build_views")
    listen(_encoder_origin, "frozen_backbone", "frozen_backbone")
    listen(_two_stage, "choose_partition", "choose_partition")
    listen(_protection, "choose_partition", "protected")  # from ending below k-means
    for module in (_two_stage, _discrimination):
        listen(module, "candidate_partitions", "candidate_partitions")
    monkeypatch.setattr(Trainer, "run", run)
    return record


def defaults(method):
    signature = inspect.signature(method)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def cases(wires):
    return [
        pytest.param(method, *wire, id=f"{method.__name__}-{number}")
        for method in wires
        for number, wire in enumerate(wires[method])
    ]


@pytest.mark.parametrize("method", WIRES, ids=lambda method: method.__name__)
def test_every_argument_has_a_wire(method):
    wires = [*WIRES[method], *IMAGE_WIRES.get(method, [])]
    wired = {name for arguments, _ in wires for name in arguments}
    assert wired == defaults(method).keys() - NOT_WIRED


@pytest.mark.parametrize(("method", "arguments", "expected"), cases(WIRES))
def test_what_is_given_arrives(method, arguments, expected, handed):
    for name, value in arguments.items():
        assert value != defaults(method)[name], f"{name}={value!r} is the default"
    check(method, arguments, FEATURES, expected, handed)


@pytest.mark.parametrize(("method", "arguments", "expected"), cases(IMAGE_WIRES))
def test_what_is_given_for_images_arrives(method, arguments, expected, handed):
    check(method, {"backbone": BACKBONE, **arguments}, IMAGES, expected, handed)


def test_more_clusters_are_learned_where_the_number_is_to_be_found(handed):
    arguments = {"n_clusters": "auto", "calibrate": False}
    expected = objective("MiniObjective", n_clusters=30)
    check(MiniClustering, arguments, FEATURES, expected, handed)
    model = MiniClustering("auto", calibrate=False, random_state=0).fit(FEATURES)
    assert model.cut_scores_


def test_what_has_to_learn_is_not_left_as_it_came(handed):
    with pytest.raises(ValueError, match="has to learn"):
        StableClusterDiscrimination(K, fine_tune=False).fit(IMAGES)


def test_what_cannot_learn_is_not_asked_to(handed):
    with pytest.raises(ValueError, match="no parameter of this one"):
        MiniClustering(K, backbone=nn.Flatten(), fine_tune=True).fit(IMAGES)


def check(method, arguments, X, expected, handed):
    if "n_clusters" in defaults(method):
        arguments = {"n_clusters": K, **arguments}
    method(random_state=0, **arguments).fit(X)
    found = {place: handed.get(place) for place in expected}
    assert found == {
        place: pytest.approx(value) if isinstance(value, float) else value
        for place, value in expected.items()
    }
    assert handed["ran"] == handed["Trainer.phases"]
