"""Copies, names of outputs, notebooks, and searches over nested parameters."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skdeepcluster import MiniClustering
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.pretraining.pretraining_helpers import clusterer, phases
from tests.samples import NOISE, X


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return joblib.load(buffer)


@pytest.mark.parametrize("copied", [by_pickle, by_joblib, copy.deepcopy])
def test_copies_embed_the_same(copied, case):
    model, data = case
    embedding = model.set_params(max_epochs=1).fit_transform(data)
    before = dict(vars(model))
    np.testing.assert_array_equal(copied(model).transform(data), embedding)
    assert all(vars(model)[name] is value for name, value in before.items())


def test_a_pickle_holds_no_training_data(method):
    def size(data):
        return len(pickle.dumps(method.set_params(max_epochs=1).fit(data)))

    assert abs(size(np.tile(NOISE, (20, 1))) - size(NOISE)) < 100


def test_names_of_the_outputs(method):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcde"))
    embedding = method.set_output(transform="pandas").fit_transform(frame)
    assert list(embedding.columns) == list(method.get_feature_names_out())
    name = type(method).__name__.lower()
    assert list(embedding.columns[:2]) == [f"{name}0", f"{name}1"]
    assert list(method.feature_names_in_) == list("abcde")


def test_unfitted_methods_say_so(method):
    for attribute in ("transform", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(method, attribute)(X)
    with pytest.raises(NotFittedError):
        _ = method.backbone_
    assert not hasattr(method, "backbone_")


def test_html_repr_shows_the_nested_method(method):
    html = clusterer(pretraining=method)._repr_html_()
    assert f"skdeepcluster.pretraining.{type(method).__name__}.html" in method._repr_html_()
    assert type(method).__name__ in html


def test_nested_parameters_can_be_set_and_are_cloned():
    model = MiniClustering(3, pretraining=BYOL(max_epochs=2))
    assert model.get_params()["pretraining__max_epochs"] == 2
    model.set_params(pretraining__momentum=0.5, pretraining__max_epochs=3)
    copied = clone(model)
    assert copied.pretraining is not model.pretraining
    nested = {k: v for k, v in copied.get_params().items() if k.startswith("pretraining__")}
    expected = BYOL(momentum=0.5, max_epochs=3).get_params()
    assert nested == {f"pretraining__{k}": v for k, v in expected.items()}
    copied.set_params(pretraining=SimCLR(), pretraining__temperature=0.3)
    assert copied.pretraining.temperature == 0.3
    assert model.pretraining.momentum == 0.5


def test_a_grid_search_over_nested_parameters():
    model = clusterer(pretraining=BYOL())
    search = GridSearchCV(model, {"pretraining__max_epochs": [1, 3]}, cv=2).fit(X)
    best = search.best_params_["pretraining__max_epochs"]
    assert phases(search.best_estimator_).count("pretraining") == best
    assert model.pretraining.max_epochs == "auto"
    assert len(np.unique(search.cv_results_["mean_test_score"])) == 2


def test_a_grid_search_over_methods():
    methods = [SimCLR(max_epochs=1), MoCo(max_epochs=1), None]
    search = GridSearchCV(clusterer(), {"pretraining": methods}, cv=2).fit(X)
    assert len(search.cv_results_["params"]) == 3
    assert search.predict(X).shape == (90,)
