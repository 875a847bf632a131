"""The contrastive loss against a slow numpy oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skdeepcluster.objectives import ContrastiveObjective, info_nce


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 8),
    temperature=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_info_nce_equals_a_loop(seed, batch, temperature):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, batch, 5))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    total = 0.0
    for a, b in ((first, second), (second, first)):
        for i in range(batch):
            scores = [np.exp(a[i] @ b[j] / temperature) for j in range(batch)]
            total -= np.log(scores[i] / sum(scores))
    loss = info_nce(torch.tensor(first), torch.tensor(second), temperature)
    assert loss.item() == pytest.approx(total / (2 * batch), abs=1e-9)


def test_info_nce_is_low_when_views_find_each_other():
    z = torch.eye(6)
    assert info_nce(z, z, 0.1) < info_nce(z, z.roll(1, 0), 0.1)


def test_the_objective_embeds_both_views_in_one_pass():
    class Counting(nn.Linear):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return nn.functional.normalize(super().forward(x), dim=1)

    objective = ContrastiveObjective(Counting(3, 2), temperature=0.5)
    first, second = torch.rand(4, 3), torch.rand(4, 3)
    loss, scalars = objective(first, second)
    loss.backward()
    assert Counting.calls == 1
    assert scalars == {}
    expected = info_nce(objective.embedding(first), objective.embedding(second), 0.5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
