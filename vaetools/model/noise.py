"""White noise in images, and the quality that it stands for in a denoiser.

A denoiser is a VAE that sees noisy images and is trained to give back the clean ones (Vincent et al., "Extracting and composing
robust features with denoising autoencoders", ICML 2008; for a VAE, Im et al., "Denoising criterion for variational
auto-encoding framework", AAAI 2017). The quality, on which its gains depend, tells it how much noise there is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .distributions import Noise

GRAY_EVERY = 8


def noise_level(quality: Tensor, noise: tuple[float, float]) -> Tensor:
    """(B,) qualities in 0..1 -> (B,) standard deviations, of values in 0..255, log-spaced between the two of `noise`."""
    most, least = noise
    return torch.exp(math.log(most) + quality * math.log(least / most))


def quality_of(sigma: float, noise: tuple[float, float]) -> float:
    """The quality in 0..1 that stands for the standard deviation `sigma` of values in 0..255; the nearest end outside."""
    most, least = noise
    return min(1.0, max(0.0, math.log(most / max(sigma, 1e-9)) / math.log(most / least)))


def noisy_pair(images: Tensor, sigma: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """What a denoiser is to give back, and what it sees: (B, C, H, W) in 0..1, with white noise of `sigma` (B,) in 0..255.

    Each value has its own noise, and is clipped as in a file. One colour image in GRAY_EVERY is made gray, with one noise for
    its channels: a gray image that goes through a network of colours looks like that.
    """
    added = noise.normal(images)
    if images.shape[1] > 1:
        gray = noise.uniform(images[:, :1, :1, :1]) + 0.5 < 1 / GRAY_EVERY
        images = torch.where(gray, images.mean(1, keepdim=True), images)
        added = torch.where(gray, added[:, :1], added)
    seen = (images + sigma[:, None, None, None] / 255 * added).clamp(0, 1)
    return images, seen.contiguous(memory_format=torch.channels_last)
