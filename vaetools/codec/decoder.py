"""From payloads to pixels.

    payloads --entropy coder <-> network.latents--> latents of each tile --> canvas of an image
    canvas --windows, with latents around them--> network.to_images --> pixels

Symbols depend on their own tile alone. Pixels are decoded from latents of neighbouring tiles too, as far as the network sees,
so that an image cut into tiles looks like one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import Corrupt, Desync, FormatError
from ..model.memory import give_back
from .batches import batches_of, shape_limit
from .container import Contents, Header, host_in
from .network import Network, Shape
from .symbols import TileCoder, TileReader
from .tiles import Rect, TileGrid

LOST = 0.5  # the gray of what could not be decoded, of the range 0..1
CELL = 1024  # pixels a side that the network paints at once, if the image is in tiles
GIVE_UP_PIXELS = 1 << 24  # a file of which so many pixels are lost and none are good is not worth more time
DAMAGED = "damaged"  # a tile of which unpack has told the reason
T = TypeVar("T")


class Canvas:
    """The latents of an image, or of the part of it that is wanted, as they come in.

    region: the pixels that are wanted. halo: latents a side that the decoder looks at around those that it is asked for.
    """

    def __init__(self, config: Shape, grid: TileGrid, region: Rect) -> None:
        self.config, self.grid, self.region = config, grid, region
        stride = config.latent_stride
        self.halo = -(-config.decoder_reach // stride)
        self.bounds = grid.bounds.over(config.hyper_stride).times(config.hyper_stride // stride)
        near = region.over(stride).grown(self.halo, self.bounds)
        self.tiles = tuple(grid.touching(near.times(stride).within(grid.bounds)))
        areas = [self._area(number) for number in self.tiles]
        self.origin = Rect(
            min(a.top for a in areas), min(a.left for a in areas), max(a.bottom for a in areas), max(a.right for a in areas)
        )
        self.latents: Tensor | None = None

    def _area(self, number: int) -> Rect:
        """Of a tile, in latents, with those that cover padding only."""
        return self.grid[number].over(self.config.hyper_stride).times(self.config.hyper_stride // self.config.latent_stride)

    def put(self, number: int, latents: Tensor) -> None:
        """(M, h, w) of one tile."""
        if len(self.tiles) == 1:
            self.latents = latents
            return
        if self.latents is None:
            self.latents = latents.new_zeros((len(latents), self.origin.height, self.origin.width))
        self.latents[(..., *self._area(number).moved(self.origin).slices)] = latents

    def windows(self, lost: Collection[int]) -> Iterator[tuple[Rect, Rect]]:
        """(wanted pixels, latents to decode them from), but where all is lost.

        Their size is not that of the tiles: around small or narrow ones, the halo would be most of the work.
        """
        sides = (self.grid.width, self.grid.height) if len(self.grid) == 1 else (CELL, CELL)
        cells = TileGrid(self.grid.width, self.grid.height, *sides)
        for number in cells.touching(self.region):
            cell = cells[number].within(self.region)
            if not all(tile in lost for tile in self.grid.touching(cell)):
                yield cell, cell.over(self.config.latent_stride).grown(self.halo, self.bounds)

    def cut(self, window: Rect) -> Tensor:
        assert self.latents is not None
        return self.latents[(..., *window.moved(self.origin).slices)]


@dataclass(eq=False)
class Decoding:
    """One file on its way: `pixels` (H, W, C) of the region, once they are there; `lost`: tiles, with the
    reason; `failed`: how many of them were tried."""

    contents: Contents
    region: Rect
    levels: tuple[int, int]
    alpha: np.ndarray | None
    canvas: Canvas
    pixels: np.ndarray | None = None
    lost: dict[int, FormatError] = field(default_factory=dict)
    failed: int = 0

    @property
    def header(self) -> Header:
        return self.contents.header

    @property
    def hopeless(self) -> bool:
        """Whether much was tried and nothing came out."""
        tile = self.header.tile_width * self.header.tile_height
        return self.canvas.latents is None and self.failed * tile >= GIVE_UP_PIXELS

    def nothing_left(self) -> FormatError:
        reasons = [str(reason) for reason in self.lost.values() if str(reason) != DAMAGED] or self.contents.front.damage
        return Corrupt(f"none of its tiles can be decoded ({reasons[0]})")

    def paint(self, cell: Rect, values: Tensor | float) -> None:
        """values: (C, h, w) around 0..1 of the cell's pixels, or one gray."""
        if self.pixels is None:
            kind = np.uint8 if self.header.bit_depth == 8 else np.uint16
            channels = self.header.channels + (self.alpha is not None)
            self.pixels = np.empty((self.region.height, self.region.width, channels), kind)
            if self.alpha is not None:
                self.pixels[:, :, -1], self.alpha = self.alpha, None
        rows, columns = cell.moved(self.region).slices
        self.pixels[rows, columns, : self.header.channels] = (
            to_pixels(values, self.header.channels, self.levels)
            if isinstance(values, Tensor)
            else round(self.levels[0] + values * (self.levels[1] - self.levels[0]))
        )


def to_pixels(x: Tensor, channels: int, levels: tuple[int, int]) -> np.ndarray:
    """(C, h, w) around 0..1 -> (h, w, channels) whole numbers between the levels."""
    if channels < x.shape[0]:
        x = x.mean(0, keepdim=True)
    low, high = levels
    whole = x.float().clamp(0, 1).mul_(high - low).add_(low).round_().permute(1, 2, 0)
    return (whole.to(torch.uint8) if high <= 255 else whole.to(torch.int32)).cpu().numpy()


class Decoder:
    """Of one model on one device."""

    def __init__(self, network: Network, coder: TileCoder, device: torch.device, *, batch_pixels: int) -> None:
        self.network, self.coder, self.device = network, coder, device
        self.config, self.batch_pixels = network.config, batch_pixels

    def prepare(self, contents: Contents, region: Rect, levels: tuple[int, int], alpha: np.ndarray | None) -> Decoding:
        """alpha: (h, w) of the region. Raises Corrupt if the tiles do not fit the model."""
        grid, stride = contents.header.grid, self.config.hyper_stride
        if grid.tile_width % stride or grid.tile_height % stride:
            raise Corrupt(
                f"tiles of {grid.tile_width} x {grid.tile_height} pixels do not fit the model, whose stride is {stride}"
            )
        return Decoding(contents, region, levels, alpha, Canvas(self.config, grid, region))

    def decode(
        self,
        jobs: Sequence[Decoding],
        batch_size: int,
        name: Callable[[Decoding, FormatError], FormatError],
        *,
        allow_partial: bool,
    ) -> None:
        """Fill in the jobs' pixels. `name` puts into an error which file it is about.

        Raises FormatError at the first tile that cannot be decoded; with `allow_partial`, what is lost is painted gray, and
        only a file of which nothing is left is an error.
        """
        tiles = []
        large = any(len(job.canvas.tiles) > 1 for job in jobs)
        for job in jobs:
            for number in job.canvas.tiles:
                if job.contents.payloads[number] is None:
                    job.lost[number] = Corrupt(DAMAGED)
                else:
                    tiles.append((job, number))
        for batch in self._batches(tiles, self._shape_of_tile, self.config.hyper_stride, batch_size):
            latents, failures = self._decode_tiles(batch)
            for row, (job, number) in enumerate(batch):
                if row in failures:
                    if not allow_partial:
                        raise name(job, failures.pop(row))
                    job.lost[number] = failures[row]
                    job.failed += 1
                    if job.hopeless:
                        raise name(job, job.nothing_left())
                else:
                    job.canvas.put(number, latents[row])
            if large:
                give_back()
        windows = []
        for job in jobs:
            if len(job.lost) == len(job.canvas.tiles):
                raise name(job, job.nothing_left())
            windows += [(job, cell, window) for cell, window in job.canvas.windows(job.lost)]
        for group in self._batches(windows, lambda item: (item[2].height, item[2].width), self.config.latent_stride, batch_size):
            self._paint(group)
            if large:
                give_back()
        for job in jobs:
            for number in job.lost:
                cell = job.header.grid[number].within(job.region)
                if cell:
                    job.paint(cell, LOST)

    def _paint(self, group: Sequence[tuple[Decoding, Rect, Rect]]) -> None:
        # Their channels are innermost in memory, where they should stay.
        cuts = [job.canvas.cut(window).permute(1, 2, 0) for job, _, window in group]
        latents = torch.stack(cuts).permute(0, 3, 1, 2)
        quality = (torch.tensor([job.header.quality for job, _, _ in group]) / 100).to(self.device)
        x = self.network.to_images(latents, quality)
        for row, (job, cell, window) in enumerate(group):
            job.paint(cell, x[row][(..., *cell.moved(window.times(self.config.latent_stride)).slices)])

    def _shape_of_tile(self, item: tuple[Decoding, int]) -> tuple[int, int]:
        job, number = item
        tile = job.header.grid[number]
        return self.coder.shapes(tile.height, tile.width)[0][1:]

    def _batches(
        self, items: Iterable[T], shape_of: Callable[[T], tuple[int, int]], stride: int, batch_size: int
    ) -> Iterator[list[T]]:
        """Groups of one shape, in positions of `stride` pixels, of at most batch_pixels together."""
        return batches_of(items, shape_of, lambda shape: shape_limit(shape, stride, batch_size, self.batch_pixels))

    def _decode_tiles(self, tiles: Sequence[tuple[Decoding, int]]) -> tuple[Tensor, dict[int, FormatError]]:
        """Latents (B, M, h, w), and what went wrong, by row."""
        readers: dict[int, TileReader] = {}
        failures: dict[int, FormatError] = {}
        areas = [job.header.grid[number] for job, number in tiles]
        z_shape, y_shape = self.coder.shapes(areas[0].height, areas[0].width)
        z, residuals = np.zeros((len(tiles), *z_shape), np.int16), np.zeros((len(tiles), *y_shape), np.int16)

        def attempt(row: int, step: Callable[[], None]) -> None:
            if row not in failures:
                try:
                    step()
                except FormatError as error:
                    # Without the traceback, which would keep the arrays of every tile that failed.
                    failures[row] = self._other_machine(tiles[row][0]) if self.network.host else type(error)(*error.args)

        for row, ((job, number), area) in enumerate(zip(tiles, areas, strict=True)):
            payload = job.contents.payloads[number]
            assert payload is not None

            def start(row: int = row, payload: bytes = payload, area: Rect = area) -> None:
                readers[row] = TileReader(self.coder, payload, area.height, area.width)
                z[row] = readers[row].z

            attempt(row, start)

        def read(number: int, index: Tensor) -> Tensor:
            tables = index.contiguous().cpu().numpy()
            for row in range(len(tiles)):

                def step(row: int = row) -> None:
                    readers[row].read_pass(number, tables[row])
                    residuals[row] = readers[row].residuals

                attempt(row, step)
            return self._to_device(residuals)

        latents = self.network.latents(self._to_device(z), read)
        for row, (job, number) in enumerate(tiles):
            crc = job.contents.front.entries[number].symbols_crc
            attempt(row, lambda row=row, crc=crc: readers[row].finish(crc))  # type: ignore[misc]
        return latents, failures

    def check(self, contents: Contents) -> None:
        """Raises FormatError if a tile of a file does not decode to the symbols that were encoded. No pixel is painted."""
        grid = contents.header.grid
        job = self.prepare(contents, grid.bounds, (0, 255), None)
        for number in range(len(grid)):
            for error in self._decode_tiles([(job, number)])[1].values():
                raise error

    def _other_machine(self, job: Decoding) -> Desync:
        """Why a tile does not decode whose payload is as it was written, if its tables are chosen in floats."""
        there = host_in(job.contents.front.boxes) or "an unknown machine"
        return Desync(
            f"{self.config.name} chooses other probability tables here ({self.network.host}) than where the file was written "
            f"({there}): a network in floats chooses them, and floats differ between machines; decode it on one like that, with "
            "the same version of torch"
        )

    def _to_device(self, symbols: np.ndarray) -> Tensor:
        values = torch.from_numpy(symbols).to(self.device)
        return torch.empty(values.shape, device=self.device, memory_format=torch.channels_last).copy_(values)
