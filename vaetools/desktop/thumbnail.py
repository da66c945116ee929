"""A small picture of a .vtc file, from what stands before its payloads: without a model, and without torch.

The bytes are nobody's word: the size of a preview is read and held against a limit before it is decoded, and whatever a decoder
raises is one error.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from PIL import Image

from ..codec.container import EXIF, HEADER_ROOM, ICC, NO_LIMITS, PIXELS, PREVIEW, Front, read_front, read_header
from ..errors import Corrupt, FormatError

if TYPE_CHECKING:
    from ..images.picture import Picture

MAX_PREVIEW_SIDE = 96  # FORMAT.md
MAX_LOSSLESS_PIXELS = 50_000_000  # of a PNG that is decoded for nothing but a small picture
ORIENTATION = 274
UPRIGHT = {  # EXIF 2.32, 4.6.4, and how Pillow undoes each
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def front_of(path: Path) -> Front:
    """All of a file but its payloads, which are not read. Raises OSError, FormatError."""
    with path.open("rb") as file:
        head = file.read(HEADER_ROOM)
        return read_front(head + _read(file, read_header(head, NO_LIMITS)[0].payload_start - len(head)), NO_LIMITS)


def _read(file: IO[bytes], length: int) -> bytes:
    """At most so many bytes: memory is taken for what is there, whatever a header claims."""
    parts = []
    while length > 0 and (part := file.read(min(length, 1 << 20))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def small_picture(front: Front, side: int, *, max_pixels: int = MAX_LOSSLESS_PIXELS) -> Image.Image | None:
    """RGB or RGBA, upright, its colours those of sRGB, at most `side` pixels a side, and never enlarged.

    From the preview, or from the pixels of a file that is without loss. None if the file has neither, or `max_pixels` are fewer
    than it has. Raises Corrupt.
    """
    boxes = front.boxes
    has_pixels = PIXELS in boxes and front.header.pixels <= max_pixels
    if PREVIEW in boxes and (side <= MAX_PREVIEW_SIDE or not has_pixels):
        return _finished(_preview(boxes[PREVIEW]), boxes, side)
    return small(_lossless(front), side) if has_pixels else None


def small(picture: Picture, side: int) -> Image.Image:
    """The same of an image in memory."""
    image = Image.fromarray(_eight_bits(picture, side))
    metadata = picture.metadata
    return _finished(image, {ICC: metadata.icc, EXIF: metadata.exif}, side)


def _finished(image: Image.Image, boxes: Mapping[bytes, bytes], side: int) -> Image.Image:
    """The profile and the orientation are those of the whole image."""
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((side, side))
    image = _in_srgb(image, boxes.get(ICC, b""))
    image.info.clear()  # what the preview itself says, which would go into a PNG of it
    turn = UPRIGHT.get(_orientation(boxes.get(EXIF, b"")))
    return image if turn is None else image.transpose(turn)


def _preview(data: bytes) -> Image.Image:
    """Raises Corrupt."""
    try:
        width, height = webp_size(data)
        if max(width, height) > MAX_PREVIEW_SIDE:
            raise Corrupt(f"the preview is of {width} x {height} pixels, and {MAX_PREVIEW_SIDE} a side is the limit")
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            image.load()
    except FormatError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they please on broken files
        raise Corrupt(f"the preview cannot be decoded ({error})") from None
    return image


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP image (RFC 9649, 2.5 to 2.7), before a decoder takes memory for so many pixels.

    Raises Corrupt.
    """
    kind = data[12:16]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        if kind == b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if kind == b"VP8L" and data[20] == 0x2F:
            (bits,) = struct.unpack_from("<I", data, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    raise Corrupt("the preview is no WebP image")


def _lossless(front: Front) -> Picture:
    """Raises Corrupt."""
    from ..codec.boxes import metadata_in, pixels_in
    from ..images.picture import Picture

    return Picture(pixels_in(front), metadata=metadata_in(front.boxes))


def _eight_bits(picture: Picture, side: int):  # type: ignore[no-untyped-def]  # numpy's types are not worth its import here
    """(H, W) or (H, W, 2 to 4) uint8, thinned out: a scan through its window, other deep pixels over the range that occurs."""
    from dataclasses import replace

    import numpy as np

    from ..codec.boxes import levels_of
    from ..medical.windowing import scan_of, windowed

    step = max(1, max(picture.height, picture.width) // (4 * side))
    picture = replace(picture, pixels=picture.pixels[::step, ::step])
    if scan_of(picture) is not None:
        picture = windowed(picture)
    pixels = picture.pixels
    if picture.bit_depth == 16:
        low, high = levels_of(picture)
        levels = np.array([(low, high)] * picture.colour.shape[2] + [(0, 65535)] * picture.has_alpha, np.float32).T
        pixels = ((pixels - levels[0]) * (255 / (levels[1] - levels[0]))).round().astype(np.uint8)
    return np.ascontiguousarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])


def _in_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """As it is where the profile is of no use."""
    if not icc:
        return image
    from PIL import ImageCms

    try:
        profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image.convert("RGB"), profile, srgb)
    except Exception:  # of a gray image, for one; and bytes that are no profile
        return image
    if converted is None:
        return image
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _orientation(exif: bytes) -> int:
    """1 to 8; 1 where nothing is said."""
    found = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):
            found.load(exif)
            value = found.get(ORIENTATION)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1
