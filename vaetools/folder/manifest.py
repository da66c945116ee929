"""What a folder job has done: one line of JSON per file, appended to OUTPUT/.vaetools-manifest.jsonl.

The file lies beside the output and not in a folder of its own, which data loaders would take for a class of images. Nothing
is ever changed in it: the last line about a file holds. A line that says "done" is written before the file gets its final
name, so it counts only if a file of that size is there; a line that a crash cut short is no line.

Shards of a job, which run at the same time, have manifests of their own beside it: OUTPUT/.vaetools-manifest.2-of-8.jsonl. All of
them are read together. The lines of one call of a job have a number, its turn, larger than all that were there when it began; of
lines about a file, that of the largest turn holds. The next job that has the folder alone folds them into the one manifest.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from ..errors import UsageError
from ..files import make_names_durable
from .shard import Shard

try:
    import fcntl
except ImportError:  # not a Unix: nothing keeps two jobs apart there
    fcntl = None  # type: ignore[assignment]

MANIFEST = ".vaetools-manifest.jsonl"
SHARD_MANIFEST = re.compile(r"\.vaetools-manifest\.([0-9]{1,6})-of-([0-9]{1,6})\.jsonl")
LOCK_SECONDS = 0.2  # between two looks at a lock that is waited for
DONE, FAILED = "done", "failed"
DECIBELS = ("psnr", "range_psnr")  # which may be infinite


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a job. Paths have `/` between their parts; bytes in them that are no UTF-8 are lone surrogates.

    path: of the source, below the job's source folder. output: of the result, below the output folder.
    size, mtime_ns: of the source, when it was read. height, width: in pixels; 0 where they are not known.
    settings: all that the result depends on beside the source, in words.
    status: DONE or FAILED. output_bytes, crc32 (8 hexadecimal digits), bpp: of the result; 0 and "" if there is none. A
        failed file has a result if it was restored in part.
    quality: that it was compressed with. psnr: in dB, inf if nothing was lost; None if it was not verified.
    max_error: the largest, in the values that the source stores; real_error: in real units; range_psnr: in dB, over the range
        of the source's values. None where they were not measured.
    ms: milliseconds, its share of the batch's time included. notes: what to know about it. error: why it failed.
    turn: of the call of the job that wrote the line; 0 in folders that had no shards.
    """

    path: str
    output: str
    size: int = 0
    mtime_ns: int = 0
    height: int = 0
    width: int = 0
    settings: str = ""
    status: str = DONE
    output_bytes: int = 0
    crc32: str = ""
    bpp: float = 0.0
    quality: float | None = None
    psnr: float | None = None
    max_error: float | None = None
    real_error: float | None = None
    range_psnr: float | None = None
    ms: float = 0.0
    notes: tuple[str, ...] = ()
    error: str = ""
    turn: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.path, self.output

    def to_line(self) -> bytes:
        """ASCII, without the end of the line; but for the status, what has its default is left out."""
        values = {name: getattr(self, name) for name in DEFAULTS}
        kept = {name: value for name, value in values.items() if value != DEFAULTS[name] or name == "status"}
        for name in DECIBELS:
            if name in kept:
                kept[name] = number_or_inf(getattr(self, name))
        return json.dumps(kept).encode("ascii")

    @classmethod
    def from_line(cls, line: bytes) -> Entry | None:
        """None for what is no whole entry. Names that a later version may add are left out."""
        try:
            values = json.loads(line)
            for name in DECIBELS:
                values[name] = None if values.get(name) is None else float(values[name])
            values["notes"] = tuple(str(note) for note in values.get("notes", ()))
            values["settings"] = sys.intern(values.get("settings", ""))  # the same for all files of a job
            entry = cls(**{name: value for name, value in values.items() if name in DEFAULTS})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        known = all(isinstance(getattr(entry, name), kind) for name, kind in KINDS.items())
        return entry if known and entry.status in (DONE, FAILED) else None


DEFAULTS = {field.name: field.default for field in fields(Entry)}
KINDS: Mapping[str, type | tuple[type, ...]] = {
    "path": str,
    "output": str,
    "size": int,
    "mtime_ns": int,
    "height": int,
    "width": int,
    "settings": str,
    "output_bytes": int,
    "crc32": str,
    "bpp": (int, float),
    "quality": (int, float, type(None)),
    "max_error": (int, float, type(None)),
    "real_error": (int, float, type(None)),
    "ms": (int, float),
    "error": str,
    "turn": int,
}


def number_or_inf(value: float | None) -> float | str | None:
    """For JSON, which has no word for infinity; float() reads either."""
    return "inf" if value is not None and math.isinf(value) else value


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
        descriptor = _open(folder / MANIFEST)
        try:
            manifest = cls(folder, descriptor)
            manifest.locked = _lock(descriptor, folder)
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


class Manifest(Journal[Entry]):
    """The last entry about each file of an output folder, from its manifest and those of shards.

    >>> with Manifest.open(folder) as manifest:
    ...     manifest.append([Entry("a.png", "a.png.vtc", output_bytes=812)])
    >>> Manifest.read(folder).last("a.png", "a.png.vtc").output_bytes
    812
    """

    # turn: of the lines that are added. _guard: the one manifest, held open by a shard so that no other job takes the folder.

    def __init__(self, folder: Path, descriptor: int | None, name: str = MANIFEST) -> None:
        super().__init__(folder, descriptor, name)
        self.folder, self.turn = folder, 0
        self._guard: int | None = None

    @staticmethod
    def parse(line: bytes) -> Entry | None:
        return Entry.from_line(line)

    @classmethod
    def open(cls, folder: Path) -> Self:
        manifest = super().open(folder)
        try:
            manifest._fold()
        except BaseException:
            manifest.close()
            raise
        return manifest

    @classmethod
    def open_shard(cls, folder: Path, shard: Shard, *, turn: int | None = None, patience: float = 0.0) -> Self:
        """That of a shard, for one job alone, beside those of other shards of the same job.

        turn: that of the whole job, where one process has planned it; then nothing but the shard's own lines is read.
        patience: seconds to wait for a lock, which may outlive a process on another machine by a while.
        Raises UsageError as `open` does, and if shards of another count are being written.
        """
        name = f".vaetools-manifest.{shard.index}-of-{shard.count}.jsonl"
        guard = _open(folder / MANIFEST)
        try:
            _lock(guard, folder, shared=True, patience=patience)
            manifest = cls(folder, _open(folder / name), name)
        except BaseException:
            os.close(guard)
            raise
        manifest._guard = guard
        try:
            assert manifest._descriptor is not None
            manifest.locked = _lock(manifest._descriptor, f"shard {shard} of {folder}", patience=patience)
            if turn is None:
                _refuse_other_counts(folder, shard.count)
                manifest._load()
                manifest.turn += 1
            else:
                manifest._torn = manifest._load_from(manifest.path)
                manifest.turn = turn
        except BaseException:
            manifest.close()
            raise
        return manifest

    def last(self, path: str, output: str) -> Entry | None:
        """What is known about the file `path` that becomes `output`."""
        return self.find((path, output))

    def share(self) -> None:
        """Let shards of this job have the folder, too, and nobody else. Raises UsageError if another job took it."""
        if self._descriptor is not None:
            self.locked = False
            _lock(self._descriptor, self.folder, shared=True)

    def reclaim(self) -> bool:
        """Have the folder alone again, after `share`, and fold what shards wrote. False if others still write there."""
        if self._descriptor is None:
            return False
        try:
            self.locked = _lock(self._descriptor, self.folder)
        except UsageError:
            return False
        self._load()
        self._fold()
        return self.locked

    def close(self) -> None:
        super().close()
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    def _load(self) -> None:
        # The shards' first: a job that folds them meanwhile moves lines from there to here, and none is missed.
        for _, path in _shard_manifests(self.folder):
            self._load_from(path)
        torn = self._load_from(self.folder / MANIFEST)
        self._torn = torn if self.path.name == MANIFEST else not _ends_with_a_line(self.path)

    def _take(self, entry: Entry) -> None:
        known = self.find(entry.key)
        if known is None or entry.turn >= known.turn:
            super()._take(entry)
        self.turn = max(self.turn, entry.turn)

    def _fold(self) -> None:
        """Take over the lines of shards, and remove their manifests; where there are no locks, only have the next turn.

        Stopped at any moment, it leaves each line in one place or in both.
        """
        paths = [path for _, path in _shard_manifests(self.folder)]
        if not paths:
            return
        if not self.locked:
            self.turn += 1
            return
        own = type(self)(self.folder, None)
        own._load_from(self.path)
        try:
            self.append([entry for entry in self if own.find(entry.key) != entry], durable=True)
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path}: the manifests of shards cannot be taken over ({error.strerror})") from None
        make_names_durable([self.folder])


def _shard_manifests(folder: Path) -> list[tuple[Shard, Path]]:
    """In the order of counts, then of numbers."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = []
    for name in names:
        match = SHARD_MANIFEST.fullmatch(name)
        if match and 1 <= int(match[1]) <= int(match[2]) and not (folder / name).is_symlink():
            found.append((Shard(int(match[1]), int(match[2])), folder / name))
    return sorted(found, key=lambda pair: (pair[0].count, pair[0].index))


def _refuse_other_counts(folder: Path, count: int) -> None:
    """Raises UsageError while shards of another count are written: they take other batches for theirs."""
    for shard, path in _shard_manifests(folder):
        if shard.count != count:
            descriptor = _open(path)
            try:
                _lock(descriptor, f"as shard {shard}, and not of {count}, {folder}", shared=True)
            finally:
                os.close(descriptor)


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _open(path: Path) -> int:
    """To read and to append, made if it is not there. Raises UsageError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise UsageError(f"{path}: cannot be written ({reason})") from None


def _lock(descriptor: int, folder: Path | str, *, shared: bool = False, patience: float = 0.0) -> bool:
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
