"""Estimators in pipelines, searches, other processes and notebooks."""

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepcluster import MiniClustering
from tests.instances import METHODS, image_model
from tests.samples import IMAGES, X, Y


def test_pipeline(sound_estimator):
    pipeline = make_pipeline(StandardScaler(), sound_estimator).fit(X)
    assert adjusted_rand_score(Y, pipeline.predict(X)) > 0.95
    assert pipeline.predict_proba(X).shape == (90, 3)
    assert pipeline.transform(X).shape[0] == 90


# That estimators travel to other processes is seen with one of them.
@pytest.mark.parametrize(("name", "n_jobs"), [*((name, 1) for name in METHODS), ("default", 2)])
def test_grid_search_on_features(name, n_jobs):
    search = GridSearchCV(clone(METHODS[name]), {"n_clusters": [2, 3]}, cv=2, n_jobs=n_jobs).fit(X)
    assert search.best_params_ == {"n_clusters": 3}
    assert adjusted_rand_score(Y, search.predict(X)) > 0.95


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_on_images(n_jobs):
    search = GridSearchCV(image_model(), {"alignment_weight": [0.0, 0.2]}, cv=2, n_jobs=n_jobs).fit(
        IMAGES
    )
    assert search.predict(IMAGES).shape == (24,)


def test_loky_workers_fit_and_predict():
    X, _ = make_blobs(90, centers=3, random_state=0)
    models = joblib.Parallel(n_jobs=2)(
        joblib.delayed(MiniClustering(3, random_state=seed).fit)(X) for seed in range(2)
    )
    expected = MiniClustering(3, random_state=1).fit(X)
    np.testing.assert_array_equal(models[1].labels_, expected.labels_)
    np.testing.assert_array_equal(models[1].predict(X), models[1].labels_)


def test_get_feature_names_out_and_set_output(estimator):
    estimator.set_output(transform="pandas").fit(X)
    frame = estimator.transform(X)
    assert list(frame.columns) == list(estimator.get_feature_names_out())
    assert frame.columns[0] == f"{type(estimator).__name__.lower()}0"


def test_html_repr_and_documentation_link(estimator):
    html = estimator._repr_html_()
    name = type(estimator).__name__
    assert name in html
    assert f"skdeepcluster.{name}.html" in html
