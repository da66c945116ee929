"""From the bytes of a file to a LatentItem, wherever the file comes from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..augment.seeds import SEED_BITS, generator_of, seed_for
from ..augment.stream import SeedStream
from ..codec.boxes import levels_in, pixels_in
from ..codec.container import Contents, Header, unpack
from ..codec.tiles import Rect
from ..errors import Corrupt, FormatError, ModelMissing
from ..images.tensors import to_tensor
from .batch import LatentItem
from .reader import SymbolReader
from .window import window_of

CROP_COPY = -1  # so that what a crop is drawn with is not what its augmentation is drawn with


class ItemReader:
    """crop: side, in pixels, of the square that each item is; None for whole images. stream: what its place is drawn with.
    model: the path of the weights that the files were written with; model_hash: the hash that files have of them."""

    crop: int | None
    stream: SeedStream
    model: Path
    model_hash: str
    _reader: SymbolReader | None = None

    @property
    def reader(self) -> SymbolReader:
        """Forked workers have it from their parent; those that are spawned make their own."""
        if self._reader is None:
            self._reader = SymbolReader.load(self.model)
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch: workers that are kept from one to the next are told too, and so is LatentAugment."""
        self.stream.set_epoch(epoch)

    def item(
        self, name: str, data: bytes, label: Any, *, classes: int, target_transform: Callable[[Any], Any] | None = None
    ) -> LatentItem:
        """name: tells two copies of one file apart. Raises FormatError, without the name."""
        contents = unpack(data)
        levels = levels_in(contents.front)
        identity = _identity(name, data)
        crop = self._crop(contents.header, identity)
        self._check(contents.header)
        parts = self._pixels(contents, crop) if contents.header.lossless else self._latents(contents, crop)
        header = contents.header
        epoch, epoch_call = self.stream.said
        largest = 2**header.bit_depth - 1
        return LatentItem(
            **parts,
            place=crop,
            height=self.crop or header.height,
            width=self.crop or header.width,
            quality=header.quality,
            gray=header.channels == 1,
            levels=(levels[0] / largest, levels[1] / largest),
            label=label if target_transform is None else target_transform(label),
            classes=classes,
            identity=identity,
            epoch=epoch,
            epoch_call=epoch_call,
            model_hash=self.model_hash,
        )

    def _check(self, header: Header) -> None:
        config, grid = self.reader.config, header.grid
        if not header.lossless and header.model_hash != self.reader.model_hash:
            raise ModelMissing(
                f"it was written with the model {header.model_hash.hex()}, and these are to be of "
                f"{self.model_hash}: compress all files with one model, or make a LatentFolder of each"
            )
        if header.channels > config.image_channels:
            raise FormatError(f"it has colours, and the model {config.name} is for gray images")
        if not header.lossless and (grid.tile_width % config.hyper_stride or grid.tile_height % config.hyper_stride):
            raise Corrupt(f"tiles of {grid.tile_width} x {grid.tile_height} pixels do not fit the model")

    def _crop(self, header: Header, identity: int) -> Rect:
        """Of the image, in pixels."""
        if self.crop is None:
            return Rect(0, 0, header.height, header.width)
        seed = self.stream.draw([torch.tensor([[[identity]]])])[0]
        generator = generator_of(seed_for(seed, 0, 0, CROP_COPY))
        height, width = min(self.crop, header.height), min(self.crop, header.width)
        top, left = (
            int(torch.randint(all_ - part + 1, (1,), generator=generator))
            for all_, part in ((header.height, height), (header.width, width))
        )
        return Rect(top, left, top + height, left + width)

    def _latents(self, contents: Contents, crop: Rect) -> dict[str, Any]:
        config, grid = self.reader.config, contents.header.grid
        window = window_of(config, grid, crop)
        per_side = config.hyper_stride // config.latent_stride
        rows, columns = window.hyper.height, window.hyper.width
        z = np.empty((config.hyper_channels, rows, columns), np.int16)
        residuals = np.empty((config.latent_channels, rows * per_side, columns * per_side), np.int16)
        for number, part in window.tiles:
            tile, entry, payload = grid[number], contents.front.entries[number], contents.payloads[number]
            assert payload is not None
            tile_z, tile_residuals = self.reader.read_tile(payload, tile.height, tile.width, entry.symbols_crc)
            here, there = part.moved(window.hyper), part.moved(tile.over(config.hyper_stride))
            z[(..., *here.slices)] = tile_z[(..., *there.slices)]
            residuals[(..., *here.times(per_side).slices)] = tile_residuals[(..., *there.times(per_side).slices)]
        return {
            "z": torch.from_numpy(z),
            "residuals": torch.from_numpy(residuals),
            "pixels": None,
            "tiles": tuple(part.moved(window.hyper) for _, part in window.tiles),
            "seen": window.seen,
            "wanted": window.wanted,
        }

    def _pixels(self, contents: Contents, crop: Rect) -> dict[str, Any]:
        """Of a file that was kept lossless."""
        pixels = pixels_in(contents.front)[crop.slices]
        colours: Tensor = to_tensor(pixels[..., : contents.header.channels])
        nothing = Rect(0, 0, 0, 0)
        wanted = Rect(0, 0, crop.height, crop.width)
        return {"z": None, "residuals": None, "pixels": colours, "tiles": (), "seen": nothing, "wanted": wanted}


def _identity(name: str, data: bytes) -> int:
    """Of a file, by what it is called in its folder or tar, and by its content."""
    both = hashlib.blake2b(os.fsencode(name) + b"\0" + data, digest_size=8)
    return int.from_bytes(both.digest(), "little") >> (64 - SEED_BITS)
