"""Image files before their pixels are decoded: what kind they are, and how libraries get at them."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import BinaryIO

from PIL import Image

from ..errors import ImageError
from ..storage.blob import Blob, NamedBytes
from .folder import DICOM_SUFFIXES, NIFTI_SUFFIXES, has_suffix

MAX_PIXELS = 400_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "GIF")  # what Pillow decodes by itself, without a helper

Source = str | os.PathLike[str] | Blob | BinaryIO
Opened = str | os.PathLike[str] | BinaryIO  # where libraries read from

_raising_the_limit = threading.RLock()


@contextmanager
def named(name: str) -> Iterator[None]:
    """Whatever Pillow raises meanwhile becomes an ImageError, and every ImageError says of which file it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except Exception as error:  # Pillow's decoders raise whatever they please on broken files
        reason = "not an image Pillow can read" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ImageError(f"{name}: cannot be read ({reason or type(error).__name__})") from None


def name_of(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, Blob):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the image"


@contextmanager
def here(source: Source, *, head: bool = False) -> Iterator[Opened]:
    """Where libraries can read it: for DICOM and NIfTI, that is known by a path's name. head: no more than its head is needed."""
    if not isinstance(source, Blob):
        yield source
    elif scan_module(source):
        with source.on_disk() as path:
            yield path
    else:
        with source.open() if head else NamedBytes(source.read_bytes(), str(source)) as file:
            yield file


@contextmanager
def opening(source: Opened, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image before its pixels are decoded."""
    with ExitStack() as stack:
        try:
            image = Image.open(source, formats=FORMATS)
        except Image.DecompressionBombError:
            stack.enter_context(_pillows_limit(max_pixels))
            try:
                image = Image.open(source, formats=FORMATS)
            except Image.DecompressionBombError:
                raise ImageError(f"it has more than the limit of {max_pixels:,} pixels") from None
        with image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"{image.width} x {image.height} pixels is above the limit of {max_pixels:,}")
            yield image


@contextmanager
def _pillows_limit(max_pixels: int) -> Iterator[None]:
    """Pillow refuses images above 179 million pixels, by a limit for the whole process: raised for one image at a time."""
    with _raising_the_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def count_frames(image: Image.Image) -> int:
    # Phones write JPEGs with a depth or brightness map as a second picture; the first is the photograph.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def raw_mode_of(image: Image.Image) -> str:
    """How the file lays out its pixels, in Pillow's words, before they are decoded; "" afterwards."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def stored_mode_of(image: Image.Image) -> str:
    """The mode with the depth that the file has: Pillow cuts 16-bit colours to 8 without a word."""
    mode = image.mode
    if mode.startswith("I;16"):
        return "I;16"
    raw = raw_mode_of(image)
    if mode in ("RGB", "RGBA", "CMYK") and (";16" in raw or (raw and 16 in getattr(image, "tag_v2", {}).get(258, ()))):
        return "LA;16" if raw.startswith("LA") else f"{mode};16"
    if image.format == "PPM" and mode == "I":
        return "I;16"
    if image.format == "PPM" and image.tile:  # type: ignore[attr-defined]
        decoder, _, _, arguments = image.tile[0]  # type: ignore[attr-defined]
        if decoder in ("ppm", "ppm_plain") and arguments[-1] > 255:  # (mode, largest value)
            return f"{mode};16"
    return mode


def scan_module(source: Source) -> ModuleType | None:
    """What reads a DICOM or NIfTI file, known by its name; None for other images."""
    name = name_of(source) if isinstance(source, str | os.PathLike | Blob) else ""
    if has_suffix(name, DICOM_SUFFIXES):
        from ..medical import dicom

        return dicom
    if has_suffix(name, NIFTI_SUFFIXES):
        from ..medical import nifti

        return nifti
    return None


def opened_file(source: Opened, stack: ExitStack) -> BinaryIO:
    """The file at its start; closed by `stack` if it was opened here."""
    if isinstance(source, str | os.PathLike):
        return stack.enter_context(open(source, "rb"))
    source.seek(0)
    return source
