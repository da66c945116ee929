"""Images beside each other in one picture, and one after the other in an animation."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import UsageError

GAP = 2  # pixels of white between images
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF"}
WEBP_SIDE = 16383  # pixels, at most


def tile(images: Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    """Images (H, W, C) of one size and type, uint8 or uint16, row by row in one. columns [default: about a square]."""
    if not images:
        raise UsageError("a grid needs at least one image")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    height, width, channels = images[0].shape
    rows = math.ceil(len(images) / columns)
    white = np.iinfo(images[0].dtype).max
    canvas = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), white, images[0].dtype)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        canvas[row * (height + GAP) :, column * (width + GAP) :][:height, :width] = image
    return canvas


def animation(images: Sequence[np.ndarray], suffix: str, *, milliseconds: int, loop: bool) -> bytes:
    """Images (H, W, 1 or 3) of one size, uint8 or uint16, as an animation of 8 bits, `milliseconds` each.

    suffix: one of ANIMATIONS; .webp is without loss, .gif has 256 colours. loop: there and back, for ever; else once.
    Raises UsageError for images that are too large for WebP.
    """
    if suffix == ".webp" and max(images[0].shape[:2]) > WEBP_SIDE:
        raise UsageError(f"an animation in WebP has at most {WEBP_SIDE} pixels a side: choose a smaller size, or .gif")
    deep = images[0].dtype == np.uint16
    eight = [(image >> 8).astype(np.uint8) if deep else image for image in images]
    frames = [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in eight]
    if loop:
        frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    options: dict[str, object] = {"lossless": True} if suffix == ".webp" else {}
    if loop:
        options["loop"] = 0
    elif suffix == ".webp":
        options["loop"] = 1  # a GIF that says nothing plays once
    frames[0].save(buffer, ANIMATIONS[suffix], save_all=True, append_images=frames[1:], duration=milliseconds, **options)
    return buffer.getvalue()
