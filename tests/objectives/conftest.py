"""What all tests of objectives share: settings of hypothesis, and a random state of their own."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("objectives", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("objectives")


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng():
        yield
