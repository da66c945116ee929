"""Where the few stand among many: the places of K of N symbols, as gaps in a Golomb-Rice code.

    K | quotients of the gaps, K symbols | what is beyond their table | remainders of the gaps, K symbols

A gap is the count of symbols since the last that is named. Its quotient and remainder are those of a power of two near the median
gap, which N and K tell: Rice, "Some practical universal noiseless coding techniques", JPL Publication 79-22, 1979.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ..errors import Corrupt

Array = NDArray[Any]
_Uniform = constriction.stream.model.Uniform
# Each quotient is half as likely as the one before it; the last stands for all from LONGEST on.
LONGEST = 15
_QUOTIENTS = constriction.stream.model.Categorical(2.0 ** np.maximum(-np.arange(LONGEST + 1), 1 - LONGEST), perfect=False)
NUMBER_BITS, PART_BITS = 32, 16  # of the largest number, and of what is coded at once


def put_positions(coder: Any, positions: Array, count: int) -> None:
    """positions: (K,) whole numbers below `count`, rising. count: below 2^32."""
    _put_number(coder, len(positions))
    if not len(positions):
        return
    gaps = np.diff(positions, prepend=-1) - 1
    shift = _shift(count, len(positions))
    quotients = gaps >> shift
    coder.encode(np.minimum(quotients, LONGEST).astype(np.int32), _QUOTIENTS)
    for quotient in quotients[quotients >= LONGEST].tolist():
        _put_number(coder, quotient - LONGEST)
    _put_plain(coder, gaps, shift)


def get_positions(coder: Any, count: int) -> Array:
    """(K,) int64, rising. Raises Corrupt if they are not below `count`."""
    some = _get_number(coder)
    if not some:
        return np.zeros(0, np.int64)
    if some > count:
        raise Corrupt(f"the payload names {some} of {count} symbols")
    shift = _shift(count, some)
    gaps = coder.decode(_QUOTIENTS, some).astype(np.int64)
    for place in np.flatnonzero(gaps == LONGEST).tolist():
        gaps[place] += _get_number(coder)
    gaps = (gaps << shift) + _get_plain(coder, some, shift)
    positions: Array = np.cumsum(gaps + 1) - 1
    if gaps.max() >= count or positions[-1] >= count:
        raise Corrupt(f"the payload names a symbol beyond the last of {count}")
    return positions


def _shift(count: int, some: int) -> int:
    """The power of two next below the median of a geometric distribution with the mean gap."""
    return max(0, (11 * (count - some) // (16 * some)).bit_length() - 1)


def _put_number(coder: Any, number: int) -> None:
    """Its length in bits, and the bits after the first."""
    length = number.bit_length()
    coder.encode(length, _Uniform(NUMBER_BITS + 1))
    _put_plain(coder, np.array([number]), length - 1)


def _get_number(coder: Any) -> int:
    length = int(coder.decode(_Uniform(NUMBER_BITS + 1)))
    return (1 << length >> 1) + int(_get_plain(coder, 1, length - 1)[0])


def _put_plain(coder: Any, values: Array, bits: int) -> None:
    """The lowest `bits` of each of (K,) whole numbers."""
    for low in range(0, bits, PART_BITS):
        part = min(PART_BITS, bits - low)
        coder.encode((values >> low & (1 << part) - 1).astype(np.int32), _Uniform(1 << part))


def _get_plain(coder: Any, count: int, bits: int) -> Array:
    """(count,) int64."""
    values = np.zeros(count, np.int64)
    for low in range(0, bits, PART_BITS):
        values += coder.decode(_Uniform(1 << min(PART_BITS, bits - low)), count).astype(np.int64) << low
    return values
