"""What pixels of a DICOM or NIfTI file stand for: the box `scan` of a .vtc file, as FORMAT.md has it."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Corrupt

if TYPE_CHECKING:  # `vaetools info` starts without it
    import numpy as np

DICOM, NIFTI = "DICOM", "NIfTI"
KINDS = ("", DICOM, NIFTI)  # by number
SIGNED, FLOATING, INVERTED = 1, 2, 4
# kind, bits, flags, axis; unused rows and columns; origin, step; slope, intercept; window centre and width
FIELDS = struct.Struct("<BBBBIIdddddd")
LARGEST_PIXEL, EXACT = 65535, 2**53
LARGEST = 1e300  # of origin and step: sums of them stay finite
ROUNDING = {16: 2.0**-11, 32: 2.0**-24, 64: 2.0**-52}  # of a floating-point number of so many bits, relative to it
MAX_ATTRIBUTES, MAX_TAGS = 1 << 20, 1 << 26  # bytes, decompressed


def compressed(data: bytes) -> bytes:
    """For a box, by zlib."""
    return zlib.compress(data, 9)


def decompressed(data: bytes, limit: int) -> bytes:
    """Raises Corrupt on what `compressed` does not write, and on more than `limit` bytes, of which no more are made."""
    decoder = zlib.decompressobj()
    try:
        out = decoder.decompress(data, limit)
    except zlib.error as error:
        raise Corrupt(f"what it says of its scan cannot be read ({error})") from None
    if not decoder.eof or decoder.unused_data:
        raise Corrupt(f"what it says of its scan is cut short, or has more than {limit:,} bytes")
    return out


def same(first: bytes, second: bytes) -> bool:
    """Whether two boxes say the same; another zlib may have made other bytes of it. Raises Corrupt."""
    return first == second or (
        bool(first and second)
        and first[: FIELDS.size] == second[: FIELDS.size]
        and decompressed(first[FIELDS.size :], MAX_ATTRIBUTES) == decompressed(second[FIELDS.size :], MAX_ATTRIBUTES)
    )


@dataclass(frozen=True)
class Scan:
    """value = origin + step * pixel is what the source stored; real = slope * value + intercept what it means (CT: HU).

    kind: DICOM or NIFTI; "" if a later version wrote it. bits: of the stored values, 1 to 64. signed, floating: their type.
    inverted: low values are bright. axis: of a volume, the one that its slices lie across. unused: rows and columns of the
    rectangle at the lower right that holds no slice. centre, width: of the window in
    which the source is to be seen, in real units; nan without one. attributes: what else belongs to the geometry, in the
    source's own words: DICOM elements, or a NIfTI header.
    """

    kind: str
    bits: int
    signed: bool = False
    floating: bool = False
    inverted: bool = False
    axis: int = 0
    unused: tuple[int, int] = (0, 0)
    origin: float = 0.0
    step: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0
    centre: float = math.nan
    width: float = math.nan
    attributes: bytes = b""

    def largest_error(self, levels: int) -> float:
        """By how much a stored value is off at most if its pixel is by so many levels, what reading rounded included."""
        if not self.floating or self.step == 1:
            return levels * self.step
        largest = max(abs(self.origin), abs(self.origin + LARGEST_PIXEL * self.step))
        return (levels + 0.5) * self.step + largest * ROUNDING.get(self.bits, ROUNDING[64])

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """The stored values, int64 or float64, of pixels of any shape."""
        if self.step == 1 and abs(self.origin) < EXACT and self.origin == round(self.origin):
            return pixels.astype("int64") + round(self.origin)
        return pixels * self.step + self.origin

    def used(self, pixels: np.ndarray) -> list[np.ndarray]:
        """(H, W, ...) in one or two parts, without what holds no slice."""
        rows, columns = self.unused
        if not (0 < rows <= len(pixels) and 0 < columns < pixels.shape[1]):
            return [pixels]
        end = len(pixels) - rows
        return [part for part in (pixels[:end], pixels[end:, : pixels.shape[1] - columns]) if part.size]

    def pack(self) -> bytes:
        flags = SIGNED * self.signed | FLOATING * self.floating | INVERTED * self.inverted
        numbers = self.origin, self.step, self.slope, self.intercept, self.centre, self.width
        return FIELDS.pack(KINDS.index(self.kind), self.bits, flags, self.axis, *self.unused, *numbers) + compressed(
            self.attributes
        )

    @classmethod
    def unpack(cls, data: bytes) -> Scan:
        """Raises Corrupt on what `pack` does not write."""
        if len(data) < FIELDS.size:
            raise Corrupt(f"a box scan of {len(data)} bytes, which is too short")
        kind, bits, flags, axis, rows, columns, origin, step, slope, intercept, centre, width = FIELDS.unpack_from(data)
        finite = all(math.isfinite(number) for number in (origin, step, slope, intercept))
        windowed = math.isfinite(centre) and math.isfinite(width)
        if not finite or step <= 0 or not 1 <= bits <= 64 or abs(origin) > LARGEST or step > LARGEST:
            raise Corrupt("impossible numbers in the box scan")
        return cls(
            KINDS[kind] if kind < len(KINDS) else "",
            bits,
            bool(flags & SIGNED),
            bool(flags & FLOATING),
            bool(flags & INVERTED),
            axis,
            (rows, columns),
            origin,
            step,
            slope,
            intercept,
            centre if windowed else math.nan,
            width if windowed else math.nan,
            decompressed(data[FIELDS.size :], MAX_ATTRIBUTES),
        )
