"""Fields and tensors that somebody has changed are named."""

import pytest
import torch

import skdeepcluster
from skdeepcluster import save
from tests.instances import LOST_CLUSTERS
from tests.persistence.cases import assert_same_answers, fitted, module_of
from tests.persistence.file_helpers import HEAD, change, setting

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("default", setting("format", "other"), "was not written by save"),
        ("default", setting("format_version", 2), r"format_version=2.*reads 6.*saved with.*torch"),
        ("default", setting("format_version", "3"), "format_version='3'"),
        ("default", lambda t: t.pop("format_version"), "format_version=None"),
        ("default", setting("surprise", 1), r"model\.json: 'surprise' is unknown"),
        (
            "default",
            lambda t: t.pop("fitted"),
            r"model\.json: none is unknown, 'fitted' is missing",
        ),
        ("default", setting("estimator", "NoSuchClass"), "no estimator 'NoSuchClass' among .*BYOL"),
        ("default", setting("estimator", "DeepClusterer"), "no estimator 'DeepClusterer'"),
        ("default", setting("estimator", "os.system"), r"no estimator 'os\.system'"),
        ("default", setting("estimator", ["MiniClustering"]), "no estimator"),
        ("default", setting("estimator", "SimCLR"), "parameters: .*'init'.* unknown"),
        ("default", setting("estimator", "StableClusterDiscrimination"), "parameters: .*unknown"),
        ("default", setting("parameters", "surprise", 1), "parameters: 'surprise' is unknown"),
        ("default", lambda t: t["parameters"].pop("init"), "'init' is missing"),
        ("default", setting("parameters", []), "parameters: expected names and values, got list"),
        ("default", setting("parameters", "init", "magic"), "The 'init' parameter"),
        ("default", setting("parameters", "n_clusters", "3"), "The 'n_clusters' parameter"),
        (
            "default",
            setting("parameters", "n_clusters", {"$eval": "3"}),
            r"'\$eval' is no form of a value",
        ),
        (
            "default",
            setting("parameters", "n_clusters", {"$float": "1", "$tuple": []}),
            r"n_clusters cannot be read: \['\$float', '\$tuple'\] is no form",
        ),
        ("default", setting("parameters", "n_clusters", {"$array": "x"}), "no tensor 'x'"),
        ("default", setting("parameters", "device", {"$device": "moon"}), "device cannot be read"),
        ("default", setting("parameters", "device", {"$path": 3}), "device cannot be read"),
        ("default", setting("parameters", "pretraining", {"$estimator": ["os", {}]}), "'os'"),
        (
            "default",
            setting("parameters", "pretraining", {"$estimator": ["SimCLR", {"x": 1}]}),
            "pretraining__parameters: 'x' is unknown",
        ),
        (
            "several numbers",
            setting("parameters", "n_clusters", {"$range": [0, 10**30, 1]}),
            "more",
        ),
        (
            "several numbers",
            setting("parameters", "n_clusters", {"$range": [2, 9, 0]}),
            "n_clusters cannot be read",
        ),
        ("several numbers", setting("parameters", "n_clusters", [3, 2, 4]), "shape"),
        ("default", setting("fitted", "surprise_", 1), "fitted: 'surprise_' is unknown"),
        ("default", setting("fitted", "predict", 1), "fitted: 'predict' is unknown"),
        ("default", setting("fitted", "__class__", 1), "fitted: '__class__' is unknown"),
        ("default", lambda t: t["fitted"].pop("labels_"), "fitted: .*'labels_' is missing"),
        ("default", setting("fitted", "labels_", [0, 1]), "labels_ is of type list"),
        ("default", setting("fitted", "history_", "none"), "history_ is of type str"),
        ("default", setting("fitted", "_confidence", 3), "_confidence is of type int"),
        ("default", setting("fitted", "_confidence", {"$confidence": "x"}), "no tensor 'x.scales'"),
        ("default", setting("fitted", "cluster_centers_", {"$array": "labels_"}), "centers_"),
        (
            "default",
            setting("fitted", "labels_", {"$array": "networks.model.head.bias"}),
            "labels_",
        ),
        (
            "default",
            setting("fitted", "n_features_in_", 6),
            r"prepare\.mean has the shape \(5,\) instead of \(6,\)",
        ),
        ("default", setting("fitted", "n_features_in_", -5), "no shape of samples"),
        ("default", setting("fitted", "image_shape_", {"$tuple": [1, 5, 1]}), "backbone"),
        (
            "default",
            setting("fitted", "image_shape_", {"$tuple": [5, 5, 5]}),
            "no shape of samples",
        ),
        (
            "default",
            setting("fitted", "feature_names_in_", {"$names": ["a"]}),
            r"feature_names_in_ has the shape \(1,\)",
        ),
        (
            "default",
            setting("fitted", "feature_names_in_", {"$names": [["a"]] * 5}),
            "names are strings",
        ),
        ("default", setting("backbone", {}), "backbone: expected none for feature arrays"),
        (
            "several numbers",
            setting("fitted", "_best_heads", {"$numbered": [[9, 0]]}),
            "_best_heads has none for",
        ),
        (
            "several numbers",
            setting("fitted", "_best_heads", {"$numbered": [[2, 0], [3, 0], [4, 0]]}),
            "head of another number",
        ),
        (
            "several numbers",
            setting("fitted", "_best_heads", {"$numbered": [[2, 99], [3, 99], [4, 99]]}),
            "do not fit each other: IndexError",
        ),
        (
            "several numbers",
            setting("fitted", "_by_count", {"$numbered": [[2, {}]]}),
            "_by_count has|nothing refers",
        ),
        ("images, one stage", setting("backbone", None), "backbone: expected names and values"),
        ("images, one stage", setting("backbone", "name", "hf-hub:x"), "'hf-hub:x' is the name of"),
        ("images, one stage", setting("backbone", "name", "local-dir:/etc"), "is the name of no"),
        ("images, one stage", setting("backbone", "name", "test_resnet.a/../b"), "is the name of"),
        ("images, one stage", setting("backbone", "name", "test_resnet.nope"), "cannot be built"),
        ("images, one stage", setting("backbone", "name", "resnet10t"), "networks"),
        ("images, one stage", setting("backbone", "name", 3), "backbone: a name"),
        ("images, one stage", setting("backbone", "width", 3.5), "backbone: a name"),
        ("images, one stage", setting("backbone", "width", 65), "projector"),
        (
            "images, one stage",
            setting("backbone", "surprise", 1),
            "backbone: 'surprise' is unknown",
        ),
    ],
)
def test_a_changed_field_is_named(name, text, message, tmp_path):
    check_that_it_is_named(name, text, message, tmp_path)


def test_a_network_for_which_no_memory_would_do_is_named(real_device, tmp_path):
    check_that_it_is_named("module", setting("backbone", "width", 10**15), "projector", tmp_path)


def check_that_it_is_named(name, text, message, tmp_path):
    model, _ = fitted(name)
    save(model, tmp_path)
    change(tmp_path, text=text)
    with pytest.raises(ValueError, match=f"(?s){tmp_path}' cannot be loaded.*{message}"):
        skdeepcluster.load(tmp_path, backbone=module_of(model))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda t: t.pop(HEAD), r"none is unknown, 'model\.head\.weight' is missing"),
        (lambda t: t.update({"networks.x": t[HEAD].clone()}), "'x' is unknown, none is missing"),
        (lambda t: t.update(x=torch.zeros(2)), "nothing refers to 'x'"),
        (lambda t: t.pop("labels_"), "labels_ cannot be read: there is no tensor 'labels_'"),
        (
            lambda t: t.update({HEAD: torch.zeros(3, 65)}),
            r"the shape \(3, 65\) instead of \(3, 64\)",
        ),
        (lambda t: t.update({HEAD: torch.zeros(3, 64).long()}), "is torch.int64 instead of"),
        (lambda t: t.update(labels_=torch.zeros(9, 1).long()), r"labels_ has shape \(9, 1\)"),
        (lambda t: t["labels_"].add_(3), "labels_ are not all among the 3 clusters"),
        (lambda t: t["labels_"].sub_(1), "labels_ are not all among the 3 clusters"),
        (lambda t: t.update(labels_=torch.zeros(9).bfloat16()), "labels_ cannot be read"),
        (
            lambda t: t.update(cluster_sizes_=torch.ones(4).long()),
            r"cluster_sizes_ has shape \(4,\)",
        ),
        (lambda t: t.update(class_weights_=torch.ones(2)), r"class_weights_ has shape \(2,\)"),
        (lambda t: t.update(cluster_centers_=torch.ones(3, 5)), "cluster_centers_ has shape"),
        (lambda t: t.update(_familiar_means=torch.ones(3, 4)), r"means of shape \(3, 4\)"),
        (lambda t: t.update(_familiar_means=torch.ones(3, 5).long()), "means of shape .* int64"),
        (lambda t: t.update(_familiar_distances=torch.ones(2, 2)), r"distances of shape \(2, 2\)"),
        (lambda t: t.update(_familiar_distances=torch.ones(0)), r"distances of shape \(0,\)"),
        (lambda t: t.update({"_confidence.bias": torch.zeros(2)}), "A confidence head has"),
        (
            lambda t: t.update({"_confidence.mean_confidence": torch.tensor(torch.nan)}),
            "A mean confidence is from 0 to 1, but this is nan",
        ),
        (lambda t: t["_confidence.mean_confidence"].add_(1), "A mean confidence is from 0 to 1"),
        (
            lambda t: t.update({"_confidence.mean_confidence": torch.ones(1)}),
            "A mean confidence is from 0 to 1",
        ),
        (lambda t: t.update({"_confidence.scales": torch.ones(3)}), "the confidence head has"),
        (lambda t: t.update({"_confidence.weight": torch.ones(3, 68)}), "the confidence head has"),
        (
            lambda t: t.update(
                {"_confidence.weight": torch.ones(4, 69), "_confidence.bias": torch.ones(4)}
            ),
            "the confidence head has",
        ),
    ],
)
def test_a_changed_tensor_is_named(tensors, message, tmp_path):
    save(fitted("default")[0], tmp_path)
    change(tmp_path, tensors=tensors)
    with pytest.raises(ValueError, match=f"(?s){tmp_path}' cannot be loaded.*{message}"):
        skdeepcluster.load(tmp_path)


def test_the_helpers_of_these_tests_change_nothing_else(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path)
    change(tmp_path, text=lambda t: None, tensors=lambda t: None)
    assert_same_answers(skdeepcluster.load(tmp_path), model, data)
