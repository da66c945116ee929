"""From images to whole numbers and back, the way a codec and a calibration both need it.

    encoder:  images -> y, z ->  z' = round(z)  -> first_pass -> r1 -> second_pass -> r2
    decoder:                     z'             -> first_pass -> r1 -> second_pass -> r2 -> to_images

r = round(y - mean) are the residuals. The table indexes that both sides derive come from z' and r1 alone, exactly
(scales.py); the means are floats, and may differ by a rounding error between two machines without any harm but that.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Depthwise
from .config import ModelConfig
from .packed import can_pack, pack
from .precision import autocast
from .scales import IntegerConv
from .vae import VAE, Analysis, Prediction, first_pass_mask

SYMBOL_MAX = 32767
# A block of so many pixels a side is lost if its squared error is above its variance, or a quarter of it where that is much.
LOST_BLOCK, LOST_MARGIN, LOST_CONTRAST = 32, (10 / 255) ** 2, (25 / 255) ** 2


@dataclass
class FirstPass:
    """Known once z is: (B, M, h, w) prediction of y, table indexes (uint8), and the mask (1, M, h, w) of this pass."""

    prediction: Prediction
    scale_output: Tensor
    mask: Tensor
    index: Tensor


@dataclass
class SecondPass:
    """Known once the first pass is: (B, M, h, w) means of all y, and the table indexes of both passes (uint8)."""

    mean: Tensor
    index: Tensor


@dataclass
class Symbols:
    """What a file holds of a batch: whole numbers in float tensors. z (B, Z, h/4, w/4); residuals, index (B, M, h, w).

    Beside them what the encoder knows: the means of y, and (B,) which images are none of the kind that the model is for.
    """

    z: Tensor
    residuals: Tensor
    index: Tensor
    mean: Tensor
    strained: Tensor

    @property
    def latents(self) -> Tensor:
        """(B, M, h, w): y as a decoder will know it."""
        return self.mean + self.residuals


def prepare_for_inference(vae: VAE, device: torch.device, *, bfloat16: bool) -> VAE:
    """A copy on the device; weights are rounded, and on CPUs put into the order that convolutions want, once instead of at each
    call."""
    vae = copy.deepcopy(vae).eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    packed = device.type == "cpu" and can_pack()
    for module in vae.modules():
        if isinstance(module, IntegerConv):
            module.freeze()
        elif isinstance(module, Depthwise) and not packed:
            continue  # slower in bfloat16
        elif bfloat16 and isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(torch.bfloat16)
    if packed:
        pack(vae)
    return vae


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) with H and W grown to multiples of `stride`, by repeating the last column and the last row."""
    return F.pad(images, (0, -images.shape[3] % stride, 0, -images.shape[2] % stride), mode="replicate")


def first_pass(vae: VAE, z: Tensor) -> FirstPass:
    prediction = vae.predict(z)
    with torch.autocast(z.device.type, enabled=False):
        u = vae.scales.from_hyper_latents(z)
    return FirstPass(prediction, u, first_pass_mask(prediction.mean), vae.scales.index(u).to(torch.uint8))


def second_pass(vae: VAE, first: FirstPass, residuals: Tensor) -> SecondPass:
    """`residuals` (B, M, h, w) of the first pass; what stands elsewhere is not looked at."""
    residuals = residuals * first.mask
    mean = vae.refine(first.prediction, residuals, first.mask)
    with torch.autocast(residuals.device.type, enabled=False):
        output = first.scale_output + vae.scales.from_residuals(residuals) * (1 - first.mask)
        return SecondPass(mean, vae.scales.index(output).to(torch.uint8))


def coded_region(latent_stride: int, shape: Sequence[int], heights: Tensor, widths: Tensor, margin: int = 0) -> Tensor:
    """Boolean (B, 1, h, w): whether a latent covers a pixel of the image, or only padding.

    shape: (..., h, w) of the latents; heights, widths: (B,) of the images, in pixels. margin: so many latents more on each side.
    """
    rows = (torch.arange(shape[-2], device=heights.device) - margin) * latent_stride < heights[:, None]
    columns = (torch.arange(shape[-1], device=widths.device) - margin) * latent_stride < widths[:, None]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def coded_places(
    latent_stride: int, shape: Sequence[int], height: int, width: int, *, passes: int = 2, margin: int = 0
) -> tuple[Tensor, ...]:
    """Boolean (M, h, w) maps of the latents that each of one or two passes codes of one image, on the CPU."""
    region = coded_region(latent_stride, shape, torch.tensor([height]), torch.tensor([width]), margin)[0]
    if passes == 1:
        return (region.expand(*shape),)
    first = first_pass_mask(torch.empty(1, *shape, dtype=torch.bool))[0]
    return first & region, ~first & region


@dataclass(frozen=True)
class Crop:
    """The part of a window that is coded, in positions of hyper-latents."""

    top: int
    left: int
    rows: int
    columns: int

    def of(self, x: Tensor, per_side: int = 1) -> Tensor:
        """Cut out of (B, C, h, w), with `per_side` positions for each of the hyper-latents."""
        top, left = self.top * per_side, self.left * per_side
        return x[..., top : top + self.rows * per_side, left : left + self.columns * per_side]


@torch.inference_mode()
def analyse(vae: VAE, images: Tensor, *, bfloat16: bool | None = None) -> Analysis:
    """What of the encoder's work holds for every quality. images (B, C, H, W) in 0..1, padded to the hyper stride."""
    with autocast(images.device, bfloat16=bfloat16):
        return replace(vae.analyse(images), chequered=is_chequered(images))


def is_chequered(images: Tensor) -> Tensor:
    """(B,) whether neighbours in a part of (B, C, H, W), of even sides, take turns in both directions as in no photograph."""
    rows = images[..., ::2, :] - images[..., 1::2, :]
    turns = (rows[..., ::2] - rows[..., 1::2]).mean(1, keepdim=True) / 4
    side = min(LOST_BLOCK // 2, *turns.shape[2:])
    return F.avg_pool2d(turns**2, side).amax((1, 2, 3)) > LOST_CONTRAST


@dataclass
class Means:
    """What the encoder says of a batch at its qualities, before anything is rounded but z: y (B, M, h, w), z (B, Z, h/4, w/4)."""

    y: Tensor
    z: Tensor
    strained: Tensor

    def within(self, crop: Crop, config: ModelConfig) -> Means:
        return Means(crop.of(self.y, config.hyper_stride // config.latent_stride), crop.of(self.z), self.strained)


@torch.inference_mode()
def means_at(vae: VAE, analysis: Analysis, quality: Tensor, *, bfloat16: bool | None = None) -> Means:
    """quality (B,) in 0..1."""
    with autocast(analysis.linear.device, bfloat16=bfloat16):
        q = vae.encode_at(analysis, quality)
    strained = q.strained if analysis.chequered is None else q.strained | analysis.chequered
    return Means(q.y.mean, q.z.mean.float().round().clamp(-127, 127), strained)


@torch.inference_mode()
def symbols_of(vae: VAE, means: Means, heights: Tensor, widths: Tensor, *, bfloat16: bool | None = None) -> Symbols:
    """heights, widths (B,): of the images, or of what was cropped of them, before padding."""
    y, device = means.y, means.y.device
    with autocast(device, bfloat16=bfloat16):
        first = first_pass(vae, means.z)
        region = coded_region(vae.config.latent_stride, y.shape, heights.to(device), widths.to(device))
        residuals = _residuals(y, first.prediction.mean) * first.mask * region
        second = second_pass(vae, first, residuals)
        residuals = residuals + _residuals(y, second.mean) * (1 - first.mask) * region
    return Symbols(means.z, residuals, second.index, second.mean, means.strained)


def to_symbols(
    vae: VAE, images: Tensor, quality: Tensor, heights: Tensor, widths: Tensor, *, bfloat16: bool | None = None
) -> Symbols:
    """images (B, C, H, W) in 0..1, padded to the hyper stride; quality (B,) in 0..1; heights, widths (B,) before padding."""
    means = means_at(vae, analyse(vae, images, bfloat16=bfloat16), quality, bfloat16=bfloat16)
    return symbols_of(vae, means, heights, widths, bfloat16=bfloat16)


def _residuals(y: Tensor, mean: Tensor) -> Tensor:
    return (y - mean).round().clamp(-SYMBOL_MAX, SYMBOL_MAX)


@torch.inference_mode()
def to_images(vae: VAE, latents: Tensor, quality: Tensor, *, bfloat16: bool | None = None) -> Tensor:
    """(B, C, H, W) around 0..1, not clipped, from the latents: means and residuals added up."""
    with autocast(latents.device, bfloat16=bfloat16):
        return vae.decode(latents, quality)


@torch.inference_mode()
def is_lost(vae: VAE, image: Tensor, latents: Tensor, quality: Tensor, *, bfloat16: bool | None = None) -> bool:
    """Whether a part of an image comes back worse than as one flat colour, or with less than half of a strong contrast, block by
    block of LOST_BLOCK pixels a side.

    image: (1, C, H, W) in 0..1, not padded; latents: (1, M, h, w), what it decodes from; quality (1,).
    """
    return is_spoilt(image, to_images(vae, latents, quality, bfloat16=bfloat16))


def is_spoilt(image: Tensor, restored: Tensor) -> bool:
    """What `is_lost` asks, of an image (1, C, H, W) in 0..1 and what came of it: not clipped, with its padding."""
    height, width = image.shape[-2:]
    restored = restored.clamp(0, 1)[..., :height, :width]
    blocks = nn.AvgPool2d((min(LOST_BLOCK, height), min(LOST_BLOCK, width)), ceil_mode=True)  # the last ones may be smaller
    error = blocks((restored - image) ** 2)
    variance = blocks(image**2) - blocks(image) ** 2
    error, variance = error.mean(1), variance.mean(1)
    return bool((error > torch.minimum(variance + LOST_MARGIN, variance / 4 + LOST_CONTRAST)).any())
