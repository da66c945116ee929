"""From stored values to the grays that a window shows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..errors import Corrupt, ImageError
from ..images.modes import bands, stretched
from ..images.picture import Metadata, Picture
from .scan import DICOM, Scan


def scan_of(picture: Picture) -> Scan | None:
    """What the picture says of the scan that it was; None if it was none, or says so in a way that is not understood."""
    if not picture.metadata.scan:
        return None
    try:
        return Scan.unpack(picture.metadata.scan)
    except Corrupt:
        return None


def window_levels(scan: Scan) -> tuple[float, float] | None:
    """The pixels that the window shows as black and as white; None without a usable window.

    For DICOM the linear function of PS3.3, C.11.2.1.2.1: real values from centre - 0.5 - (width - 1) / 2 to
    centre - 0.5 + (width - 1) / 2. For NIfTI from centre - width / 2 to centre + width / 2. The two are equal for a threshold.
    """
    if math.isnan(scan.centre) or scan.slope <= 0:
        return None
    centre, half = (scan.centre - 0.5, (scan.width - 1) / 2) if scan.kind == DICOM else (scan.centre, scan.width / 2)
    ends = ((real - scan.intercept) / scan.slope for real in (centre - half, centre + half))
    low, high = ((value - scan.origin) / scan.step for value in ends)
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low <= high else None


def shares(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 for floats up to `low`, 1 from `high` on, and in a straight line between; just above `low` on if both are one."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else (values > low).astype(values.dtype)


def windowed(picture: Picture) -> Picture:
    """8-bit gray as the scan's own window shows it, or the range of its values if it has none; upright in brightness.

    Raises ImageError if the picture was no DICOM or NIfTI file.
    """
    scan = scan_of(picture)
    if scan is None:
        raise ImageError("it was no DICOM or NIfTI file, and has no window; leave --window out")
    gray = picture.pixels[:, :, 0]
    low, high = window_levels(scan) or (float(gray.min()), max(float(gray.max()), float(gray.min()) + 1))
    return replace(picture, pixels=_shown(gray, low, high, inverted=scan.inverted)[:, :, None], metadata=Metadata(), mode="L")


def for_training(picture: Picture, channels: int, bit_depth: int) -> np.ndarray:
    """(H, W, channels) uint8 or uint16 of a scan: the range of 16-bit values becomes that of the type, low values are dark."""
    gray, scan = picture.pixels[:, :, 0], scan_of(picture)
    if scan is not None and scan.inverted:
        gray = np.iinfo(gray.dtype).max - gray
    if bit_depth == 16:
        gray = stretched(gray) if gray.dtype == np.uint16 else gray.astype(np.uint16) * np.uint16(257)
    elif gray.dtype == np.uint16:
        gray = (stretched(gray) >> 8).astype(np.uint8)
    return gray[:, :, None].repeat(channels, 2)


def _shown(gray: np.ndarray, low: float, high: float, *, inverted: bool) -> np.ndarray:
    """(H, W) uint8."""
    out = np.empty(gray.shape, np.uint8)
    for top, bottom in bands(*gray.shape):
        with np.errstate(over="ignore"):  # a window may be narrower, and farther off, than any pixel
            share = shares(gray[top:bottom].astype(np.float64), low, high)
        out[top:bottom] = np.round(255 * (1 - share if inverted else share))
    return out
