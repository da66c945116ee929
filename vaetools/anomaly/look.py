"""What the model says of a batch of images: the material of all scores.

image --encode--> y, z --decode--> reconstruction --> squared error at each pixel
           |        '--p(y|z), p(z)--> KL divergence at each latent position
           '--> features of the encoder
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.png import png_bytes
from ..model.precision import autocast
from ..model.quantiser import pad_to_stride
from ..model.space import Latents, LatentSpace
from ..model.vae import quality_lambda
from ..training.objective import likelihood_variance


@dataclass(frozen=True)
class Look:
    """Of images (B, C, H, W) in 0..1, float32, on the CPU; grids cover the image, and a little more where a cell is cut.

    error: (B, H, W) squared error of the reconstruction, mean over channels, values in 0..1. bits: (B, H/16, W/16) KL divergence
    of y, and of z spread evenly over the cells below it, in bits (strides are those of patch 8). y (B, M, H/16, W/16) and
    z (B, Z, H/64, W/64) are the means of the posteriors. features: (B, W1, H/16, W/16), of the outer half of the encoder and
    the inner one. stride: pixels a side for each position of y.
    """

    images: Tensor
    error: Tensor
    bits: Tensor
    y: Tensor
    z: Tensor
    features: Tensor
    stride: int

    @property
    def size(self) -> tuple[int, int]:
        return int(self.images.shape[2]), int(self.images.shape[3])


@torch.inference_mode()
def look_at(space: LatentSpace, images: Tensor) -> Look:
    """images: (B, C, H, W) in 0..1 with the model's channels. Everything at the quality of `space`, at the posteriors' means."""
    vae, config = space.vae, space.config
    height, width = images.shape[2:]
    padded = pad_to_stride(images.to(space.device), config.hyper_stride).contiguous(memory_format=torch.channels_last)
    quality = torch.full((len(images),), space.quality / 100, device=space.device)
    with autocast(space.device, bfloat16=space.bfloat16):
        analysis = vae.analyse(padded)
        posteriors = vae.encode_at(analysis, quality)
    latents = Latents(posteriors.y.mean.float(), posteriors.z.mean.float())
    prior = space.conditional(latents)
    bits = posteriors.y.kl(prior, latents.y).sum(1).float()
    below = config.hyper_stride // config.latent_stride
    spread = posteriors.z.kl(space.prior_z(latents.z), latents.z).sum(1).float() / below**2
    bits = (bits + spread.repeat_interleave(below, 1).repeat_interleave(below, 2)) / math.log(2)
    outer = F.avg_pool2d(analysis.features.float(), 2)
    rows, columns = -(-height // config.latent_stride), -(-width // config.latent_stride)
    reconstruction = space.decode(latents.y, height, width).cpu()
    return Look(
        images.cpu(),
        (reconstruction - images.cpu()).square().mean(1),
        bits[:, :rows, :columns].cpu(),
        latents.y[..., :rows, :columns].cpu(),
        latents.z[..., : -(-rows // below), : -(-columns // below)].cpu(),
        torch.cat([outer, posteriors.features.float()], 1)[..., :rows, :columns].cpu(),
        config.latent_stride,
    )


def bits_per_pixel(look: Look) -> Tensor:
    """(B,): KL divergence of all latents in bits, by the number of pixels: for a codec, the size of the file it would write."""
    height, width = look.size
    return look.bits.sum((1, 2)) / (height * width)


def negative_elbo_map(look: Look, quality: float, lambdas: tuple[float, float]) -> Tensor:
    """(B, H, W): negative ELBO in nats per value of the image, on the scale 0..255, of the likelihood N(reconstruction, variance)
    that the quality (0..100) stands for; its mean is that of the image."""
    channels = look.images.shape[1]
    variance = float(likelihood_variance(quality_lambda(torch.tensor(quality / 100), lambdas), channels))
    distortion = 255**2 * look.error / (2 * variance) + 0.5 * math.log(2 * math.pi * variance)
    nats = bits_per_pixel_map(look) * math.log(2) / channels
    return distortion + nats


def bits_per_pixel_map(look: Look) -> Tensor:
    """(B, H, W): the bits of each cell, spread over its pixels."""
    height, width = look.size
    spread = look.bits.repeat_interleave(look.stride, 1).repeat_interleave(look.stride, 2)[:, :height, :width]
    return spread / look.stride**2


def png_bits_per_pixel(images: Tensor, bit_depth: int) -> np.ndarray:
    """(B,): bits per pixel of each image as a PNG file; the measure of its complexity that Serrà et al., ICLR 2020, take."""
    largest = 2**bit_depth - 1
    whole = (images.clamp(0, 1) * largest).round().permute(0, 2, 3, 1).numpy().astype(np.uint16 if bit_depth > 8 else np.uint8)
    return np.array([8 * len(png_bytes(image)) / (image.shape[0] * image.shape[1]) for image in whole])
