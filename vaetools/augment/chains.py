"""Which images of a batch are changed, and by which chain of operators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


def rows_by_chain(
    generators: Sequence[torch.Generator],
    chains: int,
    *,
    probability: float | None = None,
    rows: Iterable[int] | None = None,
) -> dict[int, list[int]]:
    """The rows that each of the chains 0..chains-1 is drawn for; those that are left as they are stand nowhere.

    From the generator of each row, first whether it is changed at all, then its chain; its operators draw after that.
    probability: 0..1, None for 1 without a draw, as in further tries for one image. rows: those to draw for, None for all.
    """
    found: dict[int, list[int]] = {}
    for row in range(len(generators)) if rows is None else rows:
        generator = generators[row]
        if probability is None or float(torch.rand(1, generator=generator)) < probability:
            found.setdefault(int(torch.randint(chains, (1,), generator=generator)), []).append(row)
    return found
