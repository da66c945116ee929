"""What each of Pillow's modes becomes: gray or RGB, with or without alpha, of 8 or 16 bits."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageCms

from ..errors import ImageError

BAND = 1 << 20  # pixels that are converted at a time, so that no second copy of the whole image is ever made

TARGETS = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "CMYK": "RGB",
}
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
NOTES = {
    "La": "its colours were multiplied by its alpha; they were divided by it",
    "RGBa": "its colours were multiplied by its alpha; they were divided by it",
    "RGBX": "its fourth channel, which has no meaning, is not kept",
    "YCbCr": "its YCbCr colours were converted to RGB",
}
ADVICE = {
    "F": "scale its floating-point values to 16-bit gray first",
    "LAB": "convert it to RGB first",
    "HSV": "convert it to RGB first",
}

Convert = Callable[[Image.Image], Image.Image]


def bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of pieces of an image, of about BAND pixels each."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def pixels_of(image: Image.Image, notes: list[str], *, key_scale: int = 1) -> np.ndarray:
    """(H, W, C) uint8 or uint16: the pixels of a decoded image, one plane of alpha for a transparent colour or palette.

    What is converted with a loss is added to `notes`. key_scale: what a transparent gray is to be multiplied by to be on
    the scale of the pixels. Takes the image's own memory and that of the result, no more.
    Raises ImageError for modes that hold more than 16 bits or are no colours.
    """
    if image.mode.startswith("I"):
        return _deep_gray(image)
    if image.mode not in TARGETS:
        raise ImageError(f"of mode {image.mode}, which is not supported; {ADVICE.get(image.mode, 'convert it to RGB first')}")
    target = TARGETS[image.mode]
    convert: Convert | None = None
    if image.mode == "P" and image.has_transparency_data:
        target = "RGBA"
    elif image.mode == "CMYK":
        convert, note = _cmyk_to_srgb(image.info.get("icc_profile"))
        notes.append(note)
    if image.mode in NOTES:
        notes.append(NOTES[image.mode])
    key = _transparent_colour(image, key_scale)
    channels = CHANNELS[target]
    pixels = np.empty((image.height, image.width, channels + (key is not None)), np.uint8)
    for top, bottom in bands(image.height, image.width):
        band = image.crop((0, top, image.width, bottom))
        if key is not None:
            del band.info["transparency"]
        colours = np.asarray(convert(band) if convert else band.convert(target)).reshape(bottom - top, image.width, channels)
        pixels[top:bottom, :, :channels] = colours
        if key is not None:
            pixels[top:bottom, :, -1] = (colours != key).any(axis=2) * np.uint8(255)
    return pixels


def stretched(gray: np.ndarray) -> np.ndarray:
    """(H, W) uint16 over the whole range of the type. A flat image is left as it is."""
    low, high = int(gray.min()), int(gray.max())
    if low == high or (low, high) == (0, 0xFFFF):
        return gray
    out = np.empty_like(gray)
    for top, bottom in bands(*gray.shape):
        out[top:bottom] = ((gray[top:bottom].astype(np.uint32) - low) * 0xFFFF + (high - low) // 2) // (high - low)
    return out


def stretched_to_16_bits(values: np.ndarray) -> np.ndarray:
    """(H, W) floats or integers of 32 bits -> uint16 over the whole range of the type. Those that are no numbers become 0."""
    finite = np.isfinite(values)
    out, known = np.zeros(values.shape, np.uint16), values[finite]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    if low < high:
        for top, bottom in bands(*values.shape):
            share = (values[top:bottom].astype(np.float64) - low) / (high - low)
            out[top:bottom] = np.where(finite[top:bottom], np.round(0xFFFF * share), 0)
    return out


def _transparent_colour(image: Image.Image, scale: int = 1) -> np.ndarray | None:
    """(1,) or (3,) integers: the colour that a file without an alpha channel declares to be transparent."""
    if image.mode not in ("1", "L", "RGB") and not image.mode.startswith("I;16"):
        return None
    colour = image.info.get("transparency")
    if colour is None:
        return None
    key = np.atleast_1d(np.asarray(colour))
    if key.dtype.kind != "i" or len(key) != (3 if image.mode == "RGB" else 1):
        raise ImageError(f"its transparent colour {colour!r} is not understood; give it an alpha channel instead")
    return key if image.mode.startswith("I") else key * scale & 255


def _deep_gray(image: Image.Image) -> np.ndarray:
    """(H, W, 1 or 2) uint16 of one of Pillow's integer modes, whose values must fit."""
    key = _transparent_colour(image)
    pixels = np.empty((image.height, image.width, 1 if key is None else 2), np.uint16)
    for top, bottom in bands(image.height, image.width):
        values = np.asarray(image.crop((0, top, image.width, bottom)))
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 0xFFFF):
            raise ImageError(f"of mode {image.mode}, with values outside 0 to 65535; scale them to 16-bit gray first")
        pixels[top:bottom, :, 0] = values
        if key is not None:
            pixels[top:bottom, :, 1] = (values != key) * np.uint16(0xFFFF)
    return pixels


def _cmyk_to_srgb(icc: bytes | None) -> tuple[Convert, str]:
    """How to convert inks to sRGB: as their colour profile says, or by Pillow's formula; and that in words."""
    reason = "there is no colour profile that says what its inks look like"
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            transform = ImageCms.buildTransform(
                profile,
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (OSError, ImageCms.PyCMSError):
            reason = "its colour profile is none for inks"
        else:
            return lambda band: _applied(transform, band), "CMYK was converted to sRGB through its colour profile"
    return lambda band: band.convert("RGB"), f"CMYK was converted to RGB by a formula: {reason}"


def _applied(transform: ImageCms.ImageCmsTransform, band: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(band, transform)
    if converted is None:  # only where it was asked to convert in place
        raise ImageError("its colours cannot be converted")
    return converted
