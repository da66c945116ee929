"""The latents of images as everything but the codec sees them, not rounded, and the model that they belong to.

images --encode--> Latents(y, z) --operators, priors--> Latents(y', z') --decode--> images
                        |
                        '--conditional--> p(y|z) = N(mean, scale^2), whose second pass sees the first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import UsageError
from .distributions import NormalPrior
from .precision import autocast, has_bfloat16, pick_device
from .quantiser import pad_to_stride, prepare_for_inference
from .scales import scale_of
from .vae import Prediction, first_pass_mask
from .weights import LoadedModel


@dataclass(frozen=True)
class Latents:
    """Of a batch of images of one size: y (B, M, h, w) and z (B, Z, h/4, w/4), in quantisation steps; labels (B, K) or None.

    Labels are a distribution over classes, for operators that mix images of different ones.
    """

    y: Tensor
    z: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: Tensor) -> Latents:
        return Latents(self.y[index], self.z[index], None if self.labels is None else self.labels[index])

    def moved(self, y: Tensor, z: Tensor | None = None) -> Latents:
        return replace(self, y=y, z=self.z if z is None else z)


def normal(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """N(0, 1) of the shape of `like`, each row from its own generator."""
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in generators]).to(like.device)


def uniform(generators: Sequence[torch.Generator], like: Tensor, *shape: int) -> Tensor:
    """U(0, 1) of (B, *shape), each row from its own generator, on the device of `like`."""
    return torch.stack([torch.rand(shape, generator=generator) for generator in generators]).to(like.device)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, ...), to be multiplied with `like`."""
    return values.to(like.device, like.dtype).view(-1, *(1,) * (like.ndim - 1))


class LatentSpace:
    """One model on one device, at one quality: images (B, C, H, W) in 0..1 to latents and back.

    quality: 0..100, how fine the quantisation steps are that strengths are measured in. device: "auto" is a GPU where there is
    one. bfloat16: where the chip has it, unless said otherwise.
    """

    def __init__(
        self, model: LoadedModel, device: str | torch.device = "auto", *, quality: float = 50.0, bfloat16: bool | None = None
    ) -> None:
        if not 0 <= quality <= 100:
            raise UsageError(f"the quality must be between 0 and 100, not {quality:g}")
        self.device = pick_device(device) if isinstance(device, str) else device
        self.bfloat16 = has_bfloat16(self.device) if bfloat16 is None else bfloat16
        self.vae = prepare_for_inference(model.vae, self.device, bfloat16=self.bfloat16)
        self.config, self.quality, self.model_hash = model.vae.config, float(quality), model.hash.hex()

    def _quality(self, count: int) -> Tensor:
        return torch.full((count,), self.quality / 100, device=self.device)

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, bfloat16=self.bfloat16)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Latents:
        """The means of both posteriors, of images of any one size: what they lack to the model's stride is padded."""
        padded = pad_to_stride(images.to(self.device), self.config.hyper_stride).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            posterior = self.vae.encode(padded, self._quality(len(images)))
        return Latents(posterior.y.mean.float(), posterior.z.mean.float())

    @torch.inference_mode()
    def decode(self, y: Tensor, height: int, width: int) -> Tensor:
        """(B, C, height, width) around 0..1, not clipped."""
        with self._autocast():
            x = self.vae.decode(y.contiguous(memory_format=torch.channels_last), self._quality(len(y)))
        return x[..., :height, :width].float()

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of y, for images of so many pixels."""
        per_side = self.config.hyper_stride // self.config.latent_stride
        rows, columns = (-(-side // self.config.hyper_stride) * per_side for side in (height, width))
        return rows, columns

    @torch.inference_mode()
    def prior_z(self, z: Tensor) -> NormalPrior:
        """p(z), of the shape of `z`."""
        prior = self.vae.prior_z()
        return NormalPrior(torch.zeros_like(z), prior.scale.expand_as(z))

    @torch.inference_mode()
    def conditional(self, latents: Latents) -> NormalPrior:
        """p(y|z): what z says of y, and for the second pass what y of the first says too."""
        with self._autocast():
            prediction, mask = self._first(latents.z)
            return self._second(prediction, mask, latents.z, latents.y)

    @torch.inference_mode()
    def redraw(self, latents: Latents, chosen: Tensor, noise: Tensor) -> Tensor:
        """y with the places `chosen` (boolean (B, 1 or M, h, w)) drawn anew from p(y|z); `noise` is N(0, 1), of y's shape."""
        with self._autocast():
            prediction, mask = self._first(latents.z)
            given = self._second(prediction, mask, latents.z, latents.y)
            first = torch.where(chosen & (mask > 0), given.mean + given.scale * noise, latents.y)
            given = self._second(prediction, mask, latents.z, first)
            return torch.where(chosen & (mask == 0), given.mean + given.scale * noise, first)

    def _first(self, z: Tensor) -> tuple[Prediction, Tensor]:
        prediction = self.vae.predict(z)
        return prediction, first_pass_mask(prediction.mean)

    def _second(self, prediction: Prediction, mask: Tensor, z: Tensor, y: Tensor) -> NormalPrior:
        residuals = (y - prediction.mean) * mask
        if self.config.posterior == "uniform":
            residuals = residuals.round()  # as the network has always seen them
        mean = self.vae.refine(prediction, residuals, mask)
        with torch.autocast(self.device.type, enabled=False):
            u = self.vae.scales.from_hyper_latents(z)
            v = self.vae.scales.from_residuals(residuals)
            scale = scale_of(self.vae.scales.index(u + v * (1 - mask)))
        return NormalPrior(mean, scale)

    @torch.inference_mode()
    def coarsest_step(self) -> Tensor:
        """(1, M, 1, 1): the quantisation steps of quality 0, in those of this space's quality."""
        here, lowest = self.vae.gain_y(self._quality(1)), self.vae.gain_y(torch.zeros(1, device=self.device))
        return here / lowest
