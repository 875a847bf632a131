"""A warm start goes on from the last fit."""

import numpy as np
import pytest
import torch

from skdeepcluster import MiniClustering
from tests.samples import X


def test_warm_start_goes_on_from_the_last_fit():
    noise = np.random.default_rng(0).normal(size=(90, 5))  # nothing saturates
    model = MiniClustering(3, random_state=0, warm_start=True, max_epochs=0).fit(noise)
    before = model._model.head.weight.clone()
    embedding = model.transform(noise)
    model.set_params(max_epochs=1).fit(noise)
    assert [r["phase"] for r in model.history_ if r["phase"] != "calibration"] == ["clustering"]
    np.testing.assert_array_equal(model.transform(noise), embedding)
    assert not torch.equal(model._model.head.weight, before)
    assert torch.allclose(model._model.head.weight, before, atol=0.1)


@pytest.mark.parametrize("n", [70, 30, 5])  # each fine cluster needs five samples at a start
def test_warm_start_on_fewer_samples(method, n):
    model = method.set_params(warm_start=True).fit(X).fit(X[:n])
    assert len(model.labels_) == n
    assert len(model.fit(X).labels_) == len(X)


@pytest.mark.parametrize("change", [{"n_clusters": 4}, {"n_mini_clusters": 5}, {"reweight": False}])
def test_warm_start_after_a_change_of_parameters(change):
    model = MiniClustering(3, random_state=0, warm_start=True).fit(X)
    model.set_params(**change)
    if "reweight" in change:
        model.fit(X)
        assert model._objective.reweight is False
    else:
        with pytest.raises(ValueError, match="warm_start"):
            model.fit(X)


def test_warm_start_refuses_other_samples(method):
    model = method.set_params(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X[:, :4])
