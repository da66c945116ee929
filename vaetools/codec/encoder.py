"""From pixels to the whole numbers of each tile.

    pixels --windows, with a margin around each tile--> network.analyse --> network.symbols_at(quality) --> TileSymbols

The margin shows the network what lies around a tile; only the tile's own latents are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..images.picture import Picture
from ..model.memory import give_back
from ..model.quantiser import Crop, Means
from .batches import batches_of, shape_limit
from .boxes import boxes_of, levels_of
from .container import overhead
from .decoder import to_pixels
from .network import Network
from .rate import Rate, Values, search
from .symbols import TileCoder, TileSymbols
from .tiles import Rect, TileGrid, grid_of

KEPT_PIXELS = 16_000_000  # of one batch's analysis: larger images are analysed again at each step of a search


@dataclass(eq=False)
class Encoding:
    """One picture on its way. `boxes`: what its file will hold beside the tiles, where their size is needed before. `effort`: see
    Refiner."""

    picture: Picture
    rate: Rate
    grid: TileGrid
    levels: tuple[int, int]
    preview: bool = False
    errors: bool = False
    effort: int = 0
    boxes: dict[bytes, bytes] | None = None
    quality: float = 0.0
    reached: float = 0.0
    lost: bool = False
    symbols: list[TileSymbols] = field(default_factory=list)


@dataclass(frozen=True)
class _Window:
    """A tile of a picture, and the pixels around it that the network sees: `shape` (rows, columns) of hyper-latents."""

    encoding: Encoding
    number: int
    tile: Rect
    seen: Rect
    shape: tuple[int, int]
    crop: Crop


class Encoder:
    """Of one model on one device."""

    def __init__(self, network: Network, coder: TileCoder, device: torch.device, *, batch_pixels: int) -> None:
        self.network, self.coder, self.device = network, coder, device
        self.config, self.batch_pixels = network.config, batch_pixels
        self.margin = math.ceil(self.config.encoder_reach / self.config.hyper_stride) * self.config.hyper_stride

    def prepare(self, picture: Picture, rate: Rate, tile_size: int, *, preview: bool, errors: bool, effort: int) -> Encoding:
        grid = grid_of(picture.width, picture.height, tile_size, self.config.hyper_stride)
        levels = levels_of(picture)
        boxes = boxes_of(picture, levels, preview=preview, errors=errors) if rate.kind in ("bpp", "size") else None
        return Encoding(picture, rate, grid, levels, preview, errors, effort, boxes)

    def encode(self, encodings: Sequence[Encoding], batch_size: int) -> None:
        """Fill in qualities and symbols of pictures that go together: see `Codec.plan_key`."""
        batches = self._batches(encodings, batch_size)
        pixels = sum(self._pixels(batch) for batch in batches)
        analyses: list[Any] = [None] * len(batches)
        searching = any(encoding.rate.kind != "quality" for encoding in encodings)

        def run(qualities: Values) -> None:
            for encoding, quality in zip(encodings, qualities, strict=True):
                encoding.quality, encoding.symbols, encoding.lost = float(quality), [], False
            for place, batch in enumerate(batches):
                analysis = self._analyse(batch) if analyses[place] is None else analyses[place]
                if searching and pixels <= KEPT_PIXELS:
                    analyses[place] = analysis
                tiles, latents = self._run(batch, analysis)
                if searching:
                    self._measure(batch, tiles, latents)
                if len(encodings) < len(batches):  # a large image
                    del analysis, latents
                    give_back()
            for encoding in encodings:
                encoding.symbols.sort(key=lambda tile: tile.number)

        def evaluate(qualities: Values) -> Values:
            for encoding in encodings:
                encoding.reached = 0.0
            run(qualities)
            for encoding in encodings:
                self._conclude(encoding)
            return np.array([encoding.reached for encoding in encodings])

        if not searching:
            run(search([encoding.rate for encoding in encodings], [], lambda qualities: qualities))
            return
        sizes = [encoding.grid.width * encoding.grid.height for encoding in encodings]
        found = search([encoding.rate for encoding in encodings], sizes, evaluate)
        if any(found != [encoding.quality for encoding in encodings]):
            evaluate(found)

    def _batches(self, encodings: Sequence[Encoding], batch_size: int) -> list[list[_Window]]:
        windows = (self._window(encoding, number) for encoding in encodings for number in range(len(encoding.grid)))
        stride, pixels = self.config.hyper_stride, self.batch_pixels
        return list(batches_of(windows, lambda w: (w.shape, w.crop), lambda key: shape_limit(key[0], stride, batch_size, pixels)))

    def _window(self, encoding: Encoding, number: int) -> _Window:
        tile, stride = encoding.grid[number], self.config.hyper_stride
        seen = tile.grown(self.margin, encoding.grid.bounds)
        inner, outer = tile.moved(seen).over(stride), seen.moved(seen).over(stride)
        crop = Crop(inner.top, inner.left, inner.height, inner.width)
        return _Window(encoding, number, tile, seen, (outer.height, outer.width), crop)

    def _pixels(self, batch: Sequence[_Window]) -> int:
        return len(batch) * math.prod(batch[0].shape) * self.config.hyper_stride**2

    def _analyse(self, batch: Sequence[_Window]) -> Any:
        return self.network.analyse(self._to_unit_range([(w.encoding, w.seen) for w in batch]))

    def _to_unit_range(self, parts: Sequence[tuple[Encoding, Rect]]) -> Tensor:
        """(B, model's channels, h, w) float32 in 0..1 on the device, grown to whole strides by repeating the last pixels."""
        arrays = []
        for encoding, rect in parts:
            pixels = encoding.picture.colour[rect.slices]
            padding = (-rect.height % self.config.hyper_stride, -rect.width % self.config.hyper_stride)
            if any(padding):
                pixels = np.pad(pixels, ((0, padding[0]), (0, padding[1]), (0, 0)), mode="edge")
            arrays.append(pixels if pixels.shape[2] == self.config.image_channels else pixels.repeat(3, 2))
        deep = any(array.dtype != np.uint8 for array in arrays)
        batch = (
            torch.from_numpy(np.stack([array.astype(np.int32) for array in arrays] if deep else arrays)).to(self.device).float()
        )
        if deep:
            levels = torch.tensor([encoding.levels for encoding, _ in parts], dtype=torch.float32, device=self.device)
            low, high = levels[:, 0, None, None, None], levels[:, 1, None, None, None]
            batch.sub_(low).div_(high - low)
        else:
            batch.div_(255)  # in place: fresh memory costs more than the arithmetic
        return batch.permute(0, 3, 1, 2)

    def _run(self, batch: Sequence[_Window], analysis: Any) -> tuple[list[TileSymbols], Tensor]:
        """The symbols, which go into their encodings too, and the latents that a decoder will know, (B, M, h, w)."""
        heights, widths = (torch.tensor([getattr(w.tile, side) for w in batch]) for side in ("height", "width"))
        quality = (torch.tensor([w.encoding.quality for w in batch]) / 100).to(self.device)
        improve = self._improve(batch) if any(w.encoding.effort for w in batch) else None
        symbols = self.network.symbols_at(analysis, quality, heights, widths, batch[0].crop, improve=improve)
        z, residuals = (x.to(torch.int16).contiguous().cpu().numpy() for x in (symbols.z, symbols.residuals))
        index, strained = symbols.index.contiguous().cpu().numpy(), symbols.strained.tolist()
        tiles = [
            TileSymbols(w.number, w.tile.height, w.tile.width, z[row], residuals[row], index[row]) for row, w in enumerate(batch)
        ]
        for row, w in enumerate(batch):
            w.encoding.symbols.append(tiles[row])
            if strained[row]:
                latents, one = symbols.latents[row : row + 1], quality[row : row + 1]
                image = self._to_unit_range([(w.encoding, w.tile)])[..., : w.tile.height, : w.tile.width]
                w.encoding.lost |= self.network.is_lost(image, latents, one)
        return tiles, symbols.latents

    def _improve(self, batch: Sequence[_Window]) -> Callable[[Means], Means]:
        """What works on the means of a batch, one window at a time, so that nothing depends on what else is in it."""

        def improve(means: Means) -> Means:
            rows = []
            for row, w in enumerate(batch):
                y, z = means.y[row : row + 1], means.z[row : row + 1]
                if w.encoding.effort and not means.strained[row]:
                    pixels, quality = self._to_unit_range([(w.encoding, w.seen)]), w.encoding.quality / 100
                    y = self.network.refiner.refine(pixels, y, z, quality, w.seen.height, w.seen.width, w.encoding.effort)
                rows.append(y)
            return replace(means, y=torch.cat(rows))

        return improve

    def _measure(self, batch: Sequence[_Window], tiles: Sequence[TileSymbols], latents: Tensor) -> None:
        """Add to what the encodings have reached: bytes, or squared errors, of these tiles."""
        for row, w in enumerate(batch):
            if w.encoding.rate.kind in ("bpp", "size"):
                w.encoding.reached += len(self.coder.encode(tiles[row]))
            elif w.encoding.rate.kind == "psnr":
                w.encoding.reached += self._squared_error(w, latents[row])

    def _squared_error(self, window: _Window, latents: Tensor) -> float:
        """Of a tile, decoded without its neighbours: a seam is nothing beside the error of a whole tile."""
        quality = torch.tensor([window.encoding.quality / 100], device=self.device)
        x = self.network.to_images(latents[None], quality)[0]
        original = window.encoding.picture.colour[window.tile.slices]
        restored = to_pixels(x[:, : window.tile.height, : window.tile.width], original.shape[2], window.encoding.levels)
        return float(((restored.astype(np.float64) - original) ** 2).sum())

    def _conclude(self, encoding: Encoding) -> None:
        if encoding.rate.kind == "psnr":
            encoding.reached = psnr(encoding.reached / encoding.picture.colour.size, encoding.picture.bit_depth)
        elif encoding.boxes is not None:
            encoding.reached += overhead(encoding.boxes, len(encoding.grid))


def psnr(squared_error: float, bit_depth: int) -> float:
    """dB, of a mean squared error in levels of that depth."""
    return math.inf if squared_error == 0 else 10 * math.log10((2**bit_depth - 1) ** 2 / squared_error)
