"""One line for each thing that was done, appended to a file beside the output: the last line about a thing holds.

What crashes cut short is no line, and nothing is ever changed in the file; manifest.py tells what its lines are.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from ..errors import UsageError

try:
    import fcntl
except ImportError:  # not a Unix: nothing keeps two jobs apart there
    fcntl = None  # type: ignore[assignment]

MANIFEST = ".vaetools-manifest.jsonl"
LOCK_SECONDS = 0.2  # between two looks at a lock that is waited for


class Line(Protocol):
    """What a journal holds one of per line."""

    @property
    def key(self) -> Hashable:
        """What it is about: of lines with the same key, the last one holds."""

    def to_line(self) -> bytes:
        """Without the end of the line."""


LineT = TypeVar("LineT", bound=Line)


class Journal(ABC, Generic[LineT]):
    """The last line about each thing in an output folder. `open` to add to it, `read` to look at it."""

    # locked: no other job writes to the folder.

    def __init__(self, folder: Path, descriptor: int | None, name: str = MANIFEST) -> None:
        self.path = folder / name
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._entries: dict[Hashable, LineT] = {}
        self._torn = False
        self.locked = False

    @staticmethod
    @abstractmethod
    def parse(line: bytes) -> LineT | None:
        """None for what is no whole line."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """For one job alone, from now until `close`; made if it is not there.

        Raises UsageError if another job has it, or it cannot be written.
        """
        descriptor = open_file(folder / MANIFEST)
        try:
            manifest = cls(folder, descriptor)
            manifest.locked = lock_file(descriptor, folder)
            manifest._load()
        except BaseException:
            os.close(descriptor)
            raise
        return manifest

    @classmethod
    def read(cls, folder: Path) -> Self:
        """As it is now, empty if there is none; nothing can be appended. Raises UsageError if it cannot be read."""
        manifest = cls(folder, None)
        manifest._load()
        return manifest

    @property
    def shown(self) -> str:
        """Where it is, for messages."""
        return str(self.path)

    def _load(self) -> None:
        self._torn = self._load_from(self.path)

    def _load_from(self, path: Path) -> bool:
        """Whether its last line has no end."""
        line = b"\n"
        try:
            with path.open("rb") as file:
                for line in file:
                    entry = self.parse(line)
                    if entry is not None:
                        self._take(entry)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        return not line.endswith(b"\n")

    def append(self, entries: Iterable[LineT], *, durable: bool = False) -> None:
        """From any thread: all of the lines or none, handed to the system, and to the disk if `durable`.

        Raises OSError, such as that of a full disk.
        """
        if self._descriptor is None:
            raise UsageError(f"{self.path}: was opened for reading only")
        entries = list(entries)
        with self._lock:
            lines = b"".join(entry.to_line() + b"\n" for entry in entries)
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                _write_all(self._descriptor, b"\n" * self._torn + lines)
                if durable:
                    os.fsync(self._descriptor)
            except BaseException:
                os.ftruncate(self._descriptor, end)  # half a line would spoil the next one
                raise
            self._torn = False
            for entry in entries:
                self._take(entry)

    def clear(self) -> None:
        """Forget everything. Raises OSError, such as that of a disk that fails."""
        if self._descriptor is None:
            raise UsageError(f"{self.path}: was opened for reading only")
        with self._lock:
            os.ftruncate(self._descriptor, 0)
            os.fsync(self._descriptor)
            self._entries.clear()
            self._torn = False

    def _take(self, entry: LineT) -> None:
        self._entries.pop(entry.key, None)  # so that the order is that of the last lines
        self._entries[entry.key] = entry

    def find(self, key: Hashable) -> LineT | None:
        """The last line of that key."""
        return self._entries.get(key)

    def __iter__(self) -> Iterator[LineT]:
        """The last line of each key, in the order of the file."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Let another job have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # and with it goes the lock
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def open_file(path: Path) -> int:
    """To read and to append, made if it is not there. Raises UsageError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise UsageError(f"{path}: cannot be written ({reason})") from None


def lock_file(descriptor: int, folder: Path | str, *, shared: bool = False, patience: float = 0.0) -> bool:
    """Whether there is a lock: not on systems and file systems that have none. Waits for it as long as `patience`, in seconds."""
    if fcntl is None:
        return False
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                reason = "another job is writing to this folder; wait for its end, or choose another folder"
                raise UsageError(f"{folder}: {reason}") from None
        except OSError:
            return False
        time.sleep(LOCK_SECONDS)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
