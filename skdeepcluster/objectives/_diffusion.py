r"""Diffusion: learn to take noise out of samples, and make samples out of noise.

With the share of signal :math:`\bar\alpha_t` that is left after t of T steps, a noisy sample is
:math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from skdeepcluster.networks import EMATeacher, full_precision


def cosine_schedule(n_steps: int) -> Tensor:
    r"""Return :math:`\bar\alpha_1 \dots \bar\alpha_T` (Nichol and Dhariwal, 2021).

    .. math:: \bar\alpha_t = f(t) / f(0), \qquad
        f(t) = \cos^2\left(\frac{t / T + .008}{1.008} \cdot \frac{\pi}{2}\right)

    but never below 1e-5 nor above .9999: some noise and some signal are always left.
    """
    time = torch.arange(1, n_steps + 1, dtype=torch.float64) / n_steps
    signal = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    return (signal / start).clamp(1e-5, 0.9999).float()


def forward_diffusion(clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    r"""Return :math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon`.

    Parameters
    ----------
    clean, noise : Tensor of shape (batch, ...)
        :math:`x_0` and :math:`\epsilon`.
    signal : Tensor of shape (batch,)
        :math:`\bar\alpha_t`, of a time for each sample.
    """
    signal = _as_column(signal, clean)
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def implied_noise(noisy: Tensor, clean: Tensor, signal: Tensor) -> Tensor:
    r"""Return the noise that :math:`x_t` holds if the sample is :math:`x_0`.

    .. math:: \epsilon = (x_t - \sqrt{\bar\alpha_t}\, x_0) / \sqrt{1 - \bar\alpha_t}

    Parameters
    ----------
    noisy, clean : Tensor of shape (batch, ...)
        :math:`x_t` and :math:`x_0`.
    signal : Tensor of shape (batch,)
        :math:`\bar\alpha_t`.
    """
    signal = _as_column(signal, noisy)
    return (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()


def denoising_loss(predicted: Tensor, noise: Tensor, signal: Tensor, most: float) -> Tensor:
    r"""Return the error of predicted noise, less of it where next to nothing is noise.

    .. math:: \frac{1}{B} \sum_i \min\left(1, \gamma / s_i\right)
        \frac{1}{d} \|\hat\epsilon_i - \epsilon_i\|^2, \qquad
        s = \bar\alpha_t / (1 - \bar\alpha_t)

    Without the weights (min-SNR; Hang et al., 2023) samples that are almost clean have most of the
    error, and a short training learns nothing else.

    Parameters
    ----------
    predicted, noise : Tensor of shape (batch, ...)
        :math:`\hat\epsilon` and :math:`\epsilon`.
    signal : Tensor of shape (batch,)
        :math:`\bar\alpha_t`.
    most : float
        The ratio :math:`\gamma` of signal to noise from which on errors count less.
    """
    errors = (predicted - noise).square().flatten(1).mean(dim=1)
    return (errors * (most * (1 - signal) / signal).clamp(max=1)).mean()


def ddim_step(noisy: Tensor, clean: Tensor, signal: Tensor, next_signal: Tensor) -> Tensor:
    r"""Return the sample some steps closer to the clean one (DDIM without randomness).

    .. math:: x_{t'} = \sqrt{\bar\alpha_{t'}}\, \hat x_0
        + \sqrt{1 - \bar\alpha_{t'}}\, \hat\epsilon

    Parameters
    ----------
    noisy, clean : Tensor of shape (batch, ...)
        :math:`x_t`, and :math:`\hat x_0` as estimated from it; :math:`\hat\epsilon` is
        :func:`implied_noise`.
    signal, next_signal : Tensor of shape (batch,)
        :math:`\bar\alpha_t` and :math:`\bar\alpha_{t'}`.
    """
    return forward_diffusion(clean, implied_noise(noisy, clean, signal), next_signal)


def _as_column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


class Diffusion(nn.Module):
    """A generator of samples with given labels.

    Parameters
    ----------
    denoiser : nn.Module
        ``denoiser(noisy, time, labels)`` estimates clean samples.
    n_classes : int
        Labels are below it; this one itself means any.
    guidance : float
        How far samples go from what is typical of any class to what is typical of theirs: 1 is
        the estimate for the class, more exaggerates the difference.
    """

    N_STEPS = 1000
    N_SAMPLING_STEPS = 20
    LABEL_DROPOUT = 0.1
    MOST_SIGNAL = 5.0
    MOMENTUM = 0.98
    signal: Tensor

    def __init__(self, denoiser: nn.Module, n_classes: int, guidance: float) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.average = EMATeacher(denoiser, self.MOMENTUM)
        self.register_buffer("signal", cosine_schedule(self.N_STEPS))
        self.n_classes = n_classes
        self.guidance = guidance

    def remember(self, n_steps: int) -> None:
        """Set how slow the average is when as many steps were made."""
        self.average.momentum = min(self.MOMENTUM, 1 - 1 / (1 + n_steps))

    def forward(self, clean: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch of samples and their labels."""
        self.average.update(self.denoiser)  # what the last step has changed
        device = clean.device
        time = torch.randint(self.N_STEPS, (len(clean),), device=device)
        dropped = torch.rand(len(clean), device=device) < self.LABEL_DROPOUT
        noise, signal = torch.randn_like(clean), self.signal[time]
        noisy = forward_diffusion(clean, noise, signal)
        estimate = self.denoiser(noisy, time, labels.masked_fill(dropped, self.n_classes)).float()
        with full_precision(device):
            predicted = implied_noise(noisy, estimate, signal)
            return denoising_loss(predicted, noise, signal, self.MOST_SIGNAL)

    @torch.no_grad()
    def sample(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return the samples that the averaged network makes out of noise."""
        times = torch.linspace(self.N_STEPS - 1, 0, self.N_SAMPLING_STEPS).round().long().tolist()
        x = noise
        for time, following in zip(times, [*times[1:], None], strict=True):
            clean = self._guided(x, time, labels)
            if following is None:
                break
            signals = (self.signal[t].expand(len(x)) for t in (time, following))
            x = ddim_step(x, clean, *signals)
        return clean

    def _guided(self, x: Tensor, time: int, labels: Tensor) -> Tensor:
        times = torch.full_like(labels, time)
        if self.guidance == 1:
            own: Tensor = self.average(x, times, labels)
            return own
        both_labels = torch.cat([labels, torch.full_like(labels, self.n_classes)])
        both: Tensor = self.average(x.repeat(2, *[1] * (x.ndim - 1)), times.repeat(2), both_labels)
        own, common = both.chunk(2)
        return common + self.guidance * (own - common)

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Renumber the classes: the new class i is the old ``order[i]``."""
        networks: tuple[Any, ...] = (self.denoiser, self.average.network)
        for network in networks:
            rows = network.condition.label.weight
            rows[: len(order)] = rows[order].clone()
