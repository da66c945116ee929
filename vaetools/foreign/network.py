"""A model of CompressAI as the codec sees it.

    encoder:  x --g_a--> y --h_a--> z --round--> z'
    decoder:                        z' --h_s, float64--> scales, means --round(y - mean)--> r --> y' = mean + r --g_s--> x'

Sources: Ballé et al., ICLR 2018 (scales), and Minnen et al., NeurIPS 2018 (means). Which table codes a residual is told by h_s, a
network in floats: two machines that round differently may choose differently, and then one cannot read what the other wrote. It
is therefore computed in float64, whose rounding errors are 2^29 times smaller than those of float32 and as much less likely to
carry a scale over the limit between two tables, and image by image, so that no batch changes them. That makes it rare, and not
impossible.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import UsageError
from ..model.quantiser import SYMBOL_MAX, Crop, Means, Symbols, coded_region, is_spoilt
from .config import MEAN_SCALE, ForeignConfig
from .weights import ForeignModel

if TYPE_CHECKING:
    from ..codec.network import ReadPass
    from ..codec.refinement import Refiner


@dataclass(frozen=True)
class Analysis:
    """y (B, M, h, w) and z (B, N, h/4, w/4), or (B, 0, h, w) without a hyperprior; not rounded."""

    y: Tensor
    z: Tensor


def host_of(device: torch.device) -> str:
    """What the floats of a device hang on, as far as is known."""
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
    else:
        chip = f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, {chip}".encode("ascii", "replace").decode()[:128]


class ForeignNetwork:
    """See codec.network.Network. In float32, and what chooses the tables in float64."""

    bfloat16, one_rate = False, True

    def __init__(self, model: ForeignModel, device: torch.device) -> None:
        self.config: ForeignConfig = model.config
        self.tables = model.tables
        self.device = device
        parts = {name: copy.deepcopy(part).to(device, memory_format=torch.channels_last) for name, part in model.parts.items()}
        self.analysis, self.synthesis = parts["g_a"], parts["g_s"]
        self.medians = model.medians.to(device)
        self.host = ""
        if self.config.has_hyperprior:
            # Some devices have no float64.
            self.exact_device = torch.device("cpu") if device.type == "mps" else device
            self.hyper_analysis = parts["h_a"]
            self.hyper_synthesis = copy.deepcopy(model.parts["h_s"]).to(self.exact_device, torch.float64)
            self.limits = model.scales[:-1].to(self.exact_device)
            self.scale_bound = model.scale_bound
            self.host = host_of(self.exact_device)

    @torch.inference_mode()
    def analyse(self, images: Tensor) -> Analysis:
        y = self.analysis(images)
        if not self.config.has_hyperprior:
            return Analysis(y, y[:, :0])
        return Analysis(y, self.hyper_analysis(y if self.config.family == MEAN_SCALE else y.abs()))

    @property
    def refiner(self) -> Refiner:
        raise UsageError(f"the model {self.config.name} takes no effort: only models of vaetools are made for it")

    @torch.inference_mode()
    def symbols_at(
        self,
        analysis: Analysis,
        quality: Tensor,
        heights: Tensor,
        widths: Tensor,
        crop: Crop,
        *,
        improve: Callable[[Means], Means] | None = None,
    ) -> Symbols:
        """The quality is not looked at."""
        assert improve is None
        y = crop.of(analysis.y, self.config.hyper_stride // self.config.latent_stride)
        z, z_strained = _rounded(crop.of(analysis.z) - (self.medians if self.config.has_hyperprior else 0))
        index, mean = self._predict(z, y.shape)
        sides, stride, margin = (heights.to(y.device), widths.to(y.device)), self.config.latent_stride, self.config.coded_margin
        region = coded_region(stride, y.shape, *sides, margin)
        residuals, strained = _rounded(y - mean)
        return Symbols(z, residuals * region, index, mean, strained | z_strained)

    @torch.inference_mode()
    def latents(self, z: Tensor, read: ReadPass) -> Tensor:
        stride = self.config.hyper_stride // self.config.latent_stride
        index, mean = self._predict(z, (len(z), self.config.m, z.shape[2] * stride, z.shape[3] * stride))
        return mean + read(0, index)

    def _predict(self, z: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Index of the table (B, M, h, w) and mean of each residual, from the whole numbers z (B, N, h/4, w/4)."""
        if not self.config.has_hyperprior:
            channels = torch.arange(self.config.m, dtype=torch.int16, device=z.device)
            return channels[None, :, None, None].expand(shape), self.medians.expand(shape)
        known = (z + self.medians).to(self.exact_device, torch.float64).contiguous()
        # One by one: what goes through a library together with what else must not change a bit.
        found = torch.cat([self.hyper_synthesis(one) for one in known.split(1)])
        scales, means = found.chunk(2, 1) if self.config.family == MEAN_SCALE else (found, torch.zeros_like(found))
        scales = scales.nan_to_num().clamp_min(self.scale_bound).contiguous()
        index = torch.bucketize(scales, self.limits).to(torch.uint8)
        return index.to(z.device), means.nan_to_num().float().to(z.device)

    @torch.inference_mode()
    def to_images(self, latents: Tensor, quality: Tensor) -> Tensor:
        images: Tensor = self.synthesis(latents)
        return images

    @torch.inference_mode()
    def is_lost(self, image: Tensor, latents: Tensor, quality: Tensor) -> bool:
        return is_spoilt(image, self.to_images(latents, quality).nan_to_num())


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers that a file can hold, and (B,) which of the images had others, too."""
    whole = x.nan_to_num().round().clamp(-SYMBOL_MAX, SYMBOL_MAX)
    return whole, ((whole - x).abs() <= 1).logical_not().flatten(1).any(1)
