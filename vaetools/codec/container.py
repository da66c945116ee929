"""The .vtc file: a header that says everything, then one entropy-coded payload. Little-endian throughout.

    offset  bytes  field
    0       8      magic: 89 56 54 43 0D 0A 1A 0A ("VTC"; the rest exposes text-mode transfers, as in PNG)
    8       1      major version
    9       1      minor version; before 1.0, a decoder reads its own version only
    10      2      length n of the fields
    12      n      fields, see FIELDS
    12+n    4      CRC-32 of all bytes before
    16+n    ...    payload, as long as its field says

Nothing here needs torch or a model: sizes are checked against the bytes at hand and the limits before they are used.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from ..errors import Corrupt, LimitExceeded, NotThisFormat, Truncated, UnsupportedVersion

MAGIC = b"\x89VTC\r\n\x1a\n"
VERSION = (0, 1)
PREFIX = struct.Struct("<8sBBH")
# model hash, width, height, channels, bit depth, quality in 1/100, payload bytes, payload CRC-32, symbols CRC-32
FIELDS = struct.Struct("<8sIIBBHIII")
CHECKSUM = struct.Struct("<I")
HEADER_BYTES = PREFIX.size + FIELDS.size + CHECKSUM.size
QUALITY_UNIT = 100


@dataclass(frozen=True)
class Limits:
    """Caps on what a file may ask for. `max_pixels` bounds memory: decoding takes up to 200 bytes a pixel."""

    max_pixels: int = 100_000_000
    max_side: int = 65_535

    def allow(self, width: int, height: int) -> bool:
        return width * height <= self.max_pixels and max(width, height) <= self.max_side

    def refusal(self, width: int, height: int) -> str:
        return f"{width} x {height} pixels is above the limits ({self.max_pixels:,} pixels, {self.max_side:,} a side)"


@dataclass(frozen=True)
class Header:
    """`width`, `height` in pixels; `quality` 0..100; `symbols_crc` is that of the decoded whole numbers."""

    model_hash: bytes
    width: int
    height: int
    channels: int
    bit_depth: int
    quality: float
    payload_length: int
    payload_crc: int
    symbols_crc: int
    version: tuple[int, int] = VERSION

    @property
    def pixels(self) -> int:
        return self.width * self.height


def round_quality(quality: float) -> float:
    """The nearest quality that a header can hold."""
    return round(quality * QUALITY_UNIT) / QUALITY_UNIT


def pack(header: Header, payload: bytes) -> bytes:
    fields = FIELDS.pack(
        header.model_hash,
        header.width,
        header.height,
        header.channels,
        header.bit_depth,
        round(header.quality * QUALITY_UNIT),
        len(payload),
        zlib.crc32(payload),
        header.symbols_crc,
    )
    head = PREFIX.pack(MAGIC, *VERSION, len(fields)) + fields
    return head + CHECKSUM.pack(zlib.crc32(head)) + payload


def read_header(data: bytes, limits: Limits = Limits()) -> tuple[Header, int]:
    """The header and the offset of the payload, which need not be there yet.

    Raises NotThisFormat, UnsupportedVersion, Truncated, Corrupt or LimitExceeded.
    """
    if data[: len(MAGIC)] != MAGIC:
        if len(data) < len(MAGIC) and MAGIC.startswith(data):
            raise Truncated(f"the file ends after {len(data)} bytes, inside the magic number")
        if data[1:4] == b"VTC":
            raise NotThisFormat("the magic number was altered, as by a transfer in text mode: copy the file again as binary")
        raise NotThisFormat("not a .vtc file")
    if len(data) < PREFIX.size:
        raise Truncated(f"the file ends after {len(data)} bytes, inside the header")
    _, major, minor, length = PREFIX.unpack_from(data)
    end = PREFIX.size + length
    if (major, minor) != VERSION:  # until 1.0, versions promise each other nothing
        raise UnsupportedVersion(f"the file is of format {major}.{minor}; this vaetools reads {VERSION[0]}.{VERSION[1]}")
    if length != FIELDS.size:
        raise Corrupt(f"a header of {length} bytes where format {major}.{minor} has {FIELDS.size}")
    if len(data) < end + CHECKSUM.size:
        raise Truncated(f"the file ends after {len(data)} bytes, inside the header")
    if CHECKSUM.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise Corrupt("the checksum of the header does not match")
    model, width, height, channels, depth, quality, payload_length, payload_crc, symbols_crc = FIELDS.unpack_from(
        data, PREFIX.size
    )
    header = Header(
        model, width, height, channels, depth, quality / QUALITY_UNIT, payload_length, payload_crc, symbols_crc, (major, minor)
    )
    if not width or not height or channels not in (1, 3) or depth not in (8, 16) or quality > 100 * QUALITY_UNIT:
        raise Corrupt(
            f"impossible header: {width} x {height} pixels, {channels} channels, {depth} bits, quality {header.quality}"
        )
    if not limits.allow(width, height):
        raise LimitExceeded(limits.refusal(width, height))
    return header, end + CHECKSUM.size


def unpack(data: bytes, limits: Limits = Limits()) -> tuple[Header, bytes]:
    """The header and the payload, both checked against their checksums. Raises FormatError of some kind."""
    header, start = read_header(data, limits)
    missing = start + header.payload_length - len(data)
    if missing > 0:
        raise Truncated(f"the last {missing:,} of {header.payload_length:,} payload bytes are missing")
    if missing < 0:
        raise Corrupt(f"{-missing:,} bytes follow the end of the payload")
    payload = bytes(data[start:])
    if zlib.crc32(payload) != header.payload_crc:
        raise Corrupt("the checksum of the payload does not match")
    return header, payload
