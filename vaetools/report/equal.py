"""Another codec's file of as many bytes."""

from __future__ import annotations

import math

import numpy as np

from ..evaluation.peers import PillowPeer

LOWEST, HIGHEST = 1, 100  # settings of Pillow's encoders; 0 means something else to some
NEAR = 0.01  # of the bytes: nearer than that is not worth another try


def at_equal_bytes(peer: PillowPeer, rgb: np.ndarray, size: int) -> tuple[int, bytes]:
    """The quality setting whose file is nearest to `size` bytes, by their ratio, and that file.

    rgb: (H, W, 3) uint8. Files grow with the setting, near enough; they are searched by interpolation of the logarithm of
    their bytes. Raises ImageError for an image that the codec cannot hold.
    """
    below: tuple[int, bytes] | None = None
    above: tuple[int, bytes] | None = None
    guess = (LOWEST + HIGHEST) // 2
    while True:
        data = peer.encode(rgb, guess)
        if _distance(data, size) < NEAR:
            return guess, data
        if len(data) < size:
            below = guess, data
        else:
            above = guess, data
        low, high = below[0] if below else LOWEST - 1, above[0] if above else HIGHEST + 1
        if high - low <= 1:
            break
        guess = _between(below, above, low, high, size)
    return min((end for end in (below, above) if end), key=lambda end: _distance(end[1], size))


def _between(below: tuple[int, bytes] | None, above: tuple[int, bytes] | None, low: int, high: int, size: int) -> int:
    share = 0.5
    if below and above:
        first, second = (math.log(len(end[1])) for end in (below, above))
        # Kept off the ends: a curved function would be approached from one side, step by step.
        share = min(max((math.log(size) - first) / max(1e-9, second - first), 0.1), 0.9)
    return min(max(round(low + share * (high - low)), low + 1), high - 1)


def _distance(data: bytes, size: int) -> float:
    return abs(math.log(len(data) / size))
