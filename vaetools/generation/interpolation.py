"""From one image to another through the latents between them.

    y = m(z) + s(z) e        of both ends, in two passes: p(y|z) = N(m, s^2), so e is near to N(0, 1) for every image
    z_t = (1 - t) z_a + t z_b
    e_t = ((1 - t) e_a + t e_b) / sqrt((1 - t)^2 + t^2)          an arc: of independent ends it keeps the variance

    x_t = decode(y_t)                                            without detail: the ends are reconstructions
        + (1 - t) (a - decode(y_a)) + t (b - decode(y_b))        with detail: the ends are the images themselves

On a straight line of y, which a decoder turns into little more than a cross-fade, what is between loses contrast.
Arcs between latents of a normal prior: White, "Sampling generative networks", 2016.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..model.pixels import to_model
from ..model.space import Latents, LatentSpace
from ..model.threads import one_thread
from .sampling import to_whole

MOST_STEPS = 10_000


def interpolate(
    space: LatentSpace, a: Tensor, b: Tensor, steps: int, *, detail: bool | None = None, size: tuple[int, int] | None = None
) -> list[Tensor]:
    """`steps` images from a to b, both included, with equal steps of t: (C, H, W) uint8 or uint16, as the model has them.

    a, b: (C, H, W) of uint8, uint16 or floats in 0..1, of one size or brought to `size` (height, width). detail: add what
    the model cannot show, faded from that of a to that of b [default: with models for photographs, whose posterior is
    uniform]. Raises UsageError if the sizes differ and none is given.
    """
    if not 2 <= steps <= MOST_STEPS:
        raise UsageError(f"the number of steps must be from 2, which are the ends, to {MOST_STEPS}, not {steps}")
    ends = [to_model(image, space.config)[None] for image in (a, b)]
    if size is not None:
        ends = [
            end
            if tuple(end.shape[2:]) == size
            else F.interpolate(end, size, mode="bilinear", antialias=True, align_corners=False)
            for end in ends
        ]
    ends = [end.to(space.device) for end in ends]  # made smaller before, for GPUs refuse to do so by very much
    (height, width), other = ends[0].shape[2:], ends[1].shape[2:]
    if (height, width) != tuple(other):
        raise UsageError(
            f"images of {width} x {height} and {other[1]} x {other[0]} pixels: bring both to one with --size {width}x{height}"
        )
    keep = space.config.posterior == "uniform" if detail is None else detail
    images = []
    with one_thread(space.device):  # one by one, so that the number of steps does not change a bit of the ends
        path = _Path(space, ends[0], ends[1])
        shown = [space.decode(path.at(t), height, width) for t in (0.0, 1.0)] if keep else []
        for number in range(steps):
            t = number / (steps - 1)
            x = space.decode(path.at(t), height, width)
            if keep:
                x = x + (1 - t) * (ends[0] - shown[0]) + t * (ends[1] - shown[1])
            images.append(to_whole(x[0], space.config.bit_depth))
    return images


class _Path:
    """The latents from a to b, images (1, C, H, W) of one size."""

    def __init__(self, space: LatentSpace, a: Tensor, b: Tensor) -> None:
        self.space = space
        self.ends = [space.encode(image) for image in (a, b)]
        given = [space.conditional(end) for end in self.ends]
        self.noise = [(end.y - prior.mean) / prior.scale for end, prior in zip(self.ends, given, strict=True)]

    def at(self, t: float) -> Tensor:
        """y (1, M, h, w) for t in 0..1; exactly those of the images at the ends."""
        a, b = self.ends
        if t in (0.0, 1.0):
            return (a, b)[int(t)].y
        noise = torch.lerp(self.noise[0], self.noise[1], t) / math.hypot(1 - t, t)
        return self.space.redraw(Latents(a.y, torch.lerp(a.z, b.z, t)), torch.ones_like(a.y, dtype=torch.bool), noise)
