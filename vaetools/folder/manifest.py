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
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from ..errors import UsageError
from ..files import make_names_durable
from .journal import MANIFEST as MANIFEST
from .journal import Journal, ends_with_a_line, lock_file, open_file
from .shard import Shard

SHARD_MANIFEST = re.compile(r"\.vaetools-manifest\.([0-9]{1,6})-of-([0-9]{1,6})\.jsonl")
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
    turn: of the call of the job that wrote the line; 0 in folders of this machine that had no shards.
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
        guard = open_file(folder / MANIFEST)
        try:
            lock_file(guard, folder, shared=True, patience=patience)
            manifest = cls(folder, open_file(folder / name), name)
        except BaseException:
            os.close(guard)
            raise
        manifest._guard = guard
        try:
            assert manifest._descriptor is not None
            manifest.locked = lock_file(manifest._descriptor, f"shard {shard} of {folder}", patience=patience)
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
            lock_file(self._descriptor, self.folder, shared=True)

    def reclaim(self) -> bool:
        """Have the folder alone again, after `share`, and fold what shards wrote. False if others still write there."""
        if self._descriptor is None:
            return False
        try:
            self.locked = lock_file(self._descriptor, self.folder)
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
        self._torn = torn if self.path.name == MANIFEST else not ends_with_a_line(self.path)

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
            descriptor = open_file(path)
            try:
                lock_file(descriptor, f"as shard {shard}, and not of {count}, {folder}", shared=True)
            finally:
                os.close(descriptor)
