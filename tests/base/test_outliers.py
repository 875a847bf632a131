"""Every clusterer tells what is like nothing that it has seen."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import skdeepcluster
from skdeepcluster import MiniClustering
from tests.instances import CLUSTERERS, LOST_CLUSTERS, brief, tiny_backbone
from tests.samples import IMAGES, X

pytestmark = LOST_CLUSTERS
CLUSTERER = pytest.mark.parametrize("method", CLUSTERERS)


@CLUSTERER
def test_what_lies_far_away_has_a_higher_score_than_everything_known(method, tmp_path):
    model = brief(method, 1).fit(X)
    known = model.outlier_score(X)
    assert known.shape == (len(X),)
    assert known.dtype == np.float64
    assert ((known >= 0) & (known <= 1)).all()
    away = model.outlier_score(X.mean(axis=0) + np.array([[30.0], [300.0]]) * np.ones(5))
    assert known.max() < away[0] < away[1] <= 1
    skdeepcluster.save(model, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(model)), skdeepcluster.load(tmp_path / "model")):
        np.testing.assert_array_equal(again.outlier_score(X), known)


@CLUSTERER
def test_images_are_compared_in_the_embedding_or_by_the_features_they_have(method):
    model = brief(method, 1, n_clusters=2, backbone=tiny_backbone()).fit(IMAGES)
    embedded = model.transform(IMAGES).shape[1] if model._frozen is None else model._frozen.width
    assert model._familiar_means.shape[1] == embedded
    scores = model.outlier_score(IMAGES)
    assert scores.shape == (len(IMAGES),)
    assert np.isfinite(scores).all()


def test_a_score_depends_on_the_sample_alone_and_is_written_where_asked():
    model = brief(MiniClustering, 1, calibrate=False).fit(X)
    whole = model.outlier_score(X)
    np.testing.assert_array_equal(model.outlier_score(X[40:43]), whole[40:43])
    out = np.empty(len(X), dtype=np.float32)
    assert model.outlier_score(X, out=out) is out
    np.testing.assert_array_equal(out, whole.astype(np.float32))
    with pytest.raises(ValueError, match="out"):
        model.outlier_score(X, out=np.empty(3))


def test_a_model_that_is_not_fitted_has_none():
    with pytest.raises(NotFittedError):
        MiniClustering(3).outlier_score(X)


def test_whole_classes_that_were_not_there_are_found():
    digits, y = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    known = random.permutation(np.flatnonzero(y < 8))
    train, new, unknown = known[:700], known[700:], np.flatnonzero(y >= 8)
    model = brief(MiniClustering, 1, n_clusters=8, calibrate=False).fit(digits[train])
    scores = model.outlier_score(digits[np.r_[new, unknown]])
    is_unknown = np.arange(len(scores)) >= len(new)
    assert roc_auc_score(is_unknown, scores) > 0.93
    assert 0.02 < np.mean(scores[~is_unknown] > 0.95) < 0.09
