"""Colours of 16 bits per channel, which Pillow would cut to 8: PNG by OpenCV, TIFF by tifffile or OpenCV, PPM by NumPy.

Gray of 16 bits is Pillow's mode I;16 and needs none of this, but for the few kinds of TIFF that Pillow cannot open.
"""

from __future__ import annotations

from typing import BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import Image

from ..errors import ImageError
from .exif import ORIENTATION, read_directory, turned
from .modes import NOTES, bands
from .png import COLOUR_TYPES, pixels_from_png, swap_red_and_blue

# Compressions that tifffile decodes with what Python brings along; for the others it needs a package of its own.
OWN_COMPRESSIONS = frozenset((1, 8, 32946, 32773, 34925))
SAVE_OTHERWISE = "save it as an uncompressed or deflated TIFF with interleaved channels, or as PNG, first"
TIFF_MODES = {1: "I;16", 2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}
WIDTH, HEIGHT = 256, 257  # tags
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
SEPARATE = 2  # planar configuration: one plane after the other
MULTIPLIED, STRAIGHT = 1, 2  # kinds of alpha


def read_deep_png(data: bytes, width: int, height: int) -> np.ndarray:
    """(H, W, C) uint16 of a PNG file of 16 bits per channel, without what a transparent colour would add.

    Raises ImageError if a byte of it is damaged.
    """
    channels = {kind: number for number, kind in COLOUR_TYPES.items()}.get(data[25], 3)
    try:
        return pixels_from_png(data, width, height, channels, 16).reshape(height, width, channels)
    except ValueError as error:
        raise ImageError(f"cannot be read ({error})") from None


def add_transparent_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(H, W, 4) of (H, W, 3): transparent where the pixel is of that colour."""
    out = np.empty((*pixels.shape[:2], 4), pixels.dtype)
    out[:, :, :3] = pixels
    for top, bottom in bands(*pixels.shape[:2]):
        out[top:bottom, :, 3] = (pixels[top:bottom] != colour).any(axis=2) * np.uint16(0xFFFF)
    return out


def read_deep_ppm(file: BinaryIO, image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint16 of a binary PPM file whose largest value is above 255, scaled so that it becomes 65535."""
    decoder, _, offset, arguments = image.tile[0]  # type: ignore[attr-defined]
    if decoder != "ppm":
        raise ImageError("a PPM file of 16 bits written in decimal digits is not supported; save it as binary PPM first")
    largest = arguments[-1]
    pixels = np.empty((image.height, image.width, 3), np.uint16)
    file.seek(offset)
    for top, bottom in bands(image.height, image.width):
        data = file.read((bottom - top) * image.width * 6)
        if len(data) < (bottom - top) * image.width * 6:
            raise ImageError("cannot be read (image file is truncated)")
        values = np.frombuffer(data, ">u2").reshape(bottom - top, image.width, 3)
        if largest < 0xFFFF:
            values = np.minimum((values.astype(np.uint32) * 0xFFFF + largest // 2) // largest, 0xFFFF)
        pixels[top:bottom] = values
    return pixels


def size_of_tiff(file: BinaryIO) -> tuple[int, int]:
    """(height, width) of the pixels that read_deep_tiff gives with the orientation of the file."""
    directory = read_directory(file, {WIDTH, HEIGHT, ORIENTATION})
    height, width = directory.number(HEIGHT) or 0, directory.number(WIDTH) or 0
    return (width, height) if (directory.number(ORIENTATION) or 1) in (5, 6, 7, 8) else (height, width)


def read_deep_tiff(file: BinaryIO, orientation: int, max_pixels: int, notes: list[str]) -> tuple[np.ndarray, str]:
    """(H, W, C) uint16 of a TIFF file of 16 bits per channel, turned upright as the orientation says, and its mode.

    Raises ImageError for broken files, and for kinds of TIFF that no decoder at hand reads right.
    """
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            if len(tiff.pages) > 1:
                raise ImageError(f"it has {len(tiff.pages)} frames or pages; extract the one to keep")
            page = tiff.pages[0].aspage()
            if page.imagewidth * page.imagelength > max_pixels:
                raise ImageError(f"{page.imagewidth} x {page.imagelength} pixels is above the limit of {max_pixels:,}")
            channels, alpha = _kind(page)
            _check_segments(page, file)
            pixels = _samples(file, page)
    except tifffile.TiffFileError as error:
        raise ImageError(f"cannot be read ({error})") from None
    if pixels.shape[2] > channels:
        notes.append("its channels without a meaning are not kept")
    pixels = np.ascontiguousarray(turned(pixels[:, :, :channels], orientation))
    if page.photometric == WHITE_IS_ZERO:
        np.subtract(0xFFFF, pixels[:, :, :1], out=pixels[:, :, :1])
    if alpha == MULTIPLIED:
        _divide_by_alpha(pixels)
        notes.append(NOTES["RGBa"])
    return pixels, TIFF_MODES[channels]


def _samples(file: BinaryIO, page: tifffile.TiffPage) -> np.ndarray:
    """(H, W, samples) uint16, as they are stored."""
    if page.compression in OWN_COMPRESSIONS:
        pixels = page.asarray(maxworkers=1)
        if page.planarconfig == SEPARATE and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
    else:
        pixels = _by_opencv(file, page)
    shape = page.imagelength, page.imagewidth, page.samplesperpixel
    if pixels.dtype != np.uint16 or pixels.size != np.prod(shape):
        raise ImageError(f"cannot be read (its pixels are not all there); {SAVE_OTHERWISE}")
    return pixels.reshape(shape)


def _kind(page: tifffile.TiffPage) -> tuple[int, int]:
    """How many channels make up the picture, and the kind of its alpha; 0 if there is none."""
    unsigned = page.sampleformat == 1
    if page.bitspersample != 16 or not unsigned or page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise ImageError(f"a TIFF of {page.bitspersample} bits and this kind of colour is not supported; convert it to RGB first")
    colours = 3 if page.photometric == RGB else 1
    if page.samplesperpixel < colours:
        raise ImageError("cannot be read (it has too few channels)")
    extra = tuple(int(kind) for kind in page.extrasamples)
    if page.samplesperpixel == 4 and colours == 3 and not extra:
        extra = (STRAIGHT,)  # some writers forget to say so
    has_alpha = bool(extra) and extra[0] in (MULTIPLIED, STRAIGHT)
    return colours + has_alpha, extra[0] if has_alpha else 0


def _check_segments(page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Strips or tiles that are missing would be read as black."""
    length = file.seek(0, 2)
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    whole = page.imagewidth * page.imagelength * page.samplesperpixel * 2
    empty = not ends or 0 in page.dataoffsets or 0 in page.databytecounts
    if empty or max(ends) > length or (page.compression == 1 and sum(page.databytecounts) < whole):
        raise ImageError("cannot be read (image file is truncated)")


def _by_opencv(file: BinaryIO, page: tifffile.TiffPage) -> np.ndarray:
    """LZW above all. OpenCV misreads planes that are stored apart, and gray with alpha."""
    if page.photometric != RGB or page.planarconfig == SEPARATE or page.samplesperpixel not in (3, 4):
        raise ImageError(f"a TIFF of this kind (compression {page.compression:d}) cannot be decoded; {SAVE_OTHERWISE}")
    file.seek(0)
    data = bytearray(file.read())
    tag = page.tags.get(ORIENTATION)
    if tag is not None:  # OpenCV would turn the pixels; it is to see them as they are stored
        data[tag.valueoffset : tag.valueoffset + 2] = (1).to_bytes(2, "little" if page.parent.byteorder == "<" else "big")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise ImageError(f"cannot be decoded; {SAVE_OTHERWISE}")
    return swap_red_and_blue(pixels)


def _divide_by_alpha(pixels: np.ndarray) -> None:
    for top, bottom in bands(*pixels.shape[:2]):
        band = pixels[top:bottom]
        alpha = band[:, :, -1:].astype(np.uint64)
        colours = (band[:, :, :-1].astype(np.uint64) * 0xFFFF + alpha // 2) // np.maximum(alpha, 1)
        band[:, :, :-1] = np.minimum(colours, 0xFFFF) * (alpha > 0)
