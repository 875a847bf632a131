"""The losses and the selection of CDC against slow numpy oracles, and the objective's promises."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, PrototypePerceptron
from skdeepcluster.objectives import (
    CalibratedObjective,
    _calibrated,
    calibration_loss,
    candidates_per_cluster,
    region_targets,
    select_confident,
    size_divergence,
)

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
settings.register_profile("objectives", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("objectives")

# Probabilities in steps of 1/64 have exact sums in every precision, many ties, zeros and ones.
STEPS = 64


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(scale=3, size=shape)


def draw_steps(seed, batch, n_clusters, concentration=1.0):
    """Return rows of probabilities in whole steps; a low concentration gives zeros and ones."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_clusters, concentration), size=batch)
    return np.stack([rng.multinomial(STEPS, row / row.sum()) for row in shares]) / STEPS


def slow_targets(probabilities, regions):
    targets = np.empty_like(probabilities)
    for i, region in enumerate(regions):
        members = [probabilities[j] for j in range(len(regions)) if regions[j] == region]
        targets[i] = sum(members) / len(members)
    return targets


def slow_calibration_loss(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        log_sum = np.log(np.exp(row - row.max()).sum()) + row.max()
        for k, share in enumerate(target):
            total -= share * (row[k] - log_sum)
    return total / len(logits)


def slow_divergence(probabilities, prior):
    total = 0.0
    for k, share in enumerate(prior):
        marginal = sum(row[k] for row in probabilities) / len(probabilities)
        if marginal > 0:
            total += marginal * np.log(marginal / share)
    return total


def slow_candidates(prior, batch):
    # Python rounds halves to even, as torch does.
    return [min(max(round(share * batch), 1), batch) for share in prior]


def slow_selection(probabilities, n_candidates, owed):
    rows, labels, left = [], [], []
    for k, n in enumerate(n_candidates):
        ranked = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i][k], i))
        due = sum(probabilities[i][k] for i in ranked[:n]) + owed[k]
        n_kept = min(int(np.floor(due * (1 + 1e-6))), n)
        kept = [i for i in ranked[:n_kept] if np.argmax(probabilities[i]) == k]
        rows += kept
        labels += [k] * len(kept)
        left.append(min(max(due - len(kept), 0), 1))
    return rows, labels, left


def slow_cross_entropy(logits, rows, labels):
    p = softmax(logits)
    return -sum(np.log(p[i, k]) for i, k in zip(rows, labels, strict=True)) / len(rows)


@given(seed=seeds, batch=sizes, n_clusters=sizes, n_regions=sizes, dtype=dtypes)
def test_region_targets_equal_a_loop(seed, batch, n_clusters, n_regions, dtype):
    p = softmax(draw(seed, batch, n_clusters))
    regions = np.random.default_rng(seed).integers(n_regions, size=batch)
    targets = region_targets(torch.tensor(p, dtype=dtype), torch.tensor(regions), n_regions)
    assert targets.dtype == dtype
    assert targets.shape == (batch, n_clusters)
    np.testing.assert_allclose(targets.numpy(), slow_targets(p, regions), atol=1e-6)
    np.testing.assert_allclose(targets.sum(dim=1).numpy(), 1, rtol=1e-6)


def test_a_region_of_neighbors_that_disagree_is_unsure():
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    targets = region_targets(p, torch.tensor([4, 4, 2, 7]), 9)
    assert targets.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes, sure=st.booleans())
def test_calibration_loss_equals_a_loop(seed, batch, n_clusters, dtype, sure):
    logits = draw(seed, batch, n_clusters)
    targets = draw_steps(seed, batch, n_clusters, 0.01 if sure else 1.0)
    loss = calibration_loss(torch.tensor(logits, dtype=dtype), torch.tensor(targets, dtype=dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_calibration_loss(logits, targets), rel=1e-5, abs=1e-6)


def test_calibration_loss_bears_sure_logits():
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = calibration_loss(logits, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    loss.backward()
    assert loss.item() == 250
    assert torch.isfinite(logits.grad).all()


@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_gradient_of_the_calibration_loss_is_the_difference(seed, batch, n_clusters):
    logits = torch.tensor(draw(seed, batch, n_clusters), requires_grad=True)
    targets = torch.tensor(draw_steps(seed, batch, n_clusters))
    calibration_loss(logits, targets).backward()
    expected = (logits.detach().softmax(dim=1) - targets) / batch
    assert torch.allclose(logits.grad, expected, atol=1e-12)


@given(seed=seeds, batch=sizes, n_clusters=sizes, dtype=dtypes, sure=st.booleans())
def test_size_divergence_equals_a_loop(seed, batch, n_clusters, dtype, sure):
    p = draw_steps(seed, batch, n_clusters, 0.01 if sure else 1.0)
    prior = np.random.default_rng(seed).dirichlet(np.ones(n_clusters)) + 0.01
    prior /= prior.sum()
    loss = size_divergence(torch.tensor(p, dtype=dtype), torch.tensor(prior, dtype=dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_divergence(p, prior), abs=2e-6)
    assert loss.item() > -1e-6


@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_gradient_of_the_size_divergence_is_the_analytic_one(seed, batch, n_clusters):
    p = torch.tensor(softmax(draw(seed, batch, n_clusters)), requires_grad=True)
    prior = torch.tensor(softmax(draw(seed + 1, 1, n_clusters))[0])
    size_divergence(p, prior).backward()
    expected = ((p.detach().mean(dim=0) / prior).log() + 1) / batch
    assert torch.allclose(p.grad, expected.expand_as(p), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smallest", [0.0, 1e-45, 1e-38])
def test_the_divergence_of_a_cluster_that_nobody_expects_has_a_finite_gradient(smallest, dtype):
    p = torch.tensor([[1 - smallest, smallest]] * 4, dtype=dtype, requires_grad=True)
    loss = size_divergence(p, torch.tensor([0.5, 0.5], dtype=dtype))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)
    assert torch.isfinite(p.grad).all()
    # The empty cluster is drawn up, the full one down.
    assert (p.grad[:, 1] < 0).all()
    assert (p.grad[:, 0] > 0).all()


def test_logits_of_a_cluster_that_nobody_expects_have_a_finite_gradient():
    logits = torch.tensor([[0.0, -500.0], [0.0, -400.0]], requires_grad=True)
    size_divergence(logits.softmax(dim=1), torch.tensor([0.5, 0.5])).backward()
    assert torch.isfinite(logits.grad).all()


@given(seed=seeds, batch=sizes, n_clusters=st.integers(2, 9))
def test_size_divergence_is_least_at_the_expected_sizes(seed, batch, n_clusters):
    logits = torch.tensor(draw(seed, batch, n_clusters), requires_grad=True)
    prior = logits.detach().softmax(dim=1).mean(dim=0)
    loss = size_divergence(logits.softmax(dim=1), prior)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-12)
    other = torch.roll(prior, 1)
    assert size_divergence(logits.softmax(dim=1), other).item() > 0


@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_with_equal_sizes_the_divergence_is_the_negative_entropy_of_the_paper(
    seed, batch, n_clusters
):
    p = softmax(draw(seed, batch, n_clusters))
    marginal = p.mean(axis=0)
    uniform = torch.full((n_clusters,), 1 / n_clusters, dtype=torch.float64)
    expected = (marginal * np.log(marginal)).sum() + np.log(n_clusters)
    assert size_divergence(torch.tensor(p), uniform).item() == pytest.approx(expected, abs=1e-12)


@given(seed=seeds, batch=st.integers(1, 100), n_clusters=st.integers(1, 20))
def test_candidates_equal_a_loop(seed, batch, n_clusters):
    prior = draw_steps(seed, 1, n_clusters)[0]
    n_candidates = candidates_per_cluster(torch.tensor(prior, dtype=torch.float32), batch)
    assert n_candidates.dtype == torch.long
    assert n_candidates.tolist() == slow_candidates(prior, batch)


@pytest.mark.parametrize(
    ("n_clusters", "batch", "expected"), [(10, 1000, 100), (7, 700, 100), (8, 3, 1), (1, 5, 5)]
)
def test_equal_sizes_give_the_papers_candidates(n_clusters, batch, expected):
    prior = torch.full((n_clusters,), 1 / n_clusters)
    assert candidates_per_cluster(prior, batch).tolist() == [expected] * n_clusters


def select(p, n_candidates, owed):
    """The selection as rows and their pseudo-labels, which are the most likely clusters."""
    selected, owed = select_confident(p, n_candidates, owed)
    assert selected.shape == (len(p),)
    assert selected.dtype == torch.bool
    rows = selected.nonzero()[:, 0]
    return rows, p.argmax(dim=1)[rows], owed


@given(
    seed=seeds,
    batch=sizes,
    n_clusters=sizes,
    dtype=dtypes,
    sure=st.booleans(),
    first=st.booleans(),
)
def test_selection_equals_a_loop_to_the_last_sample(seed, batch, n_clusters, dtype, sure, first):
    rng = np.random.default_rng(seed)
    p = draw_steps(seed, batch, n_clusters, 0.05 if sure else 0.7)
    n_candidates = rng.integers(1, batch + 1, size=n_clusters)
    owed = np.zeros(n_clusters) if first else rng.integers(STEPS, size=n_clusters) / STEPS
    rows, labels, left = select(
        torch.tensor(p, dtype=dtype), torch.tensor(n_candidates), torch.tensor(owed).float()
    )
    slow_rows, slow_labels, slow_left = slow_selection(p, n_candidates, owed)
    by_row = sorted(zip(slow_rows, slow_labels, strict=True))
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == by_row
    assert left.tolist() == slow_left
    assert left.dtype == torch.float32


@given(seed=seeds, batch=st.integers(1, 40), n_clusters=sizes)
def test_selection_of_any_predictions_equals_a_loop(seed, batch, n_clusters):
    p = softmax(draw(seed, batch, n_clusters))
    n_candidates = slow_candidates(np.full(n_clusters, 1 / n_clusters), batch)
    zero = torch.zeros(n_clusters, dtype=torch.float64)
    rows, labels, left = select(torch.tensor(p), torch.tensor(n_candidates), zero)
    slow_rows, slow_labels, slow_left = slow_selection(p, n_candidates, np.zeros(n_clusters))
    by_row = sorted(zip(slow_rows, slow_labels, strict=True))
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == by_row
    np.testing.assert_allclose(left.numpy(), slow_left, atol=1e-9)


def test_selection_of_a_batch_by_hand():
    p = torch.tensor([[0.75, 0.25], [1.0, 0.0], [0.5, 0.5], [0.75, 0.25], [0.0, 1.0]])
    n_candidates = torch.tensor([3, 2])
    # 1 + .75 + .75 = 2.5 keeps two, of which a tie goes to the earlier; 1 + .5 = 1.5 keeps one.
    rows, labels, owed = select(p, n_candidates, torch.zeros(2))
    assert rows.tolist() == [0, 1, 4]
    assert labels.tolist() == [0, 0, 1]
    assert owed.tolist() == [0.5, 0.5]
    # What was owed comes due in the next batch: three of the first, two of the second cluster, but
    # the second of these rather belongs to the first cluster, so one more stays owed.
    rows, labels, owed = select(p, n_candidates, owed)
    assert rows.tolist() == [0, 1, 3, 4]
    assert labels.tolist() == [0, 0, 0, 1]
    assert owed.tolist() == [0, 1]
    # More than one sample is never owed.
    rows, labels, owed = select(p, n_candidates, owed)
    assert rows.tolist() == [0, 1, 4]
    assert owed.tolist() == [0.5, 1]


@pytest.mark.parametrize("n_batches", [1, 7, 64])
@given(seed=seeds, batch=sizes, n_clusters=sizes)
def test_what_is_owed_is_never_gained_and_lost_only_beyond_one(n_batches, seed, batch, n_clusters):
    rng = np.random.default_rng(seed)
    n_candidates = rng.integers(1, batch + 1, size=n_clusters)
    left = np.zeros(n_clusters)
    for step in range(n_batches):
        p, before = draw_steps(seed + step, batch, n_clusters), left
        _, labels, owed = select(
            torch.tensor(p), torch.tensor(n_candidates), torch.tensor(before).float()
        )
        left = owed.double().numpy()
        kept = np.bincount(labels.numpy(), minlength=n_clusters)
        for k, n in enumerate(n_candidates):
            due = sum(sorted(p[:, k])[-n:]) + before[k]
            assert 0 <= left[k] <= 1
            assert kept[k] + left[k] == due or (left[k] == 1 and kept[k] + 1 < due)


def test_over_many_batches_the_mean_number_kept_is_the_sum_of_confidences():
    # The second cluster is expected to have less than one sample in each batch.
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    n_candidates, owed = torch.tensor([2, 1]), torch.zeros(2)
    kept = torch.zeros(2)
    for _ in range(1000):
        _, labels, owed = select(p, n_candidates, owed)
        kept += torch.bincount(labels, minlength=2)
    assert (kept / 1000).tolist() == pytest.approx([1.7, 0.6], abs=2e-3)
    _, labels, _ = select(p, n_candidates, torch.zeros(2))
    assert labels.tolist() == [0]  # the paper's rule never trains the second cluster


def test_a_cluster_that_is_nobodys_most_likely_one_keeps_nothing_and_is_owed_one_sample():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.95, 0.05]])
    owed = torch.zeros(2)
    for _ in range(100):
        rows, labels, owed = select(p, torch.tensor([2, 2]), owed)
        assert set(labels.tolist()) == {0}
        assert set(rows.tolist()) <= {0, 2}
    assert owed[1].item() == 1


@given(seed=seeds, batch=st.integers(1, 40), n_clusters=sizes, sure=st.booleans())
def test_each_row_is_selected_once_and_for_its_most_likely_cluster(seed, batch, n_clusters, sure):
    p = torch.tensor(draw_steps(seed, batch, n_clusters, 0.05 if sure else 0.7))
    n_candidates = torch.full((n_clusters,), batch)
    _, labels, left = select(p, n_candidates, torch.ones(n_clusters))
    # As many samples as the debts were paid with: none was counted for two clusters.
    kept = torch.bincount(labels, minlength=n_clusters)
    due = p.sum(dim=0) + 1
    assert torch.equal(left.double(), (due - kept).clamp(0, 1))


@pytest.mark.parametrize("n", [1, 3, 10, 16])
def test_rounding_takes_no_sample_from_a_sum_of_ones(n):
    # The softmax of a sure sample may be the largest number below one.
    almost = float(np.nextafter(np.float32(1), np.float32(0)))
    rows, _, owed = select(torch.full((n, 1), almost), torch.tensor([n]), torch.zeros(1))
    assert len(rows) == n
    assert owed.item() == 0


def test_of_many_ties_the_first_are_kept():
    p = torch.full((2000, 1), 0.5)
    rows, _, owed = select(p, torch.tensor([1000]), torch.zeros(1))
    assert rows.tolist() == list(range(500))
    assert owed.item() == 0


def test_ones_are_all_kept_and_zeros_never():
    p = torch.tensor([[1.0, 0.0]]).expand(6, -1)
    rows, labels, owed = select(p, torch.tensor([6, 6]), torch.tensor([0.0, 0.9]))
    assert rows.tolist() == list(range(6))
    assert labels.tolist() == [0] * 6
    assert owed.tolist() == pytest.approx([0, 0.9])


def test_no_cluster_keeps_more_than_its_candidates():
    p = torch.ones(4, 1)
    rows, _, owed = select(p, torch.tensor([2]), torch.tensor([1.0]))
    assert rows.tolist() == [0, 1]
    assert owed.item() == 1


def test_a_sample_between_two_clusters_goes_to_the_first_and_stays_owed_to_the_other():
    p = torch.tensor([[0.5, 0.5]])
    rows, labels, owed = select(p, torch.tensor([1, 1]), torch.tensor([0.5, 0.5]))
    assert rows.tolist() == [0]
    assert labels.tolist() == [0]
    assert owed.tolist() == [0, 1]


def test_an_unsure_batch_keeps_nothing():
    rows, labels, owed = select(
        torch.full((2, 8), 1 / 8), torch.ones(8, dtype=torch.long), torch.zeros(8)
    )
    assert rows.shape == labels.shape == (0,)
    assert owed.tolist() == [1 / 8] * 8


def test_no_gradient_flows_through_a_selection():
    p = torch.tensor(softmax(draw(0, 6, 3)), requires_grad=True)
    n_candidates, owed = torch.tensor([2, 2, 2]), torch.zeros(3, dtype=torch.float64)
    tensors = select_confident(p, n_candidates, owed)
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not owed.any()  # what was passed in is left as it was


class Encoder(nn.Module):
    """An encoder with running statistics, which show whether it was used in training mode."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))

    def forward(self, x):
        return self.layers(x)


def make_objective(n_clusters=3, n_regions=6, width=4, n=60, started=True, seed=0, **changes):
    parameters = {
        "n_hidden": 8,
        "proportional": True,
        "confidence_threshold": None,
        "entropy_weight": 1.0,
        "calibration_head": True,
        "stop_gradient": True,
        "fine_tune": False,
    }
    torch.manual_seed(seed)
    embedding = EmbeddingNetwork(Encoder(width), nn.Linear(width, width), width)
    objective = CalibratedObjective(
        ClusterModel(nn.Identity(), embedding, nn.Identity()),
        n_clusters=n_clusters,
        n_regions=n_regions,
        **{**parameters, **changes},
    )
    z = normalize(torch.randn(n, width), dim=1)
    if started:
        objective.start(z, *partitions(z, n_clusters, n_regions), torch.Generator())
        objective.copy_head()
        # Unequal heads, so that a test can tell which one was asked.
        if objective.calibration_head is not None:
            with torch.no_grad():
                objective.calibration_head.output.weight.mul_(1.5).add_(
                    torch.randn_like(objective.calibration_head.output.weight)
                )
    return objective, z


def partitions(z, n_clusters, n_regions):
    """Return partitions by angle, with clusters of unequal sizes and regions within clusters."""
    rank = torch.atan2(z[:, 1], z[:, 0]).argsort().argsort()
    share = rank.double() / len(z)
    return (share.square() * n_clusters).long(), (share * n_regions).long()


def batches(z):
    """Return a clean, a strong and a weak view of the first twenty samples."""
    clean = z[:20]
    return clean, clean + 0.3 * z[20:40], clean - 0.3 * z[40:60]


def hand_composed(objective, clean, strong, weak=None):
    """Return the loss and the selection of a batch, term by term and sample by sample."""
    parts = copy.deepcopy(objective)  # a pass through a head moves its running statistics
    embed = parts.model.embedding if parts.fine_tune else nn.Identity()

    def logits(head, view):
        return head(embed(view)).detach().double().numpy()

    judge = parts.calibration_head or parts.clustering_head
    prior = parts.prior.double().numpy()
    total = 0.0
    if parts.calibration_head is not None:
        centers = parts.region_centers.double().numpy()
        z = embed(clean).detach().double().numpy()
        regions = [np.square(centers - row).sum(axis=1).argmin() for row in z]
        targets = slow_targets(softmax(logits(parts.clustering_head, clean)), regions)
        judged = logits(parts.calibration_head, clean)
        total += slow_calibration_loss(judged, targets)
        total += parts.entropy_weight * slow_divergence(softmax(judged), prior)
    judged = softmax(logits(judge, clean if weak is None else weak))
    if parts.confidence_threshold is not None:
        rows = [i for i, row in enumerate(judged) if row.max() > parts.confidence_threshold]
        labels, owed = [judged[i].argmax() for i in rows], parts.owed.numpy()
    else:
        n_candidates = slow_candidates(prior, len(clean))
        rows, labels, owed = slow_selection(judged, n_candidates, parts.owed.double().numpy())
    if rows:
        total += slow_cross_entropy(logits(parts.clustering_head, strong), rows, labels)
    return total, rows, owed


def gradients(module):
    return [p.grad for p in module.parameters()]


def is_untouched(module):
    return all(g is None or not g.any() for g in gradients(module))


def is_trained(module):
    return all(g is not None and g.any() for g in gradients(module))


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng():
        yield


COMPOSITIONS = [
    {},
    {"entropy_weight": 0.0},
    {"entropy_weight": 3.5},
    {"proportional": False},
    {"calibration_head": False},
    {"confidence_threshold": 0.6},
    {"confidence_threshold": 0.6, "calibration_head": False},
    {"confidence_threshold": 1.0},
    {"confidence_threshold": 1.0, "calibration_head": False},
    {"fine_tune": True},
    {"fine_tune": True, "stop_gradient": False},
    {"n_clusters": 1, "n_regions": 1},
    {"n_clusters": 40, "n_regions": 50},
]


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("changes", COMPOSITIONS, ids=str)
def test_the_objective_is_the_sum_of_its_terms(changes, n_views):
    objective, z = make_objective(**changes)
    objective.train()
    for _ in range(3):  # what is owed and the regions go from batch to batch
        views = batches(z)[:n_views]
        expected, rows, owed = hand_composed(objective, *views)
        loss, scalars = objective(*views)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert scalars["selected"].item() == pytest.approx(len(rows) / 20)
        # A calibration head learns from every batch, so none is to be left out.
        assert ("skipped" in scalars) == (objective.calibration_head is None)
        if "skipped" in scalars:
            assert scalars["skipped"].item() == (not rows)
        np.testing.assert_allclose(objective.owed.numpy(), owed, atol=1e-4)
        z = z.roll(7, dims=0)


def test_the_weak_view_alone_gives_the_pseudo_labels():
    objective, z = make_objective(calibration_head=False, confidence_threshold=0.0)
    objective.eval()
    clean, strong, weak = batches(z)
    head = objective.clustering_head
    for view, loss in ((clean, objective(clean, strong)), (weak, objective(clean, strong, weak))):
        labels = head(view).argmax(dim=1)
        expected = nn.functional.cross_entropy(head(strong), labels)
        assert loss[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert (head(clean).argmax(dim=1) != head(weak).argmax(dim=1)).any()


def test_a_fixed_threshold_leaves_what_is_owed_alone():
    objective, z = make_objective(confidence_threshold=0.5)
    objective.owed.fill_(0.4)
    objective(*batches(z))
    assert (objective.owed == 0.4).all()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_divergence_is_computed_only_if_it_has_a_weight(weight, monkeypatch):
    calls = []

    def spy(probabilities, prior):
        calls.append(probabilities)
        return size_divergence(probabilities, prior)

    monkeypatch.setattr("skdeepcluster.objectives._calibrated.size_divergence", spy)
    objective, z = make_objective(entropy_weight=weight)
    objective(*batches(z))
    assert len(calls) == weight


@pytest.mark.parametrize("fine_tune", [True, False])
def test_regions_and_targets_are_found_in_full_precision(fine_tune, monkeypatch):
    seen = []

    def spy_on(name, function):
        def spy(tensor, *others):
            seen.append((name, tensor.dtype, torch.is_autocast_enabled("cpu")))
            return function(tensor, *others)

        monkeypatch.setattr(f"skdeepcluster.objectives._calibrated.{name}", spy)

    spy_on("nearest_center", _calibrated.nearest_center)
    spy_on("region_targets", region_targets)
    objective, z = make_objective(fine_tune=fine_tune)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batches(z))
    loss.backward()
    names = ["nearest_center", "region_targets"]
    assert seen == [(name, torch.float32, False) for name in names]
    assert objective.region_centers.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize("calibration_head", [True, False])
def test_the_precision_of_the_networks_changes_nothing_in_the_heads(calibration_head):
    # The embedding is given: all that autocast could change are heads and losses.
    expected, z = make_objective(calibration_head=calibration_head)
    objective = copy.deepcopy(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(*batches(z))
    assert torch.equal(loss, expected(*batches(z))[0])


def reject_all(**changes):
    """Return an objective whose loss has no term but those of the calibration head."""
    return make_objective(confidence_threshold=1.0, **changes)


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_calibration_loss_reaches_the_encoder_only_if_it_may(stop_gradient, n_views):
    objective, z = reject_all(fine_tune=True, stop_gradient=stop_gradient)
    objective.train()
    loss, scalars = objective(*batches(z)[:n_views])
    loss.backward()
    assert scalars["selected"].item() == 0
    assert is_trained(objective.calibration_head)
    assert is_untouched(objective.clustering_head)
    if stop_gradient:
        assert is_untouched(objective.model.embedding)
    else:
        # A bias before batch normalisation has no effect, so not every parameter counts.
        assert objective.model.embedding.projector.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("term", ["calibration", "divergence"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_both_terms_of_the_calibration_head_stop_before_the_clean_view(stop_gradient, term):
    objective, z = reject_all(fine_tune=True, stop_gradient=stop_gradient, entropy_weight=0.0)
    objective.eval()
    clean = z[:20].clone().requires_grad_()
    if term == "divergence":
        # The one term less the other: what a weight of one adds.
        other = copy.deepcopy(objective)
        other.entropy_weight = 1.0
        loss = other(clean, z[20:40])[0] - objective(clean, z[20:40])[0]
    else:
        loss, _ = objective(clean, z[20:40])
    loss.backward()
    reached = clean.grad is not None and bool(clean.grad.abs().max() > 1e-5)
    assert reached == (not stop_gradient)


def test_region_targets_carry_no_gradient():
    objective, z = reject_all(stop_gradient=False)
    objective.eval()
    clean = z[:20].clone().requires_grad_()
    objective(clean, z[20:40])[0].backward()
    # By hand, with targets that are numbers.
    head, copied = objective.calibration_head, z[:20].clone().requires_grad_()
    regions = torch.cdist(z[:20], objective.region_centers).argmin(dim=1)
    targets = slow_targets(
        objective.clustering_head(z[:20]).softmax(dim=1).detach().numpy(), regions.tolist()
    )
    loss = calibration_loss(head(copied), torch.tensor(targets))
    (loss + size_divergence(head(copied).softmax(dim=1), objective.prior)).backward()
    assert torch.allclose(clean.grad, copied.grad, atol=1e-6)
    assert is_untouched(objective.clustering_head)


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("fine_tune", [True, False])
def test_the_clustering_loss_never_trains_the_calibration_head(fine_tune, n_views):
    # The same batch, with and without a selection: what differs is the gradient of L_clu.
    with_selection, z = make_objective(fine_tune=fine_tune)
    without, _ = reject_all(fine_tune=fine_tune)
    without.load_state_dict(with_selection.state_dict())
    for objective in (with_selection, without):
        objective.train()
        loss, scalars = objective(*batches(z)[:n_views])
        loss.backward()
        assert (scalars["selected"].item() == 0) == (objective is without)
    for a, b in zip(
        gradients(with_selection.calibration_head),
        gradients(without.calibration_head),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert is_trained(with_selection.clustering_head)
    assert is_untouched(without.model.embedding)
    trained = with_selection.model.embedding.projector.weight.grad
    assert (trained is not None and bool(trained.abs().max() > 1e-4)) == fine_tune


@pytest.mark.parametrize(
    "changes",
    [{}, {"calibration_head": False}, {"calibration_head": False, "stop_gradient": False}],
    ids=str,
)
def test_gradients_flow_through_the_strong_view_only(changes):
    objective, z = make_objective(fine_tune=True, **changes)
    clean, strong, weak = (view.clone().requires_grad_() for view in batches(z))
    objective(clean, strong, weak)[0].backward()
    assert clean.grad is None
    assert weak.grad is None
    assert strong.grad.abs().sum() > 0


@pytest.mark.parametrize("fine_tune", [True, False])
def test_only_a_fine_tuned_embedding_changes(fine_tune):
    objective, z = make_objective(fine_tune=fine_tune)
    groups = objective.parameter_groups(0.01)
    optimizer = torch.optim.Adam(groups)
    before = copy.deepcopy(objective.state_dict())
    objective.eval()
    for _ in range(3):
        objective.train()
        assert objective.clustering_head.training
        assert all(m.training == fine_tune for m in objective.model.embedding.modules())
        optimizer.zero_grad()
        objective(*batches(z))[0].backward()
        optimizer.step()
    after = objective.state_dict()
    for name in before:
        if name.startswith("model.embedding"):
            changed = not torch.equal(before[name], after[name])
            assert changed == fine_tune, name
    for name in ("clustering_head.hidden.weight", "calibration_head.output.weight"):
        assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize("calibration_head", [True, False])
@pytest.mark.parametrize("fine_tune", [True, False])
def test_parameter_groups_hold_everything_that_learns_once(fine_tune, calibration_head):
    objective, _ = make_objective(fine_tune=fine_tune, calibration_head=calibration_head)
    groups = objective.parameter_groups(0.01)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    frozen = set() if fine_tune else {id(p) for p in objective.model.embedding.parameters()}
    assert set(grouped) == {id(p) for p in objective.parameters()} - frozen
    assert [group["lr"] for group in groups] == [0.01, 0.005][: len(groups)]


@pytest.mark.parametrize("calibration_head", [True, False])
def test_a_batch_without_a_selection_is_marked_and_comes_due_later(calibration_head):
    # A batch of two, of which eight clusters of equal sizes may propose one sample each.
    objective, z = make_objective(
        n_clusters=8, n_regions=8, proportional=False, calibration_head=calibration_head
    )
    judge = objective.calibration_head or objective.clustering_head
    with torch.no_grad():
        for parameter in judge.output.parameters():
            parameter.zero_()
    objective.eval()
    for _ in range(7):
        loss, scalars = objective(z[:2], z[2:4])
        # The calibration head learns from it all the same.
        assert scalars.get("skipped", 0) == (not calibration_head)
        assert scalars["selected"].item() == 0
        assert torch.isfinite(loss)
    assert objective.owed.tolist() == pytest.approx([7 / 8] * 8)
    _, scalars = objective(z[:2], z[2:4])
    assert scalars.get("skipped", 0) == 0
    # All are equally likely, and such samples belong to the first cluster.
    assert scalars["selected"].item() == 0.5
    assert objective.owed.tolist() == pytest.approx([0] + [1] * 7, abs=1e-6)


@pytest.mark.parametrize("fine_tune", [True, False])
@pytest.mark.parametrize("n_clusters", [1, 3])
def test_duplicates_are_finite(n_clusters, fine_tune):
    objective, z = make_objective(n_clusters=n_clusters, n_regions=n_clusters, fine_tune=fine_tune)
    objective.train()
    same = z[:1].expand(8, -1)
    loss, _ = objective(same, same, same)
    loss.backward()
    assert torch.isfinite(loss)
    trained = [p for group in objective.parameter_groups(0.1) for p in group["params"]]
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in trained)
    assert all(torch.isfinite(buffer).all() for buffer in objective.buffers())


@pytest.mark.parametrize("proportional", [True, False])
def test_start_sets_regions_prior_and_clustering_head(proportional):
    objective, z = make_objective(started=False, proportional=proportional)
    calibration = copy.deepcopy(objective.calibration_head.state_dict())
    labels, regions = partitions(z, 3, 6)
    objective.start(z, labels, regions, torch.Generator().manual_seed(3))
    for r in range(6):
        members = [z[i] for i in range(60) if regions[i] == r]
        assert torch.allclose(objective.region_centers[r], sum(members) / len(members), atol=1e-6)
    counts = [sum(labels == k).item() + 1 for k in range(3)]
    expected = [c / 63 for c in counts] if proportional else [1 / 3] * 3
    assert objective.prior.tolist() == pytest.approx(expected)
    assert len(set(counts)) == 3
    head = PrototypePerceptron(4, 8, 3)
    head.start_from(z, labels, torch.Generator().manual_seed(3))
    assert_equal_states(objective.clustering_head, head)
    assert objective.model.head is objective.clustering_head
    for name, tensor in objective.calibration_head.state_dict().items():
        assert torch.equal(tensor, calibration[name])


def test_a_cluster_without_samples_is_still_expected():
    objective, z = make_objective(started=False)
    labels = torch.zeros(60, dtype=torch.long)
    objective.start(z, labels, partitions(z, 3, 6)[1], torch.Generator())
    assert objective.prior.tolist() == pytest.approx([61 / 63, 1 / 63, 1 / 63])


def test_without_a_partition_the_heads_are_left_as_they_are():
    objective, z = make_objective(started=False)
    before = copy.deepcopy(objective.state_dict())
    objective.start(z, None, partitions(z, 3, 6)[1], torch.Generator())
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name != "region_centers"), name


def assert_equal_states(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_copied_heads_are_equal_but_not_the_same():
    objective, z = make_objective()
    heads = objective.clustering_head, objective.calibration_head
    assert not torch.equal(heads[0](z), heads[1](z))
    before = copy.deepcopy(heads[0].state_dict())
    objective.copy_head()
    assert_equal_states(*heads)
    objective.eval()
    assert torch.equal(heads[0](z), heads[1](z))
    with torch.no_grad():
        for tensor in [*heads[1].parameters(), *heads[1].buffers()]:
            tensor.add_(1)
    for name, tensor in heads[0].state_dict().items():
        assert torch.equal(tensor, before[name])


def test_one_head_is_copied_nowhere():
    objective, _ = make_objective(calibration_head=False)
    before = copy.deepcopy(objective.state_dict())
    objective.copy_head()
    assert objective.calibration_head is None
    assert all(torch.equal(before[name], t) for name, t in objective.state_dict().items())


@pytest.mark.parametrize("calibration_head", [True, False])
@pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2], [1, 0, 2]])
def test_reorder_renumbers_the_clusters(order, calibration_head):
    objective, z = make_objective(calibration_head=calibration_head)
    objective.eval()
    objective.owed.copy_(torch.tensor([0.1, 0.2, 0.3]))
    heads = [objective.clustering_head]
    if calibration_head:
        heads.append(objective.calibration_head)
    with torch.no_grad():
        for head in heads:
            head.output.bias.copy_(torch.randn(3))
    before = [head(z) for head in heads]
    prior, owed, model = objective.prior.clone(), objective.owed.clone(), objective.model.head(z)
    regions = objective.region_centers.clone()
    objective.reorder(torch.tensor(order))
    for head, logits in zip(heads, before, strict=True):
        assert torch.equal(head(z), logits[:, order])
    assert torch.equal(objective.model.head(z), model[:, order])
    assert torch.equal(objective.prior, prior[order])
    assert torch.equal(objective.owed, owed[order])
    assert torch.equal(objective.region_centers, regions)


def test_the_same_batch_has_the_same_loss_in_any_order_of_the_clusters():
    objective, z = make_objective()
    objective.eval()
    other = copy.deepcopy(objective)
    other.reorder(torch.tensor([2, 0, 1]))
    assert other(*batches(z))[0].item() == pytest.approx(objective(*batches(z))[0].item(), rel=1e-5)


@given(seed=seeds, n=st.integers(1, 30), n_clusters=sizes, n_regions=sizes)
def test_class_weights_equal_a_loop_over_the_regions(seed, n, n_clusters, n_regions):
    with torch.random.fork_rng():
        objective, _ = make_objective(n_clusters, n_regions, started=False)
    rng = np.random.default_rng(seed)
    centers, z = rng.normal(size=(n_regions, 4)), rng.normal(size=(n, 4))
    labels = rng.integers(n_clusters, size=n)
    objective.region_centers.copy_(torch.tensor(centers))
    weights = objective.weigh_classes(torch.tensor(z).float(), torch.tensor(labels))
    regions = [np.square(centers - row).sum(axis=1).argmin() for row in z]
    for k in range(n_clusters):
        occupied = 0
        for j in range(n_regions):
            members = [labels[i] for i in range(n) if regions[i] == j]
            if members and members.count(k) / len(members) > 0.3:
                occupied += 1
        assert weights[k].item() == pytest.approx(n_regions / max(occupied, 0.5))


@pytest.mark.parametrize("calibration_head", [True, False])
def test_the_state_survives_a_round_trip(calibration_head):
    changes = {"calibration_head": calibration_head, "fine_tune": True}
    objective, z = make_objective(**changes)
    objective.train()
    for shift in (0, 5):
        objective(*batches(z.roll(shift, dims=0)))
    assert objective.owed.any()
    restored, _ = make_objective(started=False, seed=1, **changes)
    restored.load_state_dict(copy.deepcopy(objective.state_dict()))
    for name in ("prior", "owed", "region_centers"):
        assert torch.equal(getattr(restored, name), getattr(objective, name))
        assert name in objective.state_dict()
    restored.train()
    assert torch.equal(restored(*batches(z))[0], objective(*batches(z))[0])
    assert_equal_states(restored, objective)


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_regions_follow_an_encoder_that_moves(rate, monkeypatch):
    monkeypatch.setattr(CalibratedObjective, "REGION_RATE", rate)
    objective, z = make_objective(fine_tune=True, n_regions=10)
    objective.eval()
    before = objective.region_centers.clone()
    before[3] = 100.0  # nothing is near this one
    objective.region_centers.copy_(before)
    objective(z[:20], z[20:40])
    embedded = objective.model.embedding(z[:20]).detach()
    regions = torch.cdist(embedded, before).argmin(dim=1)
    for r in range(10):
        members = embedded[regions == r]
        expected = (
            before[r] + rate * (members.mean(dim=0) - before[r]) if len(members) else before[r]
        )
        assert torch.allclose(objective.region_centers[r], expected, atol=1e-6)
    assert 3 not in regions
    assert torch.equal(objective.region_centers[3], before[3])
    assert not torch.equal(objective.region_centers, before)
    assert not objective.region_centers.requires_grad


@pytest.mark.parametrize(
    "changes", [{"fine_tune": False}, {"fine_tune": True, "calibration_head": False}]
)
def test_regions_stay_where_nothing_moves_or_needs_them(changes):
    objective, z = make_objective(**changes)
    objective.train()
    before = objective.region_centers.clone()
    objective(*batches(z))
    assert torch.equal(objective.region_centers, before)


def test_training_on_blobs_finds_them_and_lowers_the_confidence_where_they_meet():
    # Two pairs of clouds that overlap within a pair: four clusters, of which none is sure of the
    # samples in the middle of a pair.
    torch.manual_seed(0)
    centers = torch.tensor([[1.0, 0.35], [1.0, -0.35], [-1.0, 0.35], [-1.0, -0.35]])
    truth = torch.arange(400) % 4
    z = normalize(centers[truth] + 0.25 * torch.randn(400, 2), dim=1)
    objective, _ = make_objective(4, 24, width=2, started=False, n_hidden=32)
    angle = torch.atan2(z[:, 1], z[:, 0])
    regions = (angle.argsort().argsort() * 24 // 400).long()
    objective.start(z, torch.cdist(z, centers).argmin(dim=1), regions, torch.Generator())
    objective.copy_head()
    optimizer = torch.optim.Adam(objective.parameter_groups(1e-3))
    objective.train()
    for _ in range(30):
        order = torch.randperm(400)[:200]
        optimizer.zero_grad()
        objective(z[order], normalize(z[order] + 0.1 * torch.randn(200, 2), dim=1))[0].backward()
        optimizer.step()
    objective.eval()
    p = objective.calibration_head(z).softmax(dim=1)
    predicted = objective.clustering_head(z).argmax(dim=1)
    assert (predicted == torch.cdist(z, centers).argmin(dim=1)).float().mean() > 0.95
    confidence = p.max(dim=1).values
    in_the_middle = z[:, 1].abs() < 0.1
    assert confidence[in_the_middle].mean() < confidence[~in_the_middle].mean() - 0.1
