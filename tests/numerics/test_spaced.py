"""Rows spread evenly: within bounds however many there are."""

import pytest
import torch

from skdeepcluster.numerics import evenly_spaced


@pytest.mark.parametrize("n_rows", [1, 2, 63, 64])
def test_few_rows_are_all_there(n_rows):
    assert torch.equal(evenly_spaced(n_rows, 64), torch.arange(n_rows))


# In single precision the last of the second and third would be 2^24 + 2 and 2^25 + 4.
@pytest.mark.parametrize("n_rows", [1000, 2**24 + 2, 2**25 + 3, 10**9 + 7, 2**40])
def test_many_rows_are_thinned_out_evenly_from_first_to_last(n_rows):
    rows = evenly_spaced(n_rows, 65)
    assert (rows[0], rows[-1], len(rows)) == (0, n_rows - 1, 65)
    steps = rows.diff()
    assert steps.max() - steps.min() <= 1
