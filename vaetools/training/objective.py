"""What training minimises: distortion against rate, or reconstruction against divergence.

Both are one formula. With x in 0..255, the rate-distortion Lagrangian `lambda * MSE + bits per pixel` of learned
compression (Ballé et al., ICLR 2018) is the negative ELBO of a VAE with a Gaussian likelihood of variance
`C / (2 * lambda * ln 2)`, divided by the number of pixels and by ln 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.config import ModelConfig
from ..model.distributions import Noise
from ..model.noise import noise_level, noisy_pair
from ..model.precision import autocast
from ..model.vae import Outcome, quality_lambda

LOSS_UNIT = 0.1  # keeps the loss, and the gradients that are clipped at 1, of order one


def likelihood_variance(lagrange: Tensor, channels: int) -> Tensor:
    """Variance (of values in 0..255) of the Gaussian likelihood that `lagrange` stands for."""
    return channels / (2 * math.log(2) * lagrange)


def negative_elbo(images: Tensor, reconstruction: Tensor, kl: Tensor, variance: Tensor, beta: float = 1.0) -> Tensor:
    """-log p(x|z) + beta * KL in nats per image, (B,), for images in 0..255 and p(x|z) = N(reconstruction, variance).

    Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, equation 3; beta as in Higgins et al., ICLR 2017.
    """
    squared = ((images - reconstruction) ** 2).flatten(1)
    constant = 0.5 * squared.shape[1] * torch.log(2 * math.pi * variance)
    return squared.sum(1) / (2 * variance) + constant + beta * kl


@dataclass
class Losses:
    """Means over a batch. `loss = reconstruction + divergence`, the two weighted; the rest unweighted."""

    loss: Tensor
    reconstruction: Tensor
    divergence: Tensor
    mse: Tensor
    bpp: Tensor


def rate_distortion(images: Tensor, outcome: Outcome, quality: Tensor, lambdas: tuple[float, float]) -> Losses:
    """`lambda * MSE + bits per pixel`, each sample divided by sqrt(lambda) so that low qualities are learned too.

    images (B, C, H, W) in 0..1; MSE is on the scale 0..255.
    """
    lagrange = quality_lambda(quality, lambdas)
    mse = ((images - outcome.reconstruction) ** 2).mean((1, 2, 3)) * 255**2
    bpp = outcome.kl / (math.log(2) * images.shape[-2] * images.shape[-1])
    reconstruction = LOSS_UNIT * (lagrange.sqrt() * mse).mean()
    divergence = LOSS_UNIT * (bpp / lagrange.sqrt()).mean()
    return Losses(reconstruction + divergence, reconstruction, divergence, mse.mean(), bpp.mean())


def losses_of(network: nn.Module, config: ModelConfig, images: Tensor, quality: Tensor, noise: Noise) -> Losses:
    """Of a pass of images (B, C, H, W) in 0..1 through a VAE of `config`, or its wrapper; a denoiser sees them with noise."""
    seen = images
    if config.noise is not None:
        images, seen = noisy_pair(images, noise_level(quality, config.noise), noise)
    with autocast(images.device):
        outcome = network(seen, quality, noise)
    return rate_distortion(images, outcome, quality, config.quality_lambdas)
