"""The few layers that the network is built from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"silu": F.silu, "hardswish": F.hardswish}


class Depthwise(nn.Conv2d):
    """A 3x3 depthwise convolution. On CPUs it runs in float32 under autocast, where bfloat16 is slower."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class ResidualBlock(nn.Module):
    """Spatial mixing, then a gated feed-forward step, each added to its input.

        x --1x1--act--dw3x3--1x1--(+)--1x1--split--act(a)*b--1x1--(+)-->
        '---------------------------'  '-------------------------'

    Both branches start at zero, so that a fresh stack is the identity and needs no normalisation layer. mixed, gated: channels
    inside. activation: SiLU, or its piecewise form of Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """

    def __init__(self, channels: int, mixed: int, gated: int, *, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.mix_in = nn.Conv2d(channels, mixed, 1)
        self.mix_space = Depthwise(mixed)
        self.mix_out = nn.Conv2d(mixed, channels, 1)
        self.gate_in = nn.Conv2d(channels, 2 * gated, 1)
        self.gate_out = nn.Conv2d(gated, channels, 1)
        for last in (self.mix_out, self.gate_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        # Where no gradient needs the old values, work in place: on CPUs fresh memory costs more than the arithmetic.
        activate, in_place = ACTIVATIONS[self.activation], not torch.is_grad_enabled()
        x = self.mix_out(self.mix_space(activate(self.mix_in(x), inplace=in_place))).add_(x)
        gate, value = self.gate_in(x).chunk(2, 1)
        return self.gate_out(activate(gate, inplace=in_place) * value).add_(x)


def upsample(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice the height and width, by a 1x1 convolution and a pixel shuffle."""
    return nn.Sequential(nn.Conv2d(channels_in, 4 * channels_out, 1), nn.PixelShuffle(2))


class Unpatches(nn.ConvTranspose2d):
    """From single positions to patches that do not overlap; as a 1x1 convolution, which CPUs do in a tenth of the time."""

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__(channels_in, channels_out, side, stride=side, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.pixel_shuffle(F.conv2d(x, self.weight.flatten(1).mT[:, :, None, None]), int(self.stride[0]))


class QualityGain(nn.Module):
    """One positive factor per channel, log-linear in the quality between a few learned knots.

    Continuous rate from one model by gain vectors: Cui et al., "Asymmetric Gained Deep Image Compression With
    Continuous Rate Adaptation", CVPR 2021, section 3.
    """

    def __init__(self, channels: int, start: float = 0.0, stop: float = 0.0, knots: int = 8) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.linspace(start, stop, knots)[:, None].repeat(1, channels))

    @torch.no_grad()
    def rescale(self, low: float, high: float) -> None:
        """Give qualities 0 and 1 the factors of `low` and `high`, beyond 0 and 1 too; between, as near as knots allow."""
        at = torch.linspace(low, high, len(self.log_gain), device=self.log_gain.device)
        self.log_gain.copy_(self._log_gain_at(at))

    def forward(self, quality: Tensor) -> Tensor:
        """(B,) qualities in [0, 1] -> (B, C, 1, 1) factors."""
        return self._log_gain_at(quality).exp()[:, :, None, None]

    def _log_gain_at(self, quality: Tensor) -> Tensor:
        """(B,) qualities -> (B, C). Beyond 0 and 1 it goes on as it ends."""
        last = len(self.log_gain) - 1
        position = quality * last
        knot = position.floor().clamp(0, last - 1).long()
        fraction = (position - knot)[:, None]
        return torch.lerp(self.log_gain[knot], self.log_gain[knot + 1], fraction)
