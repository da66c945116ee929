"""Probability tables of the entropy coder: whole numbers, fitted once and stored with the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .distributions import NormalPrior
from .scales import LEVELS, scale_of

Y_REACH, Z_REACH = 255, 127
TOTAL = 1 << 22  # of a row, about; the coder itself works with 24 bits
PRIOR_COUNT = 50.0
TAIL = 0.001
RARE = 1e-3  # the largest share of symbols that are not zero in tables that are coded by where those stand
CUT = 1e-5  # the largest share of a row beyond its reach: what a shorter table, found faster, costs in escapes


@dataclass(frozen=True)
class ProbabilityTables:
    """Frequencies of the symbols -reach..reach and, last, of the escape for all others.

    y: (64, 2 * 255 + 2), one row per scale index. z: (Z, 2 * 127 + 2), one per channel. uint32, at least 1 up to the reach of its
    row and for the escape, and 0 beyond. rare: so many rows of y, from the first, are of symbols that are nearly all zero, and
    are coded by where the others stand.
    """

    y: np.ndarray
    z: np.ndarray
    rare: int = 0

    @classmethod
    def fit(cls, y_counts: np.ndarray, z_counts: np.ndarray, z_scale: np.ndarray) -> ProbabilityTables:
        """From histograms of the same shapes, with a Gaussian of each row's scale as the prior for rare symbols."""
        y_scale = scale_of(torch.arange(LEVELS, dtype=torch.float64)).numpy()
        y, z = _fit(y_counts, y_scale, Y_REACH), _fit(z_counts, z_scale, Z_REACH)
        zeros = y[:, Y_REACH] / y.sum(1, dtype=np.float64)
        return cls(y, z, int(np.argmax(zeros < 1 - RARE)))


def column_of(symbols: np.ndarray, reach: int | np.ndarray) -> np.ndarray:
    """Where symbols stand in a row of so large a reach, int32; beyond it, at the escape."""
    values = symbols.astype(np.int32)
    columns: np.ndarray = np.where(np.abs(values) > reach, 2 * reach + 1, values + reach).astype(np.int32)
    return columns


def histogram(rows: np.ndarray, symbols: np.ndarray, row_count: int, reach: int) -> np.ndarray:
    """Counts (row_count, 2 * reach + 2) of `symbols` in the tables `rows`; out of reach counts as the escape."""
    width = 2 * reach + 2
    return np.bincount(
        rows.astype(np.int64).ravel() * width + column_of(symbols, reach).ravel(), minlength=row_count * width
    ).reshape(row_count, width)


def _fit(counts: np.ndarray, scale: np.ndarray, reach: int) -> np.ndarray:
    grid = torch.arange(-reach, reach + 1, dtype=torch.float64)
    normal = NormalPrior(torch.zeros(1, dtype=torch.float64), torch.from_numpy(scale.astype(np.float64))[:, None])
    prior = np.zeros(counts.shape)
    tail = 1 / (1 + grid.numpy() ** 2)
    prior[:, :-1] = (1 - TAIL) * normal.log_bin(grid[None]).exp().numpy() + TAIL * tail / tail.sum()
    prior[:, -1] = TAIL / 100
    weight = counts + PRIOR_COUNT * prior / prior.sum(1, keepdims=True)
    share = weight / weight.sum(1, keepdims=True)
    beyond = np.cumsum(share[:, :reach] + share[:, -2:reach:-1], axis=1)  # of the symbols from the ends inwards
    reaches = reach - (beyond < CUT).sum(1)
    inside = _within(reaches, reach)
    share[:, -1] += np.where(inside, 0, share[:, :-1]).sum(1)
    frequencies = np.maximum(1, np.round(share * TOTAL)).astype(np.uint32)
    frequencies[:, :-1][~inside] = 0
    return frequencies


def reaches_of(table: np.ndarray) -> np.ndarray | None:
    """(R,) the reach of each row of a table, int32; None if it is no table: an escape, or a value up to the reach, is missing."""
    reach = (table.shape[1] - 2) // 2
    present = table[:, :-1] > 0
    reaches: np.ndarray = present[:, reach:].sum(1, dtype=np.int32) - 1
    return reaches if (present == _within(reaches, reach)).all() and table[:, -1].all() and (reaches >= 0).all() else None


def _within(reaches: np.ndarray, widest: int) -> np.ndarray:
    """(R, 2 * widest + 1): which of the values from -widest to widest are up to the reach of each row."""
    mask: np.ndarray = np.abs(np.arange(-widest, widest + 1)) <= reaches[:, None]
    return mask
