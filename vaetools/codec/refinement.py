"""Latents of one image made better than the encoder's, which has to serve all images at one glance.

The rounding of each latent is a choice between two whole numbers. A temperature turns it from a draw into a decision, while
gradient descent on `lambda * MSE + bits per pixel` moves the latents: Stochastic Gumbel Annealing, Yang, Bamler and Mandt,
"Improving Inference for Neural Image Compression", NeurIPS 2020, section 3.1. The file is like any other, and decodes as fast.
The hyper-latents stay as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.distributions import NormalPrior
from ..model.precision import autocast
from ..model.quantiser import coded_region
from ..model.scales import scale_of
from ..model.vae import VAE, Prediction, first_pass_mask, quality_lambda

EFFORTS = range(11)
STEPS_PER_EFFORT = 20
LEARNING_RATE, LAST_RATE = 0.02, 0.02  # in quantisation steps; and what part of it is left at the end
FIRST_TEMPERATURE, COOLING, LAST_TEMPERATURE = 0.5, 2.0, 0.1
EDGE = 1e-4  # how close to a whole number a latent counts as between two

Rounding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Image:
    """What stays as it is. pixels (1, C, H, W) in 0..1; inside: 1 where a pixel is none of the padding; shown: for latents."""

    pixels: Tensor
    inside: Tensor
    shown: Tensor
    quality: Tensor
    prediction: Prediction
    scale_output: Tensor
    first: Tensor
    lagrange: float


class Refiner:
    """Of one model on one device, which needs a copy of the network that gradients can go through."""

    @torch.inference_mode(False)
    def __init__(self, vae: VAE, device: torch.device, *, bfloat16: bool) -> None:
        self.vae = copy.deepcopy(vae).eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.device, self.bfloat16 = device, bfloat16

    @torch.inference_mode(False)
    @torch.enable_grad()
    def refine(self, pixels: Tensor, y: Tensor, z: Tensor, quality: float, height: int, width: int, effort: int) -> Tensor:
        """y (1, M, h, w) that is at least as good as the one given; on a CPU, the same in every call.

        pixels: (1, C, H, W) in 0..1, of which (height, width) are the image and the rest is padding. z: (1, Z, h, w), whole
        numbers. quality in 0..1. effort: of EFFORTS.
        """
        pixels, y, z = pixels.clone(), y.clone(), z.clone()  # from inference mode, where gradients know no tensor
        image = self._prepare(pixels, y, z, quality, height, width)
        least = self._measure(image, y)
        generator = torch.Generator(self.device).manual_seed(0)
        latents = y.clone().requires_grad_()
        optimizer = torch.optim.Adam([latents], lr=LEARNING_RATE)
        steps = effort * STEPS_PER_EFFORT
        for step in range(steps):
            done = step / steps
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done)))
            temperature = max(LAST_TEMPERATURE, FIRST_TEMPERATURE * math.exp(-COOLING * done))
            optimizer.zero_grad()
            self._cost(image, latents, lambda x, t=temperature: _draw(x, t, generator)).backward()  # type: ignore[misc]
            optimizer.step()
        found = latents.detach()
        return found if self._measure(image, found) < least else y

    @torch.no_grad()
    def _measure(self, image: _Image, y: Tensor) -> float:
        return self._cost(image, y, torch.round).item()

    @torch.no_grad()
    def _prepare(self, pixels: Tensor, y: Tensor, z: Tensor, quality: float, height: int, width: int) -> _Image:
        inside = torch.zeros_like(pixels[:, :1])
        inside[..., :height, :width] = 1
        sides = torch.tensor([height], device=self.device), torch.tensor([width], device=self.device)
        shown = coded_region(self.vae.config.latent_stride, y.shape, *sides).float()
        with autocast(self.device, bfloat16=self.bfloat16):
            prediction = self.vae.predict(z)
        scale_output = self.vae.scales.from_hyper_latents(z)
        first = first_pass_mask(prediction.mean)
        level = torch.tensor([quality], device=self.device)
        lagrange = quality_lambda(level, self.vae.config.quality_lambdas).item()
        return _Image(pixels, inside, shown, level, prediction, scale_output, first, lagrange)

    def _cost(self, image: _Image, y: Tensor, rounding: Rounding) -> Tensor:
        """lambda * MSE + bits per pixel, with the passes of a decoder."""
        vae, first = self.vae, image.first
        residuals = rounding(y - image.prediction.mean) * first * image.shown
        with autocast(self.device, bfloat16=self.bfloat16):
            mean = vae.refine(image.prediction, residuals, first)
        scale = scale_of(vae.scales.index(image.scale_output + vae.scales.from_residuals(residuals) * (1 - first)))
        residuals = residuals + rounding(y - mean) * (1 - first) * image.shown
        nats = -(NormalPrior(torch.zeros_like(mean), scale).log_bin(residuals) * image.shown).sum()
        with autocast(self.device, bfloat16=self.bfloat16):
            restored = vae.decode(mean + residuals, image.quality)
        squared = ((restored - image.pixels) ** 2 * image.inside).sum() / image.pixels.shape[1]
        return (image.lagrange * 255**2 * squared + nats / math.log(2)) / image.inside.sum()


def _draw(x: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Between the whole numbers below and above x, the closer the colder: equation 9 of the paper, with Gumbel noise."""
    below = x.detach().floor()
    part = (x - below).clamp(EDGE, 1 - EDGE)
    logits = torch.stack([-torch.atanh(part), -torch.atanh(1 - part)]) / temperature
    uniform = torch.rand(logits.shape, generator=generator, device=x.device).clamp(1e-6, 1 - 1e-6)
    gumbel = -torch.log(-torch.log(uniform))
    return below + torch.softmax((logits + gumbel) / temperature, 0)[1]
