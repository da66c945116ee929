"""From a file to an array of pixels."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError
from ..storage.blob import Blob
from . import deep
from .exif import ORIENTATION
from .metadata import metadata_of, metadata_of_tiff
from .modes import pixels_of, stretched, stretched_to_16_bits
from .opening import (
    MAX_PIXELS,
    Opened,
    Source,
    count_frames,
    here,
    name_of,
    named,
    opened_file,
    opening,
    raw_mode_of,
    scan_module,
    stored_mode_of,
)
from .picture import Metadata, Picture
from .png import check_png

EIGHT_BIT_MODES = frozenset(("1", "L", "P", "RGB"))
DEEP_COLOUR = frozenset(("LA;16", "RGB;16", "RGBA;16"))  # modes that Pillow cuts to 8 bits


# Pictures.


@dataclass(frozen=True)
class Probe:
    """What the head of a file says. height, width: of the pixels that read_picture gives.

    orientation: 1 to 8, as EXIF counts them: how these pixels must be turned to be seen upright.
    """

    height: int
    width: int
    orientation: int = 1

    @property
    def as_seen(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def probe(source: Source, *, max_pixels: int = MAX_PIXELS) -> Probe:
    """The size of an image from its head alone. Raises ImageError."""
    with named(name_of(source)), here(source, head=True) as opened:
        if scan := scan_module(opened):
            return Probe(*scan.size_of(opened))
        try:
            with opening(opened, max_pixels) as image:
                # Pillow decodes all of a PNG to look for EXIF data behind its pixels.
                has_exif = image.format != "PNG" or "exif" in image.info
                orientation = image.getexif().get(ORIENTATION, 1) if has_exif else 1
                if image.format == "TIFF" or orientation not in range(1, 9):  # Pillow tells the upright size of TIFF files
                    orientation = 1
                return Probe(image.height, image.width, orientation)
        except Image.UnidentifiedImageError:
            if not _is_tiff(opened):
                raise
        with ExitStack() as stack:  # as read_picture has it
            height, width = deep.size_of_tiff(opened_file(opened, stack))
        return Probe(height, width)


def read_picture(source: Source, *, max_pixels: int = MAX_PIXELS, keep_tags: bool = False) -> Picture:
    """The one image of a file, with all that Picture holds. source: a path, a Blob, or a seekable binary file, read from its
    start.

    The pixels are as they are stored: an orientation in the EXIF data is not applied to them, and the EXIF data is kept
    byte for byte, so that an orientation is neither lost nor applied twice. TIFF is the exception. Pillow turns its pixels
    upright; they come like that, and the orientation is taken out of EXIF and XMP. EXIF data of TIFF files is put together
    from the file's tags, without those that say how its pixels are stored.

    Gray and colours come in 8 or 16 bits, as stored. Palettes become RGB, transparent colours an alpha channel, CMYK and
    YCbCr RGB; bilevel images are 0 and 255. Conversions that change a colour, and what is not kept, are in `notes`.

    Paths that end in .dcm, .dicom, .nii or .nii.gz are read as medical/dicom.py and medical/nifti.py say; `keep_tags` is for
    them: all that such a file says, names and dates too, goes into the metadata.

    Raises ImageError, which names the file, for: files that are broken, truncated or no images; several frames or pages;
    more than `max_pixels`; values that 16 bits do not hold (float, 32-bit gray), 10-bit AVIF, LAB and other such modes.
    """
    with named(name_of(source)), here(source) as opened:
        if scan := scan_module(opened):
            picture: Picture = scan.read(opened, max_pixels=max_pixels, keep_tags=keep_tags)
            return picture
        try:
            with opening(opened, max_pixels) as image:
                return _picture(image, opened, max_pixels)
        except Image.UnidentifiedImageError:
            if not _is_tiff(opened):
                raise
        return _deep_tiff(opened, max_pixels)  # kinds that Pillow does not know, such as 16-bit gray with alpha


def picture_of(image: Image.Image) -> Picture:
    """The picture that a Pillow image holds, converted as by read_picture; the image is left as it is.

    Raises ImageError for what read_picture refuses, for several frames (`image.copy()` has one), and for files that were
    opened but not yet decoded and hold more than 8 bits per colour, as Pillow gives no way to these.
    """
    with named(str(getattr(image, "filename", "") or "the image")):
        if stored_mode_of(image) in DEEP_COLOUR:
            raise ImageError("Pillow cuts its 16 bits per channel to 8; give the file itself, not the image that Pillow opened")
        return _picture(image, None, MAX_PIXELS)


def _picture(image: Image.Image, source: Opened | None, max_pixels: int) -> Picture:
    frames = count_frames(image)
    if frames > 1:
        raise ImageError(f"it has {frames} frames or pages; extract the one to keep")
    notes: list[str] = []
    mode, raw_mode = stored_mode_of(image), raw_mode_of(image)
    if image.format == "AVIF" and _avif_depth(image) > 8:
        raise ImageError("an AVIF image of 10 or 12 bits, which Pillow cuts to 8; convert it to 16-bit PNG first (avifdec)")
    if image.format == "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.append("the further pictures in this file, such as a depth map, are not kept")
    if image.format == "TIFF" and source is not None and (mode in DEEP_COLOUR or _is_inverted_gray16(image)):
        return _deep_tiff(source, max_pixels)
    if image.format == "PNG" and source is not None and mode in DEEP_COLOUR:
        return _deep_png(source, image.width, image.height, mode)
    if image.format == "PNG" and source is not None:
        with ExitStack() as stack:
            check_png(opened_file(source, stack).read())  # Pillow goes to the place of the pixels by itself
    if mode == "RGB;16" and image.format == "PPM" and source is not None:
        with ExitStack() as stack:
            return Picture(deep.read_deep_ppm(opened_file(source, stack), image), "PPM", mode)
    metadata = metadata_of(image, notes) if hasattr(image, "tag_v2") else None
    image.load()
    metadata = metadata or metadata_of(image, notes)
    if mode == "CMYK;16":
        notes.append("its 16-bit CMYK was cut to 8 bits")
    if "X" in raw_mode and image.format == "TIFF":
        notes.append("its channels without a meaning are not kept")
    # Pillow scales gray of 2 and 4 bits up to 8, but not the gray that a PNG file declares to be transparent.
    key_scale = {"L;2": 85, "L;4": 17}.get(raw_mode, 1) if image.format == "PNG" else 1
    pixels = pixels_of(image, notes, key_scale=key_scale)
    if image.mode == "CMYK":
        metadata = Metadata(exif=metadata.exif, xmp=metadata.xmp)  # the profile describes inks, which are gone
    return Picture(pixels, image.format or "", mode, metadata, tuple(notes))


def _is_tiff(source: Opened) -> bool:
    with ExitStack() as stack:
        return opened_file(source, stack).read(4) in (b"II*\0", b"MM\0*")


def _deep_tiff(source: Opened, max_pixels: int) -> Picture:
    notes: list[str] = []
    with ExitStack() as stack:
        file = opened_file(source, stack)
        metadata, orientation = metadata_of_tiff(file, notes)
        pixels, mode = deep.read_deep_tiff(file, orientation, max_pixels, notes)
    return Picture(pixels, "TIFF", mode, metadata, tuple(notes))


def _deep_png(source: Opened, width: int, height: int, mode: str) -> Picture:
    with ExitStack() as stack:
        data = opened_file(source, stack).read()
    notes: list[str] = []
    metadata, colour = _beside_the_pixels(data, notes)
    pixels = deep.read_deep_png(data, width, height)
    if colour is not None and pixels.shape[2] == 3:
        pixels = deep.add_transparent_colour(pixels, colour)
    return Picture(pixels, "PNG", mode, metadata, tuple(notes))


def _beside_the_pixels(png: bytes, notes: list[str]) -> tuple[Metadata, tuple[int, int, int] | None]:
    """Metadata and the transparent colour. Some of it follows the pixels, which Pillow decodes and lets go here."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.load()
        return metadata_of(image, notes), image.info.get("transparency")


def _is_inverted_gray16(image: Image.Image) -> bool:
    """Pillow inverts 8-bit gray whose 0 is white, but not 16-bit gray."""
    return image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(262) == 0


def _avif_depth(image: Image.Image) -> int:
    """8, 10 or 12 bits, from the configuration of the codec in the file's head (AV1-ISOBMFF, section 2.3.3)."""
    file = getattr(image, "fp", None)
    if file is None or file.closed:
        return 8
    position = file.tell()
    file.seek(0)
    _, found, configuration = file.read(1 << 20).partition(b"av1C")
    file.seek(position)
    flags = configuration[2] if found and len(configuration) > 2 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


# Pixels alone, upright.


@dataclass(frozen=True)
class _Opened:
    """A decoded image, upright, and what of its file the pixels no longer tell."""

    image: Image.Image
    frames: int
    is_cut: bool


def _open(path: str | os.PathLike[str] | Blob, max_pixels: int = MAX_PIXELS) -> _Opened:
    """Decoded, with the orientation that the file asks for applied to the pixels."""
    with named(name_of(path)), here(path) as opened, opening(opened, max_pixels) as image:
        is_cut = stored_mode_of(image).endswith(";16") and not image.mode.startswith("I")
        frames = count_frames(image)
        image.load()
        return _Opened(ImageOps.exif_transpose(image), frames, is_cut)


def read_for_training(
    path: str | os.PathLike[str] | Blob, channels: int = 3, bit_depth: int = 8, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """(H, W, C) uint8 or uint16, whatever it takes: alpha is dropped, colours and depths are converted.

    Gray of 16 bits is stretched so that its lowest value becomes 0 and its highest the largest, as the codec shows it to
    its model: many devices use 12 bits of 16. DICOM and NIfTI files are, too, and low values are dark; a volume is one image, its
    slices side by side.
    Raises ImageError if the file cannot be decoded, or has more than `max_pixels`.
    """
    if scan_module(path) is not None:
        from ..medical.windowing import for_training

        return for_training(read_picture(path, max_pixels=max_pixels), channels, bit_depth)
    image = _open(path, max_pixels).image
    if bit_depth == 16:
        return _as_gray16(image)[:, :, None].repeat(channels, 2)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray((_as_gray16(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # or Pillow warns that it drops it
    return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)


def _as_gray16(image: Image.Image) -> np.ndarray:
    """(H, W) uint16; 8-bit values are stretched so that 255 becomes 65535, all others from their lowest to their highest."""
    if image.mode == "F" or image.mode == "I":
        return stretched_to_16_bits(np.asarray(image))
    if image.mode.startswith("I"):
        return stretched(np.asarray(image).astype(np.uint16))
    image.info.pop("transparency", None)
    return np.asarray(image.convert("L")).astype(np.uint16) * 257


def read_exact(path: str | os.PathLike[str] | Blob, bit_depth: int = 8) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, or (H, W) uint16: the pixels as they are seen, for images that a model of that depth holds.

    Raises ImageError for what would be lost: transparency, other depths, CMYK, animation or several pages.
    """
    if scan_module(path) is not None:
        raise ImageError(f"{path}: DICOM and NIfTI files are not supported here; convert it to 8-bit PNG first")
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
    if opened.is_cut:
        raise ImageError(f"{path}: images with 16 bits per channel are not supported; convert it to 8-bit RGB first")
    if image.mode == "1":
        image = image.convert("L")
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
