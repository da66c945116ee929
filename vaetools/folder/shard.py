"""One of several parts of a folder job, which may run at other times and on other machines than the others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from ..errors import UsageError

ENGINES = ("local", "ray")  # that a job can be given to, whole


@dataclass(frozen=True, order=True)
class Shard:
    """index: from 1 to `count`. Raises UsageError where it is not.

    >>> str(Shard.parse("2/8"))
    '2/8'
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"shard {self.index} of {self.count}: shards of {self.count} are numbered from 1 to {self.count}")

    @classmethod
    def parse(cls, text: str) -> Self:
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
        if not found:
            raise UsageError(f"{text!r} is no shard: write its number and how many there are, such as 2/8")
        return cls(int(found[1]), int(found[2]))

    def takes(self, number: int) -> bool:
        """Whether it is this shard's: of `count` shards, one takes each number."""
        return number % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
