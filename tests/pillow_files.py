"""Images and files that the tests of the Pillow plug-in share."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import skimage.data
from PIL import ExifTags, Image, ImageCms

from vaetools.codec.container import Header, pack

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def photograph(mode: str = "RGB", width: int = 96, height: int = 64) -> Image.Image:
    image = Image.fromarray(skimage.data.astronaut()[60 : 60 + height, 180 : 180 + width])
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 200 + 100)
    if mode == "I":
        return Image.fromarray(np.asarray(image.convert("L"), np.int32) * 200)
    if mode in ("P", "PA"):
        return image.quantize(64, dither=Image.Dither.NONE).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def saved(image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or photograph()).save(buffer, format="VTC", **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def header_only(**fields: object) -> bytes:
    """A file that claims to be of some size, without a pixel in it."""
    return pack(replace(Header(bytes(8), 64, 64, 3, 8, 50.0, 0, 0), **fields), {}, [])  # type: ignore[arg-type]


def run(program: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
