"""All files of a data set, images or not."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..images.folder import SUFFIXES, has_suffix

NIFTI = ".nii.gz"


@dataclass
class Listing:
    """Paths below `root`, with `/` between their parts, sorted. folders: "" for `root`. notes: what was passed over, and why.
    coco, metadata: the JSON files of COCO that name images, and those of huggingface.py, once somebody has looked for them.

    Raises UsageError if `root` is no folder or holds no image.
    """

    root: Path
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    coco: dict[str, dict[str, Any]] | None = None
    metadata: dict[str, list[dict[str, Any]]] | None = None

    @classmethod
    def of(cls, root: Path, *, leave_out: Path | None = None) -> Listing:
        """Everything below `root` but what is hidden, links to folders, and the folder `leave_out`."""
        if not root.exists():
            raise UsageError(f"{root}: no such folder")
        if not root.is_dir():
            raise UsageError(f"{root}: a file, and no folder of images")
        listing = cls(root)
        skipped = leave_out.resolve() if leave_out is not None else None
        for path in listing._walk(skipped):
            is_image = has_suffix(path)
            (listing.images if is_image else listing.others).append(path)
        if not listing.images:
            kinds = ", ".join(sorted(suffix.lstrip(".") for suffix in SUFFIXES))
            raise UsageError(f"{root}: no image in it or below it (looked for {kinds})")
        listing.images.sort()
        listing.others.sort()
        return listing

    def _walk(self, skipped: Path | None) -> Iterator[str]:
        def unreadable(error: OSError) -> None:
            self.notes.append(f"{error.filename}: cannot be opened ({error.strerror}), and is left out")

        start = len(os.path.join(self.root, ""))
        for directory, folders, files in os.walk(self.root, onerror=unreadable):
            self.folders.append(directory[start:].replace(os.sep, "/"))
            folders.sort()
            for name in list(folders):
                path = Path(directory, name)
                if name.startswith("."):
                    folders.remove(name)
                elif path.is_symlink():
                    folders.remove(name)
                    self.notes.append(f"{path}: a link to a folder, and is left out")
                elif skipped is not None and path.resolve() == skipped:
                    folders.remove(name)
                    self.notes.append(f"{path}: the output folder, and is left out")
            for name in sorted(files):
                place = os.path.join(directory, name)
                if not name.startswith(".") and os.path.isfile(place):
                    yield place[start:].replace(os.sep, "/")

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """The images of each name, wherever they are."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            found[path.rpartition("/")[2]].append(path)
        return found

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The images of each name without its suffix."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            found[stem_of(path.rpartition("/")[2])].append(path)
        return found

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.images)

    def sidecars(self) -> list[str]:
        """Files beside an image, named as it is but for the suffix: a.txt beside a.png."""
        stems = {stem_of(path) for path in self.images}
        return [path for path in self.others if stem_of(path) in stems]


def stem_of(path: str) -> str:
    """A path or name without its suffix, of which `.nii.gz` is one."""
    return path[: -len(NIFTI)] if path.lower().endswith(NIFTI) else os.path.splitext(path)[0]


def folders_of(path: str) -> tuple[str, ...]:
    """The names of the folders that a path goes through."""
    return tuple(path.split("/")[:-1])
