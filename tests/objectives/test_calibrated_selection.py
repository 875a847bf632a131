"""The selection of CDC against slow oracles: whom the clustering head learns from, and how many."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdeepcluster.objectives import candidates_per_cluster, select_confident
from tests.objectives.calibrated_helpers import STEPS, draw_steps, slow_candidates, slow_selection
from tests.objectives.oracle_helpers import draw, dtypes, seeds, sizes, softmax


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
