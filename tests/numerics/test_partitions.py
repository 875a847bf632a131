"""Merged partitions against scikit-learn, and the choice of the best separated one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

from skdeepcluster.numerics import (
    KMeansResult,
    best_separated,
    centroid_silhouette,
    kmeans,
    merged_partitions,
    nearest_neighbors,
)
from skdeepcluster.numerics._partitions import KMEANS_MARGIN
from tests.helpers import seeded


def blobs(n=300, d=5, k=4, std=0.5, seed=0):
    X, y = make_blobs(n, d, centers=k, cluster_std=std, random_state=seed)
    return torch.from_numpy(X - X.mean(axis=0)), torch.from_numpy(y)


def mini_clusters(X, n_mini=20, seed=0):
    return kmeans(X, n_mini, generator=seeded(seed), n_init=1)


# Merging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_clusters", [1, 2, 4, 7])
def test_centers_of_one_sample_each_are_merged_as_by_scikit_learn(n_clusters, seed):
    X = torch.randn(30, 4, generator=seeded(seed), dtype=torch.float64)
    singles = KMeansResult(X, torch.arange(30), 0.0, 1)
    found = merged_partitions(singles, n_clusters)["centers"]
    theirs = AgglomerativeClustering(n_clusters, metric="cosine", linkage="average")
    assert adjusted_rand_score(theirs.fit_predict(X.numpy()), found) == 1
    assert found.dtype == torch.int64


def test_large_mini_clusters_count_for_more_than_small_ones():
    # Pairs of angles: the mean cosine of the third to {0, 40} depends on their sizes.
    angles = torch.deg2rad(torch.tensor([0.0, 40.0, -50.0, 85.0]))
    centers = torch.stack([angles.cos(), angles.sin()], dim=1)
    # {0, 40} merge first. -50 is near 0, 85 near 40: the larger of the two decides who follows.
    for sizes, expected in (([50, 1, 5, 5], [0, 0, 0, 1]), ([1, 50, 5, 5], [0, 0, 1, 0])):
        labels = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
        result = KMeansResult(centers, labels, 0.0, 1)
        found = merged_partitions(result, 2)["centers"]
        assert adjusted_rand_score(torch.tensor(expected)[labels], found) == 1


@pytest.mark.parametrize("k", [2, 4, 6])
def test_blobs_are_put_together_again(k):
    X, y = blobs(k=k, std=0.3, d=8)
    _, neighbors = nearest_neighbors(X, 10)
    found = merged_partitions(mini_clusters(X), k, neighbors)
    assert list(found) == ["centers", "neighbors"]
    for labels in found.values():
        assert adjusted_rand_score(y, labels) == 1


def test_neighbors_follow_bent_clusters_which_centers_do_not():
    X, y = make_moons(400, noise=0.03, random_state=0)
    X = torch.from_numpy(X - X.mean(axis=0))
    _, neighbors = nearest_neighbors(X, 8)
    found = merged_partitions(mini_clusters(X, 40), 2, neighbors)
    assert adjusted_rand_score(y, found["neighbors"]) == 1
    assert adjusted_rand_score(y, found["centers"]) < 0.7


def test_without_a_graph_there_is_one_partition():
    X, _ = blobs()
    mini = mini_clusters(X)
    assert list(merged_partitions(mini, 4)) == ["centers"]
    _, neighbors = nearest_neighbors(X, 5)
    whole = merged_partitions(mini, 4, neighbors)["centers"]
    assert torch.equal(merged_partitions(mini, 4)["centers"], whole)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(2, 60), n_mini=st.integers(1, 20), k=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_mini_clusters_stay_whole_and_numbers_have_no_gaps(n, n_mini, k, seed):
    n_mini = min(n, n_mini)
    k = min(n_mini, k)
    X = torch.randn(n, 3, generator=seeded(seed))
    mini = mini_clusters(X, n_mini, seed)
    _, neighbors = nearest_neighbors(X, 3)
    for labels in merged_partitions(mini, k, neighbors).values():
        assert labels.shape == (n,)
        assert labels.unique().tolist() == list(range(k))
        for part in range(n_mini):
            assert len(labels[mini.labels == part].unique()) == 1


def test_empty_mini_clusters_do_no_harm():
    X = torch.randn(5, 3, generator=seeded()).repeat(12, 1)
    mini = mini_clusters(X, 10)
    assert len(mini.labels.unique()) == 5
    _, neighbors = nearest_neighbors(X, 3)
    for labels in merged_partitions(mini, 2, neighbors).values():
        assert labels.shape == (60,)
        assert labels.min() >= 0
        assert labels.max() < 2


# Choosing ------------------------------------------------------------------------------------


def test_the_name_of_the_best_silhouette_is_returned():
    X, y = blobs()
    shuffled = y[torch.randperm(300, generator=seeded())]
    fewer = torch.where(y == 3, 0, y)
    candidates = {"shuffled": shuffled, "right": y, "fewer": fewer}
    assert best_separated(candidates, X, 4) == "right"
    scores = {name: centroid_silhouette(X, labels, 4) for name, labels in candidates.items()}
    assert scores["right"] == max(scores.values())
    del candidates["right"]
    assert best_separated(candidates, X, 4) == "fewer"


def spoiled(y, share):
    """Return labels of which some at the start are wrong."""
    labels = y.clone()
    n = int(share * len(y))
    labels[:n] = (labels[:n] + 1) % 4
    return labels


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_kmeans_is_preferred_unless_another_is_clearly_better(std):
    X, y = blobs(std=std)
    best = centroid_silhouette(X, y, 4)
    seen = set()
    for share in (0.0, 0.01, 0.02, 0.04, 0.08, 0.2, 0.4):
        worse = spoiled(y, share)
        name = best_separated({"other": y, "kmeans": worse}, X, 4)
        within = centroid_silhouette(X, worse, 4) * (1 + KMEANS_MARGIN) > best
        assert name == ("kmeans" if within else "other")
        # Under another name it gets no such favour.
        if centroid_silhouette(X, worse, 4) < best:
            assert best_separated({"other": y, "third": worse}, X, 4) == "other"
        seen.add(name)
    assert seen == {"kmeans", "other"}


def test_the_margin_favours_kmeans_where_all_are_badly_separated():
    # Below zero, too, the margin has to be added.
    scores = {"a": -0.500, "b": -0.505}
    X = torch.zeros(2, 1)
    candidates = {"other": torch.tensor([0, 0]), "kmeans": torch.tensor([1, 1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "skdeepcluster.numerics._partitions.centroid_silhouette",
            lambda X, labels, *_: scores["ab"[int(labels[0])]],
        )
        assert best_separated(candidates, X, 2) == "kmeans"
        scores["b"] = -0.52
        assert best_separated(candidates, X, 2) == "other"


@pytest.mark.parametrize("name", ["kmeans", "third"])
def test_without_a_margin_the_best_is_taken_whatever_its_name(name):
    X, y = blobs()
    worse = spoiled(y, 0.01)
    assert best_separated({name: worse, "other": y}, X, 4, margin=0.0) == "other"
    assert best_separated({"other": y, name: worse}, X, 4, margin=0.0) == "other"
    assert best_separated({"other": y, name: y.clone()}, X, 4, margin=0.0) == "other"


def test_the_mean_is_swayed_by_samples_that_the_median_does_not_see():
    X, y = blobs(std=2.0)
    spread = spoiled(y, 0.2)  # a fifth far from its own mean, which moves a little
    values = {
        average: centroid_silhouette(X, spread, 4, average) / centroid_silhouette(X, y, 4, average)
        for average in (torch.median, torch.mean)
    }
    assert values[torch.mean] < values[torch.median]
    margin = (1 / values[torch.mean] + 1 / values[torch.median]) / 2 - 1
    candidates = {"kmeans": spread, "other": y}
    assert best_separated(candidates, X, 4, torch.mean, margin) == "other"
    assert best_separated(candidates, X, 4, torch.median, margin) == "kmeans"


def test_equal_partitions_go_to_kmeans_and_one_cluster_has_a_best_one():
    X, y = blobs()
    assert best_separated({"centers": y, "kmeans": y, "neighbors": y}, X, 4) == "kmeans"
    one = torch.zeros(300, dtype=torch.long)
    assert best_separated({"only": one}, X, 1) == "only"
    assert best_separated({"centers": one, "kmeans": one}, X, 1) in {"centers", "kmeans"}


def test_inputs_are_not_written_to():
    X, y = blobs()
    mini = mini_clusters(X)
    _, neighbors = nearest_neighbors(X, 5)
    before = [tensor.clone() for tensor in (X, y, mini.labels, mini.centers, neighbors)]
    state = torch.get_rng_state()
    candidates = {"kmeans": y, **merged_partitions(mini, 4, neighbors)}
    best_separated(candidates, X, 4)
    for tensor, old in zip((X, y, mini.labels, mini.centers, neighbors), before, strict=True):
        assert torch.equal(tensor, old)
    assert list(candidates) == ["kmeans", "centers", "neighbors"]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.isfinite(mini.inertia)
