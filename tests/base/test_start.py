"""Which partition a fit starts from, and how an encoder learns one that it contradicts."""

from dataclasses import replace

import pytest
import torch

from skdeepcluster import MiniClustering
from skdeepcluster.base import Recipe, _start, _two_stage
from skdeepcluster.networks import (
    EmbeddingNetwork,
    PrototypeHead,
    most_likely,
    multilayer_perceptron,
)
from skdeepcluster.numerics import (
    breathing_kmeans,
    centroid_silhouette,
    cluster_means,
    kmeans,
    nearest_neighbors,
)
from skdeepcluster.training import Trainer

SIZES = (200, 60, 8)


@pytest.fixture
def blobs():
    """Clear blobs of unequal sizes: features, an embedding that knows nothing, graph, labels."""
    generator = torch.Generator().manual_seed(0)
    X = torch.cat([torch.randn(n, 4, generator=generator) + 12 * k for k, n in enumerate(SIZES)])
    embedding = torch.randn(len(X), 8, generator=generator)
    labels = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
    return X, torch.nn.functional.normalize(embedding, dim=1), nearest_neighbors(X, 15)[1], labels


def torn(labels):
    """Return a partition that halves the large cluster and fuses the small ones."""
    halves = torch.where(torch.arange(len(labels)) < SIZES[0] // 2, 0, 1)
    return torch.where(labels > 0, 2, halves)


def test_of_images_the_partition_of_highest_mean_silhouette_is_taken(blobs, monkeypatch):
    X, _, _, labels = blobs
    # The large cluster, of which the median is, is further from the next one then.
    worse = labels.clone()
    worse[-1] = 1
    assert centroid_silhouette(X, worse, 3) > centroid_silhouette(X, labels, 3)
    candidates = {"kmeans": worse, "centers": labels}
    monkeypatch.setattr(_two_stage, "candidate_partitions", lambda *_: candidates)
    estimator = MiniClustering(3)
    monkeypatch.setattr(estimator, "_sees_images", lambda: True)
    monkeypatch.setattr(estimator, "_most_clusters", lambda: 3)
    arguments = dict.fromkeys(("mini", "views", "model", "source", "trainer", "generator"))
    found, is_new = estimator._partition(X, **arguments)
    assert found is labels
    assert not is_new


@pytest.mark.parametrize("names", [("plain", "kmeans"), ("kmeans", "plain")])
def test_the_better_separated_partition_is_chosen_whatever_its_name(blobs, names):
    X, embedding, graph, labels = blobs
    right, wrong = names
    candidates = {wrong: torn(labels), right: labels}
    assert _start.choose_partition(candidates, X, embedding, graph, 3) == right


@pytest.mark.parametrize(("better_by", "chosen"), [(0.015, "plain"), (0.02, "kmeans")])
def test_the_plain_partition_is_kept_unless_another_is_clearly_better(
    blobs, monkeypatch, better_by, chosen
):
    X, embedding, graph, labels = blobs
    monkeypatch.setattr(_start, "mean_conductance", lambda *_: 0.1)
    silhouettes = {0: 0.5, 1: 0.5 + better_by}  # six times as much in the score
    monkeypatch.setattr(
        _start, "centroid_silhouette", lambda X, labels, *_: silhouettes[int(labels[0])]
    )
    candidates = {"kmeans": torch.ones_like(labels), "plain": torch.zeros_like(labels)}
    assert _start.choose_partition(candidates, X, embedding, graph, 3) == chosen


def test_a_partition_that_cuts_fewer_edges_is_chosen_though_its_means_are_closer():
    generator = torch.Generator().manual_seed(0)
    along, line = torch.arange(240) % 120 / 3.0, torch.arange(240) // 120
    X = torch.stack([along, 6.0 * line], dim=1) + 0.1 * torch.randn(240, 2, generator=generator)
    candidates = {"halves": (along > 20).long(), "lines": line}
    _, graph = nearest_neighbors(X, 15)
    assert _start.choose_partition(candidates, X, X, graph, 2) == "lines"


def test_among_partitions_that_cut_no_edge_the_better_separated_is_chosen():
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 40.0], [4.0, 40.0]])
    X = (places[:, None] + 0.1 * torch.randn(4, 30, 2, generator=generator)).flatten(0, 1)
    group = torch.arange(4).repeat_interleave(30)
    candidates = {"across": group % 2, "along": group // 2}
    _, graph = nearest_neighbors(X, 15)
    assert _start.choose_partition(candidates, X, X, graph, 2) == "along"


def test_one_giant_cluster_is_not_chosen(blobs):
    X, embedding, graph, labels = blobs
    giant = torch.where(torch.arange(len(labels)) > 1, 0, torch.arange(len(labels)) + 1)
    assert _start.choose_partition({"giant": giant, "right": labels}, X, embedding, graph, 3) == (
        "right"
    )


@pytest.mark.parametrize(
    ("n_samples", "n_clusters", "expected"),
    [(100, 3, 30), (2_000, 50, 10), (20_000, 20, 3), (10**6, 100, 3)],
)
def test_where_k_means_takes_no_time_it_has_many_starts(n_samples, n_clusters, expected):
    assert _start.n_runs(n_samples, n_clusters) == expected


@pytest.mark.parametrize(("n_clusters", "moved"), [(32, False), (33, True)])
def test_of_many_clusters_centers_move(n_clusters, moved):
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    found = _start.plain_partition(features, n_clusters, generators[0])
    if moved:
        expected = breathing_kmeans(features, n_clusters, generator=generators[1])
    else:
        n_init = _start.n_runs(400, n_clusters)
        expected = kmeans(features, n_clusters, generator=generators[1], n_init=n_init)
    assert torch.equal(found, expected.labels)


def test_the_finer_merger_is_made_where_clusters_are_few():
    embedding = torch.nn.functional.normalize(torch.randn(300, 4), dim=1)
    _, neighbors = nearest_neighbors(embedding, 5)
    generator = torch.Generator().manual_seed(0)
    assert _start.finer_merger(embedding, 30, neighbors, 8, generator) == {}
    found = _start.finer_merger(embedding, 8, neighbors, 2, generator)
    assert list(found) == ["fine"]
    assert set(found["fine"].tolist()) == {0, 1}


def test_the_nearest_mean_of_each_sample():
    embedding = torch.tensor([[0.0], [1.0], [2.0], [7.0], [9.0], [10.0]])
    labels = torch.tensor([3, 3, 3, 3, 1, 1])  # means 2.5 and 9.5
    assert _start.nearest_mean(embedding, labels, 5).tolist() == [3, 3, 3, 1, 1, 1]


def test_an_encoder_learns_the_partition(blobs):
    X, _, _, labels = blobs
    X = (X - X.mean(dim=0)) / X.std()
    trainer = Trainer(["start"], device=torch.device("cpu"), precision="32-true", seed=0)
    with trainer.draws("encoder"):
        layers = multilayer_perceptron([4, 64, 64, 16])
    encoder = EmbeddingNetwork(layers, torch.nn.Identity(), 16)
    assert _start.teach_encoder(encoder, X, labels, 3, trainer)
    assert not encoder.training
    assert encoder.taught
    with torch.no_grad():
        z = encoder(X)
    centers, _ = cluster_means(z, labels, 3)
    assert torch.equal(torch.cdist(z, centers).argmin(dim=1), labels)
    assert trainer.history == []  # it is no phase of its own


@pytest.mark.parametrize("reason", ["interrupted", "diverged"])
def test_an_encoder_that_cannot_learn_stays_as_it_was(blobs, reason, monkeypatch):
    X, _, _, labels = blobs
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    trainer = Trainer(["start"], device=torch.device("cpu"), precision="32-true", seed=0)
    trainer.interrupted = reason == "interrupted"
    if reason == "diverged":
        monkeypatch.setattr(_start, "TEACHING", replace(_start.TEACHING, learning_rate=1e38))
    encoder = EmbeddingNetwork(multilayer_perceptron([4, 16, 8]), torch.nn.Identity(), 8).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert not _start.teach_encoder(encoder, X, shuffled, 3, trainer)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_encoder_that_knows_the_partition_is_left_alone(blobs):
    *_, labels = blobs
    trainer = Trainer(["start"], device=torch.device("cpu"), precision="32-true", seed=0)
    far = torch.nn.functional.one_hot(labels, 4).float()
    encoder = EmbeddingNetwork(torch.nn.Identity(), torch.nn.Identity(), 4)
    assert _start.teach_encoder(encoder, far, labels, 3, trainer)
    assert not encoder.taught


@pytest.fixture
def lessons(monkeypatch):
    """How often something was learned."""
    taken = []
    learn = _start.learn_aside

    def learn_and_count(*given):
        taken.append(given)
        return learn(*given)

    monkeypatch.setattr(_start, "learn_aside", learn_and_count)
    return taken


@pytest.fixture
def pupil():
    """A head that knows a large cluster only: embedding, labels, head."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(505) // 500
    embedding = torch.tensor([[1.0, 0.0], [3.0, 0.0]])[labels]  # of one direction
    embedding += 0.05 * torch.randn(505, 2, generator=generator)
    head = PrototypeHead(2, 2)
    head.start_from(cluster_means(embedding, labels, 2)[0], 10)
    return head, embedding, labels


@pytest.mark.parametrize(
    ("learning_rate", "n_lessons", "known"),
    [(0.1, range(2, _start.MOST_LESSONS), True), (0.0, [_start.MOST_LESSONS], False)],
)
def test_a_head_is_taught_until_it_knows_a_small_cluster_too(
    pupil, lessons, learning_rate, n_lessons, known
):
    trainer = Trainer(["start"], device=torch.device("cpu"), precision="32-true", seed=0)
    recipe = Recipe(batch_size=128, learning_rate=learning_rate, max_steps=60)
    _start.teach_head(*pupil, recipe, trainer)
    head, embedding, labels = pupil
    assert torch.equal(most_likely(head, embedding), labels) is known
    assert len(lessons) in n_lessons


def test_a_head_that_knows_the_partition_is_left_alone(pupil, lessons):
    trainer = Trainer(["start"], device=torch.device("cpu"), precision="32-true", seed=0)
    head, embedding, _ = pupil
    known = most_likely(head, embedding)
    _start.teach_head(head, embedding, known, _start.TEACHING, trainer)
    assert not lessons
