"""A model small enough for tests, and images for it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vaetools import Augmenter, LatentBank
from vaetools.model.vae import VAE
from vaetools.model.weights import save_weights

from .conftest import photo_batch, tiny


def tiny_weights(folder: Path) -> Path:
    """A weights file: untrained, but latents that an operator moves are seen in the pixels."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        vae = VAE(tiny(name="tiny"))
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return save_weights(vae, None, folder)


def photographs(count: int = 4, side: int = 16) -> Tensor:
    """(count, 3, side, side) uint8, no two alike."""
    images = (photo_batch(side, count) * 255).round().to(torch.uint8)
    images[:, :, 0, 0] = torch.arange(count, dtype=torch.uint8)[:, None]
    return images


def two_classes(weights: Path, count: int = 8) -> LatentBank:
    """Of photographs whose labels are 0 and 1 by turns."""
    augmenter = Augmenter.load(weights, device="cpu")
    return LatentBank.fit(augmenter.space, list(photographs(count)), [index % 2 for index in range(count)])
