"""What the codec needs of a model's network, and how the VAE gives it.

encoder:  images -> analyse -> symbols_at(quality) -> z, residuals, index
decoder:  z -> latents, which asks for the residuals of each pass as soon as it knows their tables -> to_images
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ModelError
from ..foreign.network import ForeignNetwork
from ..foreign.weights import ForeignModel
from ..model import quantiser
from ..model.precision import autocast
from ..model.quantiser import Crop, Means, Symbols
from ..model.tables import ProbabilityTables
from ..model.vae import VAE
from ..model.weights import LoadedModel
from .refinement import Refiner

# (number of the pass, index (B, M, h, w) of the tables) -> the residuals (B, M, h, w) that are known by then, as floats
ReadPass = Callable[[int, Tensor], Tensor]


class Shape(Protocol):
    """The sizes that the codec works with. Strides and reaches in pixels; see ModelConfig."""

    @property
    def name(self) -> str: ...
    @property
    def image_channels(self) -> int: ...
    @property
    def bit_depth(self) -> int: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def hyper_channels(self) -> int: ...
    @property
    def latent_stride(self) -> int: ...
    @property
    def hyper_stride(self) -> int: ...
    @property
    def encoder_reach(self) -> int: ...
    @property
    def decoder_reach(self) -> int: ...
    @property
    def passes(self) -> int: ...
    @property
    def coded_margin(self) -> int: ...


class Network(Protocol):
    """A model on one device. Images are (B, C, H, W) in 0..1, padded to the hyper stride; qualities (B,) in 0..1.

    host: nothing if the indexes of the tables are computed in whole numbers; else what they are computed on, in words, since
        another machine may arrive at others.
    one_rate: whether the quality changes nothing.
    """

    @property
    def config(self) -> Shape: ...
    @property
    def tables(self) -> ProbabilityTables: ...
    @property
    def bfloat16(self) -> bool: ...
    @property
    def host(self) -> str: ...
    @property
    def one_rate(self) -> bool: ...

    def analyse(self, images: Tensor) -> Any:
        """What of the encoder's work holds for every quality."""
        ...

    @property
    def refiner(self) -> Refiner:
        """Raises UsageError where there is none."""
        ...

    def symbols_at(
        self,
        analysis: Any,
        quality: Tensor,
        heights: Tensor,
        widths: Tensor,
        crop: Crop,
        *,
        improve: Callable[[Means], Means] | None = None,
    ) -> Symbols:
        """heights, widths (B,): of what `crop` leaves of the images, before padding. improve: called before the crop, where there
        is a refiner."""
        ...

    def latents(self, z: Tensor, read: ReadPass) -> Tensor:
        """(B, M, h, w), from z (B, Z, h', w') and what `read` gives."""
        ...

    def to_images(self, latents: Tensor, quality: Tensor) -> Tensor:
        """(B, C, H, W) around 0..1, not clipped."""
        ...

    def is_lost(self, image: Tensor, latents: Tensor, quality: Tensor) -> bool:
        """As quantiser.is_lost; asked for images that `symbols_at` called strained."""
        ...


class VAENetwork:
    """That of the VAE: see model/quantiser.py."""

    host, one_rate = "", False

    def __init__(self, vae: VAE, tables: ProbabilityTables, device: torch.device, *, bfloat16: bool) -> None:
        self.vae = quantiser.prepare_for_inference(vae, device, bfloat16=bfloat16)
        self._original = vae
        self.config, self.tables, self.device, self.bfloat16 = vae.config, tables, device, bfloat16

    def analyse(self, images: Tensor) -> Any:
        return quantiser.analyse(self.vae, images, bfloat16=self.bfloat16)

    @cached_property
    def refiner(self) -> Refiner:
        return Refiner(self._original, self.device, bfloat16=self.bfloat16)

    def symbols_at(
        self,
        analysis: Any,
        quality: Tensor,
        heights: Tensor,
        widths: Tensor,
        crop: Crop,
        *,
        improve: Callable[[Means], Means] | None = None,
    ) -> Symbols:
        means = quantiser.means_at(self.vae, analysis, quality, bfloat16=self.bfloat16)
        means = (improve(means) if improve else means).within(crop, self.config)
        return quantiser.symbols_of(self.vae, means, heights, widths, bfloat16=self.bfloat16)

    def latents(self, z: Tensor, read: ReadPass) -> Tensor:
        with torch.inference_mode(), autocast(self.device, bfloat16=self.bfloat16):
            first = quantiser.first_pass(self.vae, z)
            second = quantiser.second_pass(self.vae, first, read(0, first.index))
            return second.mean + read(1, second.index)

    def to_images(self, latents: Tensor, quality: Tensor) -> Tensor:
        return quantiser.to_images(self.vae, latents, quality, bfloat16=self.bfloat16)

    def is_lost(self, image: Tensor, latents: Tensor, quality: Tensor) -> bool:
        return quantiser.is_lost(self.vae, image, latents, quality, bfloat16=self.bfloat16)


def network_of(model: LoadedModel | ForeignModel, device: torch.device, *, bfloat16: bool) -> Network:
    """Raises ModelError for a model that has no codec. bfloat16: only for the VAE."""
    if isinstance(model, ForeignModel):
        return ForeignNetwork(model, device)
    config = model.vae.config
    if config.noise is not None:
        raise ModelError(f"{model.path}: a denoiser has no codec; use it with `vaetools denoise`")
    if config.posterior != "uniform" or model.tables is None:
        raise ModelError(
            f"{model.path}: a model with a {config.posterior} posterior has no codec: train one with --posterior uniform"
        )
    return VAENetwork(model.vae, model.tables, device, bfloat16=bfloat16)
