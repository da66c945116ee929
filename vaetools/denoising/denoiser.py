"""Noise out of images: encode, decode, with the quality that the noise stands for.

image + noise --encode at quality(sigma)--> mean of q(y|x) --decode--> image
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.tiles import Rect, grid_of
from ..errors import ModelError, UsageError
from ..model.noise import quality_of
from ..model.pixels import shown, to_model
from ..model.precision import autocast, has_bfloat16, pick_device
from ..model.quantiser import pad_to_stride, prepare_for_inference
from ..model.weights import LoadedModel, find_by_name, load_weights
from .estimate import estimate_sigma

WINDOW = 1024  # pixels a side that go through the network at once, without what it sees around them
AUTO = "auto"


@dataclass(frozen=True)
class Denoised:
    """images: as they came in, each (C, H, W) of the same type and channels. sigmas: what was taken for each one's noise."""

    images: list[Tensor]
    sigmas: tuple[float, ...]


class Denoiser:
    """A model that was trained with `vaetools train --denoise`, on one device.

    >>> denoiser = Denoiser.load("denoise")
    >>> clean = denoiser.denoise([image], sigma=25).images[0]
    """

    def __init__(
        self, model: LoadedModel, device: str | torch.device = "auto", *, ensemble: bool = False, bfloat16: bool | None = None
    ) -> None:
        """ensemble: average over the eight turned and mirrored forms of an image, which takes eight times as long.

        Raises ModelError if the model is no denoiser.
        """
        if model.vae.config.noise is None:
            raise ModelError(f"{model.path}: no denoiser; train one with `vaetools train IMAGES --denoise --out RUN`")
        self.device = pick_device(device) if isinstance(device, str) else device
        self.bfloat16 = has_bfloat16(self.device) if bfloat16 is None else bfloat16
        self.vae = prepare_for_inference(model.vae, self.device, bfloat16=self.bfloat16)
        self.config, self.noise, self.hash, self.ensemble = model.vae.config, model.vae.config.noise, model.hash, ensemble
        patch, stride = self.config.patch, self.config.latent_stride
        outer = self.config.encoder_blocks[0] + self.config.decoder_blocks[0]
        inner = self.config.encoder_blocks[1] + self.config.decoder_blocks[1]
        hyper = self.config.hyper_stride
        self.margin = -(-(outer * patch + inner * stride + stride) // hyper) * hyper  # pixels a side that an answer depends on

    @classmethod
    def load(
        cls, model: str | os.PathLike[str] = "denoise", device: str | torch.device = "auto", *, ensemble: bool = False
    ) -> Denoiser:
        """model: an installed model's name, a weights file, or the folder of a training run. ensemble: as of the class.

        Raises ModelError if the model cannot be used or is no denoiser, UsageError on an unknown device.
        """
        return cls(load_weights(find_by_name(model)), device, ensemble=ensemble)

    def denoise(self, images: Sequence[Tensor], sigma: float | str = AUTO) -> Denoised:
        """Images (C, H, W), of any sizes: uint8, uint16 or floats in 0..1; alpha stays as it is.

        sigma: the standard deviation of the noise, of values in 0..255 whatever the type; "auto" estimates it image by image.
        0 gives an image back as it is. Below the least that the model was trained for, a part of the image is kept; above the
        most, `sigma` is refused, and an estimate cut. Raises UsageError.
        """
        self.check(sigma)
        results, sigmas = [], []
        for image in images:
            x = to_model(image, self.config)
            level = self.level(x, sigma)
            sigmas.append(level)
            results.append(shown(image, self._clean(x, level)) if level > 0 else image.clone())
        return Denoised(results, tuple(sigmas))

    def check(self, sigma: float | str) -> None:
        """Raises UsageError if `sigma` is nothing to denoise with."""
        most = self.noise[0]
        if sigma == AUTO:
            return
        if isinstance(sigma, str) or not 0 <= sigma <= most:
            raise UsageError(
                f"sigma must be 'auto', or from 0 to {most:g}, the most that the model was trained for, not {sigma!r}"
            )

    def level(self, x: Tensor, sigma: float | str) -> float:
        """The noise of an image (C, H, W) in 0..1, as it is told or estimated."""
        return min(self.noise[0], estimate_sigma(x)) if isinstance(sigma, str) else float(sigma)

    @torch.inference_mode()
    def _clean(self, x: Tensor, sigma: float) -> Tensor:
        if not self.ensemble:
            clean = self._forms(x, sigma)
        else:
            total = torch.zeros_like(x)
            for turns in range(4):
                for mirrored in (False, True):
                    form = torch.rot90(x.flip(2) if mirrored else x, turns, (1, 2))
                    back = torch.rot90(self._forms(form, sigma), -turns, (1, 2))
                    total += back.flip(2) if mirrored else back
            clean = total / 8
        share = min(1.0, sigma / self.noise[1])
        return x + share * (clean - x)

    def _forms(self, x: Tensor, sigma: float) -> Tensor:
        """(C, H, W), window by window."""
        height, width = x.shape[1:]
        quality = torch.full((1,), quality_of(sigma, self.noise), device=self.device)
        stride = self.config.hyper_stride
        grid = grid_of(width, height, WINDOW // stride * stride, stride)
        result = torch.empty_like(x)
        for number in range(len(grid)):
            window = grid[number]
            seen = window.grown(self.margin, Rect(0, 0, height, width))
            inside = window.moved(seen)
            result[(slice(None), *window.slices)] = self._network(x[(slice(None), *seen.slices)], quality)[
                (slice(None), *inside.slices)
            ]
        return result

    def _network(self, x: Tensor, quality: Tensor) -> Tensor:
        height, width = x.shape[1:]
        padded = pad_to_stride(x[None].to(self.device), self.config.hyper_stride).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, bfloat16=self.bfloat16):
            y = self.vae.encode(padded, quality).y.mean
            clean = self.vae.decode(y, quality)
        return clean[0, :, :height, :width].float().cpu()
