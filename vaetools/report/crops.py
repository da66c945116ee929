"""What is shown of an image: pixels of 8 bits, upright, cut to a size that a page can hold many of."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from ..codec.boxes import levels_of
from ..codec.tiles import Rect
from ..images.picture import Picture
from ..medical.windowing import scan_of, shares, window_levels

CELL = 16  # pixels a side that are weighed together; crops start and end at multiples of it
THUMBNAIL = 160  # pixels on the longer side of the small picture of the whole image
THUMBNAIL_QUALITY = 70
NEARLY = 1.2  # of the area: an image is not cut for so little


def shown(picture: Picture, reference: Picture) -> np.ndarray:
    """(H, W, 3) uint8 of the colours as stored; alpha is left out.

    Sixteen bits are scaled by the window of the scan that the reference was, or by the range of the reference's values, so that
    an original and what came back of it are shown alike.
    """
    colour = picture.colour
    scan = scan_of(reference)
    window = None if scan is None else window_levels(scan)
    if picture.bit_depth == 16 or scan is not None:
        low, high = window or levels_of(reference)
        share = shares(colour.astype(np.float32), low, high)
        colour = np.round(255 * (1 - share if scan is not None and scan.inverted else share)).astype(np.uint8)
    return colour if colour.shape[2] == 3 else np.repeat(colour, 3, axis=2)


def squared_error(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(ceil(H / CELL), ceil(W / CELL)) float64: sums of squared differences of two (H, W, 3) uint8 images over cells."""
    height, width, _ = first.shape
    rows = []
    for top in range(0, height, CELL):
        difference = first[top : top + CELL].astype(np.int32) - second[top : top + CELL]
        rows.append(np.add.reduceat(np.square(difference).sum((0, 2)), np.arange(0, width, CELL)))
    return np.array(rows, np.float64)


def best_place(height: int, width: int, area: int, weights: np.ndarray | None, cell: int = CELL) -> Rect:
    """The part of an image of at most about `area` pixels whose weights have the largest sum; all of it if it is small enough.

    weights: (ceil(H / cell), ceil(W / cell)); without them the middle. The part is square unless the image is too narrow.
    """
    if height * width <= NEARLY * area:
        return Rect(0, 0, height, width)
    side = math.sqrt(area)
    tall, wide = (min(length, max(side, area / other)) for length, other in ((height, width), (width, height)))
    rows, columns = (
        -(-most // cell) if length >= most else max(1, int(length) // cell) for length, most in ((tall, height), (wide, width))
    )
    if weights is None:
        top, left = (-(-height // cell) - rows) // 2, (-(-width // cell) - columns) // 2
    else:
        sums = np.pad(weights.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        windows = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
        top, left = (int(place) for place in np.unravel_index(windows.argmax(), windows.shape))
    return Rect(top, left, top + rows, left + columns).times(cell).within(Rect(0, 0, height, width))


def seen_place(place: Rect, height: int, width: int, orientation: int) -> Rect:
    """Where a part of the stored pixels is in the upright image (EXIF 2.32, section 4.6.4), as images.exif.turned turns them."""
    top, left, bottom, right = place.top, place.left, place.bottom, place.right
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    return Rect(left, top, right, bottom) if orientation >= 5 else Rect(top, left, bottom, right)


def lossless_webp(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> a WebP file that holds them exactly."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "WEBP", lossless=True, quality=30, method=3, exact=True)
    return out.getvalue()


def thumbnail(pixels: np.ndarray, side: int = THUMBNAIL) -> bytes:
    """A small lossy WebP of the whole image."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side), reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=THUMBNAIL_QUALITY, method=4)
    return out.getvalue()
