"""Vectors that are compared with those of good images: one for each cell of a grid, or one for the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .look import Look

ALIGNED_SIDE = 64  # pixels: good images of one size up to this are taken to show the same thing at the same place
WHOLE_VALUES = 1024  # a z of so many values at most is taken as one vector
PATCH, PATCH_STEP = 16, 8  # pixels, of the baselines where nothing is aligned
KINDS = ("y", "z", "features", "pixels")


@dataclass(frozen=True)
class Cells:
    """vectors (B, P, D), of P = rows * columns cells that are `stride` pixels apart.

    offset: pixels from the image's edge to that of the first square of `stride` pixels in the middle of a cell.
    """

    vectors: Tensor
    rows: int
    columns: int
    stride: int
    offset: int = 0


def cells_of(look: Look, kind: str, *, aligned: bool, stride: int) -> Cells:
    """stride: of the latents y, in pixels. Aligned: z (if it is small) and the pixels are one vector for the whole image."""
    if kind == "y":
        return _grid(look.y, stride)
    if kind == "z":
        whole = aligned and look.z[0].numel() <= WHOLE_VALUES
        return _one(look.z) if whole else _grid(look.z, 4 * stride)
    if kind == "pixels":
        return _one(look.images) if aligned else _patches(look.images)
    if aligned:
        return _grid(look.features, stride)
    # Averages over 3 x 3 neighbours, as in PatchCore (Roth et al., CVPR 2022, section 3.1).
    return _grid(F.avg_pool2d(look.features, 3, 1, 1, count_include_pad=False), stride)


def _grid(x: Tensor, stride: int) -> Cells:
    return Cells(x.flatten(2).transpose(1, 2), int(x.shape[2]), int(x.shape[3]), stride)


def _one(x: Tensor) -> Cells:
    return Cells(x.flatten(1)[:, None], 1, 1, max(x.shape[2:]))


def _patches(images: Tensor) -> Cells:
    """Overlapping squares of pixels; images smaller than one are filled up with their edge."""
    height, width = images.shape[2:]
    grown = F.pad(images, (0, max(0, PATCH - width), 0, max(0, PATCH - height)), mode="replicate")
    rows, columns = ((side - PATCH) // PATCH_STEP + 1 for side in grown.shape[2:])
    return Cells(F.unfold(grown, PATCH, stride=PATCH_STEP).transpose(1, 2), rows, columns, PATCH_STEP, (PATCH - PATCH_STEP) // 2)


def drawn(cells: Cells, count: int, generator: torch.Generator) -> Tensor:
    """(at most B * count, 1, D): as many cells of each image as that, at random."""
    places = torch.randperm(cells.vectors.shape[1], generator=generator)[:count]
    return cells.vectors[:, places].flatten(0, 1)[:, None]


def as_map(values: Tensor, cells: Cells, size: tuple[int, int]) -> Tensor:
    """(B, H, W) of the size of the image, interpolated between (B, P) values in the middle of each cell."""
    grid, offset = values.view(-1, 1, cells.rows, cells.columns), cells.offset
    height, width = cells.rows * cells.stride, cells.columns * cells.stride
    x = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    missing = [max(0, side - have - offset) for side, have in zip(size, (height, width), strict=True)]
    if offset or any(missing):
        x = F.pad(x, (offset, missing[1], offset, missing[0]), mode="replicate")
    return x[:, 0, : size[0], : size[1]]
