"""The losses and assignments of SeCu against slow numpy oracles, and the objective's promises."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, normalize

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork
from skdeepcluster.objectives import (
    DiscriminationHead,
    DiscriminationObjective,
    RefinementObjective,
    _discrimination,
    center_loss,
    class_weights,
    discriminate,
    encoder_loss,
    entropy_cost,
    info_nce,
    raised_duals,
)

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
shares = st.sampled_from([0.0, 0.2, 1.0])
temperatures = st.sampled_from([0.05, 0.5, 1.0])
constraints = st.sampled_from([None, "size", "entropy"])
settings.register_profile("objectives", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("objectives")

WIDTH = 4
CONSTRAINTS = [None, "size", "entropy"]


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(scale=3, size=shape)


def draw_unit(seed, n, width=WIDTH):
    rows = draw(seed, n, width)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw_labels(seed, n, n_clusters):
    return np.random.default_rng(seed).integers(n_clusters, size=n)


def slow_log_sum(row):
    return np.log(sum(np.exp(x - max(row)) for x in row)) + max(row)


def slow_center_loss(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total -= row[label] - slow_log_sum(row)
    return total / len(logits)


def slow_center_gradient(x, centers, labels, temperature):
    """The claim: k-means in which each sample weighs as much as its cluster is in doubt."""
    gradient = np.zeros_like(centers)
    p = softmax(x @ centers.T / temperature)
    for k in range(len(centers)):
        for i in range(len(x)):
            if labels[i] == k:
                gradient[k] -= (1 - p[i, k]) * x[i] / (len(x) * temperature)
    return gradient


def slow_encoder_loss(logits, other_logits, labels, label_share):
    total = 0.0
    targets = softmax(other_logits)
    for row, target, label in zip(logits, targets, labels, strict=True):
        log_sum = slow_log_sum(row)
        for k in range(len(row)):
            q = label_share * (k == label) + (1 - label_share) * target[k]
            total -= q * (row[k] - log_sum)
    return total / len(logits)


def slow_duals(duals, counts, lower_bound, rate):
    raised = []
    for dual, count in zip(duals, counts, strict=True):
        raised.append(max(0, dual + rate * (lower_bound / len(duals) - count / sum(counts))))
    return raised


def slow_entropy(counts, n):
    """The sum of p log p, with an empty cluster adding nothing."""
    return sum(c / n * np.log(c / n) for c in counts if c)


def slow_entropy_cost(counts):
    n = sum(counts) + 1
    costs = []
    for k in range(len(counts)):
        joined = [c + (j == k) for j, c in enumerate(counts)]
        costs.append(n * (slow_entropy(joined, n) - slow_entropy(counts, n)))
    return costs


def slow_head(head, index, first, second):
    """Return the loss of a batch and what is remembered afterwards, sample by sample."""
    w = head.head.weight.detach().double().numpy()
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    previous, duals = head.previous.double().numpy(), head.duals.double().numpy()
    first, second = (view.detach().double().numpy() for view in (first, second))
    last, n_clusters, t = head.assignments.tolist(), head.n_clusters, head.temperature
    labels, known, table = [], [], list(last)
    for i, a, b in zip(index.tolist(), first, second, strict=True):
        scores = [(a @ w[k] + b @ w[k]) / 2 for k in range(n_clusters)]
        if head.constraint == "size":
            scores = [score + duals[k] for k, score in enumerate(scores)]
        if head.constraint == "entropy":
            others = [0] * n_clusters
            for j, label in enumerate(last):
                if j != i and label >= 0:
                    others[label] += 1
            costs = slow_entropy_cost(others)
            scores = [score - head.entropy_weight * costs[k] for k, score in enumerate(scores)]
        labels.append(int(np.argmax(scores)))
        known.append(last[i] if last[i] >= 0 else labels[-1])
        table[i] = labels[-1]
    both = np.concatenate([first, second])
    swapped = np.concatenate([second, first])
    loss = slow_center_loss(both @ w.T / t, labels * 2)
    loss += slow_encoder_loss(
        both @ previous.T / t, swapped @ previous.T / t, known * 2, head.label_share
    )
    if head.constraint == "size":
        rate = 0.01 * n_clusters
        counts = [labels.count(k) for k in range(n_clusters)]
        duals = slow_duals(duals, counts, head.lower_bound, rate)
    changed = np.mean([a != last[i] for a, i in zip(labels, index.tolist(), strict=True)])
    return loss, changed, table, list(duals)


STATE = {
    "constraint": "size",
    "lower_bound": 0.9,
    "entropy_weight": 0.12,
    "label_share": 0.2,
    "temperature": 0.05,
}


def tracking(n, n_clusters, **changes):
    """Return a new head that tracks n samples, in double precision."""
    head = DiscriminationHead(WIDTH, n_clusters, **{**STATE, **changes}).double()
    head.track_samples(n)
    return head


def make_head(n_clusters=3, n=30, seed=0, **changes):
    """Return a head that is in the midst of training."""
    torch.manual_seed(seed)
    head = tracking(n, n_clusters, **changes)
    with torch.no_grad():
        # Lengths other than one, centres other than those of the encoder, and everything seen.
        head.head.weight.mul_(torch.arange(1.0, n_clusters + 1)[:, None])
        head.previous.copy_(normalize(torch.randn(n_clusters, WIDTH), dim=1))
        head.assignments.copy_(torch.randint(n_clusters, (n,)))
    return head


def draw_views(seed, n):
    """Return unit embeddings of two views, which agree as those of an encoder do."""
    x = torch.tensor(draw_unit(seed, n))
    noise = 0.3 * torch.tensor(draw_unit(seed + 1, n))
    return normalize(x + noise, dim=1), normalize(x - noise, dim=1)


def two_centers():
    """Return a head with centres along two axes, so that cosines can be read off a sample."""
    head = make_head(2, constraint="entropy", entropy_weight=1.0)
    with torch.no_grad():
        head.head.weight.copy_(torch.eye(WIDTH)[:2])
    return head


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng():
        yield


# The centres -----------------------------------------------------------------------------------


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes)
def test_center_loss_equals_a_loop(seed, batch, n_clusters, dtype):
    logits, labels = draw(seed, batch, n_clusters), draw_labels(seed, batch, n_clusters)
    tensor, y = torch.tensor(logits, dtype=dtype), torch.tensor(labels)
    loss = center_loss(tensor, y)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_center_loss(logits, labels), rel=1e-5, abs=1e-6)
    assert loss.item() == pytest.approx(cross_entropy(tensor, y).item(), rel=1e-5, abs=1e-6)


@given(seed=seeds, batch=sizes, n_clusters=sizes, temperature=temperatures)
def test_centers_learn_as_in_k_means_with_hard_samples_weighing_more(
    seed, batch, n_clusters, temperature
):
    x, w = draw_unit(seed, batch), draw_unit(seed + 1, n_clusters)
    labels = draw_labels(seed, batch, n_clusters)
    centers, y = torch.tensor(w, requires_grad=True), torch.tensor(labels)
    # Those of other clusters would carry a gradient, too, were it let through.
    center_loss(torch.tensor(x) @ centers.T / temperature, y).backward()
    expected = slow_center_gradient(x, w, labels, temperature)
    # softplus is linear from 20 on, which is as much as 2e-9 off.
    np.testing.assert_allclose(centers.grad.numpy(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_only_cross_entropy_moves_centers_without_samples(seed):
    x, y = torch.tensor(draw_unit(seed, 8)), torch.tensor([1, 3] * 4)
    gradients = []
    for stable in (True, False):
        centers = torch.tensor(draw_unit(seed + 1, 5), requires_grad=True)
        logits = x @ centers.T / 0.5
        loss = center_loss(logits, y) if stable else cross_entropy(logits, y)
        loss.backward()
        gradients.append(centers.grad)
    ours, theirs = gradients
    without = [0, 2, 4]
    assert torch.equal(ours[without], torch.zeros(3, WIDTH, dtype=torch.float64))
    assert (theirs[without].norm(dim=1) > 1e-3).all()
    assert (ours[[1, 3]].norm(dim=1) > 1e-3).all()


def test_center_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0], [500.0, -500.0]], requires_grad=True)
    loss = center_loss(logits, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 500
    assert logits.grad.tolist() == [[0, 0], [0, -0.5]]


def test_one_center_has_nothing_to_learn():
    logits = torch.tensor([[3.0], [-2.0]], requires_grad=True)
    loss = center_loss(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0], [0]]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_heads_side_by_side_learn_as_each_alone(constraint):
    heads = [tracking(20, 3, constraint=constraint) for _ in range(3)]
    alone = copy.deepcopy(heads)
    for step in range(4):
        index = torch.randperm(20, generator=torch.Generator().manual_seed(step))[:8]
        first = torch.tensor(draw_unit(2 * step, 8), requires_grad=True)
        second = torch.tensor(draw_unit(2 * step + 1, 8))
        losses, changes = discriminate(heads, index, first, second)
        losses.sum().backward()
        gradient, first.grad = first.grad, None
        for number, head in enumerate(alone):
            loss, change = head(index, first, second)
            loss.backward()
            assert loss.item() == pytest.approx(losses[number].item())
            assert change == changes[number]
        torch.testing.assert_close(first.grad, gradient)
    for ours, theirs in zip(heads, alone, strict=True):
        torch.testing.assert_close(ours.head.weight.grad, theirs.head.weight.grad)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert not torch.equal(heads[0].assignments, heads[1].assignments)


# The encoder -----------------------------------------------------------------------------------


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes, share=shares)
def test_encoder_loss_equals_a_loop(seed, batch, n_clusters, dtype, share):
    logits, other = draw(seed, batch, n_clusters), draw(seed + 1, batch, n_clusters)
    labels = draw_labels(seed, batch, n_clusters)
    loss = encoder_loss(
        torch.tensor(logits, dtype=dtype),
        torch.tensor(other, dtype=dtype),
        torch.tensor(labels),
        share,
    )
    assert loss.dtype == dtype
    expected = slow_encoder_loss(logits, other, labels, share)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seed=seeds, batch=sizes, n_clusters=sizes, share=shares)
def test_gradient_of_the_encoder_loss_is_the_difference(seed, batch, n_clusters, share):
    logits = torch.tensor(draw(seed, batch, n_clusters), requires_grad=True)
    other = torch.tensor(draw(seed + 1, batch, n_clusters), requires_grad=True)
    labels = draw_labels(seed, batch, n_clusters)
    encoder_loss(logits, other, torch.tensor(labels), share).backward()
    q = share * np.eye(n_clusters)[labels] + (1 - share) * softmax(other.detach().numpy())
    expected = (softmax(logits.detach().numpy()) - q) / batch
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-12)
    assert other.grad is None


def test_encoder_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = encoder_loss(logits, logits, torch.tensor([1, 1]), 0.25)
    loss.backward()
    assert loss.item() == 125
    assert torch.isfinite(logits.grad).all()


# The constraints -------------------------------------------------------------------------------


@given(
    seed=seeds,
    n_clusters=sizes,
    bound=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    rate=st.sampled_from([0.01, 0.1, 3.0]),
    dtype=dtypes,
)
def test_raised_duals_equal_a_loop_and_are_never_negative(seed, n_clusters, bound, rate, dtype):
    rng = np.random.default_rng(seed)
    duals = rng.exponential(0.1, size=n_clusters)
    counts = rng.poisson(1.5, size=n_clusters)
    counts[0] += 1
    before = torch.tensor(duals, dtype=dtype)
    raised = raised_duals(before, torch.tensor(counts, dtype=dtype), bound, rate)
    assert raised.dtype == dtype
    np.testing.assert_allclose(raised.numpy(), slow_duals(duals, counts, bound, rate), atol=1e-6)
    assert (raised >= 0).all()
    assert torch.equal(before, torch.tensor(duals, dtype=dtype))


def test_duals_by_hand():
    # With two clusters and r = .8, each is to hold .4 of the batch.
    duals = torch.tensor([0.0, 0.0])
    for expected in ([0, 0.1], [0, 0.2]):
        duals = raised_duals(duals, torch.tensor([7.0, 3.0]), 0.8, 1.0)
        assert duals.tolist() == pytest.approx(expected)
    # Enough of them again: it falls as it rose.
    duals = raised_duals(duals, torch.tensor([5.0, 5.0]), 0.8, 1.0)
    assert duals.tolist() == pytest.approx([0, 0.1])
    duals = raised_duals(duals, torch.tensor([2.0, 8.0]), 0.8, 1.0)
    assert duals.tolist() == pytest.approx([0.2, 0])


def test_the_papers_rate_for_ten_clusters():
    head = make_head(10, temperature=1.0)
    head.duals.fill_(1.0)
    index = torch.arange(30)
    x = normalize(head.head.weight.detach()[:1], dim=1).expand(30, -1)
    head(index, x, x)
    assert head.assignments.tolist() == [0] * 30
    assert head.duals.tolist() == pytest.approx([1 + 0.1 * (0.09 - 1)] + 9 * [1 + 0.1 * 0.09])


@given(seed=seeds, n_clusters=sizes, dtype=dtypes, crowded=st.booleans())
def test_entropy_cost_equals_a_loop(seed, n_clusters, dtype, crowded):
    # Sparse sizes have empty clusters among them, or are nothing but empty.
    counts = np.random.default_rng(seed).poisson(40 if crowded else 0.7, size=n_clusters)
    costs = entropy_cost(torch.tensor(counts, dtype=dtype))
    assert costs.dtype == dtype
    assert torch.isfinite(costs).all()
    np.testing.assert_allclose(costs.numpy(), slow_entropy_cost(counts.tolist()), atol=1e-4)


@given(seed=seeds, n_clusters=st.integers(2, 9))
def test_costs_differ_by_what_a_move_changes_in_n_times_the_entropy(seed, n_clusters):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, size=n_clusters)
    own, other = rng.permutation(n_clusters)[:2]
    costs = entropy_cost(torch.tensor(counts, dtype=torch.float64))
    before, after = counts.copy(), counts.copy()
    before[own] += 1
    after[other] += 1
    n = before.sum()
    change = slow_entropy(after.tolist(), n) - slow_entropy(before.tolist(), n)
    assert (costs[other] - costs[own]).item() == pytest.approx(n * change, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_6000_for_50000_samples_is_a_weight_of_012(seed):
    counts = np.random.default_rng(seed).multinomial(49_999, np.full(10, 0.1))
    costs = entropy_cost(torch.tensor(counts, dtype=torch.float64))
    moved = []
    for k in range(10):
        joined = [c + (j == k) for j, c in enumerate(counts)]
        moved.append(6000 * slow_entropy(joined, 50_000))
    ours, theirs = 0.12 * (costs - costs[0]).numpy(), np.array(moved) - moved[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("n", [1_800, 50_000, 1_300_000])
def test_single_precision_is_enough_for_the_entropy_cost(n):
    counts = np.random.default_rng(0).multinomial(n - 1, np.arange(1, 11) / 55)
    exact = entropy_cost(torch.tensor(counts, dtype=torch.float64))
    costs = entropy_cost(torch.tensor(counts, dtype=torch.float32))
    # As heads compute it. With the weight of .12 this is 2e-4 of a cosine.
    np.testing.assert_allclose(costs.numpy(), exact.numpy(), atol=2e-3)


def test_entropy_costs_of_many_rows_are_those_of_each():
    counts = torch.tensor(np.random.default_rng(0).poisson(2, size=(5, 4)), dtype=torch.float64)
    costs = entropy_cost(counts)
    for row, own in zip(costs, counts, strict=True):
        assert torch.equal(row, entropy_cost(own))


# A head ----------------------------------------------------------------------------------------


@given(
    seed=seeds,
    batch=sizes,
    n_clusters=sizes,
    constraint=constraints,
    share=shares,
    temperature=temperatures,
)
def test_a_batch_of_a_head_equals_a_loop(seed, batch, n_clusters, constraint, share, temperature):
    with torch.random.fork_rng():
        head = make_head(
            n_clusters,
            n=12,
            seed=seed,
            constraint=constraint,
            label_share=share,
            temperature=temperature,
        )
        # Some were never seen.
        head.assignments[torch.rand(12) < 0.4] = -1
        index = torch.randperm(12)[:batch]
    head.duals.copy_(torch.tensor(np.random.default_rng(seed).exponential(0.1, n_clusters)))
    first, second = draw_views(seed, batch)
    expected, share_changed, table, duals = slow_head(head, index, first, second)
    loss, changed = head(index, first, second)
    assert loss.item() == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert changed.item() == pytest.approx(share_changed)
    assert head.assignments.tolist() == table
    assert head.duals.tolist() == pytest.approx(duals, abs=1e-12)


@pytest.mark.parametrize("n_clusters", [1, 2, 5])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_epochs_of_training_equal_a_loop(constraint, n_clusters):
    torch.manual_seed(0)
    head = tracking(30, n_clusters, constraint=constraint)
    optimizer = torch.optim.SGD([head.head.weight], lr=0.3)
    first, second = draw_views(0, 30)
    for _ in range(3):
        head.begin_epoch()
        torch.testing.assert_close(head.previous, head.head.centers.detach())
        for index in torch.randperm(30).split(10):
            expected, share, table, duals = slow_head(head, index, first[index], second[index])
            loss, changed = head(index, first[index], second[index])
            assert loss.item() == pytest.approx(expected, rel=1e-8)
            assert changed.item() == pytest.approx(share)
            assert head.assignments.tolist() == table
            assert head.duals.tolist() == pytest.approx(duals, abs=1e-12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (head.assignments >= 0).all()


def test_a_new_head_has_seen_nothing():
    head = tracking(30, 3)
    assert head.assignments.tolist() == [-1] * 30
    assert head.assignments.dtype == torch.long
    assert head.duals.tolist() == [0, 0, 0]
    assert head.n_clusters == 3
    torch.testing.assert_close(head.previous, head.head.centers.detach())
    first, second = draw_views(0, 10)
    _, changed = head(torch.arange(10), first, second)
    assert changed.item() == 1
    assert (head.assignments >= 0).tolist() == [True] * 10 + [False] * 20


@pytest.mark.parametrize("n_clusters", [1, 2, 5])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_weights_get_the_tangent_of_the_gradient_of_the_centers_alone(constraint, n_clusters):
    head = make_head(n_clusters, constraint=constraint)
    first, second = draw_views(3, 20)
    loss, _ = head(torch.arange(20), first, second)
    loss.backward()
    w, both = head.head.centers.detach(), torch.cat([first, second])
    labels = head.assignments[:20].repeat(2)
    g = torch.tensor(slow_center_gradient(both.numpy(), w.numpy(), labels.tolist(), 0.05))
    tangent = g - (g * w).sum(dim=1, keepdim=True) * w
    expected = tangent / head.head.weight.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(head.head.weight.grad, expected, rtol=1e-7, atol=1e-7)


def test_the_encoder_loss_never_reaches_the_centers():
    first, second = draw_views(3, 20)
    gradients = []
    for share, seed in ((0.0, 5), (1.0, 6)):
        head = make_head(label_share=share)
        head.previous.copy_(torch.tensor(draw_unit(seed, 3)))
        head(torch.arange(20), first, second)[0].backward()
        gradients.append(head.head.weight.grad)
    assert torch.equal(*gradients)
    assert gradients[0].any()


def gradient_of_the_encoder_loss(centers, first, second, known, label_share=0.2):
    """Return the gradient of both views, with what the other view says taken as numbers."""
    both = torch.cat([first, second]).requires_grad_()
    log_p = log_softmax(both @ centers.T / 0.05, dim=1)
    p1, p2 = log_p.detach().exp().chunk(2)
    one_hot = torch.eye(len(centers), dtype=both.dtype)[known.repeat(2)]
    q = label_share * one_hot + (1 - label_share) * torch.cat([p2, p1])
    (-(q * log_p).sum(dim=1).mean()).backward()
    return both.grad.chunk(2)


def assert_encoder_learns_from(centers, head, index, first, second, known):
    first, second = (view.clone().requires_grad_() for view in (first, second))
    head(index, first, second)[0].backward()
    expected = gradient_of_the_encoder_loss(centers, first.detach(), second.detach(), known)
    for view, gradient in zip((first, second), expected, strict=True):
        torch.testing.assert_close(view.grad, gradient, rtol=1e-9, atol=1e-9)
        assert view.grad.abs().max() > 1e-2


def test_the_encoder_learns_from_the_centers_at_the_beginning_of_the_epoch():
    # No more than the gradient of the encoder loss, so the centre loss never gets there either.
    head, index = make_head(), torch.arange(20)
    views = draw_views(3, 20)
    known = head.assignments[:20].clone()
    head.begin_epoch()
    old = head.head.centers.detach().clone()
    with torch.no_grad():
        head.head.weight.copy_(torch.randn_like(head.head.weight))
    assert_encoder_learns_from(old, head, index, *views, known)
    known = head.assignments[:20].clone()
    head.begin_epoch()
    assert_encoder_learns_from(head.head.centers.detach(), head, index, *views, known)


def test_the_encoder_learns_the_cluster_of_the_last_visit_or_for_want_of_it_the_new_one():
    head, index = make_head(label_share=1.0, constraint=None), torch.arange(6)
    first, second = draw_views(3, 6)
    new = (first + second).matmul(head.head.centers.detach().T).argmax(dim=1)
    last = (new + 1) % 3
    head.assignments[:6] = torch.where(torch.arange(6) % 2 == 0, -1, last)
    known = torch.where(torch.arange(6) % 2 == 0, new, last)
    views = [view.clone().requires_grad_() for view in (first, second)]
    head(index, *views)[0].backward()
    expected = gradient_of_the_encoder_loss(head.previous, first, second, known, 1.0)
    for view, gradient in zip(views, expected, strict=True):
        torch.testing.assert_close(view.grad, gradient)
    assert torch.equal(head.assignments[:6], new)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_sample_that_stands_twice_in_a_batch_is_remembered_once(constraint):
    head = make_head(constraint=constraint)
    centers = head.head.centers.detach()
    # As a sampler pads, but with views in different clusters, and one that was never seen.
    head.assignments[7] = -1
    index = torch.tensor([4, 7, 4, 7, 9])
    x = centers[[0, 1, 2, 0, 1]]
    before = head.assignments.clone()
    for _ in range(3):
        loss, _ = head(index, x, x)
        assert torch.isfinite(loss)
        counts = torch.bincount(head.assignments, minlength=3)
        assert counts.sum() == 30
    others = [i for i in range(30) if i not in (4, 7, 9)]
    assert torch.equal(head.assignments[others], before[others])
    if constraint is None:
        assert head.assignments[4].item() in (0, 2)
        assert head.assignments[7].item() in (0, 1)
        assert head.assignments[9].item() == 1


def test_a_sample_is_not_driven_out_by_itself():
    # The other samples are balanced. Counted with itself, cluster 1 would be the larger, and a
    # weight of one outdoes the small advantage in the cosine.
    head = two_centers()
    head.assignments[:] = torch.arange(30) % 2
    head.assignments[0] = 1
    head.assignments[29] = -1
    x = torch.tensor([[0.70, 0.714, 0, 0]], dtype=torch.float64)
    costs = entropy_cost(torch.tensor([14.0, 14.0]))
    assert costs[0] == costs[1]
    assert entropy_cost(torch.tensor([14.0, 15.0])).diff() > 0.05
    head(torch.tensor([0]), x, x)
    assert head.assignments[0].item() == 1


def test_sizes_are_those_of_all_samples_and_not_of_the_batch():
    head = two_centers()
    head.assignments.zero_()
    x = torch.tensor([[0.9, 0.1, 0, 0]], dtype=torch.float64)
    # In a batch of one the sizes would be equal.
    head(torch.tensor([3]), x, x)
    assert head.assignments[3].item() == 1
    head.entropy_weight = 0.0
    head(torch.tensor([3]), x, x)
    assert head.assignments[3].item() == 0


def cloud(n=60):
    """Return samples around one direction and centres at it and far away from it."""
    angles = torch.tensor(np.random.default_rng(0).normal(scale=0.3, size=n))
    x = torch.stack([angles.cos(), angles.sin(), *torch.zeros(2, n)], dim=1)
    far = torch.tensor([[1.0, 0, 0, 0], [np.cos(2), np.sin(2), 0, 0]])
    return x, far


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_dead_cluster_comes_back_if_there_is_a_constraint(constraint):
    x, centers = cloud()
    head = make_head(2, n=60, constraint=constraint, lower_bound=0.5, entropy_weight=1.0)
    with torch.no_grad():
        head.head.weight.copy_(centers)
    head.assignments.zero_()
    optimizer = torch.optim.SGD([head.head.weight], lr=0.01)
    sizes = []
    for step in range(400):
        index = torch.arange(step % 3, 60, 3)
        optimizer.zero_grad()
        head(index, x[index], x[index])[0].backward()
        optimizer.step()
        sizes.append(int((head.assignments == 1).sum()))
        if step == 20 and constraint == "size":
            # Steadily more attractive as long as nobody comes.
            assert sizes[-1] == 0
            assert head.duals.tolist() == pytest.approx([0, 21 * 0.02 * 0.25])
    predicted = (x @ head.head.centers.T).argmax(dim=1)
    if constraint is None:
        assert max(sizes) == 0
        assert predicted.sum() == 0
        assert torch.equal(head.head.weight[1], centers[1].double())
    else:
        assert min(sizes[-50:]) >= 10
        assert predicted.sum() >= 10


def test_a_dead_cluster_is_raised_to_its_share_by_duals_alone():
    x, centers = cloud()
    head = make_head(2, n=60, constraint="size", lower_bound=0.5)
    with torch.no_grad():
        head.head.weight.copy_(centers)
    shares = []
    for _ in range(600):
        head(torch.arange(60), x, x)
        shares.append((head.assignments == 1).double().mean().item())
    assert shares[0] == 0
    # A cluster at its bound goes up and down around it.
    assert np.mean(shares[-200:]) == pytest.approx(0.25, abs=0.02)
    assert head.duals[0].item() == 0


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("n_clusters", [1, 3])
def test_duplicates_are_finite(n_clusters, constraint):
    head = make_head(n_clusters, n=8, constraint=constraint)
    head.assignments.fill_(-1)
    x = torch.tensor(draw_unit(0, 1)).expand(8, -1).clone().requires_grad_()
    for _ in range(3):
        loss, _ = head(torch.arange(8), x, x)
        loss.backward()
        assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(head.head.weight.grad).all()


def test_a_head_starts_from_a_partition():
    head = make_head(3)
    weight, duals = head.head.weight, head.duals.clone()
    z, labels = torch.tensor(draw_unit(0, 30)), torch.tensor(draw_labels(1, 30, 3))
    head.start_from(z, labels)
    for k in range(3):
        expected = normalize(z[labels == k].mean(dim=0), dim=0)
        torch.testing.assert_close(head.head.centers[k], expected)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert head.head.weight is weight
    assert weight.grad_fn is None
    assert weight.requires_grad
    assert torch.equal(head.assignments, labels)
    torch.testing.assert_close(head.previous, head.head.centers.detach())
    assert torch.equal(head.duals, duals)


def test_the_first_visit_after_a_start_knows_the_partition():
    head, index = make_head(3), torch.arange(30)
    views = draw_views(0, 30)
    labels = torch.tensor(draw_labels(1, 30, 3))
    head.start_from((views[0] + views[1]) / 2, labels)
    head.begin_epoch()
    assert_encoder_learns_from(head.head.centers.detach(), head, index, *views, labels)


@pytest.mark.parametrize("make_optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_cluster_that_starts_without_samples_can_learn(make_optimizer):
    # k-means of repeated samples leaves clusters without any.
    z, index = torch.tensor(draw_unit(0, 30)), torch.arange(30)
    head = make_head(3)
    head.start_from(z, index % 2)
    head.begin_epoch()
    optimizer = make_optimizer([head.head.weight], lr=0.1)
    before = head.head.centers.detach().clone()
    for _ in range(100):
        optimizer.zero_grad()
        head(index, z, z)[0].backward()
        assert head.head.weight.grad.abs().max() < 1e3
        optimizer.step()
        assert head.head.weight.abs().max() < 1e3
    assert (head.head.centers - before).norm(dim=1).min() > 0.01


# The objective ---------------------------------------------------------------------------------


class Encoder(nn.Module):
    """An encoder with running statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))

    def forward(self, x):
        return self.layers(x)


def make_objective(n_clusters=(3,), n_over_clusters=(6,), n=60, seed=0, learns=True, **changes):
    parameters = {**STATE, "neighbor_weight": 0.0, "neighbor_temperature": 0.3}
    torch.manual_seed(seed)
    layers = (Encoder(), nn.Linear(WIDTH, WIDTH)) if learns else (nn.Identity(), nn.Identity())
    objective = DiscriminationObjective(
        ClusterModel(nn.Identity(), EmbeddingNetwork(*layers, WIDTH), nn.Identity()),
        n_clusters=n_clusters,
        n_over_clusters=n_over_clusters,
        **{**parameters, **changes},
    )
    objective.track_samples(n)
    return objective, torch.randn(n, WIDTH)


def batch_of(z, index):
    """Return a batch as IndexedViews make it."""
    index = torch.as_tensor(index)
    noise = 0.2 * z.roll(1, dims=0)
    return index, z[index] + noise[index], z[index] - noise[index]


def train(objective, z, n_epochs=2, batch_size=20, rates=(0.05, 0.5)):
    """Train as the loop does."""
    optimizer = torch.optim.SGD(objective.parameter_groups(*rates), momentum=0.9)
    objective.train()
    for epoch in range(n_epochs):
        objective.begin_epoch(epoch / n_epochs)
        for index in torch.randperm(len(z)).split(batch_size):
            optimizer.zero_grad()
            objective(*batch_of(z, index))[0].backward()
            optimizer.step()
    return objective


def assert_equal_states(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


COMPOSITIONS = [
    {},
    {"constraint": None},
    {"constraint": "entropy", "entropy_weight": 0.5},
    {"neighbor_weight": 3.5},
    {"neighbor_weight": 1.0, "neighbor_temperature": 0.1, "label_share": 0.7},
    {"n_clusters": (2, 3, 3), "n_over_clusters": (6, 9)},
    {"n_clusters": (1,), "n_over_clusters": (1,)},
    {"n_clusters": (3,), "n_over_clusters": ()},
    {"n_clusters": (40,), "n_over_clusters": (50,)},
]


@pytest.mark.parametrize("changes", COMPOSITIONS, ids=str)
def test_the_objective_is_the_mean_of_its_heads_and_the_contrast(changes):
    objective, z = make_objective(**changes)
    objective.train()
    for step in range(4):  # samples come again, some to heads that have seen them
        batch = batch_of(z, torch.randperm(60)[:20])
        if step % 2 == 0:
            objective.begin_epoch(step / 4)
        parts = copy.deepcopy(objective)
        z1, z2 = parts.model.embedding(torch.cat(batch[1:])).detach().chunk(2)
        results = [slow_head(head, batch[0], z1, z2) for head in parts.heads]
        expected = np.mean([result[0] for result in results])
        expected += (
            objective.neighbor_weight * info_nce(z1, z2, objective.neighbor_temperature).item()
        )
        loss, scalars = objective(*batch)
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        assert scalars.keys() == {"changed"}
        changed = np.mean([result[1] for result in results])
        assert scalars["changed"].item() == pytest.approx(changed)
        for head, (_, _, table, duals) in zip(objective.heads, results, strict=True):
            assert head.assignments.tolist() == table
            assert head.duals.tolist() == pytest.approx(duals, abs=1e-6)
            with torch.no_grad():
                head.head.weight.add_(0.1 * torch.randn_like(head.head.weight))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_contrast_is_computed_only_if_it_has_a_weight(weight, monkeypatch):
    calls = []

    def spy(first, second, temperature):
        calls.append(temperature)
        return info_nce(first, second, temperature)

    monkeypatch.setattr("skdeepcluster.objectives._discrimination.info_nce", spy)
    objective, z = make_objective(neighbor_weight=weight, neighbor_temperature=0.7)
    objective(*batch_of(z, range(20)))
    assert calls == [0.7] * int(weight)


def test_the_contrast_teaches_the_encoder_and_no_center():
    gradients = []
    for weight in (0.0, 5.0):
        objective, z = make_objective(neighbor_weight=weight)
        objective(*batch_of(z, range(20)))[0].backward()
        centers = [head.head.weight.grad for head in objective.heads]
        gradients.append((centers, objective.model.embedding.projector.weight.grad))
    (centers, projector), (centers_too, projector_too) = gradients
    for a, b in zip(centers, centers_too, strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(projector, projector_too, rtol=1e-2)


def test_everything_that_learns_is_reached():
    objective, z = make_objective((3, 4), (9,))
    objective(*batch_of(z, range(20)))[0].backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert all(head.head.weight.grad.any() for head in objective.heads)
    assert objective.model.embedding.projector.weight.grad.any()


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_heads_work_in_full_precision(constraint, monkeypatch):
    seen = []

    def spy_on(name):
        function = getattr(_discrimination, name)

        def spy(tensor, *others):
            seen.append((name, tensor.dtype, torch.is_autocast_enabled("cpu")))
            return function(tensor, *others)

        monkeypatch.setattr(f"skdeepcluster.objectives._discrimination.{name}", spy)

    names = ["center_loss", "encoder_loss"]
    names += {"size": ["raised_duals"], "entropy": ["entropy_cost"]}.get(constraint, [])
    for name in names:
        spy_on(name)
    objective, z = make_objective(constraint=constraint, neighbor_weight=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batch_of(z, range(20)))
    loss.backward()
    assert len(seen) == 2 * len(names)
    assert set(seen) == {(name, torch.float32, False) for name in names}
    assert torch.isfinite(loss)
    assert all(torch.isfinite(head.head.weight.grad).all() for head in objective.heads)


def test_the_precision_of_the_networks_changes_nothing_in_the_heads():
    # Networks without layers: all that autocast could change are the heads.
    expected, z = make_objective(learns=False, constraint="entropy")
    objective = copy.deepcopy(expected)
    batch = batch_of(z, range(20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batch)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected(*batch)[0])
    assert_equal_states(objective, expected)


def test_parameter_groups_hold_everything_that_learns_once():
    objective, _ = make_objective((2, 3), (6, 9))
    objective.select(1)
    groups = objective.parameter_groups(0.01, 1.2)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in objective.parameters()}
    assert [group["lr"] for group in groups] == [0.01, 1.2]
    encoder, centers = ({id(p) for p in group["params"]} for group in groups)
    assert encoder == {id(p) for p in objective.model.embedding.parameters()}
    assert centers == {id(head.head.weight) for head in objective.heads}


def test_centers_do_not_decay():
    objective, _ = make_objective()
    optimizer = torch.optim.SGD(objective.parameter_groups(0.1, 0.1), weight_decay=0.5)
    before = copy.deepcopy(objective.state_dict())
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for head in objective.heads:
        assert (head.head.weight.norm(dim=1) - 1).abs().max() < 1e-6
    name = "model.embedding.projector.weight"
    torch.testing.assert_close(objective.state_dict()[name], 0.95 * before[name])


def test_an_epoch_begins_for_every_head():
    objective, z = make_objective((2, 3), (6,))
    train(objective, z, n_epochs=1)
    for head in objective.heads:
        assert not torch.allclose(head.previous, head.head.centers)
    objective.begin_epoch(1.0)
    for head in objective.heads:
        torch.testing.assert_close(head.previous, head.head.centers.detach())
        # Of unit length again: a longer weight would learn more slowly.
        torch.testing.assert_close(head.head.weight.detach(), head.previous)
        assert not head.previous.requires_grad


def test_heads_stand_in_the_order_of_their_numbers():
    objective, _ = make_objective((4, 2, 2), (6, 9))
    assert [head.n_clusters for head in objective.heads] == [4, 2, 2, 6, 9]
    assert [head.n_clusters for head in objective.candidates] == [4, 2, 2]
    assert objective.selected_head is objective.heads[0]
    # Heads with the same number of clusters start apart.
    assert not torch.equal(objective.heads[1].head.weight, objective.heads[2].head.weight)


def test_the_model_predicts_with_the_selected_head():
    objective, z = make_objective((2, 3), (6,))
    objective.eval()
    for number in (1, 0):
        objective.select(number)
        assert objective.selected_head is objective.candidates[number]
        assert objective.model.head is objective.selected_head.head
        embedding = objective.model.embed(z)
        expected = embedding @ objective.candidates[number].head.centers.T / 0.05
        torch.testing.assert_close(objective.model(z), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_the_model_of_a_copy_predicts_with_the_copied_head(copied):
    objective, z = make_objective((2, 3), (6,))
    objective.eval()
    objective.select(1)
    other = copied(objective)
    assert other.selected == 1
    assert other.model.head is other.selected_head.head
    assert other.model.head is not objective.model.head
    assert torch.equal(other.model(z), objective.model(z))
    before = objective.model(z)
    train(other, z).eval()
    assert not torch.equal(other.model(z), before)
    other.select(0)
    assert torch.equal(objective.model(z), before)


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2], [1, 0, 2]])
def test_reorder_renumbers_the_clusters_of_the_selected_head(order):
    objective, z = make_objective((3, 3), (6,))
    train(objective, z).eval()
    objective.select(1)
    for head in objective.heads:
        head.duals.copy_(torch.arange(1.0, head.n_clusters + 1))
    before, old = copy.deepcopy(objective), objective.model(z)
    objective.reorder(torch.tensor(order))
    assert torch.equal(objective.model(z), old[:, order])
    head = objective.selected_head
    for name in ("previous", "duals"):
        assert torch.equal(getattr(head, name), getattr(before.selected_head, name)[order])
    for number in (0, 2):
        assert_equal_states(objective.heads[number], before.heads[number])


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("order", [[2, 0, 1], [1, 0, 2]])
def test_training_goes_on_the_same_in_any_order_of_the_clusters(order, constraint):
    objective, z = make_objective(constraint=constraint, label_share=0.9)
    train(objective, z, rates=(0.05, 0.1))
    objective.heads[0].assignments[:3] = -1  # not seen, in any order
    other = copy.deepcopy(objective)
    other.reorder(torch.tensor(order))
    for index in torch.arange(60).split(20):
        loss, scalars = objective(*batch_of(z, index))
        same_loss, same_scalars = other(*batch_of(z, index))
        assert same_loss.item() == pytest.approx(loss.item(), rel=1e-4)
        assert same_scalars["changed"].item() == pytest.approx(scalars["changed"].item())
    tables = [o.selected_head.assignments for o in (objective, other)]
    assert torch.equal(tables[0], torch.tensor(order)[tables[1]])


def test_a_finished_model_remembers_no_sample():
    n = 977
    objective, z = make_objective((3,), (6,), n=n)
    train(objective, z, n_epochs=1, batch_size=300).eval()
    assert any(n in tensor.shape for tensor in objective.state_dict().values())
    before, predicted = copy.deepcopy(objective.state_dict()), objective.model(z)
    size = len(pickle.dumps(objective))
    objective.track_samples(0)
    state = objective.state_dict()
    assert state.keys() == before.keys()
    for name, tensor in state.items():
        assert n not in tensor.shape, name
        assert name.endswith("assignments") or torch.equal(tensor, before[name])
    assert len(pickle.dumps(objective)) < size - 2 * 8 * n + 100
    assert torch.equal(objective.model(z), predicted)
    objective.track_samples(0)  # may be said twice
    objective.reorder(torch.tensor([2, 1, 0]))
    assert torch.equal(objective.model(z), predicted[:, [2, 1, 0]])


@pytest.mark.parametrize("n", [60, 41])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_training_goes_on_from_a_finished_model(constraint, n):
    objective, z = make_objective((2, 3), (6,), constraint=constraint)
    train(objective, z).select(1)
    objective.track_samples(0)
    state = copy.deepcopy(objective.state_dict())
    fresh, _ = make_objective((2, 3), (6,), n=0, seed=1, constraint=constraint)
    fresh.select(1)
    fresh.load_state_dict(state)
    fresh.track_samples(n)
    for name, tensor in fresh.state_dict().items():
        if name.endswith("assignments"):
            assert tensor.tolist() == [-1] * n
        else:
            assert torch.equal(tensor, state[name]), name
    train(fresh, z[:n], batch_size=n)
    assert all((head.assignments >= 0).all() for head in fresh.heads)


def test_a_finished_model_takes_back_its_own_state():
    objective, z = make_objective()
    train(objective, z)
    objective.track_samples(0)
    state = copy.deepcopy(objective.state_dict())
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(1)
    objective.load_state_dict(state)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_state_of_a_checkpoint_survives_a_round_trip(constraint):
    changes = {"n_clusters": (2, 3), "constraint": constraint, "neighbor_weight": 1.0}
    objective, z = make_objective(**changes)
    train(objective, z)
    for head in objective.heads:
        assert head.duals.any() == (constraint == "size")
        assert (head.assignments >= 0).all()
    restored, _ = make_objective(seed=1, **changes)
    restored.load_state_dict(copy.deepcopy(objective.state_dict()))
    assert_equal_states(restored, objective)
    for o in (objective, restored):
        torch.manual_seed(0)
        train(o, z)
    assert_equal_states(restored, objective)


def test_a_state_of_other_samples_is_refused():
    objective, _ = make_objective(n=60)
    other, _ = make_objective(n=59)
    with pytest.raises(RuntimeError, match=r"size mismatch for all_heads\.0\.assignments"):
        other.load_state_dict(objective.state_dict())


@pytest.mark.parametrize("n_over_clusters", [(2, 4), ()])
def test_class_weights_by_hand(n_over_clusters):
    # The finest clusters lie along the axes; if there are no others they are the heads' own.
    objective, _ = make_objective((3, 4), n_over_clusters)
    with torch.no_grad():
        objective.heads[-1].head.weight.copy_(2 * torch.eye(4))
    over = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]
    labels = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    table = torch.tensor([[3, 3, 3, 1], [2, 0, 1, 0], [0, 0, 0, 0]])
    weights = objective.weigh_classes(torch.eye(4)[over], labels)
    assert torch.equal(weights, class_weights(table.double(), 0.3))
    # All four are occupied by the first cluster, one by the second and none by the third.
    assert weights.tolist() == [1, 4, 8]


@given(seed=seeds, n=st.integers(1, 30), n_clusters=sizes, n_over=sizes)
def test_class_weights_equal_a_loop_over_the_finest_clusters(seed, n, n_clusters, n_over):
    with torch.random.fork_rng():
        objective, _ = make_objective((n_clusters,), (7, n_over), learns=False)
    centers, z = draw_unit(seed, n_over), draw_unit(seed + 1, n)
    labels = draw_labels(seed, n, n_clusters)
    with torch.no_grad():
        objective.heads[-1].head.weight.copy_(torch.tensor(centers))
    weights = objective.weigh_classes(torch.tensor(z).float(), torch.tensor(labels))
    over = [int(np.argmax([row @ center for center in centers])) for row in z]
    for k in range(n_clusters):
        occupied = 0
        for j in range(n_over):
            members = [labels[i] for i in range(n) if over[i] == j]
            if members and members.count(k) / len(members) > 0.3:
                occupied += 1
        assert weights[k].item() == pytest.approx(n_over / max(occupied, 0.5))


def test_training_on_blobs_finds_them():
    torch.manual_seed(0)
    centers = normalize(torch.tensor([[1.0, 0, 0, 1], [-1, 0, 1, 0], [0, 1, -1, 0]]), dim=1)
    truth = torch.arange(90) % 3
    z = centers[truth] + 0.15 * torch.randn(90, WIDTH)
    objective, _ = make_objective(n=90, seed=2)
    train(objective, z, n_epochs=30, batch_size=30, rates=(0.02, 0.2)).eval()
    predicted = objective.model(z).argmax(dim=1)
    table = torch.zeros(3, 3)
    table.index_put_((truth, predicted), torch.ones(()), accumulate=True)
    assert table.max(dim=0).values.sum() == 90
    assert table.max(dim=1).values.sum() == 90


# The refinement --------------------------------------------------------------------------------


def make_refinement(threshold, monkeypatch, **changes):
    monkeypatch.setattr(RefinementObjective, "CONFIDENCE_THRESHOLD", threshold)
    changes = {"n_clusters": (2, 3), "temperature": 0.5, **changes}
    objective, z = make_objective(**changes)
    objective.select(1)
    _, first, second = batch_of(z, range(20))
    return RefinementObjective(objective), objective, first, second


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("n_clusters", [(1,), (2, 3), (5, 5, 2)])
def test_refinement_is_the_mean_cross_entropy_on_confident_labels(
    n_clusters, threshold, monkeypatch
):
    refinement, objective, first, second = make_refinement(
        threshold, monkeypatch, n_clusters=(*n_clusters, 4), n_over_clusters=(6,)
    )
    parts = copy.deepcopy(objective)
    z1, z2 = parts.model.embedding(torch.cat([first, second])).detach().double().chunk(2)
    losses, shares = [], []
    for head in parts.candidates:
        w = head.head.centers.detach().double().numpy()
        p1, p2 = softmax(z1.numpy() @ w.T / 0.5), softmax(z2.numpy() @ w.T / 0.5)
        rows = [i for i in range(20) if max(p1[i]) > threshold]
        total = -sum(np.log(p2[i, p1[i].argmax()]) for i in rows)
        losses.append(total / len(rows) if rows else 0.0)
        shares.append(len(rows) / 20)
    loss, scalars = refinement(first, second)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert scalars["selected"].item() == pytest.approx(np.mean(shares))
    assert scalars["skipped"].item() == 0


def test_only_very_confident_labels_are_learned():
    assert RefinementObjective.CONFIDENCE_THRESHOLD == 0.99


def test_a_batch_of_which_nobody_is_confident_is_skipped(monkeypatch):
    refinement, _, first, second = make_refinement(1.0, monkeypatch)
    loss, scalars = refinement(first, second)
    loss.backward()
    assert loss.item() == 0
    assert scalars["selected"].item() == 0
    assert bool(scalars["skipped"])
    assert not any(p.grad.any() for p in refinement.parameters())


def test_one_confident_head_is_enough(monkeypatch):
    refinement, objective, first, second = make_refinement(0.99, monkeypatch)
    # Of only two clusters, at a low temperature.
    objective.candidates[0].head.temperature = 1e-3
    objective.candidates[1].head.temperature = 100.0
    loss, scalars = refinement(first, second)
    loss.backward()
    assert 0 < scalars["selected"].item() <= 0.5
    assert not bool(scalars["skipped"])
    assert not objective.candidates[1].head.weight.grad.any()


def test_refinement_trains_the_encoder_and_the_heads_to_choose_from(monkeypatch):
    refinement, objective, first, second = make_refinement(0.3, monkeypatch)
    trained = {id(p) for p in refinement.parameters()}
    expected = [objective.model.embedding, *(head.head for head in objective.candidates)]
    assert trained == {id(p) for module in expected for p in module.parameters()}
    before = copy.deepcopy(objective.state_dict())
    optimizer = torch.optim.Adam(refinement.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        refinement(first, second)[0].backward()
        optimizer.step()
    after = objective.state_dict()
    for name in ("model.embedding.projector.weight", "all_heads.0.head.weight"):
        assert not torch.equal(before[name], after[name])
    # The model predicts with what was refined, and nothing else has changed.
    assert torch.equal(after["model.head.weight"], after["all_heads.1.head.weight"])
    assert torch.equal(after["all_heads.2.head.weight"], before["all_heads.2.head.weight"])
    for name in before:
        if not name.startswith("model") and not name.endswith("weight"):
            assert torch.equal(after[name], before[name]), name


def test_the_confident_view_gets_no_gradient(monkeypatch):
    refinement, _, first, second = make_refinement(0.0, monkeypatch)
    refinement.eval()  # batch normalisation would let one view see the other
    first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
    refinement(first, second)[0].backward()
    assert not first.grad.any()
    assert second.grad.any()
