"""Local statistics of brightness, relative to what runs through the image along its grain; needs no network.

Many surfaces, such as ground metal, cloth and wood, look the same along one direction. What differs from the rest of its own
column (or row) there stands out, whatever the light, and however unlike each other two good parts are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from .gaussian import Gaussians

SIDES = (192, 128)  # pixels, longer and shorter side that every image is stretched to
STEP = 4  # pixels between cells
SCALES = (1.0, 2.0, 4.0)  # pixels, standard deviations of the windows that statistics are of
DARKEST, FLATTEST = 0.05, 1e-4  # what is added to brightness and to energy before their logarithms
LIMIT = 2.0  # of the logarithm of brightness, relative to the image's median


@dataclass(frozen=True)
class Texture:
    """gaussians: of each cell. grain: the axis along which good images change least, 0 for columns and 1 for rows.
    sides: height and width that images are stretched to."""

    gaussians: Gaussians
    grain: int
    sides: tuple[int, int]

    @classmethod
    def fit(cls, images: list[Tensor]) -> Texture:
        """Of images (H, W) in the logarithm of brightness, as `logarithms` gives them, all of one size."""
        stack = torch.stack(images)
        change = [float(stack.diff(dim=axis).square().mean()) for axis in (1, 2)]
        grain = int(np.argmin(change))
        vectors = torch.stack([statistics(image.numpy(), grain) for image in images])
        return cls(Gaussians.fit(vectors), grain, (int(stack.shape[1]), int(stack.shape[2])))

    def distances(self, images: Tensor) -> Tensor:
        """(B, rows, columns): distances of the cells of images (B, C, H, W), near 1 for good ones."""
        vectors = torch.stack([statistics(image.numpy(), self.grain) for image in logarithms(images, self.sides)])
        rows, columns = self.sides[0] // STEP, self.sides[1] // STEP
        return self.gaussians.distances(vectors).sqrt().view(-1, rows, columns)


def sides_of(height: int, width: int) -> tuple[int, int]:
    """What images like one of this size are stretched to."""
    return SIDES if height >= width else (SIDES[1], SIDES[0])


def logarithms(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """(B, rows, columns): logarithm of the brightness of images (B, C, H, W) in 0..1, stretched to `sides`, less its median."""
    gray = images.mean(1, keepdim=True)
    small = F.interpolate(gray, sides, mode="bilinear", antialias=True, align_corners=False)[:, 0].clamp(0, 1)
    x = (small + DARKEST).log()
    return (x - x.flatten(1).median(1).values[:, None, None]).clamp(-LIMIT, LIMIT)


def statistics(x: np.ndarray, grain: int) -> Tensor:
    """(cells, 13): of one image (H, W) as `logarithms` gives it.

    At each scale, brightness, and the logarithms of the energy of its gradient down and across and of its deviation from the
    window's mean, each less its median along the grain; and the difference of two windows, which finds spots.
    """
    down, across = np.gradient(x)

    def relative(values: np.ndarray) -> np.ndarray:
        return values - np.median(values, grain, keepdims=True)

    def energy(values: np.ndarray, scale: float) -> np.ndarray:
        return np.log(ndimage.gaussian_filter(values**2, scale) + FLATTEST)

    found = []
    for scale in SCALES:
        mean = ndimage.gaussian_filter(x, scale)
        found += [relative(mean), *(relative(energy(part, scale)) for part in (down, across, x - mean))]
    found.append(ndimage.gaussian_filter(x, 3.0) - ndimage.gaussian_filter(x, 1.0))
    cells = np.stack(found)[:, STEP // 2 :: STEP, STEP // 2 :: STEP]
    return torch.from_numpy(np.ascontiguousarray(cells.reshape(len(found), -1).T, np.float32))
