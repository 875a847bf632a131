"""A pretraining as the first phase of a clusterer, and backbones that go on to one."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from skdeepcluster.training import choose_device
from tests.instances import TAKING_A_PRETRAINING
from tests.pretraining.pretraining_helpers import (
    EPOCHS,
    FEW_STEPS,
    METHODS,
    clusterer,
    feature_backbone,
    image_backbone,
    phases,
    same_states,
)
from tests.samples import IMAGES, NOISE, X, Y


@FEW_STEPS
@pytest.mark.parametrize("kind", TAKING_A_PRETRAINING)
def test_every_clusterer_takes_every_method(kind, method):
    model = clusterer(kind, pretraining=method).fit(X)
    assert phases(model)[:EPOCHS] == ["pretraining"] * EPOCHS
    assert phases(model).count("pretraining") == EPOCHS
    assert phases(model)[-1] == "clustering"
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert model.transform(X).shape == (90, 64)
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (MiniClustering, BYOL),
        (CalibratedDeepClustering, MoCo),
        (StableClusterDiscrimination, SimCLR),
        (GenerativeCalibrationClustering, BYOL),
    ],
)
def test_blobs_are_found_after_every_pretraining(kind, method):
    model = kind(3, pretraining=method(), random_state=0, calibrate=False)
    assert adjusted_rand_score(Y, model.fit_predict(X)) > 0.95


def test_each_method_leads_to_an_embedding_of_its_own():
    embeddings = [
        clusterer(pretraining=pretraining, max_epochs=0).fit_transform(X)
        for pretraining in METHODS.values()
    ]
    for one in range(3):
        for other in range(one):
            assert not np.allclose(embeddings[one], embeddings[other], atol=1e-3)


@FEW_STEPS
def test_a_clusterer_learns_what_the_method_learns_alone(case):
    model, data = case
    backbone = model.backbone
    # Neighbours are as many as for eight clusters, and those start from the embedding.
    nested = clone(model).set_params(backbone="auto")
    parameters = {"pretraining": nested, "backbone": backbone, "max_epochs": 0}
    clustering = clusterer(n_clusters=8, init="kmeans", **parameters)
    embedding = clustering.fit_transform(data)
    np.testing.assert_array_equal(model.fit_transform(data), embedding)


def test_auto_is_simclr():
    expected = clusterer(pretraining="auto").fit(X)
    model = clusterer(pretraining=SimCLR()).fit(X)
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))
    np.testing.assert_array_equal(model.labels_, expected.labels_)


@pytest.mark.parametrize("kind", TAKING_A_PRETRAINING)
def test_a_fit_leaves_the_nested_method_as_it_was(kind, method):
    parameters = method.get_params()
    state = dict(vars(method))
    clusterer(kind, pretraining=method).fit(X)
    assert method.get_params() == parameters
    assert vars(method) == state
    with pytest.raises(NotFittedError):
        check_is_fitted(method)


def test_what_a_fit_decides_as_a_whole_is_the_clusterers(method, tmp_path):
    expected = clusterer(pretraining=clone(method)).fit(X)
    method.set_params(
        random_state=7,
        device="cuda:77",
        precision="bf16-mixed",
        num_workers=3,
        verbose=1,
        warm_start=True,
        checkpoint_dir=tmp_path / "none",
    )
    model = clusterer(pretraining=method).fit(X)
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))
    assert model.device_ == str(choose_device("auto"))
    assert not (tmp_path / "none").exists()


def test_a_fitted_method_is_trained_anew(method):
    expected = clusterer(pretraining=clone(method)).fit_transform(X)
    fitted = method.fit(NOISE)
    embedding = fitted.transform(NOISE)
    np.testing.assert_array_equal(clusterer(pretraining=fitted).fit_transform(X), expected)
    np.testing.assert_array_equal(fitted.transform(NOISE), embedding)


@pytest.mark.parametrize("pretraining", ["BYOL", "none", True, KMeans(), SimCLR], ids=repr)
def test_what_is_no_method_is_refused(pretraining):
    with pytest.raises(ValueError, match="'pretraining' parameter of MiniClustering"):
        clusterer(pretraining=pretraining).fit(X)


# --- backbones -----------------------------------------------------------------------------------


@FEW_STEPS
def test_a_trained_backbone_is_pretrained_on_request_alone(method):
    parameters = {"n_clusters": 2, "backbone": image_backbone(), "max_epochs": 0}
    start = parameters["backbone"].state_dict()
    auto = clusterer(pretraining="auto", **parameters).fit(IMAGES)  # of its features
    assert auto.transform(IMAGES).shape == (24, 64)
    assert same_states(start, auto._frozen.backbone[1].state_dict())
    model = clusterer(pretraining=method, **parameters).fit(IMAGES)
    assert phases(model)[:EPOCHS] == ["pretraining"] * EPOCHS
    assert model.transform(IMAGES).shape == (24, 512 if isinstance(method, BYOL) else 128)
    assert not same_states(start, model._model.embedding.backbone[1].state_dict())


@FEW_STEPS
def test_weights_from_a_file_are_pretrained_on_request_alone(tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    parameters = {
        "n_clusters": 2,
        "backbone": "test_resnet",
        "pretrained": tmp_path / "weights.pt",
        "max_epochs": 0,
    }
    start = network.state_dict()["conv1.0.weight"]

    def first_layer(model):
        backbone = (model._frozen or model._model.embedding).backbone
        return backbone[1].state_dict()["conv1.0.weight"].cpu()

    for pretraining, trained in [("auto", False), (SimCLR(max_epochs=1), True)]:
        model = clusterer(pretraining=pretraining, **parameters).fit(IMAGES)
        assert torch.equal(first_layer(model), start) != trained
        # It begins with those weights: one step with AdamW goes no further.
        assert torch.allclose(first_layer(model), start, atol=2e-3)


@pytest.mark.parametrize("backbone", ["resnet34", feature_backbone()], ids=["name", "module"])
@pytest.mark.parametrize("kind", TAKING_A_PRETRAINING)
def test_a_backbone_that_would_be_ignored_is_refused(kind, backbone):
    with pytest.raises(ValueError, match=rf"(?s)pretraining has backbone=.*{kind.__name__}"):
        clusterer(kind, pretraining=SimCLR(backbone=backbone)).fit(X)
    other = nn.Linear(5, 4)
    with pytest.raises(
        ValueError, match=rf"(?s)pretraining has backbone=.*{kind.__name__}.*Linear"
    ):
        clusterer(kind, backbone=other, pretraining=SimCLR(backbone=backbone)).fit(X)


def test_the_same_backbone_may_be_said_twice(method):
    backbone = feature_backbone()
    expected = clusterer(backbone=backbone, pretraining=clone(method)).fit_transform(X)
    model = clusterer(backbone=backbone, pretraining=method.set_params(backbone=backbone))
    np.testing.assert_array_equal(model.fit_transform(X), expected)
    # A clone has a copy of it for each.
    np.testing.assert_array_equal(clone(model).fit_transform(X), expected)
    with torch.no_grad():
        model.pretraining.backbone = copy.deepcopy(backbone)
        model.pretraining.backbone[0][0].weight.add_(1)
    with pytest.raises(ValueError, match="pretraining has backbone="):
        model.fit(X)


def test_weights_that_would_be_ignored_are_refused():
    pretraining = SimCLR(pretrained="weights.pt")
    with pytest.raises(ValueError, match=r"pretraining has pretrained='weights\.pt'"):
        clusterer(pretraining=pretraining, backbone="resnet18").fit(IMAGES)


@FEW_STEPS
@pytest.mark.parametrize("fine_tune", [False, True])
def test_a_clusterer_goes_on_from_a_trained_backbone(case, fine_tune):
    model, data = case
    backbone = model.set_params(max_epochs=1).fit(data).backbone_
    embedding, state = model.transform(data), copy.deepcopy(backbone.state_dict())
    clustering = clusterer(
        n_clusters=2, backbone=backbone, pretraining=None, max_epochs=0, fine_tune=fine_tune
    ).fit(data)
    with torch.no_grad():
        there = torch.from_numpy(data).to(next(backbone.parameters()).device)
        features = backbone(model._model.prepare(there)).flatten(1).cpu()
    if clustering._frozen is not None:  # as an array would be
        features -= features.mean(dim=0)
    expected = nn.functional.normalize(features, dim=1).numpy()
    np.testing.assert_allclose(clustering.transform(data), expected, atol=1e-6)
    clustering.set_params(max_epochs=2).fit(data)
    # What it does with a copy is no matter to the transformer.
    assert same_states(state, backbone.state_dict())
    np.testing.assert_array_equal(model.transform(data), embedding)


@FEW_STEPS
def test_a_trained_backbone_can_be_trained(case):
    model, data = case
    backbone = model.fit(data).backbone_
    again = clone(model).set_params(backbone=backbone, max_epochs=2).fit(data)
    trained = again.backbone_.state_dict()
    assert not same_states(backbone.state_dict(), trained)
    clustering = clusterer(n_clusters=2, backbone=backbone, pretraining=clone(model)).set_params(
        pretraining__backbone="auto"
    )
    assert "pretraining" in phases(clustering.fit(data))
