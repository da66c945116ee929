"""A folder of .vtc files in sub-folders of classes, as a torch data set that never makes a pixel."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..augment.seeds import SEED_BITS, generator_of, seed_for
from ..augment.stream import SeedStream
from ..codec.boxes import levels_in, pixels_in
from ..codec.container import HEADER_ROOM, Contents, Header, read_header, unpack
from ..codec.tiles import Rect
from ..errors import Corrupt, FormatError, ImageError, ModelMissing, UsageError
from ..images.tensors import to_tensor
from ..model.weights import find_by_hash, find_by_name
from .batch import LatentItem
from .reader import SymbolReader
from .window import window_of

SUFFIX = ".vtc"
CROP_COPY = -1  # so that what a crop is drawn with is not what its augmentation is drawn with


class LatentFolder(Dataset[Any]):
    """As torchvision.datasets.ImageFolder, for what `vaetools compress` makes of such a folder: ROOT/CLASS/.../NAME.vtc.

    >>> dataset = LatentFolder("small", crop=224)
    >>> loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=2, collate_fn=latent_collate)

    `classes`, `class_to_idx`, `samples` (path, class number) and `targets` are those of ImageFolder. An item is a LatentItem:
    the worker reads the file and decodes its whole numbers; LatentAugment makes images of a batch of them. `model` is the
    path of the weights.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] | None = None,
        transform: Callable[[LatentItem], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        crop: int | None = None,
        seed: int | None = None,
    ) -> None:
        """model: what the files were written with, if it is not installed under the hash that they name.
        transform: of items. target_transform: of class numbers. crop: side, in pixels, of the square that each item is, at a
        random place; images that are smaller are continued with their last row and column.
        seed: makes the place a function of it, the epoch and the file (see SeedStream), if `set_epoch` is called. Without one it
        is drawn from torch's generator, as torchvision does.
        Raises UsageError if there is nothing to read or an argument cannot be used, ModelError or ModelMissing on the model,
        FormatError if the first file is none.
        """
        if crop is not None and crop < 1:
            raise UsageError(f"the crop must be 1 pixel a side or more, not {crop}")
        self.root, self.crop, self.stream = Path(root), crop, SeedStream(seed)
        self.transform, self.target_transform = transform, target_transform
        self.classes, self.samples = _find(self.root)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.targets = [label for _, label in self.samples]
        self.model = find_by_name(model) if model is not None else self._find_model()
        self._reader: SymbolReader | None = None
        self.model_hash = self.reader.model_hash.hex()

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

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Raises ImageError if the file cannot be opened, FormatError if it cannot be decoded; messages start with its path."""
        path, label = self.samples[index]
        data = _read(path)
        try:
            contents = unpack(data)
            levels = levels_in(contents.header, contents.front.boxes)
            identity = self._identity(path, data)
            crop = self._crop(contents.header, identity)
            self._check(contents.header)
            parts = self._pixels(contents, crop) if contents.header.lossless else self._latents(contents, crop)
        except FormatError as error:
            raise type(error)(f"{path}: {error}") from None
        header = contents.header
        epoch, epoch_call = self.stream.said
        largest = 2**header.bit_depth - 1
        item = LatentItem(
            **parts,
            place=crop,
            height=self.crop or header.height,
            width=self.crop or header.width,
            quality=header.quality,
            gray=header.channels == 1,
            levels=(levels[0] / largest, levels[1] / largest),
            label=label if self.target_transform is None else self.target_transform(label),
            classes=len(self.classes),
            identity=identity,
            epoch=epoch,
            epoch_call=epoch_call,
            model_hash=self.model_hash,
        )
        return item if self.transform is None else self.transform(item)

    def _identity(self, path: str, data: bytes) -> int:
        """Two copies of one file in a folder are told apart, wherever the folder is."""
        name = Path(path).relative_to(self.root).as_posix()
        both = hashlib.blake2b(os.fsencode(name) + b"\0" + data, digest_size=8)
        return int.from_bytes(both.digest(), "little") >> (64 - SEED_BITS)

    def _find_model(self) -> Path:
        """That of the first file which has one."""
        for path, _ in self.samples:
            try:
                header, _ = read_header(_read(path, HEADER_ROOM))
            except FormatError as error:
                raise type(error)(f"{path}: {error}") from None
            if header.lossless:
                continue
            found = find_by_hash(header.model_hash)
            if found is None:
                raise ModelMissing(
                    f"{path}: it was written with the model {header.model_hash.hex()}, which is not installed: "
                    "give the weights as model=, or put them in a folder named by VAETOOLS_MODELS"
                )
            return found
        raise UsageError(
            f"{self.root}: all of its files were kept lossless and name no model: give the one to augment with as model="
        )

    def _check(self, header: Header) -> None:
        config, grid = self.reader.config, header.grid
        if not header.lossless and header.model_hash != self.reader.model_hash:
            raise ModelMissing(
                f"it was written with the model {header.model_hash.hex()}, and this LatentFolder reads those of "
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
        pixels = pixels_in(contents.header, contents.front.boxes)[crop.slices]
        colours: Tensor = to_tensor(pixels[..., : contents.header.channels])
        nothing = Rect(0, 0, 0, 0)
        wanted = Rect(0, 0, crop.height, crop.width)
        return {"z": None, "residuals": None, "pixels": colours, "tiles": (), "seen": nothing, "wanted": wanted}


def _find(root: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The classes, in the order of their names, and every file with its class number; what is hidden is left out."""
    if not root.is_dir():
        raise UsageError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise UsageError(
            f"{root}: expected folders of classes in it, ROOT/CLASS/NAME{SUFFIX}, as ImageFolder does; there is none"
        )
    samples = [(path, label) for label, name in enumerate(classes) for path in _files_below(root / name)]
    empty = sorted(set(range(len(classes))) - {label for _, label in samples})
    if empty:
        names = ", ".join(classes[label] for label in empty)
        raise UsageError(f"{root}: no {SUFFIX} file in {names}: make them with `vaetools compress FOLDER -o {root}`")
    return classes, samples


def _files_below(folder: Path) -> Iterator[str]:
    for directory, names, files in os.walk(folder, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIX) and not name.startswith("."):
                yield os.path.join(directory, name)


def _read(path: str, most: int = -1) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from None
