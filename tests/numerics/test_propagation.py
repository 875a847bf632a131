"""Label propagation against a loop over samples."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdeepcluster.numerics import propagate_labels


def slow_round(labels, neighbors, n_clusters):
    result = []
    for own, row in zip(labels, neighbors, strict=True):
        votes = np.zeros(n_clusters)
        votes[own] += 1.5
        for j in row:
            votes[labels[j]] += 1
        result.append(int(votes.argmax()))
    return result


@settings(deadline=None, derandomize=True, max_examples=60)
@given(n=st.integers(2, 25), k=st.integers(1, 4), m=st.integers(1, 6), seed=st.integers(0, 999))
def test_against_a_loop(n, k, m, seed):
    rng = np.random.default_rng(seed)
    labels, neighbors = rng.integers(k, size=n).tolist(), rng.integers(n, size=(n, m))
    found = propagate_labels(torch.tensor(labels), torch.tensor(neighbors), k)
    for _ in range(10):
        elected = slow_round(labels, neighbors, k)
        if set(elected) < set(labels):
            break
        labels = elected
    assert found.tolist() == labels


def test_a_lone_label_gives_way_to_two_neighbors_but_not_to_one():
    labels = torch.tensor([0, 0, 0, 1, 1])
    agreeing = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1], [3, 3]])
    assert propagate_labels(labels, agreeing, 2)[3] == 0
    split = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 4], [3, 3]])
    assert propagate_labels(labels, split, 2)[3] == 1


def test_no_cluster_is_emptied():
    labels = torch.tensor([0, 0, 0, 1])
    neighbors = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1]])
    assert torch.equal(propagate_labels(labels, neighbors, 2), labels)


def test_a_cluster_without_samples_holds_up_nobody():
    labels = torch.tensor([0, 0, 0, 2, 2])
    neighbors = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1], [3, 3]])
    assert propagate_labels(labels, neighbors, 4).tolist() == [0, 0, 0, 0, 2]
