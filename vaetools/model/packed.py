"""Layers of a network that only infers, on a CPU: oneDNN's convolutions with what follows them, weights reordered once.

    mix_in + activation, mix_space, mix_out + residual, gate + activation, value * gate, gate_out + residual

PyTorch's own convolution reorders its weights at every call, and writes each result to memory before an activation or a sum reads
it back. The operators used here are those that torch.compile uses when it has no compiler for the rest; where they are missing or
do not compute what they should, nothing is replaced.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from .blocks import Depthwise, ResidualBlock
from .scales import ACTIVATION_UNIT, WEIGHT_MAX, IntegerConv

ONES = [1, 1]
KEPT = 4  # orders of the weights of a layer, of the sizes that turned up last
NAMES = {"silu": "swish", "hardswish": "hardswish"}  # activations, as oneDNN's operators call them


class PackedConv(nn.Module):
    """A convolution with constant weights. Its results are in the type of its weights, whatever it is given.

    The best order of the weights hangs on the size of the input; with another one, oneDNN puts them into order at each call,
    which can take many times as long as the convolution. So they are ordered once for each power of two of positions that turns
    up.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, padding: int = 0, groups: int = 1) -> None:
        super().__init__()
        self.dtype, self.groups, self.padding = weight.dtype, groups, [padding, padding]
        self.weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().to(self.dtype)
        self._ordered: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For copies and for other processes, such as those of a data loader, which reordered weights cannot go to. An array: a
        tensor would be shared memory, which ends with it."""
        values = self.weight.reshape(-1).view(torch.uint8).numpy()
        return {**self.__dict__, "weight": (values, tuple(self.weight.shape)), "_ordered": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        values, shape = state["weight"]
        weight = torch.from_numpy(values).view(self.dtype).reshape(shape)
        self.weight = weight.contiguous(memory_format=torch.channels_last)

    @classmethod
    def of(cls, conv: nn.Conv2d, rows: slice = slice(None)) -> PackedConv:
        """rows: of its output channels."""
        bias = None if conv.bias is None else conv.bias[rows]
        return cls(conv.weight[rows], bias, padding=int(conv.padding[0]), groups=conv.groups)

    def _take(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _convolution(self, x: Tensor) -> tuple[Any, ...]:
        return self._weight_for(x), self.bias, self.padding, ONES, ONES, self.groups

    def _weight_for(self, x: Tensor) -> Tensor:
        kind, ordered = (len(x) * x.shape[2] * x.shape[3]).bit_length(), self._ordered
        if kind not in ordered:
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, ONES, ONES, self.groups, list(x.shape)
            )
            ordered = {**dict(list(ordered.items())[1 - KEPT :]), kind: weight}
            self._ordered = ordered  # another one: threads share it
        return ordered[kind]

    def forward(self, x: Tensor, then: str = "none") -> Tensor:
        """then: "none" or one of NAMES."""
        # An overload by its name: looking for it among the others takes a third of a small layer's time.
        operator = torch.ops.mkldnn._convolution_pointwise.default
        result: Tensor = operator(self._take(x), *self._convolution(x), then, [], "")
        return result

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return self._combined(x, factor, "mul", None)

    def plus(self, x: Tensor, term: Tensor) -> Tensor:
        return self._combined(x, term, "add", 1.0)

    def _combined(self, x: Tensor, other: Tensor, operation: str, alpha: float | None) -> Tensor:
        operator = torch.ops.mkldnn._convolution_pointwise.binary
        result: Tensor = operator(self._take(x), other, *self._convolution(x), operation, alpha, None, [], None)
        return result

    def plus_(self, x: Tensor, term: Tensor) -> Tensor:
        """The sum, in the memory of `term`."""
        operator = torch.ops.mkldnn._convolution_pointwise_.binary
        result: Tensor = operator(term, self._take(x), *self._convolution(x), "add", 1.0, None, [], None)
        return result


class PackedBlock(nn.Module):
    """A ResidualBlock."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.activation = NAMES[block.activation]
        half = block.gate_out.in_channels
        self.mix_in, self.mix_out = PackedConv.of(block.mix_in), PackedConv.of(block.mix_out)
        self.mix_space = PackedConv.of(block.mix_space)
        self.gate, self.value = PackedConv.of(block.gate_in, slice(half)), PackedConv.of(block.gate_in, slice(half, None))
        self.gate_out = PackedConv.of(block.gate_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix_in._take(x)
        x = self.mix_out.plus(self.mix_space(self.mix_in(x, self.activation)), x)
        return self.gate_out.plus_(self.value.times(x, self.gate(x, self.activation)), x)


class PackedPatches(nn.Module):
    """A convolution of patches that do not overlap, as one of single positions. weight: (N, C, side, side)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.side = weight.shape[-1]
        self.conv = PackedConv(weight.permute(0, 2, 3, 1).reshape(len(weight), -1, 1, 1), bias)

    def forward(self, x: Tensor) -> Tensor:
        # In memory the channels are the innermost: rows of patches are moved as a whole, and not value by value.
        x = x.to(self.conv.dtype).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        rows, columns = height // self.side, width // self.side
        patches = x.reshape(batch, rows, self.side, columns, self.side * channels).transpose(2, 3)
        result: Tensor = self.conv(patches.reshape(batch, rows, columns, -1).permute(0, 3, 1, 2))
        return result


class PackedUnpatches(nn.Module):
    """From single positions to patches that do not overlap. weight: (C, side, side, N); bias: (C, side, side)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.side = weight.shape[1]
        inner = weight.permute(1, 2, 0, 3).reshape(-1, weight.shape[-1], 1, 1)
        self.conv = PackedConv(inner, None if bias is None else bias.permute(1, 2, 0).reshape(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Its channels are innermost in memory."""
        x = self.conv(x).permute(0, 2, 3, 1)
        batch, rows, columns, _ = x.shape
        patches = x.reshape(batch, rows, columns, self.side, -1).transpose(2, 3)
        return patches.reshape(batch, rows * self.side, columns * self.side, -1).permute(0, 3, 1, 2)


def pack(net: nn.Module) -> None:
    """Replace layers of a network on a CPU whose weights have the type to compute in and will not change any more."""
    if isinstance(net, nn.Sequential):
        _join_shuffles(net)
    for name, module in list(net.named_children()):
        if replacement := _packed(module):
            setattr(net, name, replacement)
        else:
            pack(module)


def _join_shuffles(layers: nn.Sequential) -> None:
    """One layer for a convolution of single positions and the shuffle before or after it."""
    position = 0
    while position < len(layers) - 1:
        one, two = layers[position], layers[position + 1]
        joined: nn.Module | None = None
        if isinstance(one, nn.PixelUnshuffle) and _is_of_positions(two):
            side = one.downscale_factor
            joined = PackedPatches(two.weight.reshape(two.out_channels, -1, side, side), two.bias)
        elif _is_of_positions(one) and isinstance(two, nn.PixelShuffle):
            side = two.upscale_factor
            bias = None if one.bias is None else one.bias.reshape(-1, side, side)
            joined = PackedUnpatches(one.weight.reshape(-1, side, side, one.in_channels), bias)
        if joined is not None:
            layers[position] = joined
            del layers[position + 1]
        position += 1


def _packed(module: nn.Module) -> nn.Module | None:
    if isinstance(module, ResidualBlock):
        return PackedBlock(module)
    if isinstance(module, nn.ConvTranspose2d) and _is_of_patches(module) and module.bias is None:
        return PackedUnpatches(module.weight.permute(1, 2, 3, 0), None)
    if isinstance(module, nn.Conv2d) and module.groups == 1 and _is_of_patches(module):
        return PackedPatches(module.weight, module.bias) if module.stride[0] > 1 else PackedConv.of(module)
    return PackedConv.of(module) if isinstance(module, (Depthwise, IntegerConv)) else None


def _is_of_positions(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    exact = isinstance(module, IntegerConv)
    return isinstance(module, nn.Conv2d) and not exact and module.groups == 1 and tuple(module.kernel_size) == (1, 1)


def _is_of_patches(conv: Any) -> bool:
    return tuple(conv.kernel_size) == tuple(conv.stride) and tuple(conv.padding) == (0, 0)


@cache
def can_pack() -> bool:
    """Whether the operators are there, and compute what they should on a small block."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        return all(map(_packs_rightly, NAMES)) and all(map(_is_exact, (False, True)))
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def _packs_rightly(activation: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        block = ResidualBlock(16, 16, 32, activation=activation).requires_grad_(False)
    for parameter in block.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    x = torch.randn(1, 16, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return torch.allclose(PackedBlock(block)(x.clone()), block(x), atol=1e-4)


def _is_exact(depthwise: bool) -> bool:
    """Whether an IntegerConv, whose weights are frozen, can be packed. Factors have at most 8 bits, which even bfloat16 holds;
    their products must be added up in float32, in whatever order; there is no fast (Winograd) algorithm for 1x1 and depthwise
    layers.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        conv = IntegerConv(32, 32, depthwise=depthwise).requires_grad_(False)
    conv.weight.uniform_(-WEIGHT_MAX, WEIGHT_MAX, generator=generator)
    conv.freeze()
    with torch.inference_mode():
        sizes = (torch.randint(0, 256, (1, 32, side, side), generator=generator) / ACTIVATION_UNIT for side in (2, 16))
        return all(torch.equal(PackedConv.of(conv)(x), conv(x)) for x in sizes)
