"""How an image is cut into tiles. Pixels; rows from the top, columns from the left; ends are exclusive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UsageError

# They bound the memory and the time that decoding takes, whatever a header says.
MAX_TILE_PIXELS = 1 << 21
MAX_TILES = 1 << 16


@dataclass(frozen=True)
class Rect:
    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """For the last two dimensions of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, margin: int, bounds: Rect) -> Rect:
        """By `margin` on each side, but not beyond `bounds`."""
        return Rect(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin).within(bounds)

    def within(self, other: Rect) -> Rect:
        """The part of it that lies in `other`; of no extent if there is none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Rect(top, left, max(top, min(self.bottom, other.bottom)), max(left, min(self.right, other.right)))

    def moved(self, origin: Rect) -> Rect:
        """As seen from the top left corner of `origin`."""
        return Rect(self.top - origin.top, self.left - origin.left, self.bottom - origin.top, self.right - origin.left)

    def over(self, stride: int) -> Rect:
        """In units of `stride` pixels, grown to whole ones."""
        return Rect(self.top // stride, self.left // stride, -(-self.bottom // stride), -(-self.right // stride))

    def times(self, stride: int) -> Rect:
        return Rect(self.top * stride, self.left * stride, self.bottom * stride, self.right * stride)

    def __bool__(self) -> bool:
        return self.height > 0 and self.width > 0


@dataclass(frozen=True)
class TileGrid:
    """Tiles of equal size from the top left corner, row by row; the last of a row or column may be smaller."""

    width: int
    height: int
    tile_width: int
    tile_height: int

    @property
    def bounds(self) -> Rect:
        return Rect(0, 0, self.height, self.width)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)

    def __len__(self) -> int:
        return self.columns * self.rows

    def __getitem__(self, number: int) -> Rect:
        row, column = divmod(number, self.columns)
        top, left = row * self.tile_height, column * self.tile_width
        return Rect(top, left, top + self.tile_height, left + self.tile_width).within(self.bounds)

    def touching(self, region: Rect) -> Iterator[int]:
        """Numbers of the tiles that have a pixel in `region`."""
        for row in range(region.top // self.tile_height, -(-region.bottom // self.tile_height)):
            for column in range(region.left // self.tile_width, -(-region.right // self.tile_width)):
                yield row * self.columns + column


def tile_sides(width: int, height: int, tile_size: int, stride: int) -> tuple[int, int]:
    """(width, height) of the tiles of an image: itself if it is small enough, else nearly equal ones up to `tile_size`.

    All are multiples of `stride`; tile_size too.
    """
    padded = [math.ceil(side / stride) * stride for side in (width, height)]
    if padded[0] * padded[1] <= min(2 * tile_size**2, MAX_TILE_PIXELS):
        return padded[0], padded[1]
    counts = [math.ceil(side / tile_size) for side in (width, height)]
    sides = [math.ceil(side / count / stride) * stride for side, count in zip((width, height), counts, strict=True)]
    return sides[0], sides[1]


def grid_of(width: int, height: int, tile_size: int, stride: int) -> TileGrid:
    """The tiles that an image of so many pixels is coded in; arguments as of tile_sides."""
    return TileGrid(width, height, *tile_sides(width, height, tile_size, stride))


def region_of(region: tuple[int, int, int, int] | None, width: int, height: int) -> Rect:
    """(left, top, width, height) in pixels as stored, or the whole image. Raises UsageError where it is not in the image."""
    whole = Rect(0, 0, height, width)
    if region is None:
        return whole
    left, top, region_width, region_height = region
    rect = Rect(top, left, top + region_height, left + region_width)
    if not rect or rect.within(whole) != rect:
        raise UsageError(f"the region {region} (left, top, width, height) is not in the image of {width} x {height} pixels")
    return rect
