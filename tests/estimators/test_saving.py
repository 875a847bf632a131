"""save and load: the same answers bit for bit, and nothing in a file can do harm."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

import skdeepcluster
from skdeepcluster import (
    CalibratedDeepClustering,
    DeepClusterer,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
    save,
)
from skdeepcluster.callbacks import EmbeddingMonitor
from skdeepcluster.persistence import _files
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.instances import ESTIMATORS, tiny_backbone

TINY = "test_resnet"  # 0.4 million parameters, made by timm for tests
FILES = ["model.json", "tensors.safetensors"]
NOISE = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, size=(24, 3, 8, 8), dtype=np.uint8)
LARGE_IMAGES = np.random.default_rng(0).random(size=(8, 72, 72, 1)).astype(np.float32)
BRIEF = {"max_epochs": 1, "batch_size": 8, "random_state": 0}
BRIEF_CLUSTERER = {**BRIEF, "pretraining": None, "n_clusters": 2}


def dropping_backbone():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 6))


class Half(nn.Linear):
    """Its weights are of another type than the rest."""

    def forward(self, x):
        return super().forward(x.to(self.weight.dtype)).float()


class Shared(nn.Linear):
    """One of its buffers is a part of another."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.register_buffer("shift", torch.arange(n_out).float())
        self.register_buffer("first", self.shift[:2])

    def forward(self, x):
        return super().forward(x) + self.shift + self.first.sum()


def tied_backbone():
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.ReLU(), layer)


# What ways there are to an own kind of file: estimator and data.
CASES = {
    **{name: (estimator, NOISE) for name, estimator in ESTIMATORS.items()},
    "several numbers": (StableClusterDiscrimination([4, 2, 3], random_state=0, refine=True), NOISE),
    "one cluster": (MiniClustering(1, random_state=0), NOISE),
    "two heads, no votes": (CalibratedDeepClustering(3, random_state=0, calibrate=False), NOISE),
    "no votes": (StableClusterDiscrimination([2, 3], random_state=0, calibrate=False), NOISE),
    "other pretraining": (
        CalibratedDeepClustering(
            3, random_state=0, pretraining=BYOL(hidden_dim=32, embedding_dim=9, max_epochs=2)
        ),
        NOISE,
    ),
    "few samples": (CalibratedDeepClustering(2, random_state=0), NOISE[:20]),
    "SimCLR": (SimCLR(max_epochs=2, random_state=0), NOISE),
    "MoCo": (MoCo(max_epochs=2, random_state=0), NOISE),
    "BYOL": (BYOL(max_epochs=2, random_state=0), NOISE),
    "module": (MiniClustering(3, random_state=0, backbone=dropping_backbone()), NOISE),
    "half module": (
        StableClusterDiscrimination(
            3, random_state=0, backbone=Half(5, 6).bfloat16(), max_epochs=1
        ),
        NOISE,
    ),
    "module with shared memory": (
        SimCLR(max_epochs=1, random_state=0, backbone=Shared(5, 5)),
        NOISE,
    ),
    "tied module": (SimCLR(max_epochs=1, random_state=0, backbone=tied_backbone()), NOISE),
    "images": (MiniClustering(**BRIEF_CLUSTERER), IMAGES),
    "images, module": (MiniClustering(**BRIEF_CLUSTERER, backbone=tiny_backbone()), IMAGES),
    "images, two heads": (
        CalibratedDeepClustering(**BRIEF_CLUSTERER, backbone=TINY, calibrate=False),
        IMAGES,
    ),
    "images, transformer": (
        SimCLR(max_epochs=0, random_state=0, backbone="test_vit"),
        np.tile(IMAGES[:4], (1, 1, 20, 20)),
    ),
    "images, pretrained anew": (
        MiniClustering(
            2, **BRIEF, backbone=TINY, pretraining=MoCo(max_epochs=1, batch_size=8), fine_tune=False
        ),
        IMAGES,
    ),
    "images, one stage": (
        StableClusterDiscrimination(
            [2, 3], **BRIEF, backbone=TINY, init="kmeans", over_clusterings=range(2, 4)
        ),
        IMAGES,
    ),
    "images, proximity": (
        ProximityDeepClustering(2, **BRIEF, pretraining_epochs=1, backbone=TINY),
        IMAGES,
    ),
    "images, generative": (
        GenerativeCalibrationClustering(**BRIEF_CLUSTERER, generation_epochs=1, backbone=TINY),
        IMAGES,
    ),
    "images, BYOL": (BYOL(**BRIEF, backbone=TINY, hidden_dim=16), IMAGES),
    "large images": (MiniClustering(**BRIEF_CLUSTERER, backbone=TINY), LARGE_IMAGES),
}
FITTED = {}
# The fits are too brief to keep all clusters.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fitted(name):
    """Fit each case once: a test may not change what it gets."""
    if name not in FITTED:
        estimator, data = CASES[name]
        FITTED[name] = clone(estimator).fit(data), data
    return FITTED[name]


def cases(names=CASES):
    return pytest.mark.parametrize("name", names)


def module_of(model):
    return model.backbone if isinstance(model.backbone, nn.Module) else None


def save_and_load(model, folder):
    save(model, folder)
    return skdeepcluster.load(folder, backbone=module_of(model))


def assert_same(a, b):
    """The same value and type, all the way down."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, nn.Module):
        state, other = a.state_dict(), b.state_dict()
        assert list(state) == list(other)
        assert all(torch.equal(state[key], other[key]) for key in state)
        assert all(state[key].dtype == other[key].dtype for key in state)
        assert a.training == b.training
    elif isinstance(a, DeepClusterer | SimCLR | MoCo | BYOL):
        assert_same(a.get_params(), b.get_params())
    else:
        assert a == b


def assert_same_answers(a, b, data):
    np.testing.assert_array_equal(a.transform(data), b.transform(data))
    if isinstance(a, DeepClusterer):
        np.testing.assert_array_equal(a.predict(data), b.predict(data))
        np.testing.assert_array_equal(a.predict_proba(data), b.predict_proba(data))
        assert_same(a.predict_top(data, 2), b.predict_top(data, 2))
        assert a.score(data) == b.score(data)


# --- what comes back -----------------------------------------------------------------------------


@cases()
def test_a_loaded_model_is_the_same(name, tmp_path):
    model, data = fitted(name)
    before = dict(vars(model))
    again = save_and_load(model, tmp_path / "model")
    assert_same_answers(model, again, data)
    assert_same(vars(model) | {"_": 0}, {key: vars(again)[key] for key in vars(model)} | {"_": 0})
    assert vars(again).keys() == vars(model).keys()
    assert repr(again) == repr(model)
    assert sorted(os.listdir(tmp_path / "model")) == FILES
    # Nothing has happened to the model that was saved.
    assert all(vars(model)[key] is value for key, value in before.items())


@cases(
    [
        *("default", "calibrated", "several numbers", "few samples", "other pretraining", "BYOL"),
        *("half module", "images, module", "images, one stage", "proximity", "images, proximity"),
        *("generative", "nothing generated", "images, generative"),
    ]
)
def test_a_loaded_model_goes_on_as_the_one_that_was_saved(name, tmp_path):
    model, data = fitted(name)
    save(model, tmp_path)
    again = skdeepcluster.load(tmp_path, backbone=module_of(model))
    models = pickle.loads(pickle.dumps(model)), again
    for one in models:
        one.set_params(warm_start=True, max_epochs=1).fit(data)
    assert_same_answers(*models, data)


@cases(["generative", "images, generative"])
def test_a_loaded_model_generates_the_same_samples(name, tmp_path):
    model, data = fitted(name)
    again = save_and_load(model, tmp_path)
    samples = model.sample(5, random_state=0)
    assert samples.shape == (5, *data.shape[1:])
    assert np.isfinite(samples).all()
    assert_same(again.sample(5, random_state=0), samples)
    assert_same(
        again.sample(2, cluster=1, random_state=0), model.sample(2, cluster=1, random_state=0)
    )


@cases(["default", "several numbers"])
def test_a_loaded_model_can_be_saved_again_to_the_same_bytes(name, tmp_path):
    model, _ = fitted(name)
    save(save_and_load(model, tmp_path / "a"), tmp_path / "b")
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_all_numbers_of_clusters_are_there(tmp_path):
    model, data = fitted("several numbers")
    again = save_and_load(model, tmp_path)
    assert again.head_scores_ == model.head_scores_
    for k in (2, 3, 4):
        assert_same_answers(again.choose(k), model.choose(k), data)
        assert_same(again.choose(k).labels_, model.choose(k).labels_)
    chosen = save_and_load(model.choose(2), tmp_path)
    assert chosen.n_clusters_ == 2
    assert_same_answers(chosen, model.choose(2), data)
    assert_same_answers(chosen.choose(4), model.choose(4), data)


def test_names_of_features_and_the_container_of_outputs(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(NOISE, columns=list("äbcde"))
    model = SimCLR(max_epochs=1, random_state=0).set_output(transform="pandas").fit(frame)
    again = save_and_load(model, tmp_path)
    assert_same(again.feature_names_in_, model.feature_names_in_)
    pd.testing.assert_frame_equal(again.transform(frame), model.transform(frame))
    with pytest.raises(ValueError, match="feature names"):
        again.transform(frame[list("edcbä")])


@pytest.mark.parametrize("n_copies", [1, 60])
def test_paths_of_images(tmp_path, n_copies):
    from PIL import Image

    files = []
    for i, image in enumerate(IMAGES):
        files.append(str(tmp_path / f"ä {i}.png"))
        Image.fromarray(image.transpose(1, 2, 0)).save(files[-1])
    model = SimCLR(max_epochs=0, random_state=0, backbone=TINY).fit(files * n_copies)
    again = save_and_load(model, tmp_path / "model")
    assert again.paths_ == files * n_copies
    in_text = (
        files[0] in json.loads((tmp_path / "model" / FILES[0]).read_text())["fitted"]["paths_"]
    )
    assert in_text == (n_copies == 1)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_mini_clusters", np.int64(7)),
        ("mini_weight", np.float32(0.3)),
        ("mini_weight", 0.1 + 0.2),
        ("learning_rate", 1e-300),
        ("reweight", np.bool_(False)),
        ("device", torch.device("cpu")),
        ("checkpoint_dir", Path("../elsewhere/no such folder")),
        ("checkpoint_dir", "../elsewhere"),
        ("random_state", np.int32(3)),
        ("random_state", None),
    ],
)
def test_parameters_keep_value_and_type(parameter, value, tmp_path):
    model = pickle.loads(pickle.dumps(fitted("one cluster")[0]))
    if parameter != "n_mini_clusters":
        model.set_params(**{parameter: value})
    else:
        model = MiniClustering(3, random_state=0, max_epochs=1, n_mini_clusters=value).fit(NOISE)
    assert_same(save_and_load(model, tmp_path).get_params(), model.get_params())


@pytest.mark.parametrize("numbers", [(2, 3), [3, 2], range(2, 4), np.array([2, 3])])
def test_several_numbers_keep_their_container(numbers, tmp_path):
    model = StableClusterDiscrimination(numbers, random_state=0, max_epochs=1).fit(NOISE)
    assert_same(save_and_load(model, tmp_path).n_clusters, numbers)


def test_strings_of_numpy_become_strings(tmp_path):
    model = MiniClustering(3, init=np.str_("kmeans"), random_state=0, max_epochs=1).fit(NOISE)
    assert save_and_load(model, tmp_path).init == "kmeans"


def test_callbacks_are_left_out(tmp_path):
    monitor = EmbeddingMonitor(every=1)
    model = SimCLR(max_epochs=1, random_state=0).set_callbacks(monitor).fit(NOISE)
    again = save_and_load(model, tmp_path)
    assert not hasattr(again, "_skl_callbacks")
    assert model._skl_callbacks == [monitor]


def test_a_model_fitted_on_a_gpu_loads_and_predicts_without(tmp_path):
    model, data = fitted("default")
    model = pickle.loads(pickle.dumps(model)).set_params(device="cuda:7")
    model.device_ = "cuda:7"
    again = save_and_load(model, tmp_path)
    assert (again.device, again.device_) == ("cuda:7", "cuda:7")
    assert_same(again.predict_proba(data), model.predict_proba(data))
    assert {p.device.type for p in again._objective.parameters()} == {"cpu"}


def test_nothing_of_the_training_data_is_kept(tmp_path):
    def size(data):
        save(MiniClustering(3, random_state=0, max_epochs=1, calibrate=False).fit(data), tmp_path)
        return (tmp_path / FILES[1]).stat().st_size

    # Every sample has a label of eight bytes.
    many = np.tile(NOISE, (20, 1))
    assert abs(size(many) - size(NOISE) - 8 * 19 * 90) < 100


def test_global_state_is_left_alone(tmp_path):
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    save_and_load(fitted("default")[0], tmp_path)
    save_and_load(fitted("images, one stage")[0], tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.empty(0).device.type == "cpu"


# --- backbones -----------------------------------------------------------------------------------


def test_a_module_has_to_be_given_again(tmp_path):
    model, data = fitted("module")
    save(model, tmp_path)
    with pytest.raises(
        ValueError,
        match=r"backbone cannot be read: it was a module \(Sequential\).*backbone=\.\.\.",
    ):
        skdeepcluster.load(tmp_path)
    other = dropping_backbone()
    before = [p.clone() for p in other.parameters()]
    again = skdeepcluster.load(tmp_path, backbone=other)
    assert_same_answers(again, model, data)
    assert again.backbone is other
    assert all(torch.equal(p, q) for p, q in zip(before, other.parameters(), strict=True))


def test_weights_have_the_type_in_which_they_were_trained(tmp_path):
    model, data = fitted("half module")
    save(model, tmp_path)
    again = skdeepcluster.load(tmp_path, backbone=Half(5, 6))
    assert_same_answers(again, model, data)
    assert again._model.embedding.backbone.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (nn.Linear(5, 6), r"model\.embedding\.backbone\.0\.bias.* unknown"),
        (
            nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 6)),
            r"backbone\.0\.weight has the shape \(8, 5\) instead of \(7, 5\)",
        ),
    ],
)
def test_a_module_of_another_architecture_is_refused(backbone, message, tmp_path):
    save(fitted("module")[0], tmp_path)
    with pytest.raises(ValueError, match=message):
        skdeepcluster.load(tmp_path, backbone=backbone)


def test_a_module_that_is_not_needed_is_refused(tmp_path):
    save(fitted("default")[0], tmp_path)
    with pytest.raises(ValueError, match=r"backbone=Linear was given.*backbone='auto'. Leave it"):
        skdeepcluster.load(tmp_path, backbone=nn.Linear(5, 2))


@pytest.mark.parametrize("data", [NOISE, IMAGES], ids=["features", "images"])
def test_the_backbone_of_a_pretraining(data, tmp_path):
    first = SimCLR(**BRIEF, backbone=TINY if data.ndim == 4 else "auto").fit(data)
    parameters = BRIEF_CLUSTERER | {"backbone": first.backbone_}
    model = StableClusterDiscrimination(**parameters).fit(data)
    assert_same_answers(save_and_load(model, tmp_path), model, data)


def test_a_folder_in_timms_layout_is_not_looked_at(tmp_path, monkeypatch):
    folder = tmp_path / "timm"
    timm.models.save_for_hf(timm.create_model(TINY, num_classes=5), folder, safe_serialization=True)
    model = MiniClustering(**BRIEF_CLUSTERER, backbone=folder).fit(IMAGES)
    save(model, tmp_path / "model")
    folder.rename(tmp_path / "elsewhere")
    again = skdeepcluster.load(tmp_path / "model")
    assert again.backbone == folder
    assert_same_answers(again, model, IMAGES)


@pytest.mark.parametrize("small_stem", [True, False])
def test_a_file_of_weights_is_not_looked_at(small_stem, tmp_path):
    file = tmp_path / "weights.safetensors"
    network = timm.create_model(TINY, num_classes=0)
    if small_stem:
        first = MiniClustering(**BRIEF_CLUSTERER, backbone=TINY).fit(IMAGES)
        network = first._model.embedding.backbone[1]
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    model = MiniClustering(**BRIEF_CLUSTERER, backbone=TINY, pretrained=str(file)).fit(IMAGES)
    file.unlink()
    assert_same_answers(save_and_load(model, tmp_path / "model"), model, IMAGES)


def test_published_weights_are_not_fetched(tmp_path, monkeypatch):
    create = timm.create_model
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, pretrained=False, **k: create(name, **k))
        model = MiniClustering(**BRIEF_CLUSTERER, backbone=TINY, pretrained=True).fit(IMAGES)

    def refuse(*args, pretrained=False, **kwargs):
        assert not pretrained
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", refuse)
    assert_same_answers(save_and_load(model, tmp_path), model, IMAGES)


def test_a_stem_that_its_shapes_do_not_tell(tmp_path):
    # The first layers of both have three by three weights; only their strides differ.
    for size in (64, 65):
        images = np.random.default_rng(0).random((4, 3, size, size), dtype=np.float32)
        model = SimCLR(max_epochs=0, backbone="test_efficientnet", random_state=0).fit(images)
        assert_same_answers(save_and_load(model, tmp_path / str(size)), model, images)
    strides = [
        skdeepcluster.load(tmp_path / size).backbone_[1].conv_stem.stride for size in ("64", "65")
    ]
    assert strides == [(1, 1), (2, 2)]


# --- methods that others write -------------------------------------------------------------------


class Shifted(MiniClustering):
    """A method with an attribute of its own."""

    _FITTED = MiniClustering._FITTED | {"shift_": float}

    def _finish(self, objective, source, trainer):
        self.shift_ = 0.25
        return super()._finish(objective, source, trainer)


def test_a_method_with_attributes_of_its_own(tmp_path):
    model = Shifted(3, random_state=0, max_epochs=1).fit(NOISE)
    again = save_and_load(model, tmp_path)
    assert type(again) is Shifted
    assert again.shift_ == 0.25
    assert_same_answers(again, model, NOISE)


def test_a_class_that_was_defined_anew(tmp_path):
    first = type("Anew", (MiniClustering,), {"__init__": MiniClustering.__init__})
    model = first(3, random_state=0, max_epochs=1).fit(NOISE)
    save(model, tmp_path)
    second = type("Anew", (MiniClustering,), {"__init__": MiniClustering.__init__})
    with pytest.raises(ValueError, match=r"same name.*defined anew"):
        save(model, tmp_path)
    assert type(skdeepcluster.load(tmp_path)) is second


# --- what cannot be saved ------------------------------------------------------------------------


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


# --- folders and disks ---------------------------------------------------------------------------


def test_an_earlier_model_is_replaced(tmp_path):
    save(fitted("several numbers")[0], tmp_path)
    model, data = fitted("default")
    assert_same_answers(save_and_load(model, str(tmp_path)), model, data)
    assert sorted(os.listdir(tmp_path)) == FILES


@pytest.mark.parametrize("name", ["notes.txt", "tensors.safetensors.old", ".hidden"])
def test_a_folder_with_other_files_is_left_alone(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds '{name}'. Name a folder of its own"):
        save(fitted("default")[0], tmp_path)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("content", ["{}", "mine", '{"format": "xgboost"}'])
def test_a_model_of_another_kind_is_left_alone(content, tmp_path):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match="holds another model"):
        save(fitted("default")[0], tmp_path)
    assert (tmp_path / "model.json").read_text() == content


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"is a file. Name a folder"):
        save(fitted("default")[0], tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.json"):
        skdeepcluster.load(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.json"):
        skdeepcluster.load(tmp_path / "nowhere")


class CutShort(BaseException): ...


def save_and_die(model, folder, monkeypatch, n_steps):
    """Save, but die before the step of this number among those that change the folder.

    Returns whether the text of the new model was in its place by then.
    """
    replace, unlink, done = os.replace, Path.unlink, []

    def cut(step):
        def do_or_die(*args, **kwargs):
            if len(done) == n_steps:
                raise CutShort
            step(*args, **kwargs)
            done.append(Path(args[-1]).name)

        return do_or_die

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut(replace))
        patch.setattr(Path, "unlink", cut(unlink))
        with pytest.raises(CutShort):
            save(model, folder)
    return FILES[0] in done


@pytest.mark.parametrize("n_steps", range(4))
@pytest.mark.parametrize("n_steps_before", [None, *range(4)])
def test_a_model_is_replaced_as_a_whole_or_not_at_all(
    n_steps, n_steps_before, tmp_path, monkeypatch
):
    old, data = fitted("two heads, no votes")
    models = [fitted(name)[0] for name in ("default", "several numbers")]
    save(old, tmp_path)
    steps = [n_steps] if n_steps_before is None else [n_steps_before, n_steps]
    for model, n in zip(models, steps, strict=False):
        old = model if save_and_die(model, tmp_path, monkeypatch, n) else old
        assert_same_answers(skdeepcluster.load(tmp_path), old, data)
    assert_same_answers(save_and_load(models[0], tmp_path), models[0], data)
    assert sorted(os.listdir(tmp_path)) == FILES


def test_a_folder_without_its_tensors_is_named(tmp_path):
    save(fitted("default")[0], tmp_path)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no tensors\.safetensors\. Give the folder"):
        skdeepcluster.load(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_full_disk_is_named_and_the_earlier_model_left(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path / "model")
    with open(tmp_path / "model.pickle", "wb") as file:
        pickle.dump(model, file)
    program = f"""
        import pickle, resource, skdeepcluster
        model = pickle.load(open({str(tmp_path / "model.pickle")!r}, "rb"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            skdeepcluster.save(model, {str(tmp_path / "model")!r})
        except OSError as error:
            print(error)
    """
    assert "could not be written to path=" in run(program)
    assert sorted(os.listdir(tmp_path / "model")) == FILES
    assert_same_answers(skdeepcluster.load(tmp_path / "model"), model, data)


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
def test_others_may_read_both_files_or_none(tmp_path):
    old = os.umask(0o027)
    try:
        save(fitted("default")[0], tmp_path / "model")
    finally:
        os.umask(old)
    assert {oct((tmp_path / "model" / f).stat().st_mode & 0o777) for f in FILES} == {"0o640"}


# --- files that somebody else has made -----------------------------------------------------------


def run(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def change(folder, text=None, tensors=None):
    """Change the fields, the tensors, or both, so that the checksum is right."""
    content = json.loads((folder / FILES[0]).read_text())
    if tensors is not None:
        state = load_file(folder / FILES[1])
        tensors(state)
        save_file(state, folder / FILES[1])
        content["sha256_of_tensors"] = digest(folder)
    if text is not None:
        text(content)
    (folder / FILES[0]).write_text(json.dumps(content))


def digest(folder):
    return hashlib.sha256((folder / FILES[1]).read_bytes()).hexdigest()


def setting(*path):
    """Return what sets the field at the path that all but the last name, to the last."""
    *names, last, value = path

    def change_text(content):
        for name in names:
            content = content[name]
        content[last] = value

    return change_text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("default", setting("format", "other"), "was not written by save"),
        ("default", setting("format_version", 3), r"format_version=3.*reads 2.*saved with.*torch"),
        ("default", setting("format_version", "2"), "format_version='2'"),
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
        ("several numbers", setting("fitted", "n_clusters_", 7), "do not fit each other: KeyError"),
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
        ("module", setting("backbone", "width", 10**15), "projector"),
    ],
)
def test_a_changed_field_is_named(name, text, message, tmp_path):
    model, _ = fitted(name)
    save(model, tmp_path)
    change(tmp_path, text=text)
    with pytest.raises(ValueError, match=f"(?s){tmp_path}' cannot be loaded.*{message}"):
        skdeepcluster.load(tmp_path, backbone=module_of(model))


HEAD = "networks.model.head.weight"


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
        (lambda t: t.update({"_confidence.bias": torch.zeros(2)}), "A confidence head has"),
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


class Harmful:
    def __reduce__(self):
        return (eval, ("__import__('os').mkdir(__import__('os').environ['HARM'])",))


def test_a_pickle_can_do_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    pickle.loads(pickle.dumps(Harmful()))
    assert os.listdir(tmp_path) == ["harm"]


@pytest.mark.parametrize("right_checksum", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x00" * 100,
        b"\xff" * 100,
        (10**6).to_bytes(8, "little") + b"{",
        pickle.dumps(Harmful()),
        "torch",
    ],
)
def test_what_is_no_safetensors_file_is_refused(content, right_checksum, tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    folder = tmp_path / "model"
    save(fitted("default")[0], folder)
    if content == "torch":
        torch.save({HEAD: Harmful()}, folder / FILES[1])
    else:
        (folder / FILES[1]).write_bytes(content)
    if right_checksum:
        change(folder, text=setting("sha256_of_tensors", digest(folder)))
    message = "no file of safetensors" if right_checksum else "damaged or belongs to another"
    with pytest.raises(ValueError, match=rf"tensors\.safetensors is {message}"):
        skdeepcluster.load(folder)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("right_checksum", [True, False])
def test_a_cut_file_is_refused(place, right_checksum, tmp_path):
    save(fitted("default")[0], tmp_path)
    content = (tmp_path / FILES[1]).read_bytes()
    (tmp_path / FILES[1]).write_bytes(content[: int(place * len(content))])
    if right_checksum:
        change(tmp_path, text=setting("sha256_of_tensors", digest(tmp_path)))
    with pytest.raises(ValueError, match=r"tensors\.safetensors is"):
        skdeepcluster.load(tmp_path)


def test_one_wrong_bit_is_noticed(tmp_path):
    save(fitted("default")[0], tmp_path)
    content = bytearray((tmp_path / FILES[1]).read_bytes())
    content[-100] ^= 1
    (tmp_path / FILES[1]).write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        skdeepcluster.load(tmp_path)


def test_a_loaded_model_does_not_need_its_file(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path)
    again = skdeepcluster.load(tmp_path)
    with open(tmp_path / FILES[1], "r+b") as file:
        file.write(b"\xff" * (tmp_path / FILES[1]).stat().st_size)
    assert_same_answers(again, model, data)
    assert_same(again.labels_, model.labels_)
    assert_same(again.cluster_centers_, model.cluster_centers_)


def test_files_of_two_models_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        model = MiniClustering(3, random_state=ord(name), max_epochs=1).fit(NOISE)
        save(model, tmp_path / name)
    (tmp_path / "a" / FILES[0]).replace(tmp_path / "b" / FILES[0])
    with pytest.raises(ValueError, match="belongs to another"):
        skdeepcluster.load(tmp_path / "b")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 10**6, b'{"format": "skdeepcluster model"'],
    ids=["empty", "cut", "a list", "a number", "no text", "too deep", "no end"],
)
def test_what_is_no_json_text_is_refused(content, tmp_path):
    save(fitted("default")[0], tmp_path)
    (tmp_path / FILES[0]).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.json (is no JSON|was not written)"):
        skdeepcluster.load(tmp_path)


def test_values_that_are_too_deep_are_refused(tmp_path):
    save(fitted("default")[0], tmp_path)
    content = (tmp_path / FILES[0]).read_text()
    deep = '{"$tuple": [' * 900 + "]}" * 900
    (tmp_path / FILES[0]).write_text(content.replace('"verbose": 0', f'"verbose": {deep}'))
    with pytest.raises(ValueError, match="recursion"):
        skdeepcluster.load(tmp_path)
    deep = "[" * 900 + "]" * 900
    (tmp_path / FILES[0]).write_text(content.replace('"history_": [', f'"history_": [{deep},'))
    with pytest.raises(ValueError, match="recursion"):
        skdeepcluster.load(tmp_path)


def test_a_large_text_is_refused_unread(tmp_path, monkeypatch):
    save(fitted("default")[0], tmp_path)
    size = (tmp_path / FILES[0]).stat().st_size
    monkeypatch.setattr(_files, "MOST_TEXT_BYTES", size - 1)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(ValueError, match=rf"model\.json has {size} bytes, more than {size - 1}"):
        skdeepcluster.load(tmp_path)


def test_what_load_would_refuse_as_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "MOST_TEXT_BYTES", 1000)
    with pytest.raises(ValueError, match="more than load reads"):
        save(fitted("default")[0], tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("file", FILES)
def test_links_out_of_the_folder_are_refused(file, tmp_path):
    save(fitted("default")[0], tmp_path / "model")
    link, target = tmp_path / "model" / file, tmp_path / "elsewhere"
    link.rename(target)
    link.symlink_to(target)
    with pytest.raises(ValueError, match=f"{file} is a link or no file"):
        skdeepcluster.load(tmp_path / "model")
    link.unlink()
    link.mkdir()
    with pytest.raises(ValueError, match=f"{file} is a link or no file"):
        skdeepcluster.load(tmp_path / "model")


def test_a_link_to_the_folder_itself_is_followed(tmp_path):
    model, data = fitted("default")
    save(model, tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    assert_same_answers(skdeepcluster.load(tmp_path / "link"), model, data)


FORMS = ["../secret", {"$path": "../secret"}, {"$path": "hf-hub:x"}]


def test_nothing_is_opened_but_the_two_files_and_nothing_executed(tmp_path):
    model, _ = fitted("default")
    (tmp_path / "secret").write_text("secret")
    names = [
        (name, form) for name in ("backbone", "pretrained", "checkpoint_dir") for form in FORMS
    ]
    for place, (name, form) in enumerate(names):
        save(model, tmp_path / str(place))
        change(tmp_path / str(place), text=setting("parameters", name, form))
    program = f"""
        import os, sys
        import skdeepcluster

        WATCHED = {{"open", "import", "exec", "compile", "os", "subprocess", "socket"}}
        seen, watching = set(), False

        def watch(event, arguments):
            if watching and event.split(".")[0] in WATCHED:
                seen.add((event, str(arguments[0])))

        sys.addaudithook(watch)
        os.chdir({str(tmp_path)!r})
        skdeepcluster.load("8")  # imports what is needed
        watching = True
        models = [skdeepcluster.load(str(place)) for place in range({len(names)})]
        watching = False
        print(*[getattr(m, name) for m, (name, _) in zip(models, {names!r})], sep="\\n")
        print("events", *sorted(seen), sep="\\n")
    """
    values, events = run(program).split("events\n")
    assert values.split() == [form["$path"] if type(form) is dict else form for _, form in names]
    opened = {str(Path(str(place)) / file) for place in range(len(names)) for file in FILES}
    assert set(events.splitlines()) == {str(("open", file)) for file in opened}


GREEDY = [
    ("default", setting("parameters", "n_clusters", 10**8)),
    ("default", setting("parameters", "n_clusters", 10**30)),
    ("default", setting("parameters", "n_mini_clusters", 10**8)),
    ("default", setting("fitted", "n_features_in_", 10**8)),
    ("few samples", setting("fitted", "_n_sized", 10**9)),
    ("other pretraining", setting("parameters", "n_regions", 10**8)),
    ("several numbers", setting("parameters", "over_clusterings", [10**8])),
    ("several numbers", setting("parameters", "n_clusters", list(range(2, 10**5)))),
    ("images, one stage", setting("backbone", "name", "vit_giant_patch14_224")),
    ("images, one stage", setting("backbone", "width", 10**9)),
    ("images, BYOL", setting("parameters", "hidden_dim", 10**8)),
    ("images, BYOL", setting("parameters", "embedding_dim", 10**30)),
    ("proximity", setting("parameters", "n_clusters", 10**8)),
    ("proximity", setting("fitted", "n_features_in_", 10**8)),
    ("images, proximity", lambda text: text["fitted"].update(LARGE)),  # its decoder knows
    ("generative", setting("parameters", "n_clusters", 10**8)),
    ("generative", setting("fitted", "n_features_in_", 10**8)),
    ("nothing generated", setting("parameters", "generated_ratio", 1.0)),
]
LARGE = {"image_shape_": {"$tuple": [3, 10**5, 10**5]}, "n_features_in_": 3 * 10**10}


@pytest.mark.skipif(sys.platform == "win32", reason="nothing tells how much memory was taken")
def test_a_number_in_a_small_file_takes_no_memory(tmp_path):
    # How large images are is in no tensor: it is not refused, and matters when there are images.
    sized = [("images, one stage", lambda text: text["fitted"].update(LARGE))]
    for place, (name, text) in enumerate(GREEDY + sized):
        save(fitted(name)[0], tmp_path / str(place))
        change(tmp_path / str(place), text=text)
    program = f"""
        import resource
        import skdeepcluster

        def load(place):
            try:
                skdeepcluster.load({str(tmp_path)!r} + f"/{{place}}")
                return "loaded"
            except ValueError:
                return "refused"

        load(8)  # imports what is needed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(*[load(place) for place in range({len(GREEDY) + 1})])
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    outcomes, megabytes = run(program).splitlines()
    assert outcomes.split() == ["refused"] * len(GREEDY) + ["loaded"]
    assert int(megabytes) < 150


def test_a_fresh_process_knows_all_classes(tmp_path):
    names = ["SimCLR", "MoCo", "BYOL", "one stage", "calibrated", "default", "proximity"]
    names += ["generative"]
    for name in names:
        save(fitted(name)[0], tmp_path / name)
    program = f"""
        import skdeepcluster
        print(*[skdeepcluster.load({str(tmp_path)!r} + "/" + n) for n in {names!r}], sep="|")
    """
    assert run(program).strip().split("|") == [repr(fitted(name)[0]) for name in names]
