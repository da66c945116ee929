"""A decoded picture beside the one that its file was made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import Desync
from ..images.picture import Picture
from ..medical.scan import same as same_scan
from ..medical.windowing import scan_of
from .encoder import psnr
from .fidelity import Fidelity

WORST_PSNR = 10.0  # dB; a file below it holds another image


def compare(restored: Picture, picture: Picture, *, lossless: bool = False) -> Fidelity:
    """How far the colours of a decoded picture are from those of the one that its file was made of. lossless: whether the file
    holds the pixels as they were.

    Raises Desync if its size, depth, alpha or metadata are others, or its pixels are those of another image.
    """
    if restored.pixels.shape != picture.pixels.shape or restored.bit_depth != picture.bit_depth:
        raise Desync(f"it decodes to pixels of shape {restored.pixels.shape}, not {picture.pixels.shape}")
    if picture.alpha is not None and not np.array_equal(restored.alpha, picture.alpha):  # type: ignore[arg-type]
        raise Desync("its alpha plane is not that of the image")
    # Tags are compared where they were read: `vaetools verify` reads originals without them.
    tags = restored.metadata.tags if picture.metadata.tags else b""
    same = same_scan(restored.metadata.scan, picture.metadata.scan)
    if not same or replace(restored.metadata, scan=picture.metadata.scan, tags=tags) != picture.metadata:
        raise Desync("its metadata are not those of the image")
    fidelity = Fidelity.between(picture.colour, restored.colour, scan_of(picture))
    reached = psnr(fidelity.mean_squared_error, picture.bit_depth)
    if lossless and fidelity.max_error:
        raise Desync("it lost nothing, and decodes to other pixels")
    if reached < WORST_PSNR:
        raise Desync(f"it decodes to another image ({reached:.1f} dB)")
    return fidelity
