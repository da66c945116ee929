"""What goes through the network together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def batches_of(items: Iterable[T], key_of: Callable[[T], Key], limit_of: Callable[[Key], int]) -> Iterator[list[T]]:
    """Items of equal keys, at most so many of a key at once, in the order in which the keys occur."""
    groups: dict[Key, list[T]] = {}
    for item in items:
        groups.setdefault(key_of(item), []).append(item)
    for key, same in groups.items():
        limit = limit_of(key)
        for start in range(0, len(same), limit):
            yield same[start : start + limit]


def shape_limit(shape: tuple[int, int], stride: int, batch_size: int, batch_pixels: int) -> int:
    """At most `batch_size` of (rows, columns) of `stride` pixels, and `batch_pixels` pixels, but at least one."""
    return max(1, min(batch_size, batch_pixels // (shape[0] * shape[1] * stride**2)))
