"""The pictures of one image on the page: what came back, the original, other codecs at equal bytes, and where the bits went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..codec.container import Contents
from ..codec.tiles import Rect
from ..errors import ImageError
from ..evaluation.peers import PillowPeer
from ..evaluation.quality import ms_ssim, psnr
from ..images.exif import orientation_of, turned
from ..images.picture import Picture
from .crops import best_place, lossless_webp, seen_place, shown, squared_error, thumbnail
from .equal import at_equal_bytes
from .heatmap import BitCounter, enlarged
from .rows import AtEqualBytes

ORIGINAL, OWN = "original", "vaetools"
MS_SSIM_PIXELS = 16_000_000  # it works on several copies of the image, in floats


@dataclass(frozen=True, eq=False)
class Shot:
    """Upright. height, width: of the whole image. place: what of it is shown, at full resolution. thumbnail: a WebP of all of it.

    views: a lossless WebP of `place` for each of ORIGINAL, OWN and the codecs at equal bytes. bits: bits per pixel at each pixel
    of `place`; all_bits: at each latent of the image; None for a file without latents.
    """

    height: int
    width: int
    place: Rect
    thumbnail: bytes
    views: dict[str, bytes]
    bits: np.ndarray | None
    all_bits: np.ndarray | None


def rgb_of(picture: Picture) -> np.ndarray:
    """(H, W, 3) of its colours as they are stored."""
    return picture.colour if picture.colour.shape[2] == 3 else np.repeat(picture.colour, 3, axis=2)


def similarity(original: np.ndarray, decoded: np.ndarray) -> float | None:
    """MS-SSIM of two (H, W, 3) uint8 images, or None for sizes that it is not measured at."""
    if original.shape[0] * original.shape[1] > MS_SSIM_PIXELS:
        return None
    value = ms_ssim(original, decoded)
    return None if math.isnan(value) else value


def take_shot(
    contents: Contents,
    restored: Picture,
    original: Picture | None,
    peers: Sequence[PillowPeer],
    counter: BitCounter,
    *,
    area: int,
    pixel_bytes: int,
) -> tuple[Shot, tuple[AtEqualBytes, ...], list[str]]:
    """The pictures, how the peers did, and what kept a peer from it, in words.

    area: pixels of the part that is shown, about, if the image is larger: where the error is largest, or, without an original,
    where most bits are. pixel_bytes: what the peers may take. Raises FormatError.
    """
    reference = original or restored
    own = shown(restored, reference)
    height, width, _ = own.shape
    map_and_stride = counter.bits(contents)
    whole = {OWN: own}
    if original is not None:
        whole = {ORIGINAL: shown(original, reference), OWN: own}
        place = best_place(height, width, area, squared_error(whole[ORIGINAL], own))
    elif map_and_stride is not None:
        place = best_place(height, width, area, *map_and_stride)
    else:
        place = best_place(height, width, area, None)
    parts = {name: pixels[place.slices] for name, pixels in whole.items()}
    results, troubles = [], []
    if original is not None and original.bit_depth == 8:
        for peer in peers:
            try:
                result, decoded = _compared(peer, original, pixel_bytes)
            except ImageError as error:
                troubles.append(str(error))
                continue
            results.append(result)
            parts[peer.name] = shown(Picture(decoded[place.slices]), reference)
    orientation = orientation_of(restored.metadata.exif)

    def upright(pixels: np.ndarray) -> np.ndarray:
        return turned(pixels, orientation)

    seen = seen_place(Rect(0, 0, height, width), height, width, orientation)
    shot = Shot(
        height=seen.height,
        width=seen.width,
        place=seen_place(place, height, width, orientation),
        thumbnail=thumbnail(upright(own)),
        views={name: lossless_webp(upright(part)) for name, part in parts.items()},
        bits=None if map_and_stride is None else upright(enlarged(*map_and_stride, place)),
        all_bits=None if map_and_stride is None else upright(map_and_stride[0]),
    )
    return shot, tuple(results), troubles


def _compared(peer: PillowPeer, original: Picture, size: int) -> tuple[AtEqualBytes, np.ndarray]:
    rgb, gray = rgb_of(original), original.colour.shape[2] == 1
    setting, data = at_equal_bytes(peer, original.colour[:, :, 0] if gray else rgb, size)
    decoded = peer.decode(data)
    similar = similarity(rgb, decoded)
    return AtEqualBytes(peer.name, setting, len(data), psnr(rgb, decoded), math.nan if similar is None else similar), decoded
