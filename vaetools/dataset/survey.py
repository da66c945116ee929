"""A look at every image before a job starts: whether it can be read, what kind it is, and which images are the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import VaetoolsError, reason_of
from ..images.ahead import in_threads
from .content import read_content
from .records import Record

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Seen:
    """One image. digest: of its pixels. beside: of what its file says beside them. size, mtime_ns: of its file."""

    digest: int
    height: int
    width: int
    channels: int
    bit_depth: int
    size: int
    mtime_ns: int
    beside: str

    @property
    def is_gray(self) -> bool:
        return self.channels < 3

    @property
    def pixels(self) -> int:
        return self.height * self.width


def survey(root: Path, paths: Iterable[str], max_pixels: int, known: Mapping[str, Record] | None = None) -> Iterator[Seen | str]:
    """What there is to know of each image below `root`, or why it cannot be read, in the order of `paths`.

    known: what a record says of an image; it is taken for granted while the file has the same size and time.
    """

    def look(path: str) -> Seen | str:
        try:
            status = os.stat(root / path)
            record = (known or {}).get(path)
            unchanged = record and (record.source_size, record.mtime_ns) == (status.st_size, status.st_mtime_ns)
            if record and unchanged and record.digest and record.beside:
                kind = (record.height, record.width, record.channels, record.bit_depth)
                return Seen(record.digest, *kind, status.st_size, status.st_mtime_ns, record.beside)
            content = read_content(root / path, max_pixels)
            picture = content.picture
            kind = (picture.height, picture.width, picture.channels, picture.bit_depth)
            return Seen(content.digest, *kind, status.st_size, status.st_mtime_ns, content.beside)
        except (VaetoolsError, OSError, MemoryError) as error:
            return reason_of(error).removeprefix(f"{root / path}: ")

    return (found for _, found in in_threads(look, paths))
