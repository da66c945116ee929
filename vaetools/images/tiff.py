"""Writing TIFF files: one page, deflated strips, with the tags of its EXIF data in place."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ..errors import ImageError
from . import exif as tags
from .exif import BYTE, LONG, SHORT, UNDEFINED, Directory
from .metadata import ICC_TAG, XMP_TAG
from .picture import Picture

STRIP = 1 << 18  # bytes of pixels per strip, before compression
LEVEL = 6
DEFLATE, GRAY, RGB, INTERLEAVED, DIFFERENCES, STRAIGHT_ALPHA = 8, 1, 2, 1, 2, 2
LARGEST = (1 << 32) - 1  # offsets are of 32 bits


def write_tiff(path: Path, picture: Picture, *, bilevel: bool) -> tuple[str, ...]:
    """`picture` as a TIFF file, with one bit per pixel if `bilevel`; returns what of its EXIF data is left out, in words.

    EXIF tags keep their types and bytes and become tags of the file, as TIFF has no other place for them. An embedded
    thumbnail is left out, and so are tags that contradict the file's own. Raises OSError, and ImageError above 4 GiB.
    """
    described, notes = _described(picture.metadata.exif)
    order = described.order
    row = picture.width * picture.channels * picture.bit_depth // 8
    rows = max(1, STRIP // row)
    offsets, counts = [], []
    with path.open("wb") as file:
        file.write(described.header(8))
        for top in range(0, picture.height, rows):
            data = zlib.compress(_strip(picture.pixels[top : top + rows], order, bilevel), LEVEL)
            offsets.append(file.tell())
            counts.append(len(data))
            file.write(data)
        start = file.tell() + file.tell() % 2
        if start + len(picture.metadata.icc) + len(picture.metadata.xmp) + len(picture.metadata.exif) > LARGEST - 0xFFFFF:
            raise ImageError("a TIFF file cannot be larger than 4 GiB; choose png")
        file.seek(start)
        _add_structure(described, picture, bilevel, rows, offsets, counts)
        file.write(described.tobytes(start))
        file.seek(0)
        file.write(described.header(start))
    return notes


def _described(exif: bytes) -> tuple[Directory, tuple[str, ...]]:
    """The tags of EXIF data that a TIFF file takes, and in words what it does not."""
    if not exif:
        return Directory(), ()
    try:
        directory = tags.read_directory(exif)
    except ValueError:
        return Directory(), ("its EXIF data is broken and is left out",)
    kept = tags.DESCRIPTIVE | {tags.ORIENTATION}
    left = sorted(tag for tag in {*directory.entries, *directory.below} if tag not in kept)
    for tag in left:
        directory.entries.pop(tag, None)
        directory.below.pop(tag, None)
    return directory, (f"EXIF tags {', '.join(map(str, left))} are left out",) if left else ()


def _strip(pixels: np.ndarray, order: str, bilevel: bool) -> bytes:
    """(rows, W, C) as the bytes to be compressed: differences of neighbours, or 8 pixels in a byte."""
    if bilevel:
        return np.packbits(pixels[:, :, 0] >= 128, axis=1).tobytes()
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    return differences.astype(differences.dtype.newbyteorder(order)).tobytes()


def _add_structure(
    directory: Directory, picture: Picture, bilevel: bool, rows: int, offsets: list[int], counts: list[int]
) -> None:
    channels = picture.channels
    directory.put(256, LONG, picture.width)
    directory.put(257, LONG, picture.height)
    directory.put(258, SHORT, *([1 if bilevel else picture.bit_depth] * channels))
    directory.put(259, SHORT, DEFLATE)
    directory.put(262, SHORT, RGB if channels >= 3 else GRAY)
    directory.put(273, LONG, *offsets)
    directory.put(277, SHORT, channels)
    directory.put(278, LONG, rows)
    directory.put(279, LONG, *counts)
    directory.put(284, SHORT, INTERLEAVED)
    if not bilevel:
        directory.put(317, SHORT, DIFFERENCES)
    if picture.has_alpha:
        directory.put(338, SHORT, STRAIGHT_ALPHA)
    if picture.metadata.xmp:
        directory.entries[XMP_TAG] = BYTE, picture.metadata.xmp
    if picture.metadata.icc:
        directory.entries[ICC_TAG] = UNDEFINED, picture.metadata.icc
