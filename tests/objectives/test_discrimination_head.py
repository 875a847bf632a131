"""A head of SeCu in training: assignments, constraints, and what teaches centres and encoder."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import log_softmax, normalize

from skdeepcluster.objectives import DiscriminationHead, discriminate, entropy_cost
from tests.objectives.discrimination_helpers import (
    CONSTRAINTS,
    STATE,
    WIDTH,
    draw_labels,
    draw_unit,
    slow_center_gradient,
    slow_head,
)
from tests.objectives.oracle_helpers import seeds, sizes

shares = st.sampled_from([0.0, 0.2, 1.0])
temperatures = st.sampled_from([0.05, 0.5, 1.0])
constraints = st.sampled_from([None, "size", "entropy"])


def new_head(n, n_clusters, **changes):
    """Return a new head that remembers n samples, in double precision."""
    head = DiscriminationHead(WIDTH, n_clusters, **{**STATE, **changes}).double()
    head.remember_samples(n)
    return head


def make_head(n_clusters=3, n=30, seed=0, **changes):
    """Return a head that is in the midst of training."""
    torch.manual_seed(seed)
    head = new_head(n, n_clusters, **changes)
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
    head = new_head(30, n_clusters, constraint=constraint)
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


@pytest.mark.parametrize("n_clusters", [(3, 3, 3), (4, 2, 7), (5, 1)])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_heads_side_by_side_learn_as_each_alone(constraint, n_clusters):
    heads = [new_head(20, k, constraint=constraint) for k in n_clusters]
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


def test_the_papers_rate_for_ten_clusters():
    head = make_head(10, temperature=1.0)
    head.duals.fill_(1.0)
    index = torch.arange(30)
    x = normalize(head.head.weight.detach()[:1], dim=1).expand(30, -1)
    head(index, x, x)
    assert head.assignments.tolist() == [0] * 30
    assert head.duals.tolist() == pytest.approx([1 + 0.1 * (0.09 - 1)] + 9 * [1 + 0.1 * 0.09])


def test_a_new_head_has_seen_nothing():
    head = new_head(30, 3)
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
