"""Where the bits of a file went: -log2 of the probability of each symbol, at the place that it stands for."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from ..codec.container import Contents
from ..codec.symbols import TileCoder, TileSymbols, channels_of
from ..codec.tiles import Rect
from ..errors import ModelMissing
from ..foreign.weights import ForeignModel, load_model
from ..latents.reader import SymbolReader
from ..model.weights import LoadedModel, find_by_hash

COLOURS = "magma"  # of matplotlib: dark is few bits, light is many, also in gray
STEPS = 32  # of the colours: few enough for a small PNG, more than are told apart


class BitCounter:
    """Maps of bits per pixel, of files of any installed model. No pixel is decoded for them."""

    def __init__(self, model: LoadedModel | ForeignModel) -> None:
        self._readers = {model.hash: _reader_of(model)}

    def bits(self, contents: Contents) -> tuple[np.ndarray, int] | None:
        """(ceil(H / stride), ceil(W / stride)) float32, bits per pixel at each latent, and the stride in pixels.

        None for a file without latents, and of a model from elsewhere.
        The bits of a position are those of its residuals in all channels, and its share of those of the hyper-latents above it.
        Of padding, only the positions that cover pixels are kept. Raises FormatError.
        """
        header = contents.header
        if header.lossless:
            return None
        reader = self._reader(header.model_hash)
        if reader is None:
            return None
        stride, grid = reader.config.latent_stride, header.grid
        result = np.zeros((-(-header.height // stride), -(-header.width // stride)), np.float32)
        for number, (payload, entry) in enumerate(zip(contents.payloads, contents.front.entries, strict=True)):
            if payload is None:
                continue
            tile = grid[number]
            symbols = reader.read_symbols(payload, tile.height, tile.width, entry.symbols_crc, number=number)
            area = tile.over(stride)
            result[area.slices] = tile_bits(reader.coder, symbols)[: area.height, : area.width]
        return result / stride**2, stride

    def _reader(self, model_hash: bytes) -> SymbolReader | None:
        if model_hash not in self._readers:
            path = find_by_hash(model_hash)
            if path is None:
                raise ModelMissing(f"it was written with the model {model_hash.hex()}, which is not installed")
            self._readers[model_hash] = _reader_of(load_model(path))
        return self._readers[model_hash]


def _reader_of(model: LoadedModel | ForeignModel) -> SymbolReader | None:
    return None if isinstance(model, ForeignModel) else SymbolReader(model)


def tile_bits(coder: TileCoder, tile: TileSymbols) -> np.ndarray:
    """(h, w) float64: the bits of each latent position of a tile; their sum is `coder.code_length(tile)`."""
    z = coder.models.z.code_lengths(tile.z.ravel(), channels_of(tile.z.shape)).reshape(tile.z.shape).sum(0)
    per_side = tile.residuals.shape[1] // tile.z.shape[1]
    bits = np.zeros(tile.residuals.size)
    residuals, index = tile.residuals.ravel(), tile.index.ravel()
    for places in coder.places(tile.residuals.shape, tile.height, tile.width):
        bits[places] = coder.models.y.code_lengths(residuals[places], index[places])
    total: np.ndarray = bits.reshape(tile.residuals.shape).sum(0) + np.kron(z, np.ones((per_side, per_side))) / per_side**2
    return total


def enlarged(bits: np.ndarray, stride: int, place: Rect) -> np.ndarray:
    """(place.height, place.width): the value at each pixel of a part of the image."""
    rows = np.arange(place.top, place.bottom) // stride
    columns = np.arange(place.left, place.right) // stride
    part: np.ndarray = bits[rows][:, columns]
    return part


def palette() -> list[tuple[int, int, int]]:
    """Red, green and blue, 0..255, of each step from few bits to many."""
    values = colormaps[COLOURS](np.linspace(0, 1, STEPS))
    return [(red, green, blue) for red, green, blue in (np.asarray(values)[:, :3] * 255).round().astype(int).tolist()]


def coloured(bits: np.ndarray, most: float) -> bytes:
    """A PNG of (H, W) bits per pixel, black at 0 and the lightest colour at `most` and above."""
    steps = np.clip(bits * (STEPS / max(most, 1e-9)), 0, STEPS - 1).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(steps))
    image.putpalette([value for colour in palette() for value in colour])
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
