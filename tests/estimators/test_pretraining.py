"""SimCLR, MoCo and BYOL: alone as transformers, and as the first phase of a clusterer."""

import copy
import io
import pickle
import signal

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base._pretrainer import remembered
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import multilayer_perceptron
from skdeepcluster.objectives import BYOLObjective, ContrastiveObjective, MoCoObjective
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from tests.callback_helpers import (
    InterruptIn,
    KillAfter,
    Killed,
    Watcher,
    ctrl_c_is_heard,
)

X, Y = make_blobs(n_samples=90, centers=3, n_features=5, random_state=0)
X = X.astype(np.float32)
NOISE = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)  # nothing saturates
IMAGES = np.random.default_rng(0).integers(0, 128, size=(24, 3, 8, 8), dtype=np.uint8)
IMAGES[::2, :, :4] += 127  # two kinds: the upper or the lower half is bright
IMAGES[1::2, :, 4:] += 127

EPOCHS = 4
METHODS = {
    "SimCLR": SimCLR(random_state=0, max_epochs=EPOCHS),
    "MoCo": MoCo(random_state=0, max_epochs=EPOCHS),
    "BYOL": BYOL(random_state=0, max_epochs=EPOCHS, hidden_dim=16),
}
OBJECTIVES = {"SimCLR": ContrastiveObjective, "MoCo": MoCoObjective, "BYOL": BYOLObjective}
CLUSTERERS = [
    MiniClustering,
    CalibratedDeepClustering,
    StableClusterDiscrimination,
    GenerativeCalibrationClustering,
]
# So few steps lead nowhere; that is no matter here.
FEW_STEPS = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def image_backbone():
    """Return a network with running statistics: one used in the wrong mode is found out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )


def feature_backbone(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(multilayer_perceptron([5, 8, 8]), nn.Dropout(dropout))


@pytest.fixture(params=METHODS)
def method(request):
    return clone(METHODS[request.param])


@pytest.fixture(params=["features", "images"])
def case(request, method):
    """A method, and what it is to be fitted on."""
    if request.param == "features":
        return method, NOISE
    return method.set_params(backbone=image_backbone(), batch_size=12), IMAGES


def clusterer(kind=MiniClustering, n_clusters=3, **parameters):
    return kind(n_clusters, random_state=0, **{"max_epochs": 1, "calibrate": False, **parameters})


def phases(model):
    return [record["phase"] for record in model.history_]


def embedding_state(model):
    return model._model.embedding.state_dict()


def same_states(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


# --- an embedding --------------------------------------------------------------------------------


def test_samples_become_unit_vectors(case):
    model, data = case
    embedding = clone(model).fit_transform(data)
    assert embedding.shape == (len(data), 64 if data is NOISE else embedding.shape[1])
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert len(np.unique(embedding, axis=0)) > len(data) / 2
    np.testing.assert_array_equal(model.fit(data).transform(data), embedding)


@pytest.mark.parametrize(
    ("model", "data", "width"),
    [
        (SimCLR(), IMAGES, 128),
        (MoCo(), IMAGES, 128),
        (BYOL(), IMAGES, 512),
        (BYOL(embedding_dim=7), IMAGES, 7),
        (BYOL(embedding_dim=7), NOISE, 7),
    ],
    ids=str,
)
def test_width_of_the_embedding(model, data, width):
    backbone = image_backbone() if data is IMAGES else "auto"
    model = clone(model).set_params(backbone=backbone, max_epochs=0)
    assert model.fit_transform(data).shape == (len(data), width)


@pytest.mark.parametrize("method", [SimCLR, MoCo, BYOL])
def test_the_defaults_separate_blobs(method):
    pipeline = make_pipeline(method(random_state=0), KMeans(3, n_init=10, random_state=0))
    assert adjusted_rand_score(Y, pipeline.fit_predict(X)) > 0.95
    np.testing.assert_array_equal(pipeline.predict(X), pipeline[-1].labels_)


@pytest.mark.parametrize("name", METHODS)
def test_training_brings_neighbors_together(name):
    data, y = make_blobs(n_samples=120, centers=4, n_features=20, cluster_std=3.0, random_state=0)
    model = clone(METHODS[name]).set_params(max_epochs=0)
    same = y[:, None] == y

    def contrast(model):
        z = model.fit_transform(data)
        cosines = z @ z.T
        return cosines[same].mean() - cosines[~same].mean()

    assert (
        contrast(model.set_params(max_epochs=40))
        > contrast(clone(model).set_params(max_epochs=0)) + 0.1
    )


def test_history_has_one_record_per_epoch(case):
    model, data = case
    model.fit(data)
    assert phases(model) == ["pretraining"] * EPOCHS
    assert [record["epoch"] for record in model.history_] == list(range(EPOCHS))
    assert all(np.isfinite(r["loss"]) and r["learning_rate"] >= 0 for r in model.history_)
    assert model.n_iter_ == EPOCHS
    assert model.device_ == "cpu"


def test_lines_are_printed_on_request(method, capsys):
    method.fit(X)
    assert capsys.readouterr().out == ""
    method.set_params(verbose=2).fit(X)
    first, *epochs, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{type(method).__name__}: {len(X)} samples of shape (5,), backbone ")
    assert last.startswith(f"pretraining: {EPOCHS} epochs of ")
    assert len(epochs) == EPOCHS
    for number, line in enumerate(epochs, 1):
        assert line.startswith(f"pretraining {number}/{EPOCHS}: loss")


def test_without_epochs_there_is_a_random_embedding(case):
    model, data = case
    model.set_params(max_epochs=0).fit(data)
    assert model.history_ == []
    assert model.n_iter_ == 0
    embedding = model.transform(data)
    assert np.isfinite(embedding).all()
    assert not np.allclose(embedding, clone(model).set_params(max_epochs=3).fit_transform(data))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_samples(case, n):
    model, data = case
    embedding = model.fit_transform(data[:n])
    assert embedding.shape[0] == n
    assert np.isfinite(embedding).all()
    if data is NOISE:
        model.set_params(max_epochs="auto").fit(data[:n])
        assert model.n_iter_ == 6


def test_rows_beyond_the_graph_of_neighbors_are_embedded_too(method, monkeypatch):
    monkeypatch.setattr("skdeepcluster.base._building.GRAPH_ROWS", 60)
    labels = KMeans(3, n_init=10, random_state=0).fit_predict(
        method.set_params(max_epochs=30).fit_transform(X)
    )
    assert adjusted_rand_score(Y, labels) > 0.95


@pytest.mark.parametrize(
    "change",
    [
        SimCLR(temperature=0.1),
        MoCo(temperature=0.5),
        MoCo(queue_size=3),
        MoCo(momentum=0.9),
        MoCo(final_momentum=0.5),
        BYOL(hidden_dim=8),
        BYOL(momentum=0.9),
        BYOL(learning_rate=1e-2),
        BYOL(batch_size=45),
    ],
    ids=str,
)
def test_every_parameter_makes_a_difference(change):
    parameters = {"random_state": 0, "max_epochs": 3}
    changed = clone(change).set_params(**parameters).fit_transform(NOISE)
    assert not np.array_equal(changed, type(change)(**parameters).fit_transform(NOISE))


# --- what a method makes of its parameters -------------------------------------------------------


@pytest.mark.parametrize(
    ("momentum", "n_steps", "expected"),
    [
        ("auto", 10**6, 0.996),
        ("auto", 5000, 0.996),
        ("auto", 400, 0.95),  # a memory of 20 steps
        ("auto", 100, 0.8),
        ("auto", 20, 0.0),
        ("auto", 0, 0.0),
        (0.5, 10**6, 0.5),
        (1, 20, 1.0),
    ],
)
def test_a_teacher_remembers_a_twentieth_of_the_steps(momentum, n_steps, expected):
    assert remembered(momentum, 0.996, n_steps) == pytest.approx(expected)


def make_objective(model, n_samples=1000, n_steps=10**6, images=False):
    embedding = clone(model).set_params(max_epochs=0).fit(X)._model.embedding
    return model._make_objective(embedding, images, n_samples, n_steps)


@pytest.mark.parametrize(
    ("model", "images", "temperature", "both_kinds"),
    [
        (SimCLR(), True, 0.5, True),
        (SimCLR(), False, 1.0, False),
        (SimCLR(temperature=0.2), True, 0.2, True),
        (SimCLR(temperature=0.2), False, 0.2, False),
    ],
    ids=str,
)
def test_images_and_features_have_losses_of_their_own(model, images, temperature, both_kinds):
    objective = make_objective(model, images=images)
    assert objective.temperature == temperature
    assert objective.loss.__name__ == ("nt_xent" if both_kinds else "info_nce")


@pytest.mark.parametrize(
    ("queue_size", "n_samples", "expected"), [(32768, 1001, 500), (100, 1000, 100), (5, 2, 1)]
)
def test_most_negatives_are_of_other_samples(queue_size, n_samples, expected):
    objective = make_objective(MoCo(queue_size=queue_size), n_samples)
    assert len(objective.queue) == expected


@pytest.mark.parametrize(
    ("parameters", "n_steps", "first", "last"),
    [
        ({}, 10**6, 0.99, 0.999),
        ({}, 400, 0.95, 0.95),
        ({}, 10_000, 0.99, 0.998),
        ({"momentum": 0.5}, 10**6, 0.5, 0.999),
        # What is given counts in short fits, too, and by itself it never falls.
        ({"final_momentum": 0.98}, 400, 0.95, 0.98),
        ({"momentum": 0.9, "final_momentum": 0.5}, 400, 0.9, 0.5),
        ({"momentum": 0.97}, 400, 0.97, 0.97),
        ({"momentum": 1.0}, 400, 1.0, 1.0),
    ],
)
def test_momentum_of_moco(parameters, n_steps, first, last):
    objective = make_objective(MoCo(**parameters), n_steps=n_steps)
    objective.begin_epoch(0.0)
    assert objective.teacher.momentum == pytest.approx(first)
    objective.begin_epoch(1.0)
    assert objective.teacher.momentum == pytest.approx(last)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SimCLR(temperature=0), "'temperature' parameter of SimCLR"),
        (SimCLR(temperature="low"), "'temperature' parameter of SimCLR"),
        (SimCLR(temperature=1e-7), r"'temperature' .* in the range \[1e-06, 1000000.0\]"),
        (MoCo(temperature=1e7), r"'temperature' .* in the range \[1e-06, 1000000.0\]"),
        (MoCo(queue_size=0), "'queue_size' parameter of MoCo"),
        (MoCo(temperature="auto"), "'temperature' parameter of MoCo"),
        (MoCo(momentum=1.1), "'momentum' parameter of MoCo"),
        (MoCo(final_momentum=-0.1), "'final_momentum' parameter of MoCo"),
        (BYOL(hidden_dim=0), "'hidden_dim' parameter of BYOL"),
        (BYOL(embedding_dim=2.5), "'embedding_dim' parameter of BYOL"),
        (BYOL(momentum="slow"), "'momentum' parameter of BYOL"),
        (BYOL(learning_rate=0), "'learning_rate' parameter of BYOL"),
    ],
    ids=str,
)
def test_an_invalid_parameter_is_named_alone_and_in_a_clusterer(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    with pytest.raises(ValueError, match=message):
        clusterer(pretraining=model).fit(X)


# --- the same result whatever happens around it --------------------------------------------------


def test_same_seed_same_bits_and_another_seed_other_bits(case):
    model, data = case
    expected = clone(model.set_params(max_epochs=2)).fit_transform(data)
    torch.manual_seed(5)
    np.testing.assert_array_equal(clone(model).fit_transform(data), expected)
    np.testing.assert_array_equal(
        clone(model).set_params(random_state=np.random.RandomState(1)).fit_transform(data),
        clone(model).set_params(random_state=np.random.RandomState(1)).fit_transform(data),
    )
    assert not np.array_equal(model.set_params(random_state=1).fit_transform(data), expected)


def test_global_state_is_left_alone(case):
    model, data = case
    np.random.seed(3)  # noqa: NPY002 - the legacy global state is what is tested
    torch.manual_seed(3)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - as above
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    model.fit(data).transform(data)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 - as above
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads


def test_labels_are_never_used(method):
    expected = clone(method).fit(X).transform(X)
    np.testing.assert_array_equal(method.fit(X, Y).transform(X), expected)
    np.testing.assert_array_equal(method.fit_transform(X, Y[::-1]), expected)


def test_parameters_are_left_alone(case):
    model, data = case
    backbone = image_backbone() if data is IMAGES else feature_backbone()
    before = copy.deepcopy(backbone.state_dict())
    parameters = model.set_params(backbone=backbone).get_params()
    model.fit(data)
    assert model.get_params() == parameters
    assert model.backbone is backbone
    assert same_states(before, backbone.state_dict())
    assert not same_states(
        before, list(model.backbone_.modules())[0 if data is NOISE else 2].state_dict()
    )


def test_an_embedding_does_not_depend_on_the_batch(case):
    model, data = case
    whole = model.fit_transform(data)
    np.testing.assert_array_equal(model.transform(data[::-1]), whole[::-1])
    np.testing.assert_array_equal(model.transform(data[7:8]), whole[7:8])


@pytest.mark.parametrize("kind", ["memory map", "tensor", "Dataset"])
def test_the_same_numbers_give_the_same_embedding(kind, case, tmp_path):
    model, data = case
    expected = clone(model.set_params(max_epochs=1)).fit_transform(data)
    if kind == "memory map":
        np.save(tmp_path / "X.npy", data)
        converted = np.load(tmp_path / "X.npy", mmap_mode="r")
    elif kind == "tensor":
        converted = torch.from_numpy(data.copy())
    else:
        tensor = torch.from_numpy(data.copy())
        converted = torch.utils.data.TensorDataset(tensor, torch.zeros(len(data)))
    np.testing.assert_array_equal(model.fit_transform(converted), expected)


def test_dropout_is_drawn_from_the_seed(method):
    model = method.set_params(backbone=feature_backbone(0.5))
    expected = clone(model).fit_transform(NOISE)
    torch.manual_seed(11)
    model.fit(NOISE)
    np.testing.assert_array_equal(model.transform(NOISE), expected)
    # In use nothing is dropped.
    np.testing.assert_array_equal(model.transform(NOISE), expected)
    other = clone(model).set_params(backbone=feature_backbone(0.0))
    assert not np.array_equal(other.fit_transform(NOISE), expected)


# --- pipelines, searches, copies -----------------------------------------------------------------


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


# --- the first phase of a clusterer --------------------------------------------------------------


@FEW_STEPS
@pytest.mark.parametrize("kind", CLUSTERERS)
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
    clustering = clusterer(n_clusters=8, pretraining=nested, backbone=backbone, max_epochs=0)
    embedding = clustering.fit_transform(data)
    np.testing.assert_array_equal(model.fit_transform(data), embedding)


def test_auto_is_simclr():
    expected = clusterer(pretraining="auto").fit(X)
    model = clusterer(pretraining=SimCLR()).fit(X)
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))
    np.testing.assert_array_equal(model.labels_, expected.labels_)


@pytest.mark.parametrize("kind", CLUSTERERS)
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
    assert model.device_ == "cpu"
    assert not (tmp_path / "none").exists()


def test_a_fitted_method_is_trained_anew(method):
    expected = clusterer(pretraining=clone(method)).fit_transform(X)
    fitted = method.fit(NOISE)
    embedding = fitted.transform(NOISE)
    np.testing.assert_array_equal(clusterer(pretraining=fitted).fit_transform(X), expected)
    np.testing.assert_array_equal(fitted.transform(NOISE), embedding)


@FEW_STEPS
def test_a_trained_backbone_is_pretrained_on_request_alone(method):
    parameters = {"n_clusters": 2, "backbone": image_backbone(), "max_epochs": 0}
    start = parameters["backbone"].state_dict()
    auto = clusterer(pretraining="auto", **parameters).fit(IMAGES)
    assert "pretraining" not in phases(auto)
    assert auto.transform(IMAGES).shape == (24, 4)
    assert same_states(start, auto._model.embedding.backbone[1].state_dict())
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
        return model._model.embedding.backbone[1].state_dict()["conv1.0.weight"]

    for pretraining, trained in [("auto", False), (SimCLR(max_epochs=1), True)]:
        model = clusterer(pretraining=pretraining, **parameters).fit(IMAGES)
        assert ("pretraining" in phases(model)) == trained
        assert torch.equal(first_layer(model), start) != trained
        # It begins with those weights: one step with AdamW goes no further.
        assert torch.allclose(first_layer(model), start, atol=2e-3)


@pytest.mark.parametrize("backbone", ["resnet34", feature_backbone()], ids=["name", "module"])
@pytest.mark.parametrize("kind", CLUSTERERS)
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


@pytest.mark.parametrize("pretraining", ["BYOL", "none", True, KMeans(), SimCLR], ids=repr)
def test_what_is_no_method_is_refused(pretraining):
    with pytest.raises(ValueError, match="'pretraining' parameter of MiniClustering"):
        clusterer(pretraining=pretraining).fit(X)


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
        features = backbone(model._model.prepare(torch.from_numpy(data))).flatten(1)
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


# --- training that goes on, stops or fails -------------------------------------------------------


def test_warm_start_goes_on(case):
    model, data = case
    before = model.set_params(warm_start=True).fit_transform(data)
    model.set_params(max_epochs=0).fit(data)
    np.testing.assert_array_equal(model.transform(data), before)
    start = [parameter.clone() for parameter in model._model.parameters()]
    model.set_params(max_epochs=1, learning_rate=1e-4).fit(data)
    assert phases(model) == ["pretraining"]
    assert not np.array_equal(model.transform(data), before)
    for old, new in zip(start, model._model.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-3)
    more = np.concatenate([data, data[:10]])
    assert model.fit(more).transform(more).shape == (len(more), before.shape[1])


def test_warm_start_refuses_other_shapes(method):
    method.set_params(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="warm_start"):
        method.fit(X[:, :4])
    if isinstance(method, BYOL):
        with pytest.raises(ValueError, match="warm_start"):
            method.set_params(embedding_dim=3).fit(X)


def test_a_clusterer_that_goes_on_is_not_pretrained_again(method):
    model = clusterer(pretraining=method, warm_start=True).fit(X)
    embedding = model.transform(X)
    model.fit(X)
    assert set(phases(model)) == {"clustering"}
    np.testing.assert_array_equal(model.transform(X), embedding)


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_a_killed_fit_resumes_to_the_same_bits(n_epochs, case, tmp_path):
    model, data = case
    whole = clone(model).fit(data)
    model.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("pretraining", n_epochs)).fit(data)
    resumed = clone(model).fit(data)
    assert same_states(resumed._model.state_dict(), whole._model.state_dict())
    np.testing.assert_array_equal(resumed.transform(data), whole.transform(data))
    assert [r["loss"] for r in resumed.history_] == [r["loss"] for r in whole.history_]
    # A finished fit is loaded, not done again.
    again = clone(model).set_callbacks(KillAfter("pretraining", 1)).fit(data)
    np.testing.assert_array_equal(again.transform(data), whole.transform(data))


def test_a_killed_fit_with_dropout_resumes_to_the_same_bits(method, tmp_path):
    model = method.set_params(backbone=feature_backbone(0.5))
    whole = clone(model).fit(NOISE)
    model.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("pretraining", 3)).fit(NOISE)
    np.testing.assert_array_equal(model.fit_transform(NOISE), whole.transform(NOISE))


@pytest.mark.parametrize(("phase", "n_epochs"), [("pretraining", 3), ("clustering", 2)])
def test_a_killed_clusterer_resumes_to_the_same_bits(phase, n_epochs, method, tmp_path):
    model = clusterer(pretraining=method, max_epochs=4)
    whole = clone(model).fit(NOISE)
    model.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter(phase, n_epochs)).fit(NOISE)
    # What makes no difference may differ.
    model.set_params(pretraining__num_workers=1, pretraining__device="cuda:77")
    resumed = clone(model).fit(NOISE)
    np.testing.assert_array_equal(resumed.transform(NOISE), whole.transform(NOISE))
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    assert len(resumed.history_) == len(whole.history_)


def test_a_checkpoint_of_another_pretraining_is_refused(method, tmp_path):
    model = clusterer(pretraining=method, checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match="pretraining__max_epochs: 4 in the checkpoint, 5 now"):
        clone(model).set_params(pretraining__max_epochs=5).fit(X)
    with pytest.raises(ValueError, match=r"pretraining: .* now"):
        clone(model).set_params(pretraining=None).fit(X)
    with pytest.raises(ValueError, match="estimator: MiniClustering in the checkpoint"):
        clone(method).set_params(checkpoint_dir=tmp_path).fit(X)


def test_a_method_fitted_like_another_is_refused(method, tmp_path):
    method.set_params(checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match="max_epochs: 4 in the checkpoint, 5 now"):
        clone(method).set_params(max_epochs=5).fit(X)
    with pytest.raises(ValueError, match="content of X"):
        clone(method).fit(X + 1)


def test_ctrl_c_leaves_a_usable_transformer(case):
    model, data = case
    model.set_callbacks(InterruptIn("pretraining"))
    message = f"Interrupted after epoch 1 of {EPOCHS} of the pretraining"
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=message):
        model.fit(data)
    assert model.n_iter_ == 1
    embedding = model.transform(data)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert not model._model.training


def test_ctrl_c_in_the_last_epoch_changes_nothing(method):
    class InterruptLast(Watcher):
        def on_fit_task_begin(self, estimator, context):
            if context.task_name == "epoch" and context.task_id == EPOCHS - 1:
                signal.raise_signal(signal.SIGINT)

    expected = clone(method).fit_transform(X)
    with ctrl_c_is_heard():
        embedding = method.set_callbacks(InterruptLast()).fit_transform(X)
    np.testing.assert_array_equal(embedding, expected)


@FEW_STEPS
def test_ctrl_c_in_the_pretraining_leaves_a_usable_clusterer(method):
    model = clusterer(pretraining=method).set_callbacks(InterruptIn("pretraining"))
    message = f"Interrupted after epoch 1 of {EPOCHS} of the pretraining"
    with ctrl_c_is_heard(), pytest.warns(ConvergenceWarning, match=message):
        model.fit(X)
    assert "clustering" not in phases(model)
    np.testing.assert_array_equal(model.predict(X), model.labels_)


class StopAfter(Watcher):
    """Stop after some epochs, and keep what callbacks get to transform with."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def setup(self, estimator, context):
        self.seen = []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.seen.append((fitted_estimator, fitted_estimator.transform(NOISE)))
            return len(self.seen) == self.n_epochs
        return False


def test_callbacks_transform_as_if_the_fit_had_stopped(method):
    expected = clone(method).fit_transform(NOISE)
    watcher = StopAfter(EPOCHS)
    # Looking on changes nothing.
    np.testing.assert_array_equal(
        clone(method).set_callbacks(watcher).fit_transform(NOISE), expected
    )
    for n_epochs, (snapshot, embedding) in enumerate(watcher.seen, 1):
        stopped = clone(method).set_callbacks(StopAfter(n_epochs)).fit(NOISE)
        assert stopped.n_iter_ == n_epochs
        np.testing.assert_array_equal(stopped.transform(NOISE), embedding)
        np.testing.assert_array_equal(snapshot.transform(NOISE), embedding)


def test_a_fit_that_diverges_leaves_a_usable_transformer(case):
    model, data = case
    model.set_params(learning_rate=1e30)
    with pytest.raises(DivergenceError, match="learning_rate"):
        model.fit(data)
    embedding = model.transform(data)
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert model.n_iter_ == len(model.history_) < EPOCHS
    np.testing.assert_array_equal(by_pickle(model).transform(data), embedding)


def spoil(monkeypatch, name, n_batches):
    """Let the loss be infinite after so many batches; return the objectives that were asked."""
    forward = OBJECTIVES[name].forward
    asked = []

    def spoiled(self, first, second):
        asked.append(self)
        loss, scalars = forward(self, first, second)
        return loss * (float("inf") if len(asked) > n_batches else 1), scalars

    monkeypatch.setattr(OBJECTIVES[name], "forward", spoiled)
    return asked


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_that_diverges_keeps_what_it_would_have_kept(name, monkeypatch):
    asked = spoil(monkeypatch, name, 3)
    model = clone(METHODS[name])
    with pytest.raises(DivergenceError, match="Epoch 4 of the pretraining"):
        model.fit(NOISE)
    assert model.n_iter_ == 3
    assert same_states(embedding_state(model), asked[-1].result.state_dict())


@FEW_STEPS
@pytest.mark.parametrize("name", METHODS)
def test_a_clusterer_whose_pretraining_diverges_is_usable(name, monkeypatch):
    spoil(monkeypatch, name, 3)
    model = clusterer(pretraining=clone(METHODS[name]))
    with pytest.raises(DivergenceError, match="Epoch 4 of the pretraining"):
        model.fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert np.isfinite(model.predict_proba(X)).all()


def test_a_fit_that_fails_leaves_the_one_before(case):
    model, data = case
    with pytest.raises(Killed):
        clone(model).set_callbacks(KillAfter("pretraining", 1)).fit(data)
    embedding = model.fit_transform(data)
    model.set_callbacks(KillAfter("pretraining", 2)).set_params(random_state=1)
    with pytest.raises(Killed):
        model.fit(data)
    np.testing.assert_array_equal(model.transform(data), embedding)
    assert model.n_iter_ == len(model.history_) == EPOCHS
    fresh = clone(model).set_callbacks(KillAfter("pretraining", 2))
    with pytest.raises(Killed):
        fresh.fit(data)
    with pytest.raises(NotFittedError):
        fresh.transform(data)
