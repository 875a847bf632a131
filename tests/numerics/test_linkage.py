"""Average linkage against an oracle that recomputes every likeness; its tree against SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import (
    cophenet,
    fcluster,
    is_valid_linkage,
    linkage,
)
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score

from skdeepcluster.numerics import (
    average_linkage,
    average_tree,
    cosine_affinity,
    cut_tree,
    in_order_of_leaves,
    neighbor_affinity,
)


def assert_every_merge_is_the_best(affinity, sizes):
    """Check the merges one by one, each against all pairs that there were.

    The method is greedy, so fewer clusters are a continuation of more; comparing with the best
    value instead of the best pair leaves it free among ties.
    """
    total = affinity.double().numpy()
    size = np.maximum(sizes.double().numpy(), 1e-9)

    def likeness(a, b):
        return total[np.ix_(a, b)].sum() / (size[a].sum() * size[b].sum())

    n_parts = len(total)
    groups = {frozenset([i]) for i in range(n_parts)}
    for n_clusters in range(n_parts - 1, 0, -1):
        owner = average_linkage(affinity, sizes, n_clusters).numpy()
        after = {frozenset(np.flatnonzero(owner == k)) for k in range(n_clusters)}
        merged = groups - after
        assert len(merged) == 2
        assert after - groups == {frozenset.union(*merged)}
        members = [sorted(group) for group in groups]
        best = max(likeness(a, b) for i, a in enumerate(members) for b in members[:i])
        a, b = (sorted(group) for group in merged)
        assert likeness(a, b) >= best - 1e-9 * max(1, abs(best))
        groups = after


def random_affinity(n_parts, levels, seed):
    """A symmetric table; with levels, few different values and hence many ties."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(n_parts, n_parts, generator=generator, dtype=torch.float64)
    if levels:
        table = (table * levels).round()
    return table + table.T


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n_parts=st.integers(2, 14),
    levels=st.sampled_from([0, 1, 3]),
    smallest=st.sampled_from([0, 1]),
    seed=st.integers(0, 10_000),
)
def test_every_merge_is_the_best_there_is(n_parts, levels, smallest, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(smallest, 9, (n_parts,), generator=generator)
    affinity = random_affinity(n_parts, levels, seed) * sizes * sizes[:, None]
    assert_every_merge_is_the_best(affinity, sizes)


def test_with_equal_sizes_it_is_scipys_average_linkage():
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    affinity = cosine_affinity(centers, torch.ones(40))
    distances = (1 - affinity).numpy()
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    for n_clusters in (1, 2, 7, 20, 40):
        ours = average_linkage(affinity, torch.ones(40), n_clusters)
        theirs = fcluster(tree, n_clusters, "maxclust")
        assert len(ours.unique()) == n_clusters
        assert adjusted_rand_score(theirs, ours.numpy()) == 1


def test_numbers_are_consecutive_in_the_order_of_the_first_part():
    centers = torch.eye(3)[torch.tensor([2, 0, 2, 1, 0, 1])]
    owner = average_linkage(cosine_affinity(centers, torch.ones(6)), torch.ones(6), 3)
    assert owner.tolist() == [0, 1, 0, 2, 1, 2]
    assert owner.dtype == torch.int64


def test_as_many_as_there_are_and_one():
    affinity = random_affinity(9, 0, 0)
    assert average_linkage(affinity, torch.ones(9), 9).tolist() == list(range(9))
    assert average_linkage(affinity, torch.ones(9), 1).tolist() == [0] * 9
    assert average_linkage(affinity[:1, :1], torch.ones(1), 1).tolist() == [0]


def test_the_input_is_not_written_to():
    affinity, sizes = random_affinity(9, 0, 0), torch.ones(9, dtype=torch.float64)
    before = affinity.clone()
    average_linkage(affinity, sizes, 2)
    assert torch.equal(affinity, before)
    assert torch.equal(sizes, torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_likeness(value):
    owner = average_linkage(torch.full((6, 6), value), torch.ones(6), 2)
    assert sorted(set(owner.tolist())) == [0, 1]


def test_cosine_affinity_is_the_sum_over_all_pairs_of_samples():
    centers = torch.tensor([[2.0, 0.0], [0.0, 0.5], [1.0, 1.0], [0.0, 0.0]])
    sizes = torch.tensor([3, 2, 1, 4])
    half = 0.5**0.5
    expected = [[9, 0, 3 * half, 0], [0, 4, 2 * half, 0], [3 * half, 2 * half, 1, 0], [0] * 4]
    torch.testing.assert_close(cosine_affinity(centers, sizes), torch.tensor(expected))


def test_neighbor_affinity_counts_relations_in_both_directions():
    neighbors = torch.tensor([[1, 2], [0, 2], [3, 0], [2, 1]])
    labels = torch.tensor([0, 0, 1, 3])
    expected = torch.zeros(4, 4)
    for i, row in enumerate(neighbors.tolist()):
        for j in row:
            expected[labels[i], labels[j]] += 1
            expected[labels[j], labels[i]] += 1
    assert torch.equal(neighbor_affinity(neighbors, labels, 4), expected)


# --- the whole tree ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(2, 40), d=st.integers(1, 6), seed=st.integers(0, 999))
def test_of_single_samples_the_tree_is_that_of_scipy(n, d, seed):
    distances = pdist(np.random.default_rng(seed).normal(size=(n, d)))
    tree = average_tree(torch.from_numpy(-squareform(distances)), torch.ones(n))
    tree[:, 2] *= -1
    expected = linkage(distances, "average")
    np.testing.assert_allclose(tree, expected, atol=1e-9)
    np.testing.assert_allclose(cophenet(tree), cophenet(expected), atol=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(1, 30), values=st.integers(1, 3), seed=st.integers(0, 999))
def test_a_cut_of_the_tree_is_what_merges_to_so_many(n, values, seed):
    generator = torch.Generator().manual_seed(seed)
    affinity = torch.randint(values, (n, n), generator=generator)
    affinity, sizes = affinity + affinity.T, torch.randint(3, (n,), generator=generator)
    tree = average_tree(affinity, sizes)
    assert tree.shape == (n - 1, 4)
    assert (np.diff(tree[:, 2]) <= 0).all()
    if n > 1:
        assert tree[-1, 3] == n
        assert is_valid_linkage(np.abs(tree))
    for k in range(1, n + 1):
        expected = average_linkage(affinity, sizes, k).numpy()
        np.testing.assert_array_equal(cut_tree(tree, k), in_order_of_leaves(expected))


def test_leaves_are_numbered_as_they_come():
    assert in_order_of_leaves(np.array([7, 2, 7, 9, 2])).tolist() == [0, 1, 0, 2, 1]
    tree = np.array([[1.0, 3.0, 0.1, 2.0], [0.0, 2.0, 0.2, 2.0], [4.0, 5.0, 0.3, 4.0]])
    assert cut_tree(tree, 3).tolist() == [0, 1, 2, 1]
    assert cut_tree(tree, 2).tolist() == [0, 1, 0, 1]
