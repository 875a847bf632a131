"""Backbones by name, by path and by hand, with and without weights; never a network connection."""

import json
import os
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from skdeepcluster.networks import (
    build_backbone,
    is_pretrained,
    least_side,
    rebuild_backbone,
    timm_recipe,
)

TINY = "test_resnet"  # 0.4 million parameters, made by timm for tests


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Forbid the hub to connect, and give it an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def first_convolution(network):
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def outputs(network, shape, seed=0):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return network.eval()(x).flatten(1)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Feature arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [1, 7, 768])
def test_feature_encoder(n_features):
    network, width = build_backbone("auto", (n_features,))
    assert network.training
    assert outputs(network, (n_features,)).shape == (3, width)


@pytest.mark.parametrize("backbone", ["resnet18", Path("folder")])
def test_image_backbone_for_feature_array(backbone):
    with pytest.raises(ValueError, match=r"works on images.*\(n_samples, 5\).*backbone='auto'"):
        build_backbone(backbone, (5,))


# timm by name ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TINY, f"{TINY}.r160_in1k", "test_efficientnet"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 40, 24), (4, 96, 96)])
def test_timm_names(name, shape):
    network, width = build_backbone(name, shape)
    assert outputs(network, shape).shape == (3, width)


def test_auto_is_a_resnet_18_for_images():
    network, width = build_backbone("auto", (3, 32, 32))
    assert width == 512
    assert network.pretrained_cfg["architecture"] == "resnet18"


@pytest.mark.parametrize(
    ("side", "small"), [((28, 28), True), ((64, 64), True), ((64, 65), False), ((96, 32), False)]
)
def test_small_images_get_a_stem_that_sees_every_pixel(side, small):
    network, _ = build_backbone("resnet18", (3, *side))
    stem = first_convolution(network)
    assert stem.kernel_size == ((3, 3) if small else (7, 7))
    assert stem.stride == ((1, 1) if small else (2, 2))
    assert isinstance(network.maxpool, nn.Identity if small else nn.MaxPool2d)
    assert stem.in_channels == 3
    assert stem.bias is None


def test_small_stem_keeps_the_resolution():
    network, _ = build_backbone(TINY, (3, 32, 32))
    with torch.no_grad():
        features = network.eval().forward_features(torch.zeros(1, 3, 32, 32))
    usual = (
        timm.create_model(TINY, num_classes=0).eval().forward_features(torch.zeros(1, 3, 32, 32))
    )
    assert features.shape[-1] == 4 * usual.shape[-1]


def test_patches_are_left_as_they_are():
    network, _ = build_backbone("test_convnext", (3, 64, 64))
    assert first_convolution(network).kernel_size == first_convolution(network).stride


def test_unknown_names_are_answered_with_similar_ones():
    with pytest.raises(ValueError, match=r"backbone='resnet81' is not a timm model.*resnet18"):
        build_backbone("resnet81", (3, 32, 32))
    with pytest.raises(ValueError, match=r"Names like it: none;.*pathlib.Path"):
        build_backbone("./%%%/my-folder", (3, 32, 32))


def test_wrong_input_size():
    with pytest.raises(ValueError, match=r"cannot take samples of shape \(3, 33, 33\)"):
        build_backbone("test_vit", (3, 33, 33))


def test_weights_are_random_but_follow_torchs_seed():
    networks = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks.append(build_backbone(TINY, (3, 32, 32))[0])
    assert same_weights(networks[0], networks[1])
    assert not same_weights(networks[0], networks[2])


# The user's module -----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_module_is_copied_and_not_changed(training):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    module.train(training)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network, width = build_backbone(module, (3, 8, 8))
    assert width == 4
    assert network is not module
    assert network.training is training
    assert same_weights(network, module)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert module.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_module_may_return_a_map_of_features():
    network, width = build_backbone(nn.Conv2d(1, 2, 3), (1, 6, 5))
    assert width == 2 * 4 * 3
    assert outputs(network, (1, 6, 5)).shape == (3, width)


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (torch.sum, r"tensor of shape \(\)"),
        (lambda x: x.flatten(1).sum(dim=1), r"tensor of shape \(2,\)"),
        (lambda x: x.flatten(1)[:1], r"tensor of shape \(1, 12\)"),
        (lambda x: (x, x), "tuple"),
        (lambda x: {"features": x}, "dict"),
    ],
)
def test_module_that_returns_no_vector_per_sample(function, found):
    with pytest.raises(ValueError, match=f"one feature vector per sample.*returned a {found}"):
        build_backbone(Returns(function), (3, 2, 2))


def test_module_that_cannot_take_the_samples():
    with pytest.raises(ValueError, match=r"cannot take samples of shape \(5,\).*6"):
        build_backbone(nn.Linear(6, 2), (5,))


# Weights from a file ---------------------------------------------------------------------------


@pytest.mark.parametrize("with_classifier", [True, False])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_from_a_file(tmp_path, suffix, with_classifier):
    trained = timm.create_model(TINY, num_classes=5 if with_classifier else 0)
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(trained.state_dict(), path)
    network, _ = build_backbone(TINY, (3, 32, 32), pretrained=path)
    trained.reset_classifier(0)
    assert same_weights(network, trained)
    assert same_weights(build_backbone(TINY, (3, 32, 32), pretrained=str(path))[0], trained)


def test_weights_of_a_small_stem_are_recognised(tmp_path):
    trained, _ = build_backbone(TINY, (3, 32, 32))
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    network, _ = build_backbone(TINY, (3, 32, 32), pretrained=tmp_path / "weights.pt")
    assert first_convolution(network).stride == (1, 1)
    assert same_weights(network, trained)


def test_weights_of_another_model(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_vit").state_dict(), path)
    with pytest.raises(
        ValueError,
        match=rf"weights.pt.*weights of backbone='{TINY}'.*'conv1.0.weight' is missing. Name the",
    ):
        build_backbone(TINY, (3, 32, 32), pretrained=path)


def test_weights_older_than_the_counters_of_batch_normalisation_fit(tmp_path):
    path = tmp_path / "weights.pt"
    weights = timm.create_model(TINY, num_classes=5).state_dict()
    torch.save({k: w for k, w in weights.items() if "num_batches_tracked" not in k}, path)
    network, _ = build_backbone(TINY, (3, 32, 32), pretrained=path)
    assert torch.equal(network.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])


@pytest.mark.parametrize("n_classes", [0, 5])
def test_published_weights_have_a_classifier(n_classes, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(timm.create_model(TINY, num_classes=n_classes).state_dict(), path)
    network, _ = build_backbone(TINY, (3, 96, 96), pretrained=path)
    assert least_side(TINY, network) == (128 if n_classes else 0)
    assert least_side(network, network) == 0  # as a module of the user's
    untrained, _ = build_backbone(TINY, (3, 96, 96))
    assert least_side(TINY, untrained) == 0


def test_weights_for_other_channels(tmp_path):
    torch.save(timm.create_model(TINY).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"for these images:.* instead of .*another number of channels"
    ):
        build_backbone(TINY, (1, 32, 32), pretrained=tmp_path / "weights.pt")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_of_weights_runs_no_code(tmp_path):
    torch.save({"conv.weight": Malicious(tmp_path / "ran")}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"is not a file of weights"):
        build_backbone(TINY, (3, 32, 32), pretrained=tmp_path / "weights.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_that_holds_no_weights(tmp_path, name):
    (tmp_path / name).write_bytes(b"These are no weights.")
    with pytest.raises(ValueError, match=rf"{name}.*is not a file of weights"):
        build_backbone(TINY, (3, 32, 32), pretrained=tmp_path / name)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r"pretrained='nowhere.pt' is neither"):
        build_backbone(TINY, (3, 32, 32), pretrained="nowhere.pt")


# A folder in timm's layout ---------------------------------------------------------------------


def save_folder(model, folder):
    timm.models.save_for_hf(model, folder, safe_serialization=True)


def test_a_folder_in_timms_layout(tmp_path):
    trained = timm.create_model(TINY, num_classes=5)
    save_folder(trained, tmp_path)
    network, width = build_backbone(tmp_path, (3, 32, 32))
    trained.reset_classifier(0)
    assert same_weights(network, trained)
    assert width == trained.num_features
    torch.testing.assert_close(outputs(network, (3, 32, 32)), outputs(trained, (3, 32, 32)))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder(tmp_path, missing):
    save_folder(timm.create_model(TINY), tmp_path)
    for path in tmp_path.glob(f"{Path(missing).stem}*"):
        path.unlink()
    for path in tmp_path.glob("*.bin"):
        path.unlink()
    with pytest.raises(OSError, match=rf"{tmp_path.name}.*wanted: a folder with config"):
        build_backbone(tmp_path, (3, 32, 32))


def test_a_torn_folder(tmp_path):
    save_folder(timm.create_model(TINY), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(OSError, match="cannot be loaded"):
        build_backbone(tmp_path, (3, 32, 32))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "no_such_model"}))
    with pytest.raises(OSError, match="no_such_model"):
        build_backbone(tmp_path, (3, 32, 32))


# Published weights -----------------------------------------------------------------------------


def test_published_weights_offline(offline):
    with pytest.raises(OSError, match="could not be loaded") as caught:
        build_backbone(TINY, (3, 32, 32), pretrained=True)
    message = str(caught.value)
    assert f"backbone='{TINY}'" in message
    assert "model.safetensors of 'timm/test_resnet.r160_in1k'" in message
    assert str(offline) in message
    assert "pretrained='path/to/weights'" in message


def test_a_model_without_published_weights(offline):
    with pytest.raises(ValueError, match=r"timm has no weights for backbone='convnext_atto_rms'"):
        build_backbone("convnext_atto_rms", (3, 32, 32), pretrained=True)


def test_published_weights_keep_their_stem(monkeypatch):
    asked = {}

    def create(name, **options):
        asked.update(options, name=name)
        return make(name, **{**options, "pretrained": False})

    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    network, _ = build_backbone(TINY, (1, 32, 32), pretrained=True)
    assert asked == {"name": TINY, "pretrained": True, "in_chans": 1, "num_classes": 0}
    assert first_convolution(network).stride == (2, 2)


# The rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "pretrained", "expected"),
    [
        ("auto", False, False),
        ("resnet18", False, False),
        ("resnet18", True, True),
        ("resnet18", "weights.pt", True),
        (nn.Linear(2, 2), False, True),
        (Path("folder"), False, True),
    ],
)
def test_is_pretrained(backbone, pretrained, expected):
    assert is_pretrained(backbone, pretrained) is expected


# The same network without its weights ----------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "shape", "recipe"),
    [
        ("auto", (3, 32, 32), ("resnet18", True)),
        ("auto", (1, 65, 65), ("resnet18", False)),
        ("small_convnet", (2, 9, 30), ("small_convnet", False)),
        (TINY, (4, 64, 64), (TINY, True)),
        ("test_efficientnet.r160_in1k", (3, 65, 64), ("test_efficientnet.r160_in1k", False)),
        ("test_vit", (3, 160, 160), ("test_vit", False)),
    ],
)
def test_a_network_is_rebuilt_from_its_recipe(backbone, shape, recipe):
    network, _ = build_backbone(backbone, shape)
    assert timm_recipe(backbone, network) == recipe
    again = rebuild_backbone(recipe[0], shape, recipe[1])
    assert repr(again) == repr(network)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(outputs(again, shape), outputs(network, shape), rtol=0, atol=0)


def test_the_recipe_of_a_folder_names_its_architecture(tmp_path):
    save_folder(timm.create_model(TINY, num_classes=5), tmp_path)
    network, _ = build_backbone(tmp_path, (3, 32, 32))
    assert timm_recipe(tmp_path, network) == (TINY, False)


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18", "local-dir:folder", "resnet18.a/b", "folder/resnet18", "", "x"]
)
def test_only_names_are_rebuilt(name, offline, monkeypatch):
    monkeypatch.setattr(timm, "create_model", None)
    with pytest.raises(ValueError, match="is the name of no timm model"):
        rebuild_backbone(name, (3, 8, 8), False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_module_of_another_precision_is_copied_to_single(dtype):
    module = nn.Linear(4, 3).to(dtype)
    network, width = build_backbone(module, (4,))
    assert width == 3
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, module.weight.float())
    assert module.weight.dtype == dtype


def test_a_module_that_converts_samples_itself_keeps_its_precision():
    class Half(nn.Linear):
        def forward(self, x):
            return super().forward(x.bfloat16()).float()

    network, _ = build_backbone(Half(4, 3).bfloat16(), (4,))
    assert network.weight.dtype == torch.bfloat16
