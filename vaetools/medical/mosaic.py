"""A volume as one image: its slices side by side, row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mosaic:
    """`count` slices of `height` x `width` pixels, `across` of them in a row; cells without a slice come last."""

    height: int
    width: int
    count: int
    across: int

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: int) -> Mosaic:
        """Of a volume of at least three dimensions, whose slices lie across `axis`, 0, 1 or 2; about as high as wide."""
        width, height = (side for place, side in enumerate(shape[:3]) if place != axis)
        count = shape[axis] * math.prod(shape[3:])
        return cls(height, width, count, max(1, min(count, math.ceil(math.sqrt(count * height / width)))))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.height * -(-self.count // self.across), self.width * self.across

    @property
    def unused(self) -> tuple[int, int]:
        """Rows and columns of the rectangle at the lower right that holds no slice."""
        cells = -self.count % self.across
        return (self.height, cells * self.width) if cells else (0, 0)

    def image(self, volume: np.ndarray, axis: int) -> np.ndarray:
        """(H, W) of the volume: in each slice, columns are its first axis and rows the second, in the order of the file."""
        slices = np.moveaxis(volume, axis, 2).reshape(self.width, self.height, self.count, order="F")
        out = np.full(self.shape, volume.min(), volume.dtype)
        for number, (rows, columns) in enumerate(self._cells()):
            out[rows, columns] = slices[:, :, number].T
        return out

    def volume(self, image: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
        """The volume of that shape, of an image of `self.shape`."""
        slices = np.empty((self.width, self.height, self.count), image.dtype, order="F")
        for number, (rows, columns) in enumerate(self._cells()):
            slices[:, :, number] = image[rows, columns].T
        sides = [side for place, side in enumerate(shape[:3]) if place != axis]
        return np.moveaxis(slices.reshape(*sides, shape[axis], *shape[3:], order="F"), 2, axis)

    def _cells(self) -> list[tuple[slice, slice]]:
        places = (divmod(number, self.across) for number in range(self.count))
        return [
            (slice(row * self.height, (row + 1) * self.height), slice(column * self.width, (column + 1) * self.width))
            for row, column in places
        ]
