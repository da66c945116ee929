"""A network with more latents than the one that it is made of, for `vaetools train --start-from MODEL --latents N`.

    x - x' --PCA--> V, components of what the given network leaves out
    linear decoder: V^T of the new latents            encoder: V (x - x'), as far as least squares can tell from what it sees
    probability tables: those of the given latent whose tables fit best        all other new weights: zero

So it begins as the given network with a transform codec for what that cannot say, and nothing has to be learned anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..model.config import MAX_LATENT_CHANNELS, ModelConfig
from ..model.distributions import NormalPrior
from ..model.precision import autocast
from ..model.quantiser import to_images, to_symbols
from ..model.scales import INDEX_PER_UNIT, LEVELS, scale_of
from ..model.vae import VAE
from .data import CropSampler, ImageCache, some_batches

LOWEST = 0.4  # quality: below it, new latents have little to say
RIDGE = 1e-5  # of the variance of a pixel
COMPARED = 1500  # positions at which tables are compared
SHIFTS = range(-24, 13, 4)  # of a table's index


@dataclass
class Sample:
    """What the given network makes of crops, at N positions of its latents: pixels and what is left of them (N, C * side * side),
    the encoder's last features (N, F), table indexes (N, M), quality (N,)."""

    pixels: Tensor
    left: Tensor
    features: Tensor
    index: Tensor
    quality: Tensor

    @classmethod
    def gather(cls, vae: VAE, cache: ImageCache, seed: int) -> Sample:
        device = vae.z_raw_scale.device
        parts = []
        for images, whole_range in some_batches(CropSampler(cache, seed), vae.config, device):
            quality = LOWEST + (1 - LOWEST) * whole_range
            sides = torch.full((len(images),), images.shape[-1])
            symbols = to_symbols(vae, images, quality, sides, sides)
            restored = to_images(vae, symbols.latents, quality)
            with torch.inference_mode(), autocast(device):
                inside = vae.inner_features(vae.analyse(images), quality)
            side = vae.config.latent_stride
            pixels, left = (_patches(x, side) for x in (images - 0.5, images - restored))
            spread = quality[:, None].expand(-1, len(pixels) // len(images)).reshape(-1)
            parts.append(cls(pixels, left, _positions(inside), _positions(symbols.index), spread))
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def _positions(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B * h * w, C)."""
    return x.float().permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _patches(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B * h * w, C * side * side), in the order of a convolution's weights."""
    return _positions(nn.functional.pixel_unshuffle(x, side))


def kept_and_added(before: int, after: int) -> tuple[Tensor, Tensor]:
    """Which of the `after` latents are the given `before`, and which are new. Each half keeps its colour of the checkerboard."""
    kept = torch.cat([torch.arange(before // 2), after // 2 + torch.arange(before // 2)])
    is_new = torch.ones(after, dtype=torch.bool)
    is_new[kept] = False
    return kept, torch.arange(after)[is_new]


def check_growth(config: ModelConfig, latents: int) -> None:
    """Raises UsageError if a network of this shape cannot be given so many latents."""
    if config.posterior != "uniform":
        raise UsageError(f"the model has a {config.posterior} posterior: only one with a uniform posterior can get more latents")
    if config.noise is not None:
        raise UsageError("the model is a denoiser, which leaves out what it should: it cannot get more latents")
    before = config.latent_channels
    most = min(MAX_LATENT_CHANNELS, before + config.image_channels * config.latent_stride**2)
    if latents <= before or latents % 2 or latents > most:
        raise UsageError(f"the model has {before} latents: it can get an even number above that, up to {most}")


@torch.no_grad()
def grow(vae: VAE, latents: int, cache: ImageCache, seed: int) -> VAE:
    """A network with `latents` of them, which gives back what `vae` does, and more. Raises UsageError as `check_growth`."""
    check_growth(vae.config, latents)
    torch.manual_seed(seed)
    grown = VAE(replace(vae.config, latent_channels=latents)).to(vae.z_raw_scale.device).eval()
    kept, added = kept_and_added(vae.config.latent_channels, latents)
    _copy(vae, grown, kept, added)
    sample = Sample.gather(vae, cache, seed)
    values = _fit_transform(grown, sample, added)
    _choose_tables(grown, sample, values, kept, added)
    return grown


def _copy(vae: VAE, grown: VAE, kept: Tensor, added: Tensor) -> None:
    """All weights of the given latents; what reads or predicts the new ones is zero."""
    m = grown.config.latent_channels
    twice, thrice = (torch.cat([kept + m * part for part in range(parts)]) for parts in (2, 3))
    features = grown.get_parameter("hyper_decoder.4.weight")
    fresh = features[m + added]  # a copy
    rows: dict[str, Tensor] = {
        "encoder_inner.2": kept,
        "hyper_decoder.4": twice,
        "context.2": kept,
        "scales.up_out": (4 * kept[:, None] + torch.arange(4)).reshape(-1),
        "scales.residual_out": kept,
        "linear_encoder": kept,
        "linear_decoder": kept,
    }
    columns: dict[str, Tensor] = {
        "hyper_encoder.0": kept,
        "context.0": thrice,
        "scales.residual_in": kept,
        "decoder_inner.0": kept,
    }
    given = dict(vae.named_parameters())
    for name, parameter in grown.named_parameters():
        layer, _, kind = name.rpartition(".")
        if layer in rows:
            parameter.zero_()
            parameter[rows[layer]] = given[name]
        elif layer in columns and kind == "weight":
            parameter.zero_()
            parameter[:, columns[layer]] = given[name]
        elif layer in ("gain_y", "inverse_gain_y"):  # the new ones stay at what an orthonormal transform wants
            parameter[:, kept] = given[name]
        else:
            parameter.copy_(given[name])
    # Features for the context of the new latents, which must not be zero while the context's weights are.
    features[m + added] = fresh


def _fit_transform(grown: VAE, sample: Sample, added: Tensor) -> Tensor:
    """Set the linear decoder and the encoder of the new latents. Returns what the encoder says at the sample, (N, added)."""
    _, vectors = torch.linalg.eigh((sample.left.T @ sample.left).double())
    basis = vectors.flip(1)[:, : len(added)].float()  # (C * side * side, added)
    wanted = sample.left @ basis
    seen = torch.cat([sample.pixels, sample.features, torch.ones_like(sample.quality)[:, None]], 1).double()
    gram = seen.T @ seen
    ridge = RIDGE * len(seen) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    ridge[-1, -1] = 0
    weights = torch.linalg.solve(gram + ridge, seen.T @ wanted.double()).float().T  # (added, seen)
    kernel = grown.linear_encoder.weight.shape[1:]
    pixels = sample.pixels.shape[1]
    grown.linear_decoder.weight[added] = basis.T.reshape(-1, *kernel)
    grown.linear_encoder.weight[added] = weights[:, :pixels].reshape(-1, *kernel)
    last = grown.encoder_inner[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight[added] = weights[:, pixels:-1, None, None]
    last.bias[added] = weights[:, -1]
    return seen.float() @ weights.T


def _choose_tables(grown: VAE, sample: Sample, values: Tensor, kept: Tensor, added: Tensor) -> None:
    """For each new latent the integer network's answer for the given one, of its half, whose tables cost the least bits."""
    half = grown.config.latent_channels // 2
    some = torch.linspace(0, len(values) - 1, min(COMPARED, len(values))).long()
    gain = grown.gain_y(sample.quality[some])[:, added, 0, 0]
    symbols, index = (values[some] * gain).round(), sample.index[some]
    scales = scale_of(torch.arange(LEVELS, device=sample.index.device))
    up, out = grown.scales.up_out, grown.scales.residual_out
    assert up.bias is not None
    assert out.bias is not None
    halves = [torch.nonzero((kept < half) == first)[:, 0] for first in (False, True)]
    for number, channel in enumerate(added.tolist()):
        donors = halves[channel < half]
        _, shift, donor = min(
            (cost, shift, int(donors[place]))
            for shift in SHIFTS
            for place, cost in enumerate(_bits(symbols[:, number], index[:, donors], shift, scales))
        )
        source = int(kept[donor])
        rows, given = 4 * channel + torch.arange(4), 4 * source + torch.arange(4)
        up.weight[rows], up.bias[rows] = up.weight[given], up.bias[given] + shift / INDEX_PER_UNIT
        out.weight[channel], out.bias[channel] = out.weight[source], out.bias[source]


def _bits(symbols: Tensor, index: Tensor, shift: int, scales: Tensor) -> Sequence[float]:
    """What (N,) symbols cost, up to a factor, with each of the (N, D) tables, their index shifted."""
    scale = scales[(index + shift).clamp(0, LEVELS - 1).long()]
    cost = NormalPrior(torch.zeros_like(scale), scale).log_bin(symbols[:, None]).sum(0)
    values: Sequence[float] = (-cost).tolist()
    return values
