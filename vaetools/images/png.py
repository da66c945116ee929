"""PNG files of 8 or 16 bits per channel: written with every kind of pixel, read without trusting a byte (PNG, 3rd edition)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from .picture import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of a number of channels
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, of a colour type
XMP_KEYWORD = b"XML:com.adobe.xmp"
LEVEL = 4
BLOCK, BAND = 1 << 20, 1 << 23  # bytes of rows handled at a time; the latter when they are decoded
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, steps


# Writing.


def png_bytes(pixels: np.ndarray) -> bytes:
    """(H, W) or (H, W, 1 to 4) uint8 or uint16 pixels as a PNG file of that very kind; see pixels_from_png for the way back."""
    buffer = io.BytesIO()
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype == np.uint16:
        write_deep_png(buffer, pixels, Metadata())
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
        image.save(buffer, format="png", compress_level=LEVEL)
    return buffer.getvalue()


def write_deep_png(file: BinaryIO, pixels: np.ndarray, metadata: Metadata) -> None:
    """(H, W, 1 to 4) uint16 pixels, which Pillow can only write as gray."""
    height, width, channels = pixels.shape
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0))
    if metadata.icc:
        _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if metadata.xmp:
        _chunk(file, b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp)
    if metadata.exif:
        _chunk(file, b"eXIf", metadata.exif)
    deflate = zlib.compressobj(LEVEL)
    above = np.zeros((width * channels * 2), np.uint8)
    rows = max(1, BLOCK // above.size)
    for top in range(0, height, rows):
        band = pixels[top : top + rows]
        raw = band.astype(">u2").reshape(len(band), -1).view(np.uint8)
        compressed = deflate.compress(_filtered(raw, above, channels * 2).tobytes())
        if compressed:
            _chunk(file, b"IDAT", compressed)
        above = raw[-1]
    _chunk(file, b"IDAT", deflate.flush())
    _chunk(file, b"IEND", b"")


def _filtered(raw: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """(rows, 1 + bytes) uint8: each row under the one of the five filters whose residuals are smallest (section 12.8)."""
    rows, width = raw.shape
    up = np.concatenate([above[None], raw[:-1]])
    left, corner = (np.concatenate([np.zeros((rows, step), np.uint8), near[:, :-step]], axis=1) for near in (raw, up))
    a, b, c = (near.astype(np.int16) for near in (left, up, corner))
    p = a + b - c
    far_a, far_b, far_c = abs(p - a), abs(p - b), abs(p - c)
    paeth = np.where((far_a <= far_b) & (far_a <= far_c), left, np.where(far_b <= far_c, up, corner))
    candidates = (raw, raw - left, raw - up, raw - ((a + b) >> 1).astype(np.uint8), raw - paeth)
    costs = np.stack([np.abs(candidate.view(np.int8).astype(np.int16)).sum(axis=1) for candidate in candidates])
    best = costs.argmin(axis=0)
    out = np.empty((rows, 1 + width), np.uint8)
    out[:, 0] = best
    for number, candidate in enumerate(candidates):
        out[best == number, 1:] = candidate[best == number]
    return out


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


# Reading.


def pixels_from_png(data: bytes, width: int, height: int, channels: int, bit_depth: int) -> np.ndarray:
    """(H, W) if `channels` is 1, else (H, W, channels), uint8 or uint16 by `bit_depth`: the pixels of a PNG file in memory.

    For data that nobody vouches for. Size, colour type and depth must be the ones given, checksums must be right and the
    compressed rows must be exactly as many bytes as these pixels take, all of which is seen before memory for the pixels is
    asked for. Chunks other than the header and the pixels are dropped unread. Raises ValueError for everything else.
    """
    if bit_depth not in (8, 16) or channels not in COLOUR_TYPES:
        raise ValueError(f"no PNG has {channels} channels of {bit_depth} bits")
    try:
        header, kept = _pixels_only(data)
        wanted = _Header(width, height, bit_depth, COLOUR_TYPES[channels], header.interlaced)
        if header != wanted:
            raise ValueError(f"a PNG of {header} where {wanted} are expected")
        if not _has_just_its_rows(header, kept):
            raise ValueError("there is more data than rows of pixels")
        if header.interlaced:
            pixels = _decoded(header, kept[1][16:21], b"".join(piece[8:-4] for piece in kept[2:-1]))
        else:
            pixels = _decoded_in_bands(header, kept)
    except (zlib.error, struct.error, cv2.error, OverflowError, MemoryError) as error:
        raise ValueError(f"not a PNG that can be decoded ({error})") from None
    return pixels[:, :, 0] if channels == 1 else pixels


def _decoded_in_bands(header: _Header, kept: list[bytes]) -> np.ndarray:
    """(H, W, channels) of a PNG whose rows are known to be there, without the second copy of the pixels that OpenCV takes.

    A row may be stored as its difference to the one above: each band begins with the last row of the band before.
    """
    pixels = np.empty((header.height, header.width, SAMPLES[header.colour_type]), header.kind)
    ((_, stride),) = header.passes()
    top, above = 0, b""
    for rows in _inflated(kept, max(1, BAND // stride) * stride):
        count, extra = len(rows) // stride, bool(above)
        band = _decoded(replace(header, height=count + extra), kept[1][16:21], zlib.compress(above + rows, 0))
        pixels[top : top + count] = band[extra:]
        top += count
        above = b"\0" + pixels[top - 1].astype(header.kind.newbyteorder(">")).tobytes()
    return pixels


def _inflated(kept: list[bytes], size: int) -> Iterator[bytes]:
    """The rows of a file that has just its rows, `size` bytes at a time."""
    inflate, band = zlib.decompressobj(), bytearray()
    for piece in kept[2:-1]:
        data = piece[8:-4]
        while data:
            band += inflate.decompress(data, size - len(band))
            data = inflate.unconsumed_tail
            if len(band) == size:
                yield bytes(band)
                band.clear()
    if band:
        yield bytes(band)


def _decoded(header: _Header, kind: bytes, compressed: bytes) -> np.ndarray:
    """(H, W, channels). kind: the five bytes of the IHDR chunk behind width and height."""
    file = io.BytesIO()
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">II", header.width, header.height) + kind)
    for start in range(0, len(compressed), BLOCK):  # OpenCV complains about chunks of more than 8 MB
        _chunk(file, b"IDAT", compressed[start : start + BLOCK])
    _chunk(file, b"IEND", b"")
    pixels = cv2.imdecode(np.frombuffer(file.getbuffer(), np.uint8), cv2.IMREAD_UNCHANGED)
    channels = SAMPLES[header.colour_type]
    decoded = {1: 1, 3: 3}.get(channels, 4)  # gray with alpha comes back as colours with alpha
    if pixels is None or pixels.dtype != header.kind:
        raise ValueError("not a PNG that can be decoded")
    if pixels.shape != (header.height, header.width, decoded)[: 2 if decoded == 1 else 3]:
        raise ValueError("the PNG decoder gave pixels of another shape")
    if channels == 2:
        return np.ascontiguousarray(pixels[:, :, (0, 3)])
    return pixels[:, :, None] if channels == 1 else swap_red_and_blue(pixels)


def check_png(data: bytes) -> None:
    """Raises ValueError if rows of pixels are missing or damaged: Pillow passes missing ones off as black."""
    try:
        _has_just_its_rows(*_pixels_only(data))
    except (zlib.error, struct.error) as error:
        raise ValueError(str(error)) from None


def swap_red_and_blue(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3 or 4) with channels 0 and 2 exchanged in place: OpenCV puts blue first."""
    for top in range(0, len(pixels), 256):
        band = pixels[top : top + 256]
        band[:, :, 0], band[:, :, 2] = band[:, :, 2].copy(), band[:, :, 0].copy()
    return pixels


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    bit_depth: int
    colour_type: int
    interlaced: bool

    @property
    def kind(self) -> np.dtype[np.uint8 | np.uint16]:
        return np.dtype(np.uint16 if self.bit_depth == 16 else np.uint8)

    def __str__(self) -> str:
        return f"{self.width} x {self.height} pixels of colour type {self.colour_type} and {self.bit_depth} bits"

    def passes(self) -> Iterator[tuple[int, int]]:
        """(rows, bytes of a row with its filter) of the one image, or of the seven that Adam7 makes of it."""
        for x, y, step_x, step_y in ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            rows, columns = -(-(self.height - y) // step_y), -(-(self.width - x) // step_x)
            if rows > 0 and columns > 0:
                yield rows, 1 + -(-columns * SAMPLES[self.colour_type] * self.bit_depth // 8)


def _pixels_only(data: bytes) -> tuple[_Header, list[bytes]]:
    """The header, and the pieces of a file that has nothing but that and the pixels: signature, IHDR, IDAT ..., IEND."""
    chunks = _chunks(data)
    kind, chunk = next(chunks, (b"", memoryview(b"")))
    if kind != b"IHDR" or len(chunk) != 25:
        raise ValueError("not a PNG")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunk[8:21])
    if not width or not height or colour_type not in SAMPLES or compression or filtering or interlace > 1:
        raise ValueError("an unknown kind of PNG")
    kept = [SIGNATURE, bytes(chunk)]
    for kind, chunk in chunks:
        if kind in (b"IDAT", b"IEND"):
            kept.append(bytes(chunk))
        elif _is_critical(kind) and kind != b"PLTE":
            raise ValueError(f"an unexpected chunk {kind!r}")
        if kind == b"IEND":
            return _Header(width, height, depth, colour_type, interlace == 1), kept
    raise ValueError("it ends too early")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Each chunk's name, and the chunk with its length and its checksum, which is right if the chunk matters."""
    view = memoryview(data)
    if view[:8] != SIGNATURE:
        raise ValueError("not a PNG")
    offset = 8
    while offset + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, offset)
        end = offset + 12 + length
        if end > len(view):
            raise ValueError("it ends too early")
        kind = bytes(view[offset + 4 : offset + 8])
        if _is_critical(kind) and zlib.crc32(view[offset + 4 : end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
            raise ValueError("a checksum is wrong")
        yield kind, view[offset:end]
        offset = end


def _is_critical(kind: bytes) -> bool:
    """Whether the chunk must be understood (section 5.4)."""
    return kind[:1].isupper()


def _has_just_its_rows(header: _Header, kept: list[bytes]) -> bool:
    """Whether the compressed data ends with the last row. Takes little memory, whatever the data claims.

    Raises ValueError, or zlib.error, if rows are missing, have a filter that does not exist, or a wrong checksum.
    """
    inflate = zlib.decompressobj()
    pieces = (piece[8:-4] for piece in kept[2:-1])
    for rows, stride in header.passes():
        left, position = rows * stride, 0
        while left:
            piece = inflate.unconsumed_tail or next(pieces, None)
            out = inflate.decompress(piece or b"", min(left, BLOCK))
            if (inflate.eof and len(out) < left) or (piece is None and not out):
                raise ValueError("rows of pixels are missing")
            if max(out[-position % stride :: stride], default=0) > 4:
                raise ValueError("an unknown filter")
            position += len(out)
            left -= len(out)
    for piece in (inflate.unconsumed_tail, *pieces):
        if inflate.eof and piece:
            return False
        if not inflate.eof and inflate.decompress(piece, 1):
            return False
    if not inflate.eof:
        raise ValueError("the rows of pixels do not end as they should")
    return not inflate.unused_data
