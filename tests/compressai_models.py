"""Small models of CompressAI: untrained, but scaled so that their latents, scales and means vary as those of trained ones do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaetools.foreign.checkpoint import import_checkpoint
from vaetools.foreign.config import FACTORIZED, MEAN_SCALE, SCALE
from vaetools.foreign.weights import save_foreign

from .conftest import photo_batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what CompressAI imports warns about itself
    from compressai import models

CLASSES = {FACTORIZED: models.FactorizedPrior, SCALE: models.ScaleHyperprior, MEAN_SCALE: models.MeanScaleHyperprior}
N, M = 8, 12


@torch.no_grad()
def small(family: str) -> Any:
    """In eval mode, with its tables not yet made. What comes out is a gray image with some noise on it."""
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        net = CLASSES[family](N, M).eval()
    x = photo_batch(128, 2)
    _spread(net.g_a[-1], net.g_a(x), 3.0)
    y = net.g_a(x)
    _spread(net.g_s[-1], net.g_s(y), 0.05, mean=0.4)
    if family != FACTORIZED:
        hyper = y if family == MEAN_SCALE else y.abs()
        _spread(net.h_a[-1], net.h_a(hyper), 2.0)
        z = net.h_a(hyper)
        last = net.h_s[4]
        _spread(last, last_output(net, z), 0.5, mean=0.0)
        last.bias[:M] += 1.5  # the scales
    return net


def last_output(net: Any, z: Tensor) -> Tensor:
    result: Tensor = net.h_s[:5](z)  # before the rectifier that the scales of one family end with
    return result


def _spread(layer: Any, output: Tensor, deviation: float, mean: float = 0.0) -> None:
    """Give what a last layer puts out this mean and this standard deviation, in every channel."""
    factor = deviation / output.std((0, 2, 3)).clamp_min(1e-6)
    transposed = isinstance(layer, torch.nn.ConvTranspose2d)
    layer.weight.mul_(factor[None, :, None, None] if transposed else factor[:, None, None, None])
    layer.bias.copy_((layer.bias - output.mean((0, 2, 3))) * factor + mean)


def saved(family: str, folder: Path) -> Path:
    """A checkpoint as CompressAI's training script writes it."""
    path = folder / f"{family}.pth.tar"
    torch.save({"epoch": 3, "state_dict": small(family).state_dict(), "loss": 1.5, "optimizer": {}}, path)
    return path


def imported(family: str, folder: Path) -> Path:
    """A weights file."""
    return save_foreign(import_checkpoint(saved(family, folder), family.replace("bmshj2018-", "")), folder)


def own_bytes_and_pixels(net: Any, image: Tensor) -> tuple[int, Tensor]:
    """What CompressAI itself makes of an image (3, H, W) uint8 with sides that are multiples of 64."""
    with torch.no_grad():
        net.update()
        coded = net.compress(image[None] / 255)
        restored = net.decompress(coded["strings"], coded["shape"])["x_hat"][0]
    return sum(len(strings[0]) for strings in coded["strings"]), restored.mul(255).round().to(torch.uint8)
