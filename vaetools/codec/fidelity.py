"""How far pixels of 16 bits came back from what they were: the box `errs`, as FORMAT.md has it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import Corrupt
from ..medical.scan import Scan

if TYPE_CHECKING:  # `vaetools info` starts without it
    import numpy as np

FIELDS = struct.Struct("<HHHHd")
VERSION = 1
ROWS = 1 << 20  # values that are compared at a time


@dataclass(frozen=True)
class Fidelity:
    """max_error: the largest difference of a pixel, in its levels. mean_squared_error: in levels, over all pixels.

    low, high: the lowest and the highest level of the original. Levels are those of the picture; what one of them is in stored
    and in real units, its scan tells.
    """

    max_error: int
    mean_squared_error: float
    low: int
    high: int

    UNKNOWN: ClassVar[bytes] = bytes(FIELDS.size)

    @classmethod
    def between(cls, original: np.ndarray, restored: np.ndarray, scan: Scan | None = None) -> Fidelity:
        """Of two arrays (H, W, C) of the same shape, uint8 or uint16; of a scan's, but for what holds no slice."""
        first, second = (scan.used(pixels) if scan else [pixels] for pixels in (original, restored))
        largest, total = 0, 0.0
        for part, other in zip(first, second, strict=True):
            rows = max(1, ROWS // max(1, part[0].size))
            for top in range(0, len(part), rows):
                difference = part[top : top + rows].astype("int64") - other[top : top + rows]
                largest = max(largest, int(abs(difference).max()))
                total += float((difference * difference).sum())
        low, high = min(int(part.min()) for part in first), max(int(part.max()) for part in first)
        return cls(largest, total / sum(part.size for part in first), low, high)

    @property
    def psnr(self) -> float:
        """dB over the range of the original's values, high - low; inf if nothing was lost."""
        if not self.mean_squared_error:
            return math.inf
        return 10 * math.log10(max(1, self.high - self.low) ** 2 / self.mean_squared_error)

    def pack(self) -> bytes:
        return FIELDS.pack(VERSION, self.max_error, self.low, self.high, self.mean_squared_error)

    @classmethod
    def unpack(cls, data: bytes) -> Fidelity | None:
        """None where nothing was measured, or a later version wrote it. Raises Corrupt on impossible numbers."""
        if len(data) != FIELDS.size:
            raise Corrupt(f"a box errs of {len(data)} bytes, where {FIELDS.size} belong")
        version, largest, low, high, squared = FIELDS.unpack(data)
        if version != VERSION:
            return None
        if not 0 <= squared <= largest**2 or low > high:
            raise Corrupt("impossible numbers in the box errs")
        return cls(largest, squared, low, high)
