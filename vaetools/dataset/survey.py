"""A look at every image before a job starts: whether it can be read, what kind it is, and which images are the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..augment.seeds import digest
from ..codec.tensors import to_tensor
from ..errors import VaetoolsError
from ..folder.ledger import reason_of
from ..folder.reader import reader_threads
from ..images.read import read_picture
from .records import Record

Result = TypeVar("Result")
CHUNK = 64  # images that are looked at before the next are asked for


@dataclass(frozen=True, slots=True)
class Seen:
    """One image. digest: of its pixels. size, mtime_ns: of its file."""

    digest: int
    height: int
    width: int
    channels: int
    bit_depth: int
    size: int
    mtime_ns: int

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
            if record and record.digest and (record.source_size, record.mtime_ns) == (status.st_size, status.st_mtime_ns):
                kind = (record.height, record.width, record.channels, record.bit_depth)
                return Seen(record.digest, *kind, status.st_size, status.st_mtime_ns)
            picture = read_picture(root / path, max_pixels=max_pixels)
            kind = (picture.height, picture.width, picture.channels, picture.bit_depth)
            return Seen(digest([to_tensor(picture.pixels)])[0], *kind, status.st_size, status.st_mtime_ns)
        except (VaetoolsError, OSError, MemoryError) as error:
            return reason_of(error).removeprefix(f"{root / path}: ")

    return (found for _, found in in_threads(look, paths))


def in_threads(call: Callable[[str], Result], paths: Iterable[str]) -> Iterator[tuple[str, Result]]:
    """`call(path)` of each path, in order, some ahead."""
    paths = list(paths)
    with ThreadPoolExecutor(reader_threads(), "look") as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            yield from zip(chunk, pool.map(call, chunk), strict=True)
