"""A data set of images as a layout found it: what there is, what belongs together, and what is to be augmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..errors import UsageError
from ..images.folder import SCAN_SUFFIXES
from .listing import stem_of

# All paths are relative to the data set's folder, with `/` between their parts.


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that belongs to one image and to every copy of it. A copy's is called `before` + the copy's stem + `after`."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Item:
    """One image. split: "" if there are none. label: the name of its class. stem: what the names of its copies start with."""

    path: str
    split: str = ""
    train: bool = True
    label: str | None = None
    companions: tuple[Companion, ...] = ()
    stem: str = ""

    def copy_stem(self, copy: int) -> str:
        return f"{self.stem}__v{copy}"

    def copy_path(self, copy: int) -> str:
        """Of copy 1, 2, ...: beside the image; a PNG, or DICOM or NIfTI as the image is."""
        own = [suffix for suffix in SCAN_SUFFIXES if self.path.lower().endswith(suffix)]
        name = f"{self.copy_stem(copy)}{own[0]}" if own else f"{self.copy_stem(copy)}.png"
        return self.path[: self.path.rfind("/") + 1] + name

    def companion_path(self, companion: Companion, copy: int) -> str:
        return f"{companion.before}{self.copy_stem(copy)}{companion.after}"


class Annotations(Protocol):
    """A file that names many images, and is written again with the copies in it."""

    @property
    def path(self) -> str: ...

    def render(self, copies: Mapping[str, Mapping[int, str]], *, originals: bool) -> bytes:
        """Its content with the copies of images, {path: {1: path of copy 1, ...}}, and with the originals or without."""


@dataclass(frozen=True)
class Dataset:
    """items: the images, in the order of their paths. others: all further files. annotations: those of them that name images
    and are written again. notes: what to know about it. failed: (path, reason) of images that cannot be augmented.

    marks: what boxes or masks are called here; "" where there are none, and operators may move pixels.
    """

    root: Path
    layout: str
    items: tuple[Item, ...]
    others: tuple[str, ...] = ()
    annotations: tuple[Annotations, ...] = ()
    marks: str = ""
    notes: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = field(default=())

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the train images, sorted; a label is a class's place in it."""
        return tuple(sorted({item.label for item in self.train if item.label is not None}))

    @property
    def labels(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.classes)}

    @property
    def train(self) -> list[Item]:
        return [item for item in self.items if item.train]

    @property
    def held_out(self) -> list[Item]:
        return [item for item in self.items if not item.train]

    @property
    def files(self) -> list[str]:
        """Every file of it."""
        companions = {companion.path for item in self.items for companion in item.companions}
        return [*(item.path for item in self.items), *sorted(companions), *self.others, *(one.path for one in self.annotations)]

    def place(self, path: str) -> Path:
        return self.root / path

    def summary(self) -> str:
        """One line: what was found."""
        train, classes = self.train, self.classes
        words = [self.layout]
        if classes:
            words.append(f"{len(classes)} classes")
        splits = Counter(item.split or "no split" for item in self.items if not item.train)
        named = sorted({item.split for item in train if item.split})
        words.append(f"{len(train)} images to augment" + (f" in {', '.join(named)}" if named else ""))
        if splits:
            words.append("left as they are: " + ", ".join(f"{count} in {name}" for name, count in sorted(splits.items())))
        return "; ".join(words)


def with_stems(items: Iterable[Item]) -> tuple[Item, ...]:
    """Sorted, each with the stem of its copies: that of its name, or all of its name where another image has the same stem."""
    items = sorted(items, key=lambda item: item.path)
    stems = Counter(stem_of(item.path) for item in items)
    return tuple(_with_stem(item, alone=stems[stem_of(item.path)] == 1) for item in items)


def _with_stem(item: Item, *, alone: bool) -> Item:
    name = PurePosixPath(item.path).name
    stem = stem_of(name) if alone else name
    return Item(item.path, item.split, item.train, item.label, item.companions, stem)


def refuse_collisions(dataset: Dataset, copies: Mapping[str, int]) -> None:
    """Raises UsageError if one of so many copies of each image would get the name of a file that there is, or of another copy."""
    taken = {path: path for path in dataset.files}
    for item in dataset.train:
        for copy in range(1, copies.get(item.path, 0) + 1):
            for path in (item.copy_path(copy), *(item.companion_path(each, copy) for each in item.companions)):
                if path in taken:
                    raise UsageError(
                        f"{dataset.place(taken[path])}: copy {copy} of {item.path} would be called {path}, too; rename one of "
                        "them, or, if it is an augmented copy already, augment the folder that it was made from"
                    )
                taken[path] = item.path
