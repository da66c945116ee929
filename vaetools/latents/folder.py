"""A folder of .vtc files in sub-folders of classes, as a torch data set that never makes a pixel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ..augment.stream import SeedStream
from ..codec.container import HEADER_ROOM, read_header
from ..errors import FormatError, ImageError, ModelMissing, UsageError
from ..model.weights import find_by_hash, find_by_name
from .batch import LatentItem
from .item import ItemReader
from .reader import SymbolReader

SUFFIX = ".vtc"


class LatentFolder(ItemReader, Dataset[Any]):
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

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Raises ImageError if the file cannot be opened, FormatError if it cannot be decoded; messages start with its path."""
        path, label = self.samples[index]
        data = _read(path)
        name = Path(path).relative_to(self.root).as_posix()
        try:
            item = self.item(name, data, label, classes=len(self.classes), target_transform=self.target_transform)
        except FormatError as error:
            raise type(error)(f"{path}: {error}") from None
        return item if self.transform is None else self.transform(item)

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
