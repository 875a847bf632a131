import pytest
import torch

from skdeepcluster.networks import build_denoiser


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1, 3), (3, 5, 8), (1, 28, 28), (3, 64, 33)])
def test_denoisers_keep_the_shape(shape):
    denoiser = build_denoiser(shape, 4)
    noisy = torch.randn(3, *shape)
    clean = denoiser(noisy, torch.tensor([0, 500, 999]), torch.tensor([0, 3, 4]))
    assert clean.shape == noisy.shape


@pytest.mark.parametrize("shape", [(7,), (2, 8, 8)])
def test_time_and_class_matter(shape):
    torch.manual_seed(0)
    denoiser = build_denoiser(shape, 4)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    noisy = torch.randn(1, *shape)

    def clean(time, label):
        return denoiser(noisy, torch.tensor([time]), torch.tensor([label]))

    assert not torch.allclose(clean(5, 0), clean(700, 0))
    assert not torch.allclose(clean(5, 0), clean(5, 4))
