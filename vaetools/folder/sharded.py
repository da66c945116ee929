"""A journal that shards of a job write at the same time, each to a file of its own: OUTPUT/.vaetools-manifest.2-of-8.jsonl.

All of them are read together. The lines of one call of a job have a number, its turn, larger than all that were there when it
began; of lines about a thing, that of the largest turn holds. The next job that has the folder alone folds them into the one
manifest of the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, Self, TypeVar

from ..errors import UsageError
from ..files import make_names_durable
from .journal import MANIFEST, Journal, Line, ends_with_a_line, lock_file, open_file
from .shard import Shard

SHARD_MANIFEST = re.compile(r"\.vaetools-manifest\.([0-9]{1,6})-of-([0-9]{1,6})\.jsonl")


class TurnLine(Line, Protocol):
    @property
    def turn(self) -> int:
        """Of the call of the job that wrote the line; 0 in folders that had no shards."""


LineT = TypeVar("LineT", bound=TurnLine)


class ShardedJournal(Journal[LineT]):
    """The last line about each thing in an output folder, from its manifest and those of shards.

    turn: of the lines that are added.
    """

    # _guard: the one manifest, held open by a shard so that no other job takes the folder.

    def __init__(self, folder: Path, descriptor: int | None, name: str = MANIFEST) -> None:
        super().__init__(folder, descriptor, name)
        self.folder, self.turn = folder, 0
        self._guard: int | None = None

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

    def share(self) -> None:
        """Let shards of this job have the folder, too, and nobody else. Raises UsageError if another job took it."""
        if self._descriptor is not None:
            self.locked = False
            lock_file(self._descriptor, self.folder, shared=True)

    def reclaim(self, *, patience: float = 0.0) -> bool:
        """Have the folder alone again, after `share`, and fold what shards wrote. False if others still write there, and where
        there are no locks. patience: as of open_shard."""
        if self._descriptor is None:
            return False
        try:
            self.locked = lock_file(self._descriptor, self.folder, patience=patience)
        except UsageError:
            return False
        self._load()
        self._fold()
        return self.locked

    def append_to_all(self, lines: Iterable[LineT]) -> None:
        """From a shard, to the one manifest of the folder, and to the disk; no other shard may do so at the same time.

        Raises OSError, such as that of a full disk.
        """
        whole = type(self)(self.folder, self._guard)
        whole._torn = whole._load_from(whole.path)
        lines = list(lines)
        whole.append(lines, durable=True)
        for line in lines:
            self._take(line)

    def refresh(self) -> None:
        """Read what others have written meanwhile."""
        turn = self.turn
        self._load()
        self.turn = turn

    def clear(self) -> None:
        super().clear()
        for _, path in _shard_manifests(self.folder):  # where there are no locks, they were not folded
            path.unlink(missing_ok=True)

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

    def _take(self, entry: LineT) -> None:
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
