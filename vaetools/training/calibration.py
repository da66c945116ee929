"""Fit the probability tables to the rounded residuals of real images."""

from __future__ import annotations

import numpy as np
import torch

from ..model.quantiser import coded_places, pad_to_stride, to_symbols
from ..model.scales import LEVELS
from ..model.tables import Y_REACH, Z_REACH, ProbabilityTables, histogram
from ..model.vae import VAE
from .data import ImageCache, to_unit_range

IMAGES = 160
MAX_SIDE = 512


def calibrate(vae: VAE, cache: ImageCache, seed: int, count: int = IMAGES) -> ProbabilityTables:
    """Histograms over up to `count` images at qualities spread evenly over the range, then ProbabilityTables.fit."""
    generator = np.random.default_rng((seed, 2))
    z_channels = vae.config.hyper_channels
    device = vae.z_raw_scale.device
    y_counts = np.zeros((LEVELS, 2 * Y_REACH + 2))
    z_counts = np.zeros((z_channels, 2 * Z_REACH + 2))
    chosen = generator.choice(len(cache), min(count, len(cache)), replace=False)
    qualities = generator.permutation((np.arange(len(chosen)) + 0.5) / len(chosen))
    for index, quality in zip(chosen, qualities, strict=True):
        image = cache.image(int(index))
        top, left = (int(generator.integers(max(0, side - MAX_SIDE) + 1)) for side in image.shape[:2])
        image = image[top : top + MAX_SIDE, left : left + MAX_SIDE]
        height, width = image.shape[:2]
        x = to_unit_range(image.transpose(2, 0, 1)[None], vae.config, device)
        x = pad_to_stride(x, vae.config.hyper_stride)
        q = torch.tensor([quality], dtype=torch.float32, device=device)
        symbols = to_symbols(vae, x, q, torch.tensor([height]), torch.tensor([width]))
        coded = torch.logical_or(*coded_places(vae.config.latent_stride, symbols.residuals.shape[1:], height, width)).numpy()
        residuals, table = symbols.residuals[0].cpu().numpy(), symbols.index[0].cpu().numpy()
        y_counts += histogram(table[coded], residuals[coded], LEVELS, Y_REACH)
        z = symbols.z[0].cpu().numpy()
        channel = np.arange(z_channels)[:, None, None] + np.zeros_like(z)
        z_counts += histogram(channel, z, z_channels, Z_REACH)
    return ProbabilityTables.fit(y_counts, z_counts, vae.prior_z().scale.detach().flatten().cpu().numpy())
