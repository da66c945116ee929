"""Which probability table codes which latent, from integers only.

A float network that chose the tables would differ in the last bit between machines, and one differing choice turns the
rest of a file to noise. Here every weight, activation and partial sum is a whole number (of some fixed unit) below
2^24, so float32 arithmetic is exact whatever the order of summation, the thread count, the batch size or the chip:

    quantity          unit     range          why
    weights           1/64     +-127          int8; exact in bfloat16 and TF32 too
    activations       1/16     0..255         uint8, after ReLU
    hyper-latents z   1        +-127
    residuals |r|     1        0..15
    biases            1/1024   +-8192
    sums              1/1024   below 2^24     127 * 127 * 16 * hyper_channels + 8192, 15 * 127 * 16 * latent_channels + 8192
                                              and 255 * 127 * 2 * scale_width + 16384 (u + v) at most: config.py keeps to it

Training uses the same network with rounding that passes gradients straight through, so there is no conversion to lose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 64
LOG_SCALE_RANGE = (-2.2, 3.5)
WEIGHT_UNIT, BIAS_UNIT, ACTIVATION_UNIT = 64, 1024, 16
WEIGHT_MAX, BIAS_MAX = 127 / 64, 8.0
INDEX_PER_UNIT = 8  # the index grows by 8 per unit of the network's output


def scale_of(index: Tensor) -> Tensor:
    """Standard deviation of table `index` (0..63): 0.11 to 33, log-spaced."""
    low, high = LOG_SCALE_RANGE
    return torch.exp(index * ((high - low) / (LEVELS - 1)) + low)


def fake_quantise(x: Tensor, unit: int, low: float, high: float) -> Tensor:
    """Multiples of 1/unit in [low, high]; the gradient passes straight through inside the range."""
    clamped = x.clamp(low, high)
    if not torch.is_grad_enabled():
        return clamped.round_() if unit == 1 else clamped.mul_(unit).round_().div_(unit)
    return clamped + ((clamped * unit).round() / unit - clamped).detach()


class IntegerConv(nn.Conv2d):
    """A 1x1 or depthwise 3x3 convolution whose weights and bias are whole numbers of a unit."""

    def __init__(self, channels_in: int, channels_out: int, *, depthwise: bool = False) -> None:
        if depthwise:
            super().__init__(channels_in, channels_in, 3, padding=1, groups=channels_in)
        else:
            super().__init__(channels_in, channels_out, 1)
        self.frozen = False

    def freeze(self) -> None:
        """Quantise the weights for good: they will not be trained any more."""
        with torch.no_grad():
            for parameter, value in zip((self.weight, self.bias), self.quantised_parameters(), strict=True):
                parameter.copy_(value)  # type: ignore[union-attr]
        self.frozen = True

    def quantised_parameters(self) -> tuple[Tensor, Tensor]:
        assert self.bias is not None
        if self.frozen:
            return self.weight, self.bias
        weight = fake_quantise(self.weight, WEIGHT_UNIT, -WEIGHT_MAX, WEIGHT_MAX)
        return weight, fake_quantise(self.bias, BIAS_UNIT, -BIAS_MAX, BIAS_MAX)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 sums would leave the exact numbers
            return self._exact(x)

    def _exact(self, x: Tensor) -> Tensor:
        weight, bias = self.quantised_parameters()
        if torch.is_grad_enabled():
            return F.conv2d(x, weight, bias, padding=self.padding, groups=self.groups)
        inner = x.permute(0, 2, 3, 1)  # channels innermost, as they mostly are in memory
        if self.groups == 1:
            return F.linear(inner, weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
        # Nine shifted products instead of a library call, which on some device might leave the exact numbers.
        batch, height, width, _ = inner.shape
        padded = F.pad(inner, (0, 0, 1, 1, 1, 1))
        kernel = weight[:, 0].permute(1, 2, 0).contiguous()
        total = bias.repeat(batch, height, width, 1)
        for i in range(3):
            for j in range(3):
                total.addcmul_(padded[:, i : i + height, j : j + width], kernel[i, j])
        return total.permute(0, 3, 1, 2)


def activate(x: Tensor) -> Tensor:
    """ReLU, and whole numbers of its unit."""
    return fake_quantise(x, ACTIVATION_UNIT, 0, 255 / ACTIVATION_UNIT)


class IntegerScales(nn.Module):
    """Table indexes of all latents, in two passes.

        z --1x1--dw--1x1--shuffle--dw--1x1--shuffle--> u           first pass:   index(u)
        |r| of the first pass --1x1--dw--1x1---------> v           second pass:  index(u + v)

    Shapes: z (B, Z, h, w); r, u, v and the indexes (B, M, 4h, 4w).
    """

    def __init__(self, hyper_channels: int, width: int, latent_channels: int) -> None:
        super().__init__()
        self.z_in = IntegerConv(hyper_channels, 2 * width)
        self.z_space = IntegerConv(2 * width, 2 * width, depthwise=True)
        self.z_up = IntegerConv(2 * width, 4 * width)
        self.up_space = IntegerConv(width, width, depthwise=True)
        self.up_out = IntegerConv(width, 4 * latent_channels)
        self.shuffle = nn.PixelShuffle(2)
        self.residual_in = IntegerConv(latent_channels, width)
        self.residual_space = IntegerConv(width, width, depthwise=True)
        self.residual_out = IntegerConv(width, latent_channels)
        with torch.no_grad():
            self.up_out.bias.fill_(2.0)  # type: ignore[union-attr]
            self.residual_out.weight.mul_(0.1)
            self.residual_out.bias.zero_()  # type: ignore[union-attr]

    def from_hyper_latents(self, z: Tensor) -> Tensor:
        """u, from the decoded integers z."""
        x = activate(self.z_space(activate(self.z_in(fake_quantise(z, 1, -127, 127)))))
        x = activate(self.up_space(activate(self.shuffle(self.z_up(x)))))
        return self.shuffle(self.up_out(x))

    def from_residuals(self, residuals: Tensor) -> Tensor:
        """v, from the decoded integers of the first pass (zero where the second pass will be)."""
        x = activate(self.residual_in(fake_quantise(residuals.abs(), 1, 0, 15)))
        return self.residual_out(activate(self.residual_space(x)))

    @staticmethod
    def index(u: Tensor) -> Tensor:
        """Whole numbers 0..63, as floats with a straight-through gradient."""
        return fake_quantise(u * INDEX_PER_UNIT, 1, 0, LEVELS - 1)
