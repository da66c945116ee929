"""Small .vtc files whose pictures are known, without a model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from vaetools.codec.container import PIXELS, PREVIEW, Header, pack
from vaetools.images.png import png_bytes

NO_MODEL, SOME_MODEL = bytes(8), b"hashhash"
RED, BLUE = (230, 20, 20), (20, 20, 230)


def two_colours(width: int = 80, height: int = 48) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return image


def webp(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **{"lossless": True, **options})
    return buffer.getvalue()


def with_preview(preview: bytes, boxes: dict[bytes, bytes] | None = None) -> bytes:
    """A file of some model that nobody has. Only its payload makes no sense."""
    header = Header(SOME_MODEL, 640, 384, 3, 8, 62.5, 640, 384, 1, 7)
    return pack(header, {**(boxes or {}), PREVIEW: preview}, [(b"payload.", 0)])


def without_preview() -> bytes:
    return pack(Header(SOME_MODEL, 640, 384, 3, 8, 62.5, 640, 384, 1, 7), {}, [(b"payload.", 0)])


def lossless(pixels: np.ndarray, boxes: dict[bytes, bytes] | None = None) -> bytes:
    """(H, W, C) uint8 or uint16 as a file without a model."""
    height, width, channels = pixels.shape
    header = Header(NO_MODEL, width, height, 1 if channels < 3 else 3, 8 * pixels.itemsize, 50.0, 0, 0)
    return pack(header, {**(boxes or {}), PIXELS: png_bytes(pixels)}, [])


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
