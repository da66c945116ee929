"""What a file holds beside the latents: metadata, alpha, the range of values, a preview, or all of the pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from ..errors import Corrupt, FormatError
from ..images.picture import Metadata, Picture
from ..images.png import pixels_from_png, png_bytes
from ..images.sources import FORMATS_KNOWN, MODES_KNOWN
from ..medical.windowing import scan_of, windowed
from .container import ALPHA, ERRORS, EXIF, ICC, PIXELS, PREVIEW, RANGE, SCAN, TAGS, XMP, Contents, Front, Header
from .fidelity import Fidelity
from .tiles import Rect

LEVELS = struct.Struct("<HH")
PREVIEW_SIDE, PREVIEW_QUALITY = 96, 50


def levels_of(picture: Picture) -> tuple[int, int]:
    """The values that the model sees as 0 and 1: for 16 bits those that occur, as many devices use 12 bits of 16."""
    if picture.bit_depth == 8:
        return 0, 255
    colour = picture.colour
    low, high = int(colour.min()), int(colour.max())
    return (low, high) if low < high else (min(low, 65534), min(low, 65534) + 1)


def is_measured(picture: Picture) -> bool:
    """Whether every level of it counts: 16 bits, or a DICOM or NIfTI file."""
    return picture.bit_depth == 16 or bool(picture.metadata.scan)


def boxes_of(picture: Picture, levels: tuple[int, int], *, preview: bool = False, errors: bool = False) -> dict[bytes, bytes]:
    """Metadata and preview first, so that they are at hand without the rest. errors: leave room for them."""
    metadata = picture.metadata
    boxes = {ICC: metadata.icc, EXIF: metadata.exif, XMP: metadata.xmp, SCAN: metadata.scan, TAGS: metadata.tags}
    if errors and is_measured(picture):
        boxes[ERRORS] = Fidelity.UNKNOWN
    if preview:
        boxes[PREVIEW] = preview_of(picture)
    if picture.bit_depth == 16:
        boxes[RANGE] = LEVELS.pack(*levels)
    if picture.alpha is not None:
        boxes[ALPHA] = png_bytes(picture.alpha)
    return {kind: data for kind, data in boxes.items() if data}


def preview_of(picture: Picture) -> bytes:
    """A small WebP of the pixels as stored, PREVIEW_SIDE pixels on its longer side."""
    step = max(1, max(picture.height, picture.width) // (4 * PREVIEW_SIDE))  # thin out large images before any arithmetic
    pixels = picture.pixels[::step, ::step]
    if picture.metadata.scan and scan_of(picture) is not None:
        pixels = windowed(replace(picture, pixels=pixels)).pixels
    elif picture.bit_depth == 16:
        low, high = levels_of(picture)
        scale = np.array([(low, high)] * picture.colour.shape[2] + [(0, 65535)] * picture.has_alpha, np.float32).T
        pixels = ((pixels - scale[0]) * (255 / (scale[1] - scale[0]))).round().astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0]))
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=PREVIEW_QUALITY, method=6)
    return out.getvalue()


def metadata_in(boxes: Mapping[bytes, bytes]) -> Metadata:
    return Metadata(*(boxes.get(kind, b"") for kind in (ICC, EXIF, XMP, SCAN, TAGS)))


def source_codes(picture: Picture) -> tuple[int, int]:
    """Format and mode as a header holds them; 0 for what it has no number for."""
    return tuple(  # type: ignore[return-value]
        known.index(name) if name in known else 0
        for known, name in ((FORMATS_KNOWN, picture.format), (MODES_KNOWN, picture.mode))
    )


def source_names(header: Header) -> tuple[str, str]:
    """Format and mode; "" for numbers of later versions."""
    codes = ((FORMATS_KNOWN, header.source_format), (MODES_KNOWN, header.source_mode))
    return tuple(known[code] if code < len(known) else "" for known, code in codes)  # type: ignore[return-value]


def levels_in(front: Front) -> tuple[int, int]:
    """Raises Corrupt on a range that no encoder writes, and where it may have been in a damaged box."""
    header, data = front.header, front.boxes.get(RANGE)
    if data is None:
        if front.damage and header.bit_depth == 16 and not header.lossless:
            raise Corrupt(f"its range of values is lost ({front.damage[0]})")
        return 0, 2**header.bit_depth - 1
    low, high = LEVELS.unpack(data) if len(data) == LEVELS.size else (1, 0)
    if low >= high or header.bit_depth != 16:
        raise Corrupt("impossible range of values")
    return low, high


def _png(data: bytes, header: Header, channels: int) -> np.ndarray:
    if data[28:29] == b"\1":
        raise ValueError("an interlaced PNG")  # it would take twice the memory
    return pixels_from_png(data, header.width, header.height, channels, header.bit_depth)


def alpha_in(header: Header, boxes: Mapping[bytes, bytes]) -> np.ndarray | None:
    """(H, W), or None if there is none. Raises Corrupt."""
    if ALPHA not in boxes:
        return None
    try:
        return _png(boxes[ALPHA], header, 1)
    except ValueError as error:
        raise Corrupt(f"the alpha plane cannot be decoded ({error})") from None


def alpha_region(contents: Contents, region: Rect, *, allow_partial: bool) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The region of the alpha plane, if there is one, and what was lost of it."""
    try:
        alpha = alpha_in(contents.header, contents.front.boxes)
    except FormatError as error:
        if not allow_partial:
            raise
        return None, (str(error),)
    return (None if alpha is None else alpha[region.slices]), ()


def pixels_in(front: Front) -> np.ndarray:
    """(H, W, C) of a file that was written without a model. Raises Corrupt."""
    header, data = front.header, front.boxes.get(PIXELS)
    if data is None:
        raise Corrupt(front.damage[0] if front.damage else "neither latents nor pixels are in the file")
    # Alpha is inside, if there is any: the colour type of the PNG tells, and it must fit the header.
    has_alpha = len(data) > 25 and data[25] in (4, 6)
    try:
        channels = header.channels + has_alpha
        return _png(data, header, channels).reshape(header.height, header.width, channels)
    except ValueError as error:
        raise Corrupt(f"the pixels cannot be decoded ({error})") from None
