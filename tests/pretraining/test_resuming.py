"""Training goes on from the last fit, or from a checkpoint, to the same bits."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skdeepcluster.pretraining import BYOL
from tests.callback_helpers import KillAfter, Killed
from tests.pretraining.pretraining_helpers import clusterer, feature_backbone, phases, same_states
from tests.samples import NOISE, X

# --- warm starts ---------------------------------------------------------------------------------


def test_warm_start_goes_on(case):
    model, data = case
    before = model.set_params(warm_start=True).fit_transform(data)
    model.set_params(max_epochs=0).fit(data)
    np.testing.assert_array_equal(model.transform(data), before)
    start = [parameter.clone() for parameter in model._model.parameters()]
    model.set_params(max_epochs=1, learning_rate=1e-4).fit(data)
    assert phases(model) == ["pretraining"]
    assert not np.array_equal(model.transform(data), before)
    for old, new in zip(start, model._model.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-3)
    more = np.concatenate([data, data[:10]])
    assert model.fit(more).transform(more).shape == (len(more), before.shape[1])


def test_warm_start_refuses_other_shapes(method):
    method.set_params(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="warm_start"):
        method.fit(X[:, :4])
    if isinstance(method, BYOL):
        with pytest.raises(ValueError, match="warm_start"):
            method.set_params(embedding_dim=3).fit(X)


def test_a_clusterer_that_goes_on_is_not_pretrained_again(method):
    model = clusterer(pretraining=method, warm_start=True).fit(X)
    embedding = model.transform(X)
    model.fit(X)
    assert set(phases(model)) == {"clustering"}
    np.testing.assert_array_equal(model.transform(X), embedding)


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_a_killed_fit_resumes_to_the_same_bits(n_epochs, case, tmp_path):
    model, data = case
    whole = clone(model).fit(data)
    model.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("pretraining", n_epochs)).fit(data)
    resumed = clone(model).fit(data)
    assert same_states(resumed._model.state_dict(), whole._model.state_dict())
    np.testing.assert_array_equal(resumed.transform(data), whole.transform(data))
    assert [r["loss"] for r in resumed.history_] == [r["loss"] for r in whole.history_]
    # A finished fit is loaded, not done again.
    again = clone(model).set_callbacks(KillAfter("pretraining", 1)).fit(data)
    np.testing.assert_array_equal(again.transform(data), whole.transform(data))


def test_a_killed_fit_with_dropout_resumes_to_the_same_bits(method, tmp_path):
    model = method.set_params(backbone=feature_backbone(0.5))
    whole = clone(model).fit(NOISE)
    model.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("pretraining", 3)).fit(NOISE)
    np.testing.assert_array_equal(model.fit_transform(NOISE), whole.transform(NOISE))


@pytest.mark.parametrize(("phase", "n_epochs"), [("pretraining", 3), ("clustering", 2)])
def test_a_killed_clusterer_resumes_to_the_same_bits(phase, n_epochs, method, tmp_path):
    model = clusterer(pretraining=method, max_epochs=4)
    whole = clone(model).fit(NOISE)
    model.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter(phase, n_epochs)).fit(NOISE)
    # What makes no difference may differ.
    model.set_params(pretraining__num_workers=1, pretraining__device="cuda:77")
    resumed = clone(model).fit(NOISE)
    np.testing.assert_array_equal(resumed.transform(NOISE), whole.transform(NOISE))
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    assert len(resumed.history_) == len(whole.history_)


def test_a_checkpoint_of_another_pretraining_is_refused(method, tmp_path):
    model = clusterer(pretraining=method, checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match="pretraining__max_epochs: 4 in the checkpoint, 5 now"):
        clone(model).set_params(pretraining__max_epochs=5).fit(X)
    with pytest.raises(ValueError, match=r"pretraining: .* now"):
        clone(model).set_params(pretraining=None).fit(X)
    with pytest.raises(ValueError, match="estimator: MiniClustering in the checkpoint"):
        clone(method).set_params(checkpoint_dir=tmp_path).fit(X)


def test_a_method_fitted_like_another_is_refused(method, tmp_path):
    method.set_params(checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match="max_epochs: 4 in the checkpoint, 5 now"):
        clone(method).set_params(max_epochs=5).fit(X)
    with pytest.raises(ValueError, match="content of X"):
        clone(method).fit(X + 1)
