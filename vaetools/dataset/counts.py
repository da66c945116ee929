"""How many copies each image gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..errors import UsageError
from .dataset import Item


def count_copies(items: Sequence[Item], copies: int, *, balance: bool = False) -> dict[str, int]:
    """The number of copies of each image, by its path: `copies`, and with `balance` as many more as its class needs to become
    as large as the largest, spread evenly over its images.

    Raises UsageError on numbers that leave nothing to do, and on `balance` without classes.
    """
    if copies < 0 or (copies == 0 and not balance):
        raise UsageError(f"the number of copies must be at least {0 if balance else 1}, not {copies}")
    if not balance:
        return {item.path: copies for item in items}
    classes: dict[str, list[str]] = defaultdict(list)
    for item in items:
        if item.label is None:
            raise UsageError("balancing needs classes: it works on folders with a folder for each class only")
        classes[item.label].append(item.path)
    largest = max(map(len, classes.values()), default=0)
    counts = {}
    for paths in classes.values():
        total = largest * (1 + copies) - len(paths)
        for place, path in enumerate(paths):
            counts[path] = total * (place + 1) // len(paths) - total * place // len(paths)
    return counts
