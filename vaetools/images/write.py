"""From an array of pixels to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..files import replace_file


def write_png(path: Path, pixels: np.ndarray) -> None:
    """(C, H, W) or (H, W) uint8 or uint16 pixels, gray or RGB, as a PNG, whole or not at all. Raises OSError."""
    if pixels.ndim == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    replace_file(path, lambda temporary: image.save(temporary, format="png", compress_level=4))
