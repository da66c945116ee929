"""Symbols to bytes and back."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaetools.codec.entropy import CoderModels, SymbolDecoder, SymbolEncoder, TableModels
from vaetools.errors import Corrupt
from vaetools.model.scales import LEVELS, scale_of
from vaetools.model.tables import Y_REACH, Z_REACH, ProbabilityTables, histogram, reaches_of


@pytest.fixture(scope="module")
def tables() -> ProbabilityTables:
    y, z = np.zeros((LEVELS, 2 * Y_REACH + 2)), np.zeros((3, 2 * Z_REACH + 2))
    return ProbabilityTables.fit(y, z, np.array([0.3, 1.0, 5.0]))


@pytest.fixture(scope="module")
def models(tables: ProbabilityTables) -> CoderModels:
    return CoderModels(tables)


def normal_symbols(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    scale = scale_of(torch.from_numpy(rows.astype(np.float64))).numpy()
    return np.random.default_rng(seed).normal(0, scale).round().astype(np.int16)


def coded(symbols: np.ndarray, rows: np.ndarray, models: TableModels) -> bytes:
    encoder = SymbolEncoder()
    encoder.put(symbols, rows, models)
    return encoder.finish()


@given(data=st.data())
def test_any_symbols_come_back(models: CoderModels, data: st.DataObject) -> None:
    symbols = np.array(data.draw(st.lists(st.integers(-32767, 32767), max_size=50)), np.int16)
    rows = np.array(data.draw(st.lists(st.integers(0, LEVELS - 1), min_size=len(symbols), max_size=len(symbols))), np.uint8)
    decoder = SymbolDecoder(coded(symbols, rows, models.y))
    np.testing.assert_array_equal(decoder.get(rows, models.y), symbols)
    decoder.finish()


def test_groups_come_back_in_the_order_they_were_put(models: CoderModels) -> None:
    rows = np.random.default_rng(1).integers(0, LEVELS, 5000).astype(np.uint8)
    symbols, channels = normal_symbols(rows), np.repeat(np.arange(3), 40)
    encoder = SymbolEncoder()
    encoder.put(symbols[:120], channels, models.z)
    encoder.put(symbols[120:], rows[120:], models.y)
    decoder = SymbolDecoder(encoder.finish())
    np.testing.assert_array_equal(decoder.get(channels, models.z), symbols[:120])
    np.testing.assert_array_equal(decoder.get(rows[120:], models.y), symbols[120:])


def test_length_is_what_the_tables_promise(models: CoderModels) -> None:
    rows = np.random.default_rng(2).integers(0, LEVELS, 50_000).astype(np.uint8)
    symbols = normal_symbols(rows)
    assert len(coded(symbols, rows, models.y)) * 8 == pytest.approx(models.y.code_length(symbols, rows), rel=0.001)


def test_tables_of_small_values_are_short(tables: ProbabilityTables) -> None:
    values = np.zeros((LEVELS, 2 * Y_REACH + 2))
    values[:, Y_REACH - 1 : Y_REACH + 2] = 1e8, 5e8, 1e8
    reaches = reaches_of(ProbabilityTables.fit(values, np.zeros((1, 2 * Z_REACH + 2)), np.ones(1)).y)
    assert reaches is not None
    assert (reaches == 1).all()
    np.testing.assert_array_equal(TableModels(tables.y).reaches, reaches_of(tables.y))


@pytest.mark.parametrize("value", [2, -2, 255, -300, 32767])
def test_values_beyond_a_short_table_are_escaped(value: int) -> None:
    short = np.zeros((3, 2 * Y_REACH + 2), np.uint32)
    short[:, Y_REACH - 1 : Y_REACH + 2], short[:, -1] = 1000, 1
    short[1, Y_REACH - 2], short[1, Y_REACH + 2] = 7, 7
    models = TableModels(short)
    rows, symbols = np.array([0, 1, 2, 0, 1], np.uint8), np.array([1, value, value, -1, 0], np.int16)
    written = coded(symbols, rows, models)
    np.testing.assert_array_equal(SymbolDecoder(written).get(rows, models), symbols)
    assert abs(len(written) * 8 - models.code_length(symbols, rows)) < 64


def test_a_table_with_a_hole_is_none() -> None:
    whole = np.ones((2, 12), np.uint32)
    assert reaches_of(whole).tolist() == [5, 5]  # type: ignore[union-attr]
    for column in (0, 5, 10, 11):
        holed = whole.copy()
        holed[1, column] = 0
        assert reaches_of(holed) is None
    whole[0, [0, 10]] = 0
    assert reaches_of(whole).tolist() == [4, 5]  # type: ignore[union-attr]


def test_nothing_is_written_for_no_symbols(models: CoderModels) -> None:
    nothing = np.zeros(0, np.uint8)
    assert len(coded(nothing.astype(np.int16), nothing, models.y)) <= 4
    assert SymbolDecoder(b"").get(nothing, models.y).size == 0


def test_stream_is_the_same_forever() -> None:
    """If this fails, files written before no longer decode: the coder, or what it makes of the tables, has changed."""
    distance = np.abs(np.arange(-20, 22))
    table = np.stack([2**20 // (1 + distance**2), 2**20 // (1 + 9 * distance), 1 + 2**20 // 2**distance]).astype(np.uint32)
    rows = (np.arange(64) % 3).astype(np.uint8)
    symbols = np.array([(-1) ** i * (i % 7) * (i % 5 == 0) for i in range(63)] + [1000], np.int16)
    assert coded(symbols, rows, TableModels(table)).hex() == GOLDEN


GOLDEN = "4213a07f3fad454205ff6e7d9cd128e5d1ec7984"


@pytest.mark.parametrize("payload", [b"", bytes(400), b"\xff" * 400, bytes(range(256))], ids=["empty", "zeros", "ones", "ramp"])
def test_foreign_bytes_raise_nothing_but_corrupt(models: CoderModels, payload: bytes) -> None:
    rows = np.full(300, 40, np.uint8)
    with contextlib.suppress(Corrupt):
        assert len(SymbolDecoder(payload).get(rows, models.y)) == 300


def test_a_payload_of_half_words_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="whole number of words"):
        SymbolDecoder(b"abc")


def test_unread_payload_is_corrupt(models: CoderModels) -> None:
    rows = np.full(3000, 60, np.uint8)
    decoder = SymbolDecoder(coded(normal_symbols(rows), rows, models.y))
    decoder.get(rows[:10], models.y)
    with pytest.raises(Corrupt, match="more than the image"):
        decoder.finish()


def test_tables_give_every_symbol_a_place_and_follow_the_counts(tables: ProbabilityTables) -> None:
    assert reaches_of(tables.y) is not None
    assert reaches_of(tables.z) is not None
    rows = np.full(100_000, 30, np.uint8)
    skewed = np.abs(normal_symbols(rows))
    counts = histogram(rows, skewed, LEVELS, Y_REACH)
    fitted = ProbabilityTables.fit(counts, np.zeros((1, 2 * Z_REACH + 2)), np.ones(1))
    before, after = (TableModels(t.y).code_length(skewed, rows) for t in (tables, fitted))
    assert after < before - 50_000  # knowing the sign saves almost a bit for each symbol that is not zero


# Rare tables.


def rare_symbols(count: int, others: dict[int, int]) -> np.ndarray:
    symbols = np.zeros(count, np.int16)
    for place, value in others.items():
        symbols[place] = value
    return symbols


@pytest.mark.parametrize("others", [{}, {0: 1}, {99_999: -1}, {5: 1, 6: -2, 70_000: 255, 70_001: 256, 99_998: -32767}])
def test_the_few_that_are_not_zero_come_back(tables: ProbabilityTables, others: dict[int, int]) -> None:
    models = TableModels(tables.y, rare=2)
    symbols, rows = rare_symbols(100_000, others), (np.arange(100_000) % 2).astype(np.uint8)
    decoder = SymbolDecoder(coded(symbols, rows, models))
    np.testing.assert_array_equal(decoder.get(rows, models), symbols)
    decoder.finish()


@given(data=st.data())
def test_any_symbols_come_back_with_rare_tables(tables: ProbabilityTables, data: st.DataObject) -> None:
    models = TableModels(tables.y, rare=data.draw(st.integers(1, LEVELS)))
    symbols = np.array(data.draw(st.lists(st.integers(-32767, 32767) | st.just(0), max_size=80)), np.int16)
    rows = np.array(data.draw(st.lists(st.integers(0, LEVELS - 1), min_size=len(symbols), max_size=len(symbols))), np.uint8)
    encoder = SymbolEncoder()
    for _ in range(2):
        encoder.put(symbols, rows, models)
    decoder = SymbolDecoder(encoder.finish())
    for _ in range(2):
        np.testing.assert_array_equal(decoder.get(rows, models), symbols)


@pytest.mark.parametrize("share", [1e-5, 1e-4, 1e-3])
def test_rare_tables_take_next_to_no_more_bits(tables: ProbabilityTables, share: float) -> None:
    rows = np.zeros(400_000, np.uint8)
    symbols = (np.random.default_rng(3).random(len(rows)) < share).astype(np.int16)
    ideal = -len(rows) * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    values = 2.6 * symbols.sum()  # which way from zero, and how far, as the tables have it
    assert len(coded(symbols, rows, TableModels(tables.y, rare=1))) * 8 < 1.1 * ideal + values + 64


def test_rare_tables_that_are_wrong_about_an_image_cost_a_bit_a_symbol_and_what_it_is(tables: ProbabilityTables) -> None:
    rows, symbols = np.zeros(20_000, np.uint8), np.tile(np.array([1, -1, 0, 1], np.int16), 5000)
    written = coded(symbols, rows, TableModels(tables.y, rare=1))
    assert len(written) * 8 < 3 * len(rows)
    assert len(written) < len(coded(symbols, rows, TableModels(tables.y))) / 3


def test_tables_are_rare_where_nearly_all_is_zero() -> None:
    counts = np.zeros((LEVELS, 2 * Y_REACH + 2))
    counts[:, Y_REACH], counts[:, Y_REACH + 1] = 1e7, 1e6
    counts[:3, Y_REACH + 1] = 1e3, 9e3, 2e4
    assert ProbabilityTables.fit(counts, np.zeros((1, 2 * Z_REACH + 2)), np.ones(1)).rare == 2


@pytest.mark.parametrize("seed", range(40))
def test_noise_in_place_of_rare_symbols_raises_nothing_but_corrupt(tables: ProbabilityTables, seed: int) -> None:
    models, rows = TableModels(tables.y, rare=2), (np.arange(3000) % 4).astype(np.uint8)
    noise = np.random.default_rng(seed).bytes(400)
    with contextlib.suppress(Corrupt):
        assert len(SymbolDecoder(noise).get(rows, models)) == 3000


def test_more_rare_symbols_than_there_are_is_corrupt(tables: ProbabilityTables) -> None:
    models = TableModels(tables.y, rare=1)
    rows = np.zeros(5000, np.uint8)
    written = coded(rare_symbols(5000, dict.fromkeys(range(0, 5000, 7), 1)), rows, models)
    with pytest.raises(Corrupt, match="of 90 symbols"):
        SymbolDecoder(written).get(rows[:90], models)
    with pytest.raises(Corrupt, match="beyond the last of 4900"):
        SymbolDecoder(written).get(rows[:4900], models)


def test_stream_of_rare_tables_is_the_same_forever() -> None:
    """As above."""
    distance = np.abs(np.arange(-20, 22))
    table = np.stack([1 + 2**20 // 8 ** np.minimum(distance, 9), 2**20 // (1 + distance**2)]).astype(np.uint32)
    rows = (np.arange(4000) % 7 == 0).astype(np.uint8)
    symbols = rare_symbols(4000, {1: 1, 2: -1, 300: 3, 301: 20, 2500: 21, 3999: -500})
    assert coded(symbols, rows, TableModels(table, rare=1)).hex() == GOLDEN_RARE


GOLDEN_RARE = (
    "731b7419228930ea6fc15a370f70d3e1eb82a99ae307a78bf54074c188544618d03ba8dd28e89b1a417f676415ba6d15"
    "e13ea49ffed74029508e923c533a8bea6ec57647a13df7b0fd6144f71f60fba87fd53289c60e2aa50a55921754a0f3f0"
    "1814ea39d2dae914a9758d1bb27ac00435a781e75d3fbed39ef894281318ac80db6fb352dfd2c907"
)
