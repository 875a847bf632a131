"""What a method makes of its parameters, and which it refuses."""

import numpy as np
import pytest
from sklearn.base import clone

from skdeepcluster.base._pretrainer import remembered
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.pretraining.pretraining_helpers import clusterer
from tests.samples import NOISE, X


@pytest.mark.parametrize(
    "change",
    [
        SimCLR(temperature=0.1),
        MoCo(temperature=0.5),
        MoCo(queue_size=3),
        MoCo(momentum=0.9),
        MoCo(final_momentum=0.5),
        BYOL(hidden_dim=8),
        BYOL(momentum=0.9),
        BYOL(learning_rate=1e-2),
        BYOL(batch_size=45),
    ],
    ids=str,
)
def test_every_parameter_makes_a_difference(change):
    parameters = {"random_state": 0, "max_epochs": 3}
    changed = clone(change).set_params(**parameters).fit_transform(NOISE)
    assert not np.array_equal(changed, type(change)(**parameters).fit_transform(NOISE))


@pytest.mark.parametrize(
    ("momentum", "n_steps", "expected"),
    [
        ("auto", 10**6, 0.996),
        ("auto", 5000, 0.996),
        ("auto", 400, 0.95),  # a memory of 20 steps
        ("auto", 100, 0.8),
        ("auto", 20, 0.0),
        ("auto", 0, 0.0),
        (0.5, 10**6, 0.5),
        (1, 20, 1.0),
    ],
)
def test_a_teacher_remembers_a_twentieth_of_the_steps(momentum, n_steps, expected):
    assert remembered(momentum, 0.996, n_steps) == pytest.approx(expected)


def make_objective(model, n_samples=1000, n_steps=10**6, images=False):
    embedding = clone(model).set_params(max_epochs=0).fit(X)._model.embedding
    return model._make_objective(embedding, images, n_samples, n_steps)


@pytest.mark.parametrize(
    ("model", "images", "temperature", "both_kinds"),
    [
        (SimCLR(), True, 0.5, True),
        (SimCLR(), False, 1.0, False),
        (SimCLR(temperature=0.2), True, 0.2, True),
        (SimCLR(temperature=0.2), False, 0.2, False),
    ],
    ids=str,
)
def test_images_and_features_have_losses_of_their_own(model, images, temperature, both_kinds):
    objective = make_objective(model, images=images)
    assert objective.temperature == temperature
    assert objective.loss.__name__ == ("nt_xent" if both_kinds else "info_nce")


@pytest.mark.parametrize(
    ("queue_size", "n_samples", "expected"), [(32768, 1001, 500), (100, 1000, 100), (5, 2, 1)]
)
def test_most_negatives_are_of_other_samples(queue_size, n_samples, expected):
    objective = make_objective(MoCo(queue_size=queue_size), n_samples)
    assert len(objective.queue) == expected


@pytest.mark.parametrize(
    ("parameters", "n_steps", "first", "last"),
    [
        ({}, 10**6, 0.99, 0.999),
        ({}, 400, 0.95, 0.95),
        ({}, 10_000, 0.99, 0.998),
        ({"momentum": 0.5}, 10**6, 0.5, 0.999),
        # What is given counts in short fits, too, and by itself it never falls.
        ({"final_momentum": 0.98}, 400, 0.95, 0.98),
        ({"momentum": 0.9, "final_momentum": 0.5}, 400, 0.9, 0.5),
        ({"momentum": 0.97}, 400, 0.97, 0.97),
        ({"momentum": 1.0}, 400, 1.0, 1.0),
    ],
)
def test_momentum_of_moco(parameters, n_steps, first, last):
    objective = make_objective(MoCo(**parameters), n_steps=n_steps)
    objective.begin_epoch(0.0)
    assert objective.teacher.momentum == pytest.approx(first)
    objective.begin_epoch(1.0)
    assert objective.teacher.momentum == pytest.approx(last)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SimCLR(temperature=0), "'temperature' parameter of SimCLR"),
        (SimCLR(temperature="low"), "'temperature' parameter of SimCLR"),
        (SimCLR(temperature=1e-7), r"'temperature' .* in the range \[1e-06, 1000000.0\]"),
        (MoCo(temperature=1e7), r"'temperature' .* in the range \[1e-06, 1000000.0\]"),
        (MoCo(queue_size=0), "'queue_size' parameter of MoCo"),
        (MoCo(temperature="auto"), "'temperature' parameter of MoCo"),
        (MoCo(momentum=1.1), "'momentum' parameter of MoCo"),
        (MoCo(final_momentum=-0.1), "'final_momentum' parameter of MoCo"),
        (BYOL(hidden_dim=0), "'hidden_dim' parameter of BYOL"),
        (BYOL(embedding_dim=2.5), "'embedding_dim' parameter of BYOL"),
        (BYOL(momentum="slow"), "'momentum' parameter of BYOL"),
        (BYOL(learning_rate=0), "'learning_rate' parameter of BYOL"),
    ],
    ids=str,
)
def test_an_invalid_parameter_is_named_alone_and_in_a_clusterer(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    with pytest.raises(ValueError, match=message):
        clusterer(pretraining=model).fit(X)
