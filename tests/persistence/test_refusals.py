"""What would not come back the same is not saved."""

import os
import pickle

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from torch import nn

from skdeepcluster import MiniClustering, save
from skdeepcluster.persistence import _files
from skdeepcluster.pretraining import BYOL, SimCLR
from tests.instances import LOST_CLUSTERS
from tests.persistence.cases import FILES, fitted

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


@pytest.mark.parametrize("estimator", [MiniClustering(3), BYOL()])
def test_an_unfitted_estimator_is_not_saved(estimator, tmp_path):
    with pytest.raises(NotFittedError):
        save(estimator, tmp_path / "model")
    assert os.listdir(tmp_path) == []


class NoText:
    """Something that is neither text nor a number."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.set_params(random_state=np.random.RandomState(0)),
            r"random_state is a RandomState.*set_params\(random_state=\.\.\.\)",
        ),
        (
            lambda m: m.set_params(pretraining=SimCLR(random_state=np.random.RandomState(0))),
            r"pretraining__random_state is a RandomState",
        ),
        (lambda m: setattr(m, "note", "mine"), "'note' is unknown"),
        (lambda m: setattr(m, "note_", NoText()), "'note_' is unknown"),
        (lambda m: delattr(m, "cluster_sizes_"), "'cluster_sizes_' is missing"),
        (lambda m: m.history_.append(NoText()), r"history_\.\d+ is a NoText"),
        (lambda m: m.history_.append({1: 2, "a": 3}), r"history_\.\d+ is a dict"),
        (
            lambda m: m.set_params(n_clusters=5),
            r"table has the shape \(3, 12\) instead of \(5, 18\)",
        ),
        (lambda m: m.set_params(n_mini_clusters=40), r"table has the shape \(3, 12\)"),
        (lambda m: m.set_params(pretraining=None), r"backbone\.0\.0\.weight.* unknown"),
        (lambda m: m.set_params(mini_weight=-1), "'mini_weight' parameter of MiniClustering"),
        (lambda m: m.set_params(backbone=nn.Linear(5, 256)), r"backbone\.0\.0\.weight"),
    ],
)
def test_what_would_not_be_the_same_is_not_saved(change, message, tmp_path):
    model = pickle.loads(pickle.dumps(fitted("default")[0]))
    save(model, tmp_path / "model")
    before = {file: (tmp_path / "model" / file).read_bytes() for file in FILES}
    change(model)
    for folder in ("model", "other"):
        with pytest.raises(ValueError, match=f"(?s)This MiniClustering cannot be saved.*{message}"):
            save(model, tmp_path / folder)
    # The earlier model is left, and nothing else.
    assert {f: (tmp_path / "model" / f).read_bytes() for f in FILES} == before
    assert os.listdir(tmp_path) == ["model"]
    assert sorted(os.listdir(tmp_path / "model")) == FILES


def test_networks_that_would_answer_differently_are_not_saved(tmp_path):
    model = pickle.loads(pickle.dumps(fitted("one stage")[0]))
    model.set_params(temperature=0.06)  # no shape tells
    with pytest.raises(ValueError, match=r"answer differently. Set the parameters back"):
        save(model, tmp_path)


def test_what_load_would_refuse_as_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "MOST_TEXT_BYTES", 1000)
    with pytest.raises(ValueError, match="more than load reads"):
        save(fitted("default")[0], tmp_path)
    assert os.listdir(tmp_path) == []
