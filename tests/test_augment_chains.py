"""Which images are changed by which chain."""

from __future__ import annotations

import torch

from vaetools.augment.chains import rows_by_chain
from vaetools.augment.seeds import generator_of


def drawn_one_by_one(generator: torch.Generator, chains: int, probability: float) -> int | None:
    acts = float(torch.rand(1, generator=generator)) < probability
    return int(torch.randint(chains, (1,), generator=generator)) if acts else None


def test_the_probability_is_drawn_before_the_chain_and_nothing_else() -> None:
    generators, others = ([generator_of(seed) for seed in range(40)] for _ in range(2))
    found = rows_by_chain(generators, 3, probability=0.5)
    chains = [drawn_one_by_one(other, 3, 0.5) for other in others]
    assert found == {chain: [row for row in range(40) if chains[row] == chain] for chain in range(3)}
    assert 0 < chains.count(None) < 40
    assert all(torch.equal(one.get_state(), other.get_state()) for one, other in zip(generators, others, strict=True))


def test_further_tries_draw_no_probability_and_touch_no_other_row() -> None:
    generators, others = ([generator_of(seed) for seed in range(6)] for _ in range(2))
    found = rows_by_chain(generators, 2, rows=[1, 4])
    expected = {row: int(torch.randint(2, (1,), generator=generator_of(row))) for row in (1, 4)}
    assert {row: chain for chain, rows in found.items() for row in rows} == expected
    assert torch.equal(generators[0].get_state(), others[0].get_state())


def test_probability_0_and_1() -> None:
    assert rows_by_chain([generator_of(seed) for seed in range(9)], 1, probability=1.0) == {0: list(range(9))}
    assert rows_by_chain([generator_of(seed) for seed in range(9)], 1, probability=0.0) == {}
