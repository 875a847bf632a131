"""What only MiniClustering promises: fine clusters, and heads that may be unsure."""

import numpy as np
import pytest
from sklearn.base import clone

import skdeepcluster
from skdeepcluster import MiniClustering
from tests.samples import X


def test_fewer_mini_clusters_than_clusters_are_refused():
    with pytest.raises(ValueError, match="n_mini_clusters=2 should be >= n_clusters=3"):
        MiniClustering(3, n_mini_clusters=2).fit(X)


def test_batches_without_confident_samples_change_nothing(monkeypatch):
    # Heads that are never sure, and stay so.
    monkeypatch.setattr("skdeepcluster.estimators._mini.FEATURE_LOGIT_SCALE", 0.1)
    slow = skdeepcluster.base._building.Recipe(512, learning_rate=1e-9, max_steps=20)
    monkeypatch.setattr(MiniClustering, "_head_fit", slow)
    model = MiniClustering(3, random_state=0, max_epochs=7).fit(X)
    start = clone(model).set_params(max_epochs=0).fit(X)
    assert model.n_skipped_steps_ == 7
    np.testing.assert_array_equal(model.predict_proba(X), start.predict_proba(X))
