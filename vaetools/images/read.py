"""From a file to an array of pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import ImageError

MAX_PIXELS = 400_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "GIF")  # what Pillow decodes by itself, without a helper
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
EIGHT_BIT_MODES = frozenset(("1", "L", "P", "RGB"))


@dataclass(frozen=True)
class _Opened:
    """A decoded image, upright, and what of its file the pixels no longer tell."""

    image: Image.Image
    frames: int
    bit_depth: int


def _open(path: str | os.PathLike[str]) -> _Opened:
    """Decoded, with the orientation that the file asks for applied to the pixels."""
    with _opening(path) as image:
        bit_depth = _stored_bit_depth(image)
        # Phones write JPEGs with a depth or brightness map as a second picture; the first is the photograph.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        return _Opened(ImageOps.exif_transpose(image), frames, bit_depth)


@contextmanager
def _opening(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image before its pixels are decoded; whatever Pillow raises meanwhile becomes an ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"{path}: {image.width} x {image.height} pixels is above the limit of {MAX_PIXELS:,}")
                yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Exception as error:  # Pillow's decoders raise whatever they please on broken files
        reason = "not an image Pillow can read" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ImageError(f"{path}: cannot be read ({reason})") from None


def _stored_bit_depth(image: Image.Image) -> int:
    """16 if the file holds more bits than an 8-bit mode: Pillow cuts 16-bit colours to 8 without a word."""
    for decoder, _, _, arguments in getattr(image, "tile", []):
        if image.format in ("PNG", "TIFF") and ";16" in str(arguments):  # the raw mode
            return 16
        if decoder in ("ppm", "ppm_plain") and isinstance(arguments, tuple) and arguments[-1] > 255:  # (mode, largest value)
            return 16
    return 8


def read_for_training(path: str | os.PathLike[str], channels: int = 3, bit_depth: int = 8) -> np.ndarray:
    """(H, W, C) uint8 or uint16, whatever it takes: alpha is dropped, colours and depths are converted.

    Raises ImageError if the file cannot be decoded.
    """
    image = _open(path).image
    if bit_depth == 16:
        return _as_gray16(image)[:, :, None].repeat(channels, 2)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray((_as_gray16(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # or Pillow warns that it drops it
    return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)


def _as_gray16(image: Image.Image) -> np.ndarray:
    """(H, W) uint16; 8-bit values are stretched so that 255 becomes 65535."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image).clip(0, 65535).astype(np.uint16)
    image.info.pop("transparency", None)
    return np.asarray(image.convert("L")).astype(np.uint16) * 257


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) as the image is seen, from its header alone. Raises ImageError."""
    with _opening(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNS
        return (width, height) if turned else (height, width)


def read_exact(path: str | os.PathLike[str], bit_depth: int = 8) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, or (H, W) uint16: the pixels as they are seen, for images that a model of that depth holds.

    Raises ImageError for what would be lost: transparency, other depths, CMYK, animation or several pages.
    """
    opened = _open(path)
    image = opened.image
    if opened.frames > 1:
        raise ImageError(f"{path}: it has {opened.frames} frames or pages; extract the one to keep")
    if bit_depth == 16:
        if not image.mode.startswith("I;16"):
            raise ImageError(f"{path}: a 16-bit model takes 16-bit gray images; this one is of mode {image.mode}")
        return np.asarray(image).astype(np.uint16)
    if image.mode not in EIGHT_BIT_MODES or image.has_transparency_data:
        lost = "its alpha channel or transparent colour" if image.has_transparency_data else "part of its values"
        raise ImageError(f"{path}: of mode {image.mode}, {lost} would be lost; convert it to 8-bit gray or RGB first")
    if opened.bit_depth > 8:
        raise ImageError(
            f"{path}: images with {opened.bit_depth} bits per channel are not supported; convert it to 8-bit RGB first"
        )
    if image.mode == "1":
        image = image.convert("L")
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
