"""From latents with a height and a width to vectors without."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError

LEVELS = ("y", "z")
GRID = re.compile(r"grid:([1-9]\d?)")
KINDS = "mean, mean-std, grid:K with K from 1 to 99, or none"


@dataclass(frozen=True)
class Pooling:
    """What becomes of the positions of one level of latents.

    mean      the mean of each channel
    mean-std  that, and then the standard deviation of each channel
    grid:K    the means over K x K cells, as adaptive_avg_pool2d divides a plane: channel by channel, each row by row
    none      all positions, in the same order: vectors of one length only for images of one size
    """

    name: str

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """Raises UsageError on anything but the names above."""
        if text not in ("mean", "mean-std", "none") and not GRID.fullmatch(text):
            raise UsageError(f"unknown pooling {text!r}: it is {KINDS}")
        return cls(text)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D)"""
        if self.name == "mean":
            return x.mean((2, 3))
        if self.name == "mean-std":
            return torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1)
        if grid := GRID.fullmatch(self.name):
            return F.adaptive_avg_pool2d(x, int(grid[1])).flatten(1)
        return x.flatten(1)


def parse_poolings(features: str, text: str) -> dict[str, Pooling]:
    """Of each level of `features`, such as "z" or "zy", its pooling: `text` is one for all, or one for each with commas between.

    Raises UsageError on unknown or repeated levels, and on poolings that are unknown or of another number.
    """
    if not features or len(set(features)) < len(features) or set(features) - set(LEVELS):
        raise UsageError(f"unknown features {features!r}: they are y, z, or both (yz or zy)")
    each = [Pooling.parse(part) for part in text.split(",")]
    if len(each) not in (1, len(features)):
        raise UsageError(f"{len(each)} poolings {text!r} for the features {features!r}: give one for all, or one for each")
    return dict(zip(features, each * len(features) if len(each) == 1 else each, strict=True))


def covered(x: Tensor, stride: int, height: int, width: int) -> Tensor:
    """(B, C, h, w) without the positions that see padding only. stride: pixels per position; height, width: of the images."""
    return x[..., : -(-height // stride), : -(-width // stride)].contiguous()
