"""The head that learns votes, and the probabilities that follow from its opinion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdeepcluster.calibration import (
    ConfidenceHead,
    _confidence,
    confident_in,
    fit_confidence,
    n_epochs,
    vote_loss,
)
from skdeepcluster.training import SilentHook, Trainer
from tests.helpers import seeded

seeds = st.integers(0, 2**31 - 1)


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=seeded(seed))


# The loss ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    seed=seeds,
    batch=st.integers(1, 9),
    n_clusters=st.integers(1, 9),
    n_voters=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_vote_loss_equals_a_loop(seed, batch, n_clusters, n_voters, dtype):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(batch, n_clusters))
    votes = rng.integers(n_clusters, size=(batch, n_voters))
    expected = 0.0
    for i in range(batch):
        for v in range(n_voters):
            p = np.exp(logits[i, votes[i, v]]) / sum(np.exp(value) for value in logits[i])
            expected -= np.log(p) / (batch * n_voters)
    loss = vote_loss(torch.tensor(logits, dtype=dtype), torch.tensor(votes))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_vote_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = vote_loss(logits, torch.tensor([[0, 1]]))
    loss.backward()
    assert loss.item() == 500
    assert torch.isfinite(logits.grad).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=seeds, n_clusters=st.integers(2, 6), n_voters=st.integers(1, 12))
def test_the_least_loss_is_at_the_shares_of_the_votes(seed, n_clusters, n_voters):
    rng = np.random.default_rng(seed)
    votes = rng.integers(n_clusters, size=(3, n_voters))
    shares = np.stack([np.bincount(row, minlength=n_clusters) for row in votes]) / n_voters
    logits = torch.tensor(np.log(shares.clip(1e-12)), requires_grad=True)
    loss = vote_loss(logits, torch.tensor(votes))
    loss.backward()
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-10)
    other = logits.detach() + torch.tensor(rng.normal(scale=0.1, size=shares.shape))
    assert vote_loss(other, torch.tensor(votes)) > loss.item() - 1e-10


# The head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_rows_of_each_view_get_the_length_promised(scale):
    views = [scale * rows(50, 3), rows(50, 200, seed=1)]
    head = ConfidenceHead(views, 4)
    for view, factor in zip(views, head.scales, strict=True):
        lengths = (factor * view).norm(dim=1)
        assert lengths.square().mean().sqrt().item() == pytest.approx(8, rel=1e-5)
    assert head.weight.shape == (4, 203)


def test_the_head_is_linear_in_the_scaled_views():
    views = [rows(50, 3), 7 * rows(50, 2, seed=1)]
    head = ConfidenceHead(views, 4)
    assert not head(*views).any()  # it starts without an opinion
    with torch.no_grad():
        head.weight.normal_(generator=seeded())
        head.bias.normal_(generator=seeded(1))
    scaled = torch.cat([head.scales[0] * views[0], head.scales[1] * views[1]], dim=1)
    expected = scaled @ head.weight.T + head.bias
    torch.testing.assert_close(head(*views), expected)
    torch.testing.assert_close(head(views[0].double(), views[1].double()), expected)


def test_zero_columns_and_zero_views_are_left_alone():
    views = [rows(50, 3) * torch.tensor([1.0, 0.0, 1.0]), torch.zeros(50, 2)]
    head = ConfidenceHead(views, 4)
    assert torch.isfinite(head.scales).all()
    assert head.scales[1] == 1
    with torch.no_grad():
        head.weight.fill_(1)
    assert torch.isfinite(head(*views)).all()


def test_scales_survive_a_state_and_weights_start_at_zero():
    views = [rows(50, 3)]
    head = ConfidenceHead(views, 4)
    other = ConfidenceHead([5 * views[0]], 4)
    assert other.scales != head.scales
    other.load_state_dict(head.state_dict())
    assert other.scales == head.scales
    assert not head.weight.any()
    assert not head.bias.any()


# Where it starts -----------------------------------------------------------------------------


def sure_votes(labels):
    return labels[:, None].expand(-1, 4)


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_the_start_is_the_softmax_of_distances_to_means(beta, monkeypatch):
    monkeypatch.setattr(_confidence, "SHARPNESSES", (beta,))
    views = [rows(50, 3), 7 * rows(50, 2, seed=1) + 5]
    labels = torch.tensor([0] * 24 + [1] + [2] * 25)
    head = ConfidenceHead(views, 3)
    head.start_from(views, labels, sure_votes(labels))
    expected = np.log(np.bincount(labels) / 50) * np.ones((50, 1))
    for view in views:
        x = 8 * view.numpy() / np.sqrt((view.numpy() ** 2).sum(axis=1).mean())
        means = np.stack([x[labels == k].mean(axis=0) for k in range(3)])
        squared = ((x[:, None] - means) ** 2).sum(axis=2)
        expected -= beta * squared / squared[np.arange(50), labels].mean() / 4
    with torch.no_grad():
        found = head(*views).double().softmax(dim=1)
    expected = np.exp(expected)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-3)


def test_the_start_is_as_sure_as_the_votes_bear_out():
    X = torch.eye(2).repeat_interleave(500, dim=0) + 0.02 * rows(1000, 2)
    labels = torch.arange(2).repeat_interleave(500)
    for share in (0.5, 0.75, 0.95, 1.0):
        # So many of the voters have the label.
        votes = torch.where(torch.arange(20) < 20 * share, labels[:, None], 1 - labels[:, None])
        head = ConfidenceHead([X], 2)
        head.start_from([X], labels, votes)
        p = head(X).softmax(dim=1).gather(1, labels[:, None])
        assert p.mean().item() == pytest.approx(share, abs=0.12)


def test_clusters_without_samples_are_not_expected():
    X = rows(200, 3)
    labels = (X[:, 0] > 0).long()
    head = ConfidenceHead([X], 4)
    head.start_from([X], labels, sure_votes(labels))
    p = head(X).softmax(dim=1)
    assert torch.isfinite(p).all()
    assert p[:, 2:].max() < 0.02
    assert (p.argmax(dim=1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("n_clusters", [1, 2, 5])
def test_samples_at_their_means_start_with_finite_weights(n_clusters):
    X = torch.eye(n_clusters).repeat(10, 1)
    labels = torch.arange(n_clusters).repeat(10)
    head = ConfidenceHead([X], n_clusters)
    head.start_from([X], labels, sure_votes(labels))
    p = head(X).softmax(dim=1)
    torch.testing.assert_close(p, X, atol=1e-6, rtol=0)
    assert head.weight.abs().max() < 1000


def test_many_clusters_in_few_dimensions_are_learned():
    # On a grid a linear head has to learn weights as far apart as the corners.
    place = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0)).repeat(20, 1)
    X = place + 0.1 * rows(720, 2)
    labels = torch.arange(36).repeat(20)
    votes = labels[:, None].expand(-1, 16)
    head = fit_confidence([X - 2.5], votes, labels, 36, trainer(), SilentHook())
    p = head(X - 2.5).softmax(dim=1)
    assert p.gather(1, labels[:, None]).mean() > 0.95


# Fitting -------------------------------------------------------------------------------------


def trainer(seed=0):
    return Trainer(["calibration"], device=torch.device("cpu"), precision="32-true", seed=seed)


def noisy_votes(n=600, n_clusters=3, n_voters=16, seed=0):
    """Return features of separate groups, votes, their numbers, and the shares behind the votes."""
    shares = torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.25, 0.25, 0.5]])[:, :n_clusters]
    group = torch.arange(n) % 3
    X = torch.eye(3)[group] + 0.02 * rows(n, 3, seed)
    votes = torch.multinomial(shares[group], n_voters, replacement=True, generator=seeded(seed))
    return X - X.mean(dim=0), votes, group, shares[group]


@pytest.mark.parametrize("n", [90, 600, 3000])
def test_a_fit_finds_the_shares_of_the_votes(n):
    X, votes, labels, shares = noisy_votes(n)
    runner = trainer()
    head = fit_confidence([X], votes, labels, 3, runner, SilentHook())
    with torch.no_grad():
        logits = head(X)
    least = -(shares * shares.log()).sum(dim=1).mean().item()
    assert vote_loss(logits, votes).item() < least + 0.1
    assert (logits.softmax(dim=1) - shares).abs().mean() < (0.1 if n < 600 else 0.03)
    losses = [record["loss"] for record in runner.history]
    assert losses[-1] < losses[0]
    assert [record["phase"] for record in runner.history] == ["calibration"] * n_epochs(n)


@pytest.mark.parametrize(("n", "shift", "mean"), [(90, 0, 0.7), (5000, 0, 0.7), (600, 1, 1 / 3)])
def test_a_head_knows_how_sure_it_is_of_its_labels(n, shift, mean):
    X, votes, labels, _ = noisy_votes(n)
    labels = (labels + shift) % 3  # shifted, they have less than chance of the votes
    assert ConfidenceHead([X], 3).mean_confidence.isnan()
    head = fit_confidence([X], votes, labels, 3, trainer(), SilentHook())
    with torch.no_grad():
        p = confident_in(labels, head(X).double().softmax(dim=1))
    assert head.mean_confidence.shape == ()
    assert head.mean_confidence.item() == pytest.approx(p.max(dim=1).values.mean().item(), abs=1e-6)
    assert head.mean_confidence.item() == pytest.approx(mean, abs=0.05)


def test_views_are_used_together():
    X, votes, labels, shares = noisy_votes()
    views = [X[:, :1], 100 * X[:, 1:]]
    head = fit_confidence(views, votes, labels, 3, trainer(), SilentHook())
    with torch.no_grad():
        assert (head(*views).softmax(dim=1) - shares).abs().mean() < 0.03


def test_features_that_say_nothing_give_the_overall_shares():
    _, votes, labels, shares = noisy_votes()
    blank = torch.zeros(600, 4)
    head = fit_confidence([blank], votes, labels, 3, trainer(), SilentHook())
    with torch.no_grad():
        p = head(blank).softmax(dim=1)
    assert (p == p[0]).all()
    np.testing.assert_allclose(p[0], shares.mean(dim=0), atol=0.03)


def test_the_same_seed_gives_the_same_head_and_global_state_is_left_alone():
    X, votes, labels, _ = noisy_votes(1200)  # more than one batch, so their order counts
    state = torch.get_rng_state()
    first, same, other = (
        fit_confidence([X], votes, labels, 3, trainer(seed), SilentHook()) for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hook_is_told_of_every_epoch_and_may_stop():
    class Hook:
        def __init__(self):
            self.seen = []

        def begin(self, epoch):
            self.seen.append(epoch)

        def end(self, epoch):
            return epoch == 3

    X, votes, labels, _ = noisy_votes()
    hook, runner = Hook(), trainer()
    fit_confidence([X], votes, labels, 3, runner, hook)
    assert hook.seen == [0, 1, 2, 3]
    assert len(runner.history) == 4


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (10, 1), (513, 2), (30, 150)])
def test_a_head_of_any_size_is_fitted(n, k):
    votes = torch.randint(k, (n, 3), generator=seeded())
    head = fit_confidence([rows(n, 4)], votes, torch.arange(n) % k, k, trainer(), SilentHook())
    assert head(rows(5, 4)).shape == (5, k)
    assert all(torch.isfinite(p).all() for p in head.parameters())


def test_the_number_of_passes():
    # About a hundred steps; fewer for small data, one pass at least for large.
    assert [n_epochs(n) for n in (1, 42, 210, 700, 1024, 10_000)] == [6, 6, 30, 100, 50, 5]
    assert n_epochs(10**6) == 1


# Probabilities -------------------------------------------------------------------------------


def opinions(seed, n, n_clusters, kind):
    rng = np.random.default_rng(seed)
    if kind == "one-hot":
        return np.eye(n_clusters)[rng.integers(n_clusters, size=n)]
    if kind == "ties":
        counts = rng.integers(0, 3, size=(n, n_clusters)) + np.eye(n_clusters)[[0] * n]
        return counts / counts.sum(axis=1, keepdims=True)
    if kind == "uniform":
        return np.full((n, n_clusters), 1 / n_clusters)
    scale = {"even": 0.01, "usual": 2.0, "sure": 300.0}[kind]
    logits = rng.normal(scale=scale, size=(n, n_clusters))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=seeds,
    n=st.integers(1, 6),
    n_clusters=st.sampled_from([1, 2, 3, 4, 7, 10, 150]),
    kind=st.sampled_from(["one-hot", "ties", "uniform", "even", "usual", "sure"]),
    agree=st.booleans(),
)
def test_probabilities_for_any_opinion(seed, n, n_clusters, kind, agree):
    opinion = opinions(seed, n, n_clusters, kind)
    labels = np.random.default_rng(seed + 1).integers(n_clusters, size=n)
    if agree:
        labels = opinion.argmax(axis=1)
    before = opinion.copy()
    found = confident_in(torch.from_numpy(labels), torch.from_numpy(opinion)).numpy()
    np.testing.assert_array_equal(opinion, before)
    assert found.shape == (n, n_clusters)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (found >= 0).all()
    assert (found <= 1).all()
    for p, own, label in zip(found, opinion, labels, strict=True):
        if n_clusters == 1:
            assert p.tolist() == [1]
            continue
        confidence = max(own[label], (1 + 1e-4) / n_clusters)
        assert p[label] == confidence
        others, were = np.delete(p, label), np.delete(own, label)
        # Strictly, and in single precision still.
        assert np.float32(p[label]) > np.float32(others.max())
        assert p.argmax() == label
        # Who was at least as likely as another still is.
        order = np.argsort(were, kind="stable")
        assert (np.diff(others[order]) >= -1e-15).all()
        # What is left is shared as in the opinion, where that leaves the label ahead.
        if were.sum() > 0:
            shared = (1 - confidence) * were / were.sum()
            if shared.max() <= (1 - 1e-5) * confidence:
                np.testing.assert_allclose(others, shared, rtol=1e-9, atol=1e-15)
            else:
                # As much flatter as it takes, and no more.
                assert others.max() == pytest.approx((1 - 1e-5) * confidence, rel=1e-9)
                distance = were / were.sum() - 1 / len(were)
                flattened = others / (1 - confidence) - 1 / len(were)
                top = distance.argmax()
                ratio = flattened[top] / distance[top]
                assert 0 <= ratio <= 1
                np.testing.assert_allclose(flattened, ratio * distance, atol=1e-9)
        else:
            np.testing.assert_allclose(others, (1 - confidence) / len(others), rtol=1e-12)


def test_probabilities_by_hand():
    opinion = torch.tensor([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.5, 0.4, 0.1]]).double()
    found = confident_in(torch.tensor([0, 1, 2]), opinion)
    # The opinion as it is: the label is ahead.
    np.testing.assert_allclose(found[0], [0.5, 0.4, 0.1])
    # The others share .6: 5/6 of it would be more than the label has.
    np.testing.assert_allclose(found[1], [0.4 * (1 - 1e-5), 0.4, 0.2 + 0.4e-5])
    # Below chance: all are as good as even.
    np.testing.assert_allclose(found[2], [1 / 3] * 3, atol=1e-4)
    assert found[2].argmax() == 2


def test_more_confidence_in_the_opinion_is_more_confidence_in_the_label():
    shares = torch.linspace(0, 1, 101, dtype=torch.float64)
    opinion = torch.stack([shares, (1 - shares) * 0.7, (1 - shares) * 0.3], dim=1)
    found = confident_in(torch.zeros(101, dtype=torch.long), opinion)[:, 0]
    assert (found.diff() >= 0).all()
    assert found[-1] == 1


def test_a_head_from_its_tensors_is_the_same():
    views = [torch.randn(20, 3, generator=seeded()), torch.randn(20, 4, generator=seeded(1))]
    head = ConfidenceHead(views, 2)
    with torch.no_grad():
        head.weight.normal_(generator=seeded(2))
        head.bias.normal_(generator=seeded(3))
        head.mean_confidence.fill_(0.7)
    again = ConfidenceHead.from_tensors(**head.state_dict())
    assert torch.equal(again(*views), head(*views))
    assert list(again.state_dict()) == list(head.state_dict())
    again.check(2, [3, 4])
    for n_clusters, widths in ((3, [3, 4]), (2, [3, 5]), (2, [7])):
        with pytest.raises(ValueError, match=r"shapes \(\(2, 7\), \(2,\)\), which should be"):
            again.check(n_clusters, widths)


@pytest.mark.parametrize(
    "shapes", [((2, 1), (3, 7), (3,)), ((2,), (21,), (3,)), ((2,), (3, 7), (4,))]
)
def test_tensors_that_make_no_head_are_refused(shapes):
    with pytest.raises(ValueError, match="A confidence head has scales of shape"):
        ConfidenceHead.from_tensors(*(torch.zeros(shape) for shape in shapes), torch.tensor(0.5))
