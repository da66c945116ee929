"""A model that takes no training, folders of files that it wrote, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaetools import Codec, LatentFolder, latent_collate
from vaetools.latents.batch import LatentBatch
from vaetools.model.vae import VAE
from vaetools.model.weights import save_weights
from vaetools.training.calibration import calibrate
from vaetools.training.data import ImageCache, patch_basis

from .conftest import photograph, tiny

CLASSES = {"cats": ("chelsea", "rocket", "coffee"), "flights": ("astronaut", "rocket", "chelsea")}
HEIGHT, WIDTH = 52, 70
CHECKS = ((torch.arange(64)[:, None] // 2 + torch.arange(64) // 2) % 2 * 60 + 100).to(torch.uint8)[None]  # is kept lossless


def write_model(folder: Path, photos: Path, seed: int = 1, **changes: object) -> Path:
    """Weights that make something of a photograph: random ones on top of principal components."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        vae = VAE(tiny(name="tiny", **changes)).eval().requires_grad_(False)
        for part in (vae.hyper_decoder, vae.context, vae.decoder_inner, vae.decoder_outer):
            for parameter in part.parameters():
                parameter += 0.1 * torch.randn_like(parameter)  # branches that begin at zero would see no neighbours
    for layer in (vae.scales.z_in, vae.scales.residual_out):
        layer.weight.mul_(8)  # so that tables depend on what is decoded
    cache = ImageCache.load(photos, vae.config, 1 << 28)
    vae.start_from_pca(torch.from_numpy(patch_basis(cache, vae.config.latent_stride, 0, 2000)).float())
    return save_weights(vae, calibrate(vae, cache, 0, 4) if vae.config.posterior == "uniform" else None, folder)


def pixels(name: str, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """(3, height, width) uint8 of a photograph."""
    return torch.from_numpy(np.array(photograph(name, width, height))).permute(2, 0, 1)


def write(path: Path, codec: Codec, image: Tensor, quality: float = 70, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(codec.compress([image], quality, **options)[0])


def write_folder(folder: Path, codec: Codec) -> Path:
    """Six files of two classes, of three qualities."""
    for label, names in CLASSES.items():
        for number, name in enumerate(names):
            write(folder / label / f"{number}.png.vtc", codec, pixels(name), 40 + 20 * number)
    (folder / ".vaetools-manifest.jsonl").touch()
    return folder


def batch_of(dataset: LatentFolder, indexes: Sequence[int] | None = None) -> LatentBatch:
    return latent_collate([dataset[index] for index in (range(len(dataset)) if indexes is None else indexes)])


def decoded(codec: Codec, dataset: LatentFolder) -> list[Tensor]:
    """What the codec makes of the files."""
    return codec.decompress([Path(path).read_bytes() for path, _ in dataset.samples])


def levels(images: Tensor) -> Tensor:
    """As uint8 has them."""
    return (images * 255).round()


def difference(images: Tensor, files: Tensor | Sequence[Tensor]) -> float:
    """The largest, in levels."""
    there = files if isinstance(files, Tensor) else torch.stack(list(files))
    return float((levels(images) - there.float()).abs().max())
