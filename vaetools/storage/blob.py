"""A file that is none of this machine's file system: an object in a store, or a member of an archive."""

from __future__ import annotations

import io
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar


@dataclass(frozen=True)
class BlobStat:
    """As os.stat_result has it."""

    st_size: int
    st_mtime_ns: int


class Blob(ABC):
    """What jobs ask of a source, as Path answers it. Can be pickled, and compares by what it names.

    size: in bytes. mtime_ns: when it was changed, in nanoseconds since 1970, or any other number that changes with it.
    Both are those of the listing that it comes from: nothing is asked for them. distant: whether reading it mostly waits.
    """

    distant: ClassVar[bool] = False
    size: int
    mtime_ns: int

    @abstractmethod
    def __str__(self) -> str:
        """The name that a user would give it, whole."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """All of it. Raises OSError, and nothing else, where it cannot be read."""

    def read_range(self, start: int, length: int) -> bytes:
        """A part of it. Raises as read_bytes."""
        return self.read_bytes()[start : start + length]

    def open(self, mode: str = "rb") -> BinaryIO:
        """From its start, for its head; can be sought in. Where parts can be read, it is better than this, which reads all."""
        assert mode == "rb", mode
        return NamedBytes(self.read_bytes(), str(self))

    def stat(self) -> BlobStat:
        return BlobStat(self.size, self.mtime_ns)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return str(self).rpartition("/")[2]

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """A copy of it meanwhile, for libraries that take nothing but paths; its name ends as this one's does."""
        with tempfile.TemporaryDirectory(prefix="vaetools-") as folder:
            path = Path(folder, os.path.basename(self.name) or "file")
            path.write_bytes(self.read_bytes())
            yield path


class NamedBytes(io.BytesIO):
    """An open file in memory. Messages take its name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


Readable = Path | Blob  # what a file of a job's source may be
