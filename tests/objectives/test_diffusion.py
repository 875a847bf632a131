"""Diffusion against slow oracles, and a generator that has to learn something."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skdeepcluster.networks import build_denoiser
from skdeepcluster.objectives import (
    Diffusion,
    cosine_schedule,
    ddim_step,
    denoising_loss,
    forward_diffusion,
    implied_noise,
)

RNG = np.random.default_rng(0)
CLEAN, NOISE = RNG.normal(size=(2, 4, 3))
SIGNAL = np.array([0.9, 0.5, 0.1, 0.3])


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_the_signal_falls_from_nearly_all_to_nearly_nothing():
    signal = cosine_schedule(1000)
    for t in (1, 250, 500, 999):
        f = [math.cos((x / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for x in (t, 0)]
        assert signal[t - 1].item() == pytest.approx(np.clip(f[0] / f[1], 1e-5, 0.9999), rel=1e-5)
    assert (signal.diff() <= 0).all()
    assert signal[0] > 0.999
    assert signal[-1] == pytest.approx(1e-5)


def noisy_slowly():
    noisy = np.empty_like(CLEAN)
    for i in range(4):
        for j in range(3):
            noisy[i, j] = math.sqrt(SIGNAL[i]) * CLEAN[i, j]
            noisy[i, j] += math.sqrt(1 - SIGNAL[i]) * NOISE[i, j]
    return noisy


def test_forward_process_and_back():
    clean, noise, signal = tensors(CLEAN, NOISE, SIGNAL)
    noisy = forward_diffusion(clean, noise, signal)
    np.testing.assert_allclose(noisy, noisy_slowly())
    np.testing.assert_allclose(implied_noise(noisy, clean, signal), NOISE)
    images = forward_diffusion(clean[:, :, None, None], noise[:, :, None, None], signal)
    np.testing.assert_allclose(images[:, :, 0, 0], noisy)


def test_a_step_of_ddim():
    following = np.array([0.95, 0.8, 0.2, 0.9])
    noisy, estimate = noisy_slowly(), RNG.normal(size=(4, 3))
    slow = np.empty_like(noisy)
    for i in range(4):
        for j in range(3):
            noise = noisy[i, j] - math.sqrt(SIGNAL[i]) * estimate[i, j]
            noise /= math.sqrt(1 - SIGNAL[i])
            slow[i, j] = math.sqrt(following[i]) * estimate[i, j]
            slow[i, j] += math.sqrt(1 - following[i]) * noise
    np.testing.assert_allclose(ddim_step(*tensors(noisy, estimate, SIGNAL, following)), slow)


def test_denoising_loss():
    predicted = RNG.normal(size=(4, 3))
    slow = 0.0
    for i in range(4):
        ratio = SIGNAL[i] / (1 - SIGNAL[i])
        error = np.mean((predicted[i] - NOISE[i]) ** 2)
        slow += min(1.0, 2.0 / ratio) * error / 4
    found = denoising_loss(*tensors(predicted, NOISE, SIGNAL), 2.0)
    assert found.item() == pytest.approx(slow)


class Oracle(nn.Module):
    """Knows the clean samples of two classes that are points, and their mean for any class."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, noisy, time, labels):
        return torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])[labels]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
def test_guidance_goes_from_the_mean_of_all_to_the_class_and_beyond(guidance):
    diffusion = Diffusion(Oracle(), 2, guidance)
    labels = torch.tensor([0, 1, 0])
    made = diffusion.sample(torch.randn(3, 2), labels)
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[labels]
    np.testing.assert_allclose(made, 0.5 + guidance * (points - 0.5), atol=1e-6)


def test_labels_are_dropped_now_and_then():
    seen = []

    class Watch(Oracle):
        def forward(self, noisy, time, labels):
            seen.append(labels.clone())
            return super().forward(noisy, time, labels)

    torch.manual_seed(0)
    diffusion = Diffusion(Watch(), 2, 1.0)
    labels = torch.arange(4000) % 2
    diffusion(torch.zeros(4000, 2), labels)
    dropped = seen[0] == 2
    assert 0.07 < dropped.float().mean() < 0.13
    assert torch.equal(seen[0][~dropped], labels[~dropped])


def test_the_average_follows_at_once_in_the_beginning_and_slowly_later():
    diffusion = Diffusion(build_denoiser((2,), 2), 2, 1.0)
    diffusion.remember(0)
    with torch.no_grad():
        diffusion.denoiser.output.bias.fill_(1.0)
    diffusion(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    assert torch.equal(diffusion.average.network.output.bias, torch.ones(2))
    diffusion.remember(10**6)
    with torch.no_grad():
        diffusion.denoiser.output.bias.fill_(2.0)
    diffusion(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(diffusion.average.network.output.bias, torch.full((2,), 1.02))


@pytest.mark.parametrize(
    ("shape", "rate"), [((2,), 5e-3), ((1, 6, 6), 1e-3)], ids=["features", "images"]
)
def test_a_generator_learns_two_classes(shape, rate):
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    centers = torch.where(labels == 0, -0.8, 0.8).view(-1, *[1] * len(shape))
    diffusion = Diffusion(build_denoiser(shape, 2), 2, 1.0)
    optimizer = torch.optim.Adam(diffusion.denoiser.parameters(), rate)
    for step in range(150):
        diffusion.remember(step)
        clean = centers + 0.1 * torch.randn(64, *shape)
        loss = diffusion(clean, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = diffusion.eval().sample(torch.randn(64, *shape), labels).flatten(1).mean(dim=1)
    assert (made[labels == 0] < -0.3).all()
    assert (made[labels == 1] > 0.3).all()


def test_reordering_renumbers_the_classes_of_both_networks():
    torch.manual_seed(0)
    denoiser = build_denoiser((2,), 3)
    nn.init.normal_(denoiser.output.weight)
    diffusion = Diffusion(denoiser, 3, 1.5)
    noise, labels = torch.randn(3, 2), torch.arange(3)
    before = diffusion.sample(noise, labels)
    order = torch.tensor([2, 0, 1])
    diffusion.reorder(order)
    # A matrix product may round a row by where it stands in its batch, and twenty steps add up.
    made = diffusion.sample(noise[order], labels)
    torch.testing.assert_close(made, before[order], rtol=1e-4, atol=1e-4)
