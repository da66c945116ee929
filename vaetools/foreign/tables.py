"""CompressAI's tables as those of the entropy coder: whole numbers to whole numbers.

A row of CompressAI's is a cumulative distribution of 16 bits over the symbols from `offset` on, whose last step is the escape. A
row here has a frequency for each of -reach..reach, and one for the escape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError

PRECISION = 1 << 16
UNIT = 1 << 14  # of a step; what the row does not cover has a frequency of 1
MAX_REACH = 4095  # from -reach to reach; six standard deviations of 256, CompressAI's widest, are 1564
MAX_SCALES = 256  # an index is one byte


def frequencies(cdf: NDArray[Any], lengths: NDArray[Any], offsets: NDArray[Any]) -> NDArray[np.uint32]:
    """(R, 2 * reach + 2) of cumulative distributions (R, L), of which `lengths` (R,) are used.

    reach: the least that holds all rows. Raises ModelError on what are no distributions.
    """
    if cdf.ndim != 2 or lengths.shape != offsets.shape or lengths.shape != cdf.shape[:1] or not len(cdf):
        raise ModelError("its tables of probabilities do not fit each other")
    cdf, lengths, offsets = (array.astype(np.int64) for array in (cdf, lengths, offsets))
    if (lengths < 3).any() or (lengths > cdf.shape[1]).any():
        raise ModelError("its tables of probabilities have impossible lengths")
    ends = offsets + lengths - 3  # the last symbol of each
    reach = int(max(-offsets.min(), ends.max(), 1))
    if reach > MAX_REACH or (offsets > ends).any():
        raise ModelError(f"its tables of probabilities reach to {reach}; at most {MAX_REACH} is sensible")
    result = np.ones((len(cdf), 2 * reach + 2), np.uint32)
    for row, length, offset, out in zip(cdf, lengths, offsets, result, strict=True):
        steps = np.diff(row[:length])
        if row[0] != 0 or row[length - 1] != PRECISION or (steps <= 0).any():
            raise ModelError("its tables of probabilities are no cumulative distributions of 16 bits")
        if offset + reach < 0:
            raise ModelError("its tables of probabilities have impossible offsets")
        out[offset + reach : offset + reach + len(steps) - 1] = steps[:-1] * UNIT
        out[-1] = steps[-1] * UNIT
    return result
