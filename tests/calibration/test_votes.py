"""Votes: matched one to one, the same for the same seed, and right where data are clear."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import make_blobs

from skdeepcluster.calibration import _votes, collect_votes, overruled
from skdeepcluster.calibration._votes import _partition, _project
from skdeepcluster.numerics import nearest_neighbors
from tests.helpers import seeded


def blobs(n=300, d=8, k=4, std=0.5, seed=0):
    X, y = make_blobs(n, d, centers=k, cluster_std=std, random_state=seed)
    return torch.from_numpy(X).float(), torch.from_numpy(y)


def agreement(votes, labels):
    return (votes == labels[:, None]).float().mean(dim=1)


# Matching ------------------------------------------------------------------------------------


def test_every_voter_is_matched(monkeypatch):
    X, y = blobs(std=3.0)
    found = []

    def keep(*arguments):
        found.append(_partition(*arguments))
        return found[-1]

    monkeypatch.setattr(_votes, "_partition", keep)
    votes = collect_votes(X, y, 4, 5, seeded(), project=True)
    assert len(found) == 5
    for column, raw in zip(votes.T, found, strict=True):
        table = np.zeros((4, 4), dtype=int)
        np.add.at(table, (raw.numpy(), y.numpy()), 1)
        assert (column == y).sum() == table[linear_sum_assignment(table, maximize=True)].sum()
        assert len(set(zip(raw.tolist(), column.tolist(), strict=True))) == len(raw.unique())


# The votes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("n_voters", [1, 3])
def test_shape_type_and_range(n_voters, project):
    X, y = blobs(std=3.0)
    votes = collect_votes(X, y, 4, n_voters, seeded(), project=project)
    assert votes.shape == (300, n_voters)
    assert votes.dtype == torch.int64
    assert votes.min() >= 0
    assert votes.max() < 4


@pytest.mark.parametrize("project", [True, False])
def test_all_agree_on_clear_blobs(project):
    X, y = blobs(n=400)
    votes = collect_votes(X, y, 4, 8, seeded(), project=project)
    assert torch.equal(votes, y[:, None].expand(-1, 8))


def test_numbers_of_clusters_do_not_matter():
    X, y = blobs(std=3.0)
    order = torch.tensor([2, 0, 3, 1])
    votes = collect_votes(X, y, 4, 4, seeded(), project=True)
    assert torch.equal(collect_votes(X, order[y], 4, 4, seeded(), project=True), order[votes])


def test_half_of_a_split_cluster_gets_about_half_the_agreement():
    # Labels cut the first blob in two, across an arbitrary line, and fuse two others.
    X, y = blobs(n=600, k=5, std=1.0)
    first = y == 0
    side = first & (X[:, 0] > X[first, 0].median())
    labels = torch.where(y == 4, 3, y)
    labels[side] = 4
    share = agreement(collect_votes(X, labels, 5, 16, seeded(), project=True), labels)
    halves = sorted([share[first & ~side].mean().item(), share[side].mean().item()])
    # No voter cuts there: the blob is matched to one half, the other half has nobody.
    assert halves[0] + halves[1] == pytest.approx(1, abs=0.1)
    fused = sorted([share[y == 3].mean().item(), share[y == 4].mean().item()])
    assert fused[0] + fused[1] == pytest.approx(1, abs=0.1)
    for k in (1, 2):
        assert share[y == k].mean() > 0.95


def test_agreement_falls_where_blobs_meet():
    X, y = blobs(n=600, k=2, d=2, std=1.0, seed=3)
    X = X - X.mean(dim=0)
    centers = torch.stack([X[y == k].mean(dim=0) for k in range(2)])
    # Moved together until they overlap.
    X = X - 0.7 * centers[y] * (1 - 2 / (centers[0] - centers[1]).norm())
    centers = torch.stack([X[y == k].mean(dim=0) for k in range(2)])
    distances = torch.cdist(X, centers)
    labels, lead = distances.argmin(dim=1), (distances[:, 0] - distances[:, 1]).abs()
    share = agreement(collect_votes(X, labels, 2, 16, seeded(), project=True), labels)
    near = lead < lead.quantile(0.1)
    assert share[near].mean() < share[~near].mean() - 0.1
    assert share[~near].mean() > 0.9


def test_bent_clusters_are_found_by_merging(monkeypatch):
    angle = torch.linspace(0, 2 * torch.pi, 301)[:300]
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    X = torch.cat([10 * ring, 0.3 * ring])
    X = X + 0.05 * torch.randn(600, 2, generator=seeded())
    labels = torch.arange(600) // 300
    candidates = []
    choose = _votes.best_separated

    def spy(partitions, *others):
        candidates.append(set(partitions))
        return choose(partitions, *others)

    monkeypatch.setattr(_votes, "best_separated", spy)
    collect_votes(X, labels, 2, 3, seeded(), project=False)
    assert candidates == [{"kmeans", "centers", "neighbors"}] * 3
    # Made to prefer it, a voter extends the merged partition to the samples that it did not see.
    monkeypatch.setattr(_votes, "best_separated", lambda *_: "neighbors")
    merged = collect_votes(X, labels, 2, 3, seeded(), project=False)
    assert agreement(merged, labels).mean() > 0.95
    monkeypatch.setattr(_votes, "best_separated", lambda *_: "kmeans")
    assert agreement(collect_votes(X, labels, 2, 3, seeded(), project=False), labels).mean() < 0.9


def test_merging_does_not_depend_on_the_origin(monkeypatch):
    monkeypatch.setattr(_votes, "best_separated", lambda *_: "centers")
    X, y = blobs(n=400)
    X = X.double()
    near = collect_votes(X, y, 4, 4, seeded(), project=False)
    assert torch.equal(near, collect_votes(X + 1000, y, 4, 4, seeded(), project=False))
    assert torch.equal(near, y[:, None].expand(-1, 4))


# Randomness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [True, False])
def test_all_randomness_comes_from_the_generator(project):
    X, y = blobs(std=4.0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is under test
    first = collect_votes(X, y, 4, 4, seeded(3), project=project)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002 - as above
    torch.rand(5)
    second = collect_votes(X, y, 4, 4, seeded(3), project=project)
    torch.set_rng_state(states[0])
    assert torch.equal(first, second)
    assert not torch.equal(first, collect_votes(X, y, 4, 4, seeded(4), project=project))


def test_voters_differ_and_more_of_them_add_to_the_first():
    X, y = blobs(std=4.0)
    votes = collect_votes(X, y, 4, 6, seeded(), project=True)
    assert len({tuple(column.tolist()) for column in votes.T}) == 6
    assert torch.equal(votes[:, :3], collect_votes(X, y, 4, 3, seeded(), project=True))


def test_nothing_is_written_to():
    X, y = blobs(std=3.0)
    before = X.clone(), y.clone()
    collect_votes(X, y, 4, 3, seeded(), project=True)
    collect_votes(X, y, 4, 3, seeded(), project=False)
    assert torch.equal(X, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("width", [1, 3, 500])
def test_random_directions_keep_distances_about(width):
    X = torch.randn(50, width, generator=seeded())
    projected = _project(X, seeded(1))
    assert projected.shape == (50, 64)
    ratio = torch.pdist(projected) / torch.pdist(X) / 8  # the root of 64
    assert ratio.mean().item() == pytest.approx(1, abs=0.2)
    assert not torch.equal(projected, _project(X, seeded(2)))


# Odd data ------------------------------------------------------------------------------------


def rows(n, d=4, seed=0):
    return torch.randn(n, d, generator=seeded(seed))


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize(
    ("X", "k"),
    [
        (rows(50), 1),
        (rows(10), 3),
        (rows(10), 10),
        (rows(2), 2),
        (rows(2), 1),
        (rows(6).repeat(10, 1), 4),
        (rows(6).repeat(10, 1), 8),
        (rows(400), 100),
        (torch.ones(40, 3), 4),
        (torch.zeros(40, 3), 2),
        (rows(60) * torch.tensor([1.0, 0.0, 1.0, 0.0]), 3),
        (rows(60, 1), 3),
        (rows(60) * 1e-20, 3),
        (rows(60) * 1e6 + 1e6, 3),
    ],
    ids=[
        "K=1",
        "n=10",
        "K=n",
        "n=2",
        "n=2, K=1",
        "six rows",
        "six rows, K=8",
        "K=100",
        "ones",
        "zeros",
        "constant features",
        "one feature",
        "tiny",
        "far",
    ],
)
def test_odd_data_get_votes(X, k, project):
    labels = torch.arange(len(X)) % k
    votes = collect_votes(X, labels, k, 4, seeded(), project=project)
    assert votes.shape == (len(X), 4)
    assert votes.min() >= 0
    assert votes.max() < k
    if k == 1:
        assert not votes.any()


def test_equal_rows_get_equal_votes():
    distinct = rows(6)
    votes = collect_votes(
        distinct.repeat(10, 1), torch.arange(60) % 6, 6, 8, seeded(), project=True
    )
    assert torch.equal(votes, votes[:6].repeat(10, 1))
    assert agreement(votes, torch.arange(60) % 6).mean() > 0.9


def test_labels_may_leave_clusters_empty():
    X, y = blobs(k=3)
    votes = collect_votes(X, y, 6, 4, seeded(), project=True)
    assert votes.max() < 6
    # Six voters' clusters for three labels: a part of each blob agrees.
    assert 0.3 < agreement(votes, y).mean() < 0.9


@pytest.mark.parametrize(("n", "k"), [(100, 3), (6000, 3), (6000, 150)])
def test_a_voter_sees_half_of_the_samples_within_bounds(n, k, monkeypatch):
    seen = []
    fit = _votes.kmeans

    def spy(part, *arguments, **options):
        seen.append(len(part))
        return fit(part, *arguments, **options)

    monkeypatch.setattr(_votes, "kmeans", spy)
    collect_votes(rows(n), torch.arange(n) % k, k, 1, seeded(), project=False)
    assert seen == [{(100, 3): 50, (6000, 3): 2048, (6000, 150): 3000}[n, k]]


# Overruled -----------------------------------------------------------------------------------


def rings(n=600):
    """A ring around another, in random order, and which is which."""
    order = torch.randperm(n, generator=seeded(5))
    angle = 4 * torch.pi * torch.arange(n)[order] / n
    labels = (torch.arange(n) < n // 2).long()[order]
    radius = 1.0 + 2 * labels + 0.03 * torch.randn(n, generator=seeded(6))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), labels


def cuts(X, n_voters=8):
    """Votes that cut at a line through the mean, each in its own direction."""
    angles = torch.pi * (torch.arange(n_voters) + 0.5) / n_voters
    directions = torch.stack([angles.cos(), angles.sin()])
    return ((X - X.mean(dim=0)) @ directions > 0).long()


def test_voters_that_cut_clusters_which_stand_apart_are_overruled():
    X, labels = rings()
    votes = cuts(X)
    assert agreement(votes, labels).mean() < 0.6
    assert torch.equal(overruled(votes, X, labels, 2, seeded()), labels[:, None].expand_as(votes))


def test_voters_are_not_overruled_about_halves():
    X, y = rings()
    # Halves of both rings stand apart, too, but no better than other halves do.
    halves, votes = cuts(X, 1)[:, 0], y[:, None].expand(-1, 8)
    assert torch.equal(overruled(votes, X, halves, 2, seeded()), votes)
    changed = overruled(cuts(X), X, halves, 2, seeded()) != cuts(X)
    assert changed.float().mean() < 0.1
    X, y = blobs(n=600, k=2, seed=2)
    torn = torch.where((y == 0) & (X[:, 0] > X[y == 0, 0].median()), 2, y)
    assert torch.equal(overruled(y[:, None], X, torn, 3, seeded())[y == 0], y[y == 0, None])


def test_voters_are_not_overruled_about_clusters_that_were_made_one():
    X, y = blobs(n=600, k=3)
    fused = y.clamp(max=1)
    votes = y[:, None].expand(-1, 8).contiguous()
    assert torch.equal(overruled(votes, X, fused, 3, seeded()), votes)
    # One voter who sees it is enough, and the third cluster is none of its business.
    votes = torch.stack([y, *cuts(X[:, :2], 7).T], dim=1)
    found = overruled(votes, X, fused, 3, seeded())
    assert torch.equal(found[y > 0], votes[y > 0])
    assert not found[y == 0].any()


def slow_share(X, labels, votes, n_clusters):
    """The share of the voters that are overruled, edge by edge."""
    _, graph = nearest_neighbors(X, 15)
    graph, labels = graph.numpy(), labels.numpy()

    def conductance(members, part_of, home=None):
        volume = total = leaving = 0
        for i, row in enumerate(graph):
            for j in row[: max((part_of == part_of[i]).sum() - 1, 1)]:
                if home is not None and home[i] != home[j]:
                    j = i
                ends = members[i] + members[j]
                total, volume, leaving = total + 2, volume + ends, leaving + (ends == 1)
        return leaving / max(min(volume, total - volume), 1)

    shares = []
    for k in range(n_clusters):
        phi, psi = conductance((labels == k).astype(int), labels), 1.0
        for vote in votes.numpy().T:
            parts = 2 * labels + (vote == labels)
            both = [(parts == 2 * k + part).astype(int) for part in (0, 1)]
            if all(part.any() for part in both):
                psi = min(psi, max(conductance(part, parts, labels) for part in both))
        one = 1 - np.exp(-((psi / (0.005 + 3 * phi)) ** 2))
        shares.append(np.exp(-((phi / 0.05) ** 2)) * one)
    return np.array(shares)


def divided(std, n_voters=16):
    """Samples, their clusters, and votes each of which divides every cluster."""
    X, labels = blobs(n=120, d=4, k=3, std=std, seed=4)
    means = torch.stack([X[labels == k].mean(dim=0) for k in range(3)])
    return X, labels, (labels[:, None] + cuts((X - means[labels])[:, :2], n_voters)) % 3


@pytest.mark.parametrize("std", [0.5, 2.0, 2.5, 3.0])
def test_the_share_that_is_overruled(std):
    X, labels, votes = divided(std)
    found = overruled(votes, X, labels, 3, seeded())
    shares = slow_share(X, labels, votes, 3)
    for k in range(3):
        members = labels == k
        replaced = (found == labels[:, None])[members].all(dim=0)
        assert replaced.sum() == np.round(16 * shares[k])
        assert torch.equal(found[members][:, ~replaced], votes[members][:, ~replaced])


def test_which_voters_are_overruled_is_drawn_and_the_same_for_all_clusters():
    X, labels, votes = divided(3.0)
    first, same, other = (overruled(votes, X, labels, 3, seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    gone = [(first == k)[labels == k].all(dim=0) for k in range(3)]
    gone.sort(key=lambda voters: int(voters.sum()))
    assert 0 < gone[0].sum() < gone[1].sum() < gone[2].sum()
    assert (gone[0] <= gone[1]).all()
    assert (gone[1] <= gone[2]).all()


def test_a_cluster_that_the_graph_does_not_show_keeps_its_votes(monkeypatch):
    monkeypatch.setattr(_votes, "APART_ROWS", 300)
    X, y = blobs(n=600, k=3)
    X, y = X[y.argsort()], y.sort().values  # the last 200 are unseen, half of the second cluster
    votes = ((y + 1) % 3)[:, None].expand(-1, 4).contiguous()
    found = overruled(votes, X, y, 3, seeded())
    assert torch.equal(found[y == 2], votes[y == 2])
    assert torch.equal(found[y < 2], y[y < 2, None].expand(-1, 4))


@pytest.mark.parametrize(
    ("X", "k"),
    [
        (rows(1), 1),
        (rows(2), 2),
        (rows(10), 10),
        (rows(6).repeat(10, 1), 4),
        (torch.ones(40, 3), 4),
        (rows(60) * 1e-20, 3),
    ],
)
def test_votes_on_odd_data_are_overruled_or_kept(X, k):
    labels = torch.arange(len(X)) % k
    votes = torch.randint(k, (len(X), 4), generator=seeded())
    before = X.clone(), labels.clone(), votes.clone()
    found = overruled(votes, X, labels, k, seeded())
    assert ((found == votes) | (found == labels[:, None])).all()
    for now, then in zip((X, labels, votes), before, strict=True):
        assert torch.equal(now, then)
