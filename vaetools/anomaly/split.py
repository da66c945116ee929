"""Which of the good images a detector is fitted on, and which only set its thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError

HOLD_OUT = 0.2
LEAST_FITTED, LEAST_HELD_OUT = 4, 2


@dataclass(frozen=True)
class Split:
    """Positions of images, in rising order; no image is in both."""

    fit: list[int]
    held_out: list[int]


def split_good(count: int, *, hold_out: float = HOLD_OUT, seed: int = 0) -> Split:
    """A random part of `count` images is held out, drawn by `seed` alone. Raises UsageError if either part would be too small.

    hold_out: share of the images, between 0 and 1.
    """
    if not 0 < hold_out < 1:
        raise UsageError(f"the share of good images that is held out must be between 0 and 1, not {hold_out:g}")
    held_out = max(LEAST_HELD_OUT, round(count * hold_out))
    if count - held_out < LEAST_FITTED:
        raise UsageError(
            f"{count} good images, of which {held_out} would be held out for the thresholds: at least {LEAST_FITTED} must be "
            "left to fit on; give more images or a smaller --hold-out"
        )
    order = np.random.default_rng(seed).permutation(count)
    return Split(sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist()))
