"""to_onnx: the file answers as the estimator does."""

import os
import sys
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
    to_onnx,
)
from skdeepcluster.pretraining import BYOL, SimCLR
from tests.instances import LOST_CLUSTERS, tiny_backbone
from tests.persistence.cases import BRIEF, BRIEF_CLUSTERER
from tests.persistence.cases import IMAGES as PIXELS
from tests.samples import NOISE

IMAGES = (PIXELS / 255).astype(np.float32)
NAMES = ["embedding", "labels", "probabilities"]


def run(file, data):
    """Return the outputs by name, for one sample, for all, and the shapes that are declared."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    assert (given.name, given.type) == ("X", "tensor(float)")
    assert given.shape == ["n_samples", *data.shape[1:]]
    names = [output.name for output in session.get_outputs()]
    X = data.astype(np.float32)
    return [dict(zip(names, session.run(None, {"X": rows}), strict=True)) for rows in (X[:1], X)]


def assert_answers(found, model, data):
    assert list(found) == NAMES
    embedding, labels, probabilities = found.values()
    np.testing.assert_allclose(embedding, model.transform(data), atol=1e-4)
    np.testing.assert_array_equal(labels, model.predict(data))
    np.testing.assert_allclose(probabilities, model.predict_proba(data), atol=1e-4)
    assert (embedding.dtype, labels.dtype, probabilities.dtype) == (np.float32, np.int64, float)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)


@LOST_CLUSTERS
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (MiniClustering(3, random_state=0), NOISE),
        pytest.param(
            MiniClustering(3, random_state=0, pretraining=None, calibrate=False),
            NOISE,
            marks=pytest.mark.slow,
        ),
        (StableClusterDiscrimination([2, 4], random_state=0), NOISE),
        (CalibratedDeepClustering(3, random_state=0, calibrate=False), NOISE),
        pytest.param(MiniClustering(1, random_state=0), NOISE, marks=pytest.mark.slow),
        (ProximityDeepClustering(3, random_state=0), NOISE),
        pytest.param(
            ProximityDeepClustering(3, random_state=0, calibrate=False),
            NOISE,
            marks=pytest.mark.slow,
        ),
        (GenerativeCalibrationClustering(3, random_state=0), NOISE),
        pytest.param(
            GenerativeCalibrationClustering(3, random_state=0, calibrate=False),
            NOISE,
            marks=pytest.mark.slow,
        ),
        (StableClusterDiscrimination(**BRIEF_CLUSTERER, backbone="test_resnet"), PIXELS),
        (MiniClustering(**BRIEF_CLUSTERER, backbone=tiny_backbone()), IMAGES),
        (
            ProximityDeepClustering(2, **BRIEF, pretraining_epochs=1, backbone="test_resnet"),
            PIXELS,
        ),
        (
            GenerativeCalibrationClustering(
                **BRIEF_CLUSTERER, generation_epochs=1, backbone="test_resnet"
            ),
            PIXELS,
        ),
    ],
)
def test_a_clusterer_answers_as_its_file(model, data, tmp_path):
    model.fit(data)
    before = dict(vars(model))
    to_onnx(model, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert all(vars(model)[name] is value for name, value in before.items())
    one, all_rows = run(tmp_path / "model.onnx", data)
    assert_answers(one, model, data[:1])
    assert_answers(all_rows, model, data)


def test_the_number_that_was_chosen_answers(tmp_path):
    model = StableClusterDiscrimination([2, 4], random_state=0).fit(NOISE)
    for k in (2, 4):
        to_onnx(model.choose(k), str(tmp_path / "model.onnx"))  # the earlier one is replaced
        assert_answers(run(tmp_path / "model.onnx", NOISE)[1], model.choose(k), NOISE)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (SimCLR(max_epochs=1, random_state=0), NOISE),
        (BYOL(**BRIEF, backbone="test_resnet", hidden_dim=16), PIXELS),
    ],
)
def test_a_pretraining_gives_the_embedding(model, data, tmp_path):
    to_onnx(model.fit(data), tmp_path / "model.onnx")
    for found, rows in zip(run(tmp_path / "model.onnx", data), (data[:1], data), strict=True):
        assert list(found) == ["embedding"]
        np.testing.assert_allclose(found["embedding"], model.transform(rows), atol=1e-4)


def test_an_unfitted_estimator_is_not_exported(tmp_path):
    with pytest.raises(NotFittedError):
        to_onnx(MiniClustering(3), tmp_path / "model.onnx")


@pytest.fixture(scope="module")
def fitted():
    return MiniClustering(3, random_state=0, max_epochs=1).fit(NOISE)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(missing, fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}: pip install 'skdeepcluster\[onnx\]'"):
        to_onnx(fitted, tmp_path / "model.onnx")


class Undecided(nn.Linear):
    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


def test_a_backbone_that_cannot_be_exported_is_named(tmp_path):
    model = MiniClustering(3, random_state=0, max_epochs=1, backbone=Undecided(5, 4)).fit(NOISE)
    (tmp_path / "model.onnx").write_text("the last one")
    with pytest.raises(ValueError, match=r"MiniClustering cannot be exported: .*backbone"):
        to_onnx(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "the last one"
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_global_state_is_left_alone(fitted, tmp_path, capfd):
    torch.manual_seed(3)
    state, threads, filters = torch.get_rng_state(), torch.get_num_threads(), warnings.filters[:]
    to_onnx(fitted, tmp_path / "model.onnx")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert warnings.filters == filters
    assert not torch.onnx.is_in_onnx_export()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "is_shown"),
    [("torch.onnx._internal.exporter", False), ("onnxscript.values", False), ("mine", True)],
)
def test_warnings_of_the_exporter_alone_are_hidden(
    module, is_shown, fitted, tmp_path, monkeypatch, recwarn
):
    export = torch.onnx.export

    def warn_and_export(*args, **kwargs):
        warnings.warn_explicit("deprecated", FutureWarning, "file.py", 1, module=module)
        return export(*args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", warn_and_export)
    warnings.simplefilter("always")
    to_onnx(fitted, tmp_path / "model.onnx")
    assert [str(warning.message) for warning in recwarn] == ["deprecated"] * is_shown
