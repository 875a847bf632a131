"""Random numbers of a fit: all come from one seed, and each purpose has its own."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from skdeepcluster.numerics import OwnDraws

# Seeds of a fit are drawn below this.
MAX_SEED = 2**31 - 1


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """Return a generator of its own for each purpose, the same after a resume."""
    # Not hash(), which differs from process to process. The mixing is numpy's, because torch's
    # CPU generator looks at 32 bits of a seed only.
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))


def draws_for(seed: int, purpose: str) -> OwnDraws:
    """Return a context in which layers draw from the seed, not from torch's global state."""
    return OwnDraws(generator_for(seed, purpose).initial_seed())
