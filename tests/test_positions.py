"""Where the few stand among many."""

from __future__ import annotations

import math

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaetools.codec.positions import get_positions, put_positions
from vaetools.errors import Corrupt


def words_of(positions: np.ndarray, count: int) -> np.ndarray:
    coder = constriction.stream.queue.RangeEncoder()
    put_positions(coder, positions, count)
    words: np.ndarray = coder.get_compressed()
    return words


def read(words: np.ndarray, count: int) -> np.ndarray:
    return get_positions(constriction.stream.queue.RangeDecoder(words), count)


@given(count=st.integers(1, 1 << 31), data=st.data())
def test_any_positions_come_back(count: int, data: st.DataObject) -> None:
    positions = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=30))), np.int64)
    np.testing.assert_array_equal(read(words_of(positions, count), count), positions)


@pytest.mark.parametrize(
    ("count", "some"), [(200_000, 0), (200_000, 1), (200_000, 40), (200_000, 2000), (5000, 2500), (5000, 5000)]
)
def test_their_length_is_near_what_is_possible(count: int, some: int) -> None:
    positions = np.sort(np.random.default_rng(0).choice(count, some, replace=False))
    ways = (math.lgamma(count + 1) - math.lgamma(some + 1) - math.lgamma(count - some + 1)) / math.log(2)
    bits = 32 * len(words_of(positions, count))
    assert bits <= min(1.06 * ways, count) + 64 or some == count
    assert bits <= count + 64


def test_a_cluster_after_a_long_gap_comes_back() -> None:
    positions = np.array([*range(900_000, 900_050), 999_999])
    np.testing.assert_array_equal(read(words_of(positions, 1_000_000), 1_000_000), positions)


@pytest.mark.parametrize("seed", range(60))
def test_noise_gives_positions_or_corrupt(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 1 << 32, 200, np.uint32)
    try:
        positions = read(noise, 1000)
    except Corrupt:
        return
    assert (np.diff(positions) > 0).all()
    assert not len(positions) or 0 <= positions[0] <= positions[-1] < 1000
