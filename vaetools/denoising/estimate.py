"""How much noise there is in an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # positions a side, of 2 x 2 pixels each
SMOOTHEST = 0.1  # of the blocks are looked at
NORMAL_MEDIAN = 0.6745  # of |x|, for x of N(0, 1)
FIRST_ROOM, ROOM = 0.2, 2.0  # to the ends of the range: at first, and then in standard deviations
PASSES = 3


def estimate_sigma(image: Tensor) -> float:
    """Standard deviation of white noise in an image (C, H, W) in 0..1, of values in 0..255; the mean over its channels.

    The median of the absolute diagonal differences of 2 x 2 pixels (Donoho and Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", Biometrika 1994), of which the image itself has a part where it is not smooth. They are therefore taken from
    the smoothest blocks, told by the means of 2 x 2 pixels, whose noise is independent of the differences'. Noise that
    neighbouring pixels share, as in a JPEG, is underestimated.
    """
    if min(image.shape[1:]) < 2:
        return 0.0
    x = image.float()[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2]
    a, b, c, d = x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]
    means, diagonals = (a + b + c + d) / 4, (a - b - c + d) / 2
    block = min(BLOCK, *means.shape[1:])
    levels = [_sigma(mean, diagonal, block) for mean, diagonal in zip(means, diagonals, strict=True)]
    return 255 * sum(levels) / len(levels)


def _sigma(mean: Tensor, diagonal: Tensor, block: int) -> float:
    """Of one channel, in its units."""
    pool = torch.nn.AvgPool2d(block)
    level = pool(mean[None, None]).flatten()
    activity = pool(mean[None, None] ** 2).flatten() - level**2
    differences = F.unfold(diagonal[None, None], block, stride=block)[0].abs()
    room = torch.minimum(level, 1 - level)  # to the ends of the range, which cut noise off
    count = max(1, round(SMOOTHEST * len(level)))
    found = 0.0
    for _ in range(PASSES):
        inside = room >= min(ROOM * found if found else FIRST_ROOM, float(room.sort().values[-count]))
        order = torch.where(inside, activity, torch.inf).argsort(stable=True)[:count]
        found = float(differences[:, order].median()) / NORMAL_MEDIAN
    return found
