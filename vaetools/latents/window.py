"""Which latents a part of an image is made from.

    image                 |---------------------------------|
    hyper: handed over         |-----------------------|          hyper-latents: HYPER_MARGIN around wanted, for the means
    seen: decoded                  |---------------|              latents: LATENT_HALO around wanted
    wanted                            |-----|                     pixels

Where an image ends, a window is moved, not cut: windows of one crop are of one size in all images that are large enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..codec.tiles import Rect, TileGrid
from ..model.config import ModelConfig

# The network looks two and four positions far; what is left out changes a pixel near the border of a crop by a level or two.
HYPER_MARGIN, LATENT_HALO = 1, 1


@dataclass(frozen=True)
class Window:
    """hyper: in hyper-latents of the image. tiles: the parts of it that were coded on their own, (number, hyper-latents of the
    image). seen: in latents of `hyper`. wanted: in pixels of `seen`."""

    hyper: Rect
    tiles: tuple[tuple[int, Rect], ...]
    seen: Rect
    wanted: Rect


def window_of(config: ModelConfig, grid: TileGrid, crop: Rect) -> Window:
    """`crop`: pixels within the image. All of it is decoded with all that there is."""
    hyper_stride, stride = config.hyper_stride, config.latent_stride
    whole = grid.bounds.over(hyper_stride)
    hyper = whole if crop == grid.bounds else _around(crop, hyper_stride, HYPER_MARGIN, whole)
    latents = hyper.times(hyper_stride // stride)
    near = latents if crop == grid.bounds else _around(crop, stride, LATENT_HALO, latents)
    touched = grid.touching(hyper.times(hyper_stride).within(grid.bounds))
    tiles = tuple((number, grid[number].over(hyper_stride).within(hyper)) for number in touched)
    return Window(hyper, tiles, near.moved(latents), crop.moved(near.times(stride)))


def _around(crop: Rect, stride: int, margin: int, bounds: Rect) -> Rect:
    """Positions of `stride` pixels that hold `crop`, with a margin, within bounds; of a size that its place does not change."""
    top, bottom = _span(crop.top, crop.height, stride, margin, bounds.top, bounds.bottom)
    left, right = _span(crop.left, crop.width, stride, margin, bounds.left, bounds.right)
    return Rect(top, left, bottom, right)


def _span(start: int, length: int, stride: int, margin: int, low: int, high: int) -> tuple[int, int]:
    most = -(-(length - 1) // stride) + 1  # positions that so many pixels touch, wherever they start
    size = min(most + 2 * margin, high - low)
    first = min(max(start // stride - margin, low), high - size)
    return first, first + size
