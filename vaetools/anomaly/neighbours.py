"""Distances to the nearest of many good vectors."""

from __future__ import annotations

import torch
from torch import Tensor

QUERY_ROWS = 2048  # that are compared at a time


def nearest_distances(queries: Tensor, bank: Tensor, count: int = 1) -> Tensor:
    """(Q,): mean Euclidean distance of queries (Q, D) to their `count` nearest rows of bank (N, D)."""
    count = min(count, len(bank))
    parts = [torch.cdist(part, bank).topk(count, 1, largest=False).values.mean(1) for part in queries.split(QUERY_ROWS)]
    return torch.cat(parts)


def coreset(vectors: Tensor, count: int, seed: int, *, candidates: int = 20_000) -> Tensor:
    """`count` rows of vectors (N, D) that cover the rest: each next one is the farthest from those that were taken.

    The greedy selection of Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022, section 3.2, in a
    random projection to at most 32 dimensions, from at most `candidates` random rows.
    """
    generator = torch.Generator().manual_seed(seed)
    if len(vectors) > candidates:
        vectors = vectors[torch.randperm(len(vectors), generator=generator)[:candidates]]
    if len(vectors) <= count:
        return vectors.clone()
    projection = torch.randn(vectors.shape[1], min(32, vectors.shape[1]), generator=generator)
    small = vectors @ projection
    chosen = [int(torch.randint(len(vectors), (1,), generator=generator))]
    away = (small - small[chosen[0]]).square().sum(1)
    for _ in range(count - 1):
        chosen.append(int(away.argmax()))
        away = torch.minimum(away, (small - small[chosen[-1]]).square().sum(1))
    return vectors[chosen]
