"""The whole numbers of one tile, and their way through the entropy coder: pure numpy, from any thread.

z, channel by channel | residuals of the first pass | residuals of the second pass
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Desync
from ..model.quantiser import coded_places
from ..model.tables import ProbabilityTables
from .entropy import CoderModels, SymbolDecoder, SymbolEncoder
from .network import Shape

Array = NDArray[Any]


@dataclass(frozen=True)
class TileSymbols:
    """z (Z, h/4, w/4) and residuals (M, h, w), int16; index (M, h, w), unsigned: the table of each residual.

    number: of the tile in its image. height, width: its pixels that belong to the image.
    """

    number: int
    height: int
    width: int
    z: Array
    residuals: Array
    index: Array

    @property
    def crc(self) -> int:
        return symbols_crc(self.z, self.residuals)


class TileCoder:
    """Payloads of one model."""

    def __init__(self, config: Shape, tables: ProbabilityTables) -> None:
        self.config = config
        self.models = CoderModels(tables)

    def shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Of z and of the residuals, for a tile of so many pixels."""
        per_side = self.config.hyper_stride // self.config.latent_stride
        rows, columns = -(-height // self.config.hyper_stride), -(-width // self.config.hyper_stride)
        return (self.config.hyper_channels, rows, columns), (self.config.latent_channels, rows * per_side, columns * per_side)

    def places(self, shape: Sequence[int], height: int, width: int) -> tuple[Array, ...]:
        """Where the residuals stand that each pass codes, in a flattened (M, h, w) array."""
        config = self.config
        return _places(config.latent_stride, tuple(shape), height, width, config.passes, config.coded_margin)

    def encode(self, tile: TileSymbols) -> bytes:
        encoder = SymbolEncoder()
        encoder.put(tile.z.ravel(), channels_of(tile.z.shape), self.models.z)
        residuals, index = tile.residuals.ravel(), tile.index.ravel()
        for places in self.places(tile.residuals.shape, tile.height, tile.width):
            encoder.put(residuals[places], index[places], self.models.y)
        return encoder.finish()

    def code_length(self, tile: TileSymbols) -> float:
        """Bits that an ideal coder would write."""
        bits = self.models.z.code_length(tile.z.ravel(), channels_of(tile.z.shape))
        residuals, index = tile.residuals.ravel(), tile.index.ravel()
        for places in self.places(tile.residuals.shape, tile.height, tile.width):
            bits += self.models.y.code_length(residuals[places], index[places])
        return bits


class TileReader:
    """One payload on its way back, in the three steps between which the network has its say. Raises FormatError."""

    def __init__(self, coder: TileCoder, payload: bytes, height: int, width: int) -> None:
        self.coder = coder
        z_shape, shape = coder.shapes(height, width)
        self.places = coder.places(shape, height, width)
        self.residuals: Array = np.zeros(shape, np.int16)
        self._decoder = SymbolDecoder(payload)
        self.z: Array = self._decoder.get(channels_of(z_shape), coder.models.z).reshape(z_shape).astype(np.int16)

    def read_pass(self, number: int, index: Array) -> None:
        """index: (M, h, w), the tables."""
        coded, residuals = self.places[number], self.residuals.ravel()
        for places, symbols in self._decoder.pieces(index.ravel()[coded], self.coder.models.y):
            residuals[coded[places]] = symbols.astype(np.int16)  # as in the array: half the time

    def finish(self, crc: int) -> None:
        self._decoder.finish()
        if symbols_crc(self.z, self.residuals) != crc:
            raise Desync("the decoded symbols are not those that were encoded; please report this with the file")


@lru_cache(maxsize=8)
def _places(latent_stride: int, shape: tuple[int, ...], height: int, width: int, passes: int, margin: int) -> tuple[Array, ...]:
    found = coded_places(latent_stride, shape, height, width, passes=passes, margin=margin)
    return tuple(np.flatnonzero(places.numpy()) for places in found)


@lru_cache(maxsize=8)
def channels_of(shape: tuple[int, ...]) -> Array:
    """The channel of each element of a (C, h, w) array, flattened."""
    return np.repeat(np.arange(shape[0]), shape[1] * shape[2])


def symbols_crc(z: Array, residuals: Array) -> int:
    return zlib.crc32(residuals.astype("<i2", copy=False).tobytes(), zlib.crc32(z.astype("<i2", copy=False).tobytes()))
