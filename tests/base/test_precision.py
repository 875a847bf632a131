"""Networks in lower precision, and backbones that come in another than single."""

import copy
from collections import defaultdict

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import skdeepcluster
from skdeepcluster import MiniClustering
from skdeepcluster.calibration import ConfidenceHead
from skdeepcluster.networks import CosineHead, PrototypeHead, PrototypePerceptron
from tests.base.container_helpers import RGB_FIRST, E, short
from tests.base.soundness_helpers import flat_backbone
from tests.instances import EVERYONE, LOST_CLUSTERS
from tests.samples import IMAGES, X, Y


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_networks_in_lower_precision(method, precision, capfd):
    model = method.set_params(precision=precision).fit(X)
    assert adjusted_rand_score(Y, model.labels_) == 1
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert capfd.readouterr() == ("", "")


def test_heads_compute_in_single_precision_whatever_the_networks_do(image_method, request):
    if request.config.getoption("--virtual-cuda"):
        pytest.skip("the virtual device has one precision")
    dtypes = defaultdict(set)

    def look(module, inputs, output):
        if isinstance(module, PrototypeHead | PrototypePerceptron | CosineHead | ConfidenceHead):
            dtypes["heads"].add(output.dtype)
        elif isinstance(module, nn.Conv2d):
            dtypes["networks"].add(output.dtype)

    hook = register_module_forward_hook(look)
    try:
        model = image_method.set_params(precision="bf16-mixed").fit(IMAGES)
    finally:
        hook.remove()
    assert dtypes["heads"] == {torch.float32}
    learned = model._frozen is None or model.fine_tune is True
    assert (torch.bfloat16 in dtypes["networks"]) == learned


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("X", [E, RGB_FIRST], ids=["features", "images"])
def test_a_backbone_of_any_precision_is_trained_in_single(X, dtype, tmp_path):
    own = nn.Sequential(nn.Linear(4, 3), nn.ReLU()) if X.ndim == 2 else flat_backbone(3)
    own = own.to(dtype)
    weights = copy.deepcopy(own.state_dict())
    model = short(MiniClustering, backbone=own).fit(X)
    single = short(MiniClustering, backbone=copy.deepcopy(own).float()).fit(X)
    np.testing.assert_array_equal(model.transform(X), single.transform(X))
    assert all(torch.equal(own.state_dict()[name], weights[name]) for name in weights)
    assert {tensor.dtype for tensor in own.state_dict().values()} <= {dtype, torch.int64}
    skdeepcluster.save(model, tmp_path / "model")
    loaded = skdeepcluster.load(tmp_path / "model", backbone=own)
    np.testing.assert_array_equal(loaded.predict(X), model.labels_)


@LOST_CLUSTERS  # by fits as short as these
@EVERYONE
def test_everyone_takes_a_backbone_of_half_precision(estimator):
    model = short(estimator, backbone=flat_backbone(3).half()).fit(RGB_FIRST)
    assert np.isfinite(model.transform(RGB_FIRST)).all()
