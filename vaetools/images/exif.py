"""The directories of tags that EXIF data and TIFF files are made of (TIFF 6.0, section 2; EXIF 2.32, section 4.6).

    header: byte order, 42, offset of the first directory
    directory: count | count x (tag, type, number of values, the value if it fits in 4 bytes, else its offset) | next

Values are copied as bytes, never interpreted, so that nothing is lost on the way from one file to another.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Set
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

ORIENTATION = 274
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY = 34665, 34853, 40965
DIRECTORIES = frozenset((EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY))

# What the first directory of a TIFF file says about the picture rather than about how it is stored: description, make,
# model, resolution, software, date, artist, computer, white point, primaries, rating, copyright, the titles of Windows,
# and the two directories of a camera.
DESCRIPTIVE = frozenset(
    (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432, *range(40091, 40096))
) | {EXIF_DIRECTORY, GPS_DIRECTORY}

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of one value of a type
FORMATS = {BYTE: "B", SHORT: "H", LONG: "I"}
BIG_SIZES = {**SIZES, 16: 8, 17: 8, 18: 8}  # BigTIFF adds integers of 8 bytes, which only pointers are expected to use


@dataclass
class Directory:
    """Tags with their types and their values' bytes in the byte order `order`, and the directories that tags point to."""

    order: str = "<"
    entries: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    below: dict[int, Directory] = field(default_factory=dict)

    def put(self, tag: int, kind: int, *values: int) -> None:
        """Integers under a tag; kind: BYTE, SHORT or LONG."""
        self.entries[tag] = kind, struct.pack(f"{self.order}{len(values)}{FORMATS[kind]}", *values)

    def number(self, tag: int) -> int | None:
        """The first value of a tag that holds integers; None if there is none."""
        kind, data = self.entries.get(tag, (0, b""))
        if kind not in FORMATS or len(data) < SIZES[kind]:
            return None
        return int(struct.unpack_from(self.order + FORMATS[kind], data)[0])

    def tobytes(self, start: int) -> bytes:
        """The directory as it reads at the offset `start` of a file, with all its values and the directories below it."""
        tags = sorted({*self.entries, *self.below})
        table, values = struct.pack(f"{self.order}H", len(tags)), b""
        first = start + 2 + 12 * len(tags) + 4
        for tag in tags:
            here = first + len(values)
            if tag in self.below:
                kind, count, data = LONG, 1, self.below[tag].tobytes(here)
            else:
                kind, data = self.entries[tag]
                count = len(data) // SIZES[kind]
            if len(data) <= 4 and tag not in self.below:
                value = data.ljust(4, b"\0")
            else:
                value = struct.pack(f"{self.order}I", here)
                values += data + b"\0" * (len(data) % 2)
            table += struct.pack(f"{self.order}HHI", tag, kind, count) + value
        return table + b"\0\0\0\0" + values

    def header(self, offset: int) -> bytes:
        """The 8 bytes in front of a file whose first directory is at `offset`."""
        return (b"II" if self.order == "<" else b"MM") + struct.pack(f"{self.order}HI", 42, offset)


def as_exif(directory: Directory) -> bytes:
    """A TIFF structure of one directory; empty if it has no tags."""
    return directory.header(8) + directory.tobytes(8) if directory.entries or directory.below else b""


def read_directory(file: BinaryIO | bytes, wanted: Set[int] | None = None) -> Directory:
    """The first directory of EXIF data or of a TIFF or BigTIFF file; all tags, or those in `wanted`.

    Entries that point outside the file, or are of an unknown type, are left out.
    Raises ValueError if there is no directory.
    """
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF structure")
    version = struct.unpack_from(f"{order}H", head, 2)[0]
    if version not in (42, 43) or (version == 43 and len(head) < 16):
        raise ValueError("no TIFF structure")
    offset = struct.unpack_from(f"{order}I", head, 4)[0] if version == 42 else struct.unpack_from(f"{order}Q", head, 8)[0]
    file.seek(0, io.SEEK_END)
    return _Reader(file, order, version == 43, file.tell()).directory(offset, wanted)


@dataclass
class _Reader:
    """`left`: how many bytes of values may still be read, so that overlapping entries cannot fill the memory."""

    file: BinaryIO
    order: str
    big: bool
    length: int
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.length

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        size = struct.calcsize(f"={layout}")
        self.file.seek(offset)
        data = self.file.read(size)
        if len(data) < size:
            raise ValueError("a directory ends too early")
        return struct.unpack(self.order + layout, data)

    def directory(self, offset: int, wanted: Set[int] | None = None, depth: int = 0) -> Directory:
        found = Directory(self.order)
        if not 8 <= offset < self.length:
            raise ValueError("a directory lies outside the file")
        (count,) = self.unpack("Q" if self.big else "H", offset)
        first, step = (offset + 8, 20) if self.big else (offset + 2, 12)
        for number in range(min(count, 0xFFFF)):
            at = first + step * number
            tag, kind, values = self.unpack("HHQ" if self.big else "HHI", at)
            if wanted is None or tag in wanted:
                self._entry(found, tag, kind, values, at + (12 if self.big else 8), depth)
        return found

    def _entry(self, found: Directory, tag: int, kind: int, values: int, at: int, depth: int) -> None:
        size = (BIG_SIZES if self.big else SIZES).get(kind, 0) * values
        if size == 0:
            return
        if size > (8 if self.big else 4):
            (at,) = self.unpack("Q" if self.big else "I", at)
        if size > self.left or at + size > self.length:
            return
        if tag in found.below:
            return  # or a few bytes that point to each other would keep the reader busy for years
        if tag in DIRECTORIES and depth < 2:
            (offset,) = self.unpack({2: "H", 4: "I", 8: "Q"}.get(size, "I"), at)
            try:
                found.below[tag] = self.directory(offset, None, depth + 1)
            except ValueError:
                return  # a pointer to nowhere
        elif kind in SIZES:
            self.left -= size
            self.file.seek(at)
            found.entries[tag] = kind, self.file.read(size)


def orientation_of(exif: bytes) -> int:
    """1 to 8: how the pixels must be turned to be seen upright (EXIF 2.32, section 4.6.4); 1 if nothing is said."""
    try:
        number = read_directory(exif, {ORIENTATION}).number(ORIENTATION)
    except ValueError:
        return 1
    return number if number is not None and 1 <= number <= 8 else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) pixels as they are seen upright; (W, H, C) for orientations 5 to 8. A view, not a copy."""
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels.swapaxes(0, 1) if orientation >= 5 else pixels
