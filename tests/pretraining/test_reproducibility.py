"""The seed alone decides, and nothing around a fit is changed."""

import copy

import numpy as np
import torch
from sklearn.base import clone

from tests.pretraining.pretraining_helpers import feature_backbone, image_backbone, same_states
from tests.samples import IMAGES, NOISE, X, Y


def test_same_seed_same_bits_and_another_seed_other_bits(case):
    model, data = case
    expected = clone(model.set_params(max_epochs=2)).fit_transform(data)
    torch.manual_seed(5)
    np.testing.assert_array_equal(clone(model).fit_transform(data), expected)
    np.testing.assert_array_equal(
        clone(model).set_params(random_state=np.random.RandomState(1)).fit_transform(data),
        clone(model).set_params(random_state=np.random.RandomState(1)).fit_transform(data),
    )
    assert not np.array_equal(model.set_params(random_state=1).fit_transform(data), expected)


def test_dropout_is_drawn_from_the_seed(method):
    model = method.set_params(backbone=feature_backbone(0.5))
    expected = clone(model).fit_transform(NOISE)
    torch.manual_seed(11)
    model.fit(NOISE)
    np.testing.assert_array_equal(model.transform(NOISE), expected)
    # In use nothing is dropped.
    np.testing.assert_array_equal(model.transform(NOISE), expected)
    other = clone(model).set_params(backbone=feature_backbone(0.0))
    assert not np.array_equal(other.fit_transform(NOISE), expected)


def test_labels_are_never_used(method):
    expected = clone(method).fit(X).transform(X)
    np.testing.assert_array_equal(method.fit(X, Y).transform(X), expected)
    np.testing.assert_array_equal(method.fit_transform(X, Y[::-1]), expected)


def test_global_state_is_left_alone(case):
    model, data = case
    np.random.seed(3)  # noqa: NPY002 - the legacy global state is what is tested
    torch.manual_seed(3)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - as above
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    model.fit(data).transform(data)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 - as above
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads


def test_parameters_are_left_alone(case):
    model, data = case
    backbone = image_backbone() if data is IMAGES else feature_backbone()
    before = copy.deepcopy(backbone.state_dict())
    parameters = model.set_params(backbone=backbone).get_params()
    model.fit(data)
    assert model.get_params() == parameters
    assert model.backbone is backbone
    assert same_states(before, backbone.state_dict())
    assert not same_states(
        before, list(model.backbone_.modules())[0 if data is NOISE else 2].state_dict()
    )
