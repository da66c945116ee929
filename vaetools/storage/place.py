"""Where a job's files come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .blob import Blob


@dataclass(frozen=True)
class Contents:
    """files: the wanted ones, with their paths below the place (`/` between the parts), sorted by these. others: how many more
    there are, without those that vaetools puts beside its results.
    """

    files: Sequence[tuple[str, Blob]]
    others: int = 0


class Place(ABC):
    """A source that is no folder and no file of this machine. Can be pickled."""

    @abstractmethod
    def __str__(self) -> str:
        """As a user would write it, without passwords."""

    @abstractmethod
    def list(self, suffixes: frozenset[str]) -> Contents:
        """Every file whose name ends with one of the suffixes, in any case; no hidden ones, as `images.folder.walk` has it.

        Raises UsageError if there is no such place, it cannot be listed, or it holds none.
        """


Source = Path | Place


def parse_source(text: str) -> Source:
    """What an argument names. Raises UsageError on what is no place."""
    return Path(text)
