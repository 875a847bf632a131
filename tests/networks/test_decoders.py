import pytest
import torch

from skdeepcluster.networks import build_critic, build_decoder


@pytest.mark.parametrize(
    "shape", [(1,), (5,), (1, 2, 3), (3, 4, 4), (1, 8, 8), (3, 9, 17), (3, 32, 32), (2, 100, 65)]
)
def test_decoders_give_samples_and_critics_numbers(shape):
    decoded = build_decoder(6, shape)(torch.randn(4, 6))
    assert decoded.shape == (4, *shape)
    assert build_critic(shape)(decoded).shape == (4,)
