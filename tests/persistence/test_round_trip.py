"""What is loaded is what was saved: parameters, fitted attributes and answers, bit for bit."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import skdeepcluster
from skdeepcluster import MiniClustering, StableClusterDiscrimination, save
from skdeepcluster.callbacks import EmbeddingMonitor
from skdeepcluster.pretraining import SimCLR
from tests.instances import LOST_CLUSTERS, METHODS, PRETRAINERS
from tests.persistence.cases import (
    FILES,
    IMAGES,
    TINY,
    assert_same,
    assert_same_answers,
    cases,
    fitted,
    module_of,
    save_and_load,
)
from tests.persistence.file_helpers import run
from tests.samples import NOISE

# The fits are too brief to keep all clusters.
pytestmark = LOST_CLUSTERS


# --- all kinds of models -------------------------------------------------------------------------


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


# --- attributes and parameters -------------------------------------------------------------------


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


# --- other machines and processes ----------------------------------------------------------------


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

    # Every sample has a label of eight bytes; of means and distances there are as many as there may
    # be, so that the number of samples makes no difference.
    some, many = (np.tile(NOISE, (times, 1)) for times in (15, 25))
    assert abs(size(many) - size(some) - 8 * 10 * 90) < 100


def test_global_state_is_left_alone(real_device, tmp_path):
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    save_and_load(fitted("default")[0], tmp_path)
    save_and_load(fitted("images, one stage")[0], tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.empty(0).device.type == "cpu"


def test_a_fresh_process_knows_all_classes(tmp_path):
    names = [*METHODS, *(method.__name__ for method in PRETRAINERS)]
    for name in names:
        save(fitted(name)[0], tmp_path / name)
    program = f"""
        import skdeepcluster
        print(*[skdeepcluster.load({str(tmp_path)!r} + "/" + n) for n in {names!r}], sep="|")
    """
    assert run(program).strip().split("|") == [repr(fitted(name)[0]) for name in names]


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
