"""The .vtc file, format 1.1, as FORMAT.md has it byte by byte. Little-endian throughout.

    prefix | fields | CRC-32 | tile table | CRC-32 | boxes | payload of tile 0 | payload of tile 1 | ...

Nothing here needs torch or a model: sizes are checked against the bytes at hand, the limits and each other before they are
used, and nothing is allocated that is larger than the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Truncated, UnsupportedVersion
from .tiles import MAX_TILE_PIXELS, MAX_TILES, TileGrid

MAGIC = b"\x89VTC\r\n\x1a\n"
VERSION = (1, 0)  # as files are written that hold nothing newer
NEWEST = (1, 1)
PREFIX = struct.Struct("<8sBBH")  # magic, major, minor, length of the fields
# model hash, width, height, channels, bit depth, quality in 1/100, tile width and height in 1/8, source format, source mode,
# length of the boxes
FIELDS = struct.Struct("<8sIIBBHHHBBI")
CHECKSUM = struct.Struct("<I")
TILE = struct.Struct("<III")  # payload bytes, payload CRC-32, symbols CRC-32
BOX = struct.Struct("<4sII")  # type, length, CRC-32 of type and content
HEADER_BYTES = PREFIX.size + FIELDS.size + CHECKSUM.size  # as this version writes it
HEADER_ROOM = 1024  # bytes from the start of a file that hold the header of any version 1.x
QUALITY_UNIT, TILE_UNIT = 100, 8
NO_MODEL = bytes(8)  # the pixels are in a box

ICC, EXIF, XMP, PREVIEW = b"iccp", b"exif", b"xmp ", b"prev"  # a decoder may do without
SCAN, TAGS, ERRORS = b"scan", b"tags", b"errs"
ALPHA, RANGE, PIXELS, HOST = b"ALPH", b"RANG", b"PIXL", b"HOST"  # a decoder must know what begins with a capital letter
CRITICAL = frozenset((ALPHA, RANGE, PIXELS, HOST))
SINCE_1_1 = frozenset((HOST,))
HOST_MOST = 128  # bytes


@dataclass(frozen=True)
class Limits:
    """Caps on what a file may ask for: pixels of the image, and of one of its sides."""

    max_pixels: int = 100_000_000
    max_side: int = 65_535

    def allow(self, width: int, height: int) -> bool:
        return width * height <= self.max_pixels and max(width, height) <= self.max_side

    def refusal(self, width: int, height: int) -> str:
        return f"{width} x {height} pixels is above the limits ({self.max_pixels:,} pixels, {self.max_side:,} a side)"


NO_LIMITS = Limits(max_pixels=1 << 64, max_side=1 << 32)  # where nothing is decoded, or someone else limits it


@dataclass(frozen=True)
class Header:
    """`width`, `height` and tile sides in pixels; `channels` of colour, 1 or 3; `quality` 0..100.

    `source_format` and `source_mode` are places in images.sources.FORMATS_KNOWN and MODES_KNOWN.
    """

    model_hash: bytes
    width: int
    height: int
    channels: int
    bit_depth: int
    quality: float
    tile_width: int
    tile_height: int
    source_format: int = 0
    source_mode: int = 0
    boxes_length: int = 0
    length: int = HEADER_BYTES
    version: tuple[int, int] = VERSION

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def lossless(self) -> bool:
        """Whether the pixels are in a box, coded without any model."""
        return self.model_hash == NO_MODEL

    @property
    def grid(self) -> TileGrid:
        return TileGrid(self.width, self.height, self.tile_width, self.tile_height)

    @property
    def tiles(self) -> int:
        return 0 if self.lossless else len(self.grid)

    @property
    def boxes_start(self) -> int:
        return self.length + self.tiles * TILE.size + CHECKSUM.size

    @property
    def payload_start(self) -> int:
        """Everything but the payloads of the tiles stands before this offset."""
        return self.boxes_start + self.boxes_length


@dataclass(frozen=True)
class TileEntry:
    length: int
    payload_crc: int
    symbols_crc: int


@dataclass(frozen=True)
class Front:
    """A file without its payloads. `damage` tells in words what was left out, where that was asked for."""

    header: Header
    entries: tuple[TileEntry, ...]
    boxes: Mapping[bytes, bytes]
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """A whole file; a payload is None where it is damaged and that was allowed."""

    front: Front
    payloads: tuple[bytes | None, ...]

    @property
    def header(self) -> Header:
        return self.front.header


def round_quality(quality: float) -> float:
    """The nearest quality that a header can hold."""
    return round(quality * QUALITY_UNIT) / QUALITY_UNIT


def overhead(boxes: Mapping[bytes, bytes], tiles: int) -> int:
    """Bytes of a file beside the payloads of its tiles."""
    return HEADER_BYTES + tiles * TILE.size + CHECKSUM.size + sum(BOX.size + len(data) for data in boxes.values())


def pack(header: Header, boxes: Mapping[bytes, bytes], tiles: Sequence[tuple[bytes, int]]) -> bytes:
    """tiles: (payload, CRC-32 of the symbols) of each, row by row. The header's lengths are filled in here."""
    box_area = b"".join(BOX.pack(kind, len(data), zlib.crc32(kind + data)) + data for kind, data in boxes.items())
    fields = FIELDS.pack(
        header.model_hash,
        header.width,
        header.height,
        header.channels,
        header.bit_depth,
        round(header.quality * QUALITY_UNIT),
        header.tile_width // TILE_UNIT,
        header.tile_height // TILE_UNIT,
        header.source_format,
        header.source_mode,
        len(box_area),
    )
    head = PREFIX.pack(MAGIC, *(NEWEST if boxes.keys() & SINCE_1_1 else VERSION), len(fields)) + fields
    table = b"".join(TILE.pack(len(payload), zlib.crc32(payload), symbols_crc) for payload, symbols_crc in tiles)
    return b"".join(
        (
            *(part + CHECKSUM.pack(zlib.crc32(part)) for part in (head, table)),
            box_area,
            *(payload for payload, _ in tiles),
        )
    )


def read_header(data: bytes, limits: Limits = Limits()) -> tuple[Header, int]:
    """The header, and the offset at which it ends; what follows need not be there yet.

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
    if major != VERSION[0]:
        raise UnsupportedVersion(f"the file is of format {major}.{minor}; this vaetools reads {VERSION[0]}.x")
    end = PREFIX.size + length
    # Later minor versions may add fields at the end.
    if length < FIELDS.size or end + CHECKSUM.size > HEADER_ROOM or (minor == VERSION[1] and length != FIELDS.size):
        raise Corrupt(f"a header with {length} bytes of fields where format {major}.{minor} has {FIELDS.size}")
    if len(data) < end + CHECKSUM.size:
        raise Truncated(f"the file ends after {len(data)} bytes, inside the header")
    if CHECKSUM.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise Corrupt("the checksum of the header does not match")
    model, width, height, channels, depth, quality, tile_width, tile_height, source, mode, boxes = FIELDS.unpack_from(
        data, PREFIX.size
    )
    header = Header(
        model,
        width,
        height,
        channels,
        depth,
        quality / QUALITY_UNIT,
        tile_width * TILE_UNIT,
        tile_height * TILE_UNIT,
        source,
        mode,
        boxes,
        end + CHECKSUM.size,
        (major, minor),
    )
    if not width or not height or channels not in (1, 3) or depth not in (8, 16) or quality > 100 * QUALITY_UNIT:
        raise Corrupt(
            f"impossible header: {width} x {height} pixels, {channels} channels, {depth} bits, quality {header.quality}"
        )
    if not limits.allow(width, height):
        raise LimitExceeded(limits.refusal(width, height))
    if not header.lossless and not 0 < header.tile_width * header.tile_height <= MAX_TILE_PIXELS:
        raise Corrupt(f"impossible header: tiles of {header.tile_width} x {header.tile_height} pixels")
    if header.tiles > MAX_TILES:
        raise Corrupt(f"impossible header: {header.tiles:,} tiles")
    return header, header.length


def read_front(data: bytes, limits: Limits = Limits(), *, allow_partial: bool = False) -> Front:
    """Everything before the payloads, which need not be there; `header.payload_start` tells how much that is.

    Raises FormatError as `read_header` does, and for boxes: Truncated, Corrupt, or UnsupportedVersion for one that this
    version must know and does not. With `allow_partial`, a damaged box is left out.
    """
    header, position = read_header(data, limits)
    end = header.boxes_start
    if len(data) < end:
        raise Truncated(f"the file ends after {len(data)} bytes, inside the table of its {header.tiles} tiles")
    table = data[position : end - CHECKSUM.size]
    if CHECKSUM.unpack_from(data, end - CHECKSUM.size)[0] != zlib.crc32(table):
        raise Corrupt("the checksum of the table of tiles does not match")
    entries = tuple(TileEntry(*values) for values in TILE.iter_unpack(table))
    boxes: dict[bytes, bytes] = {}
    damage: list[str] = []
    position, end = end, header.payload_start
    while position < end:
        try:
            kind, content, position = _read_box(data, position, end)
            if kind in boxes:
                raise Corrupt(f"two boxes {_name(kind)}")
            boxes[kind] = content
        except _DamagedBox as error:
            if not allow_partial:
                raise Corrupt(str(error)) from None
            damage.append(str(error))
            position = error.next_position
        except (Corrupt, Truncated) as error:
            if not allow_partial:
                raise
            damage.append(str(error))
            break
    misplaced = boxes.keys() & ({ALPHA, RANGE, HOST} if header.lossless else {PIXELS})
    if misplaced:
        raise Corrupt(f"a box {_name(min(misplaced))} in a file {'without' if header.lossless else 'with'} a model")
    return Front(header, entries, boxes, tuple(damage))


class _DamagedBox(Corrupt):
    """A box of which only the content is wrong: the next one can be found."""

    next_position = 0


def _read_box(data: bytes, position: int, end: int) -> tuple[bytes, bytes, int]:
    """Type, content, and where the next box is."""
    if end - position < BOX.size:
        raise Corrupt("the boxes end inside one of them")
    if len(data) < position + BOX.size:
        raise Truncated(f"the file ends after {len(data)} bytes, inside its boxes")
    kind, length, checksum = BOX.unpack_from(data, position)
    start, stop = position + BOX.size, position + BOX.size + length
    if stop > end:
        raise Corrupt(f"the box {_name(kind)} is longer than what its file has for boxes")
    if len(data) < stop:
        raise Truncated(f"the file ends after {len(data)} bytes, inside the box {_name(kind)}")
    content = bytes(data[start:stop])
    if zlib.crc32(kind + content) != checksum:
        error = _DamagedBox(f"the checksum of the box {_name(kind)} does not match")
        error.next_position = stop
        raise error
    if kind[:1].isupper() and kind not in CRITICAL:
        raise UnsupportedVersion(f"the file has a box {_name(kind)}, which a newer vaetools reads")
    return kind, content, stop


def _name(kind: bytes) -> str:
    return kind.decode("latin-1").strip().encode("unicode_escape").decode()


def unpack(data: bytes, limits: Limits = Limits(), *, allow_partial: bool = False) -> Contents:
    """A file, every checksum of it checked. Raises FormatError of some kind.

    With `allow_partial`, damaged or missing payloads and boxes are left out; without a good header and table of tiles,
    nothing can be.
    """
    front = read_front(data, limits, allow_partial=allow_partial)
    payloads: list[bytes | None] = []
    damage = list(front.damage)
    position = front.header.payload_start
    for number, entry in enumerate(front.entries):
        payload = bytes(data[position : position + entry.length])
        position += entry.length
        try:
            if len(payload) < entry.length:
                raise Truncated(
                    f"{entry.length - len(payload):,} bytes of {_tile(front, number)} are missing at the end of the file"
                )
            if zlib.crc32(payload) != entry.payload_crc:
                raise Corrupt(f"the checksum of {_tile(front, number)} does not match")
            payloads.append(payload)
        except FormatError as error:
            if not allow_partial:
                raise
            damage.append(str(error))
            payloads.append(None)
    if len(data) > position:
        if not allow_partial:
            raise Corrupt(f"{len(data) - position:,} bytes follow the end of the image")
        damage.append(f"{len(data) - position:,} bytes follow the end of the image")
    return Contents(Front(front.header, front.entries, front.boxes, tuple(damage)), tuple(payloads))


def with_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """The same file with another content, of the same length, in one box that it has. Raises ValueError for another length."""
    contents = unpack(data, Limits(max_pixels=1 << 40))
    old = contents.front.boxes[kind]
    if len(old) != len(content):
        raise ValueError(f"a box of {len(old)} bytes is not filled by {len(content)}")
    crcs = [entry.symbols_crc for entry in contents.front.entries]
    payloads = [payload or b"" for payload in contents.payloads]
    return pack(contents.header, {**contents.front.boxes, kind: content}, list(zip(payloads, crcs, strict=True)))


def _tile(front: Front, number: int) -> str:
    return "the payload" if len(front.entries) == 1 else f"the payload of tile {number} (of {len(front.entries)})"


def host_in(boxes: Mapping[bytes, bytes]) -> str:
    """What the box HOST says, on one line; nothing without it. A file may hold anything there."""
    text = boxes.get(HOST, b"")[:HOST_MOST].decode("ascii", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def check_file(data: bytes, limits: Limits = Limits()) -> Header:
    """Check every checksum, without a model. Raises FormatError."""
    return unpack(data, limits).header
