"""Symbols to bytes and back, with constriction's range coder and the model's integer tables.

Symbols are sorted by their table, so that one call codes all that share one. A value beyond its table's reach is coded
as the table's last symbol, the escape, and again as 16 plain bits after the group's sequence ends. Most tables reach no
further than a few steps: the coder looks a symbol up in a short one in little more than half the time.

Of the symbols of rare tables, nearly all of which are zero, only the others are coded: where they stand, and what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ..errors import Corrupt
from ..model.tables import ProbabilityTables, column_of, reaches_of
from .positions import get_positions, put_positions

Array = NDArray[Any]
_Categorical = constriction.stream.model.Categorical
PLAIN_BITS = 16
PLAIN_OFFSET = 1 << (PLAIN_BITS - 1)
_PLAIN = constriction.stream.model.Uniform(1 << PLAIN_BITS)


class TableModels:
    """The coder's form of one set of tables, (rows, 2 * reach + 2) frequencies. reaches: (rows,) of each, int32.

    rare: so many tables, from the first, are of symbols that are nearly all zero.
    """

    def __init__(self, table: Array, rare: int = 0) -> None:
        self.reach, self.rare = (table.shape[1] - 2) // 2, rare
        reaches = reaches_of(table)
        assert reaches is not None
        self.reaches = reaches
        # Whole numbers and sums of them are exact in float64, and the coder scales them by IEEE operations in a fixed
        # order: it arrives at the same fixed-point table on every machine.
        self.models = [_Categorical(row[row > 0].astype(np.float64), perfect=False) for row in table]
        if rare:
            self.others_reach = max(1, int(reaches[:rare].max()))
            self.others = _without_zero(table[:rare], self.others_reach)
        bits = -np.log2(np.maximum(table, 1) / table.sum(1, keepdims=True, dtype=np.float64))
        bits[:, -1] += PLAIN_BITS
        self._bits = np.where(table > 0, bits, bits[:, -1:])

    def code_length(self, symbols: Array, rows: Array) -> float:
        """Bits that an ideal coder writes for (N,) symbols in the (N,) tables."""
        return float(self.code_lengths(symbols, rows).sum())

    def code_lengths(self, symbols: Array, rows: Array) -> Array:
        """The same for each symbol, (N,) float64."""
        bits: Array = self._bits[rows, column_of(symbols, self.reach)]
        return bits


class CoderModels:
    """Built once per loaded model: `y` by scale index, `z` by channel."""

    def __init__(self, tables: ProbabilityTables) -> None:
        self.y, self.z = TableModels(tables.y, tables.rare), TableModels(tables.z)


class SymbolEncoder:
    """Takes groups of symbols in the order in which a SymbolDecoder will ask for them."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def put(self, symbols: Array, rows: Array, models: TableModels) -> None:
        """symbols: (N,) whole numbers within +-32767; rows: (N,) the table of each, uint8."""
        if models.rare:
            is_rare = rows < models.rare
            rare, often = np.flatnonzero(is_rare), np.flatnonzero(~is_rare)  # numpy takes and puts places faster than masks
            self._put_rare(symbols[rare], models)
            symbols, rows = symbols[often], rows[often]
        values = symbols[np.argsort(rows, kind="stable")]
        groups, reaches = _groups(rows, models)
        columns = column_of(values, reaches)
        for row, start, end in groups:
            self._coder.encode(columns[start:end], models.models[row])
        self._put_escaped(values, columns, reaches)

    def _put_rare(self, symbols: Array, models: TableModels) -> None:
        places = np.flatnonzero(symbols)
        put_positions(self._coder, places, len(symbols))
        if len(places):
            values = symbols[places]
            columns = column_of(values, models.others_reach)
            self._coder.encode(columns, models.others)
            self._put_escaped(values, columns, models.others_reach)

    def _put_escaped(self, values: Array, columns: Array, reaches: Array | int) -> None:
        escaped = columns == 2 * reaches + 1
        if escaped.any():
            self._coder.encode(values[escaped].astype(np.int32) + PLAIN_OFFSET, _PLAIN)

    def finish(self) -> bytes:
        words: Array = self._coder.get_compressed()
        return words.astype("<u4").tobytes()


class SymbolDecoder:
    """The mirror of SymbolEncoder. Raises Corrupt on bytes that no encoder wrote, where that shows."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) % 4:
            raise Corrupt(f"a payload of {len(payload)} bytes is no whole number of words")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))

    def get(self, rows: Array, models: TableModels) -> Array:
        """(N,) int32 symbols for the (N,) tables."""
        result = np.zeros(len(rows), np.int32)
        for places, symbols in self.pieces(rows, models):
            result[places] = symbols
        return result

    def pieces(self, rows: Array, models: TableModels) -> Iterator[tuple[Array, Array]]:
        """The symbols for the (N,) tables in parts: (K,) where they stand, and (K,) int32 themselves. Where none stand, they are
        zero."""
        try:
            yield from self._rare_and_often(rows, models) if models.rare else [(np.arange(len(rows)), self._get(rows, models))]
        except (AssertionError, ValueError) as error:  # what constriction raises on invalid data
            raise Corrupt(f"the payload is not what an encoder writes ({error})") from None

    def _rare_and_often(self, rows: Array, models: TableModels) -> Iterator[tuple[Array, Array]]:
        often = np.flatnonzero(rows >= models.rare)  # numpy takes and puts places faster than masks
        numbers = get_positions(self._coder, len(rows) - len(often))
        if len(numbers):
            columns: Array = self._coder.decode(models.others, len(numbers))
            rare_before = often - np.arange(len(often))
            places = numbers + np.searchsorted(rare_before, numbers, side="right")
            yield places, self._values_of(columns, models.others_reach)
        yield often, self._get(rows[often], models)

    def _get(self, rows: Array, models: TableModels) -> Array:
        groups, reaches = _groups(rows, models)
        columns = np.empty(len(rows), np.int32)
        for row, start, end in groups:
            columns[start:end] = self._coder.decode(models.models[row], end - start)
        result = np.empty_like(columns)
        result[np.argsort(rows, kind="stable")] = self._values_of(columns, reaches)
        return result

    def _values_of(self, columns: Array, reaches: Array | int) -> Array:
        """The symbols, those that were escaped being read now."""
        values: Array = columns - reaches
        escaped = columns == 2 * reaches + 1
        if escaped.any():
            values[escaped] = self._coder.decode(_PLAIN, int(escaped.sum())) - PLAIN_OFFSET
        return values

    def finish(self) -> None:
        """Raises Corrupt if much of the payload was left unread."""
        if not self._coder.maybe_exhausted():
            raise Corrupt("the payload holds more than the image")


def _without_zero(rare: Array, reach: int) -> Any:
    """Of the symbols of rare tables that are not zero: (R, columns) frequencies -> one model of -reach..reach and the escape."""
    frequencies = rare.sum(0, dtype=np.float64)
    zero = (len(frequencies) - 2) // 2
    frequencies = np.maximum(1, np.append(frequencies[zero - reach : zero + reach + 1], frequencies[-1]))
    frequencies[reach] = 0
    return _Categorical(frequencies, perfect=False)


def _groups(rows: Array, models: TableModels) -> tuple[list[tuple[int, int, int]], Array]:
    """(table, start, end) of each table that occurs, in the order of the sorted symbols, and the reach of each of these, (N,)."""
    counts = np.bincount(rows, minlength=len(models.models))
    used = np.flatnonzero(counts)
    counts = counts[used]
    ends = np.cumsum(counts)
    groups = list(zip(used.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True))
    return groups, np.repeat(models.reaches[used], counts)
