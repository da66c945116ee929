"""What every folder job keeps account of: its tasks, and what becomes of each."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import VaetoolsError, reason_of
from ..storage.blob import Readable
from ..storage.url import Url
from .manifest import DONE, FAILED, Entry, Manifest, number_or_inf

NO_MORE_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_REACHED = (errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
NO_PLACE = (*NO_MORE_SPACE, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)  # of the output folder itself


@dataclass(slots=True)
class Task:
    """One file's way: from `source` to `output`, below `folder`.

    path: the source's, below the job's source folder; like `output` with `/` between its parts. size, mtime_ns: of the
    source. height, width: in pixels, 0 while not known. todo: whether it is to be written; others only share a batch.
    left: whether its result was there already; stale: and was made from another state of the source or with other settings.
    state: what is known about it before it is read, in words.
    """

    source: Readable
    folder: Path | Url
    path: str
    output: str
    size: int = 0
    mtime_ns: int = 0
    height: int = 0
    width: int = 0
    todo: bool = True
    left: bool = False
    stale: bool = False
    state: str = ""

    @property
    def target(self) -> Path:
        """The result, in jobs that write to a folder of this machine."""
        if not isinstance(self.folder, Path):
            raise TypeError(f"{self.folder} is no folder of this machine")
        return self.folder / self.output

    @property
    def destination(self) -> str:
        """The result, whole, for messages."""
        return str(self.target) if isinstance(self.folder, Path) else f"{self.folder}/{self.output}"

    @property
    def local(self) -> Path:
        """The source, in jobs that take only files of this machine."""
        if not isinstance(self.source, Path):
            raise TypeError(f"{self.source} is no file of this machine")
        return self.source

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass
class Outcome:
    """Sums over a job. `seconds` is wall time; `bytes_in`, `bytes_out` and `pixels` count finished files only.

    `skipped`: their target was there already; `stale`: those of them that were made from another state of the source or
    with other settings. `filtered`: left out by include and exclude. `others`: files in the folder that the job is not
    for. `linked`: links to folders, which are not followed. `own_output`: the output folder, if it is inside the source
    folder, and so is left out. `notes`: what to know about finished files. `verified`: the number of files that were
    decoded again, and `lowest_psnr` the worst of them, in dB. `measured`: those of 16 bits among them, `largest_error` the
    largest of theirs, in the values that the source stores, and `lowest_range_psnr` the worst over the range of the values.
    """

    done: int = 0
    skipped: int = 0
    stale: int = 0
    filtered: int = 0
    others: int = 0
    linked: list[str] = field(default_factory=list)
    own_output: str = ""
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    verified: int = 0
    lowest_psnr: float | None = None
    measured: int = 0
    largest_error: float | None = None
    lowest_range_psnr: float | None = None
    seconds: float = 0.0

    def fail(self, path: Readable | str, error: BaseException | str) -> str:
        """Returns the reason, in words."""
        return note_failure(self.failed, path, error)

    def add(self, other: Outcome) -> None:
        """What another part of the same job came to. What is known of the folder as a whole, and the time, stay as they are."""
        for name in ("done", "skipped", "stale", "bytes_in", "bytes_out", "pixels", "verified", "measured"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed
        self.notes += other.notes
        self.lowest_psnr = _lowest(self.lowest_psnr, other.lowest_psnr)
        self.lowest_range_psnr = _lowest(self.lowest_range_psnr, other.lowest_range_psnr)
        if other.largest_error is not None:
            self.largest_error = max(self.largest_error or 0, other.largest_error)

    def take_over(self, task: Task, entry: Entry) -> None:
        """A file that is done, as the manifest tells of it."""
        self.done += 1
        self.bytes_in += task.size
        self.bytes_out += entry.output_bytes
        self.pixels += task.pixels
        if entry.notes:
            self.notes.append((str(task.source), entry.notes))
        if entry.psnr is not None:
            self.verified += 1
            self.lowest_psnr = _lowest(self.lowest_psnr, entry.psnr)
        if entry.max_error is not None:
            self.measured += 1
            self.largest_error = max(self.largest_error or 0, entry.max_error)
            self.lowest_range_psnr = _lowest(self.lowest_range_psnr, entry.range_psnr)

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["failed"] = [{"path": path, "error": reason} for path, reason in self.failed]
        values["notes"] = [{"path": path, "notes": list(notes)} for path, notes in self.notes]
        values["lowest_psnr"] = number_or_inf(self.lowest_psnr)
        values["lowest_range_psnr"] = number_or_inf(self.lowest_range_psnr)
        return values


def _lowest(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def note_failure(failed: list[tuple[str, str]], path: Readable | str, error: BaseException | str) -> str:
    """Append a file and the reason, in words, which is returned."""
    reason = reason_of(error).removeprefix(f"{path}: ")
    failed.append((str(path), reason))
    return reason


def cannot_go_on(error: OSError, place: Path | str, done: int) -> VaetoolsError:
    """What to raise when nothing more can be written."""
    advice = "free some space" if error.errno in NO_MORE_SPACE else "make it writable"
    if error.errno in NOT_REACHED:
        advice = "see that it can be reached"
    return VaetoolsError(
        f"{place}: {reason_of(error).lower()}; {done} files are done: "
        f"{advice} and run the same command again, which goes on from there"
    )


class JobProgress(Protocol):
    """What a job tells while it runs, from any thread. Bytes are those of the sources."""

    def start(self, files: int, size: int) -> None: ...
    def advance(self, size: int, pixels: int) -> None: ...


class Silent:
    def start(self, files: int, size: int) -> None:
        pass

    def advance(self, size: int, pixels: int) -> None:
        pass


@dataclass(frozen=True)
class Errors:
    """largest: of a pixel, in the values that the source stores; real: in real units. psnr: in dB, over the range of values."""

    largest: float
    real: float
    psnr: float


@dataclass(frozen=True)
class Product:
    """What to tell of the file that a result became. `lost`: what is missing in it, in words; then it counts as failed.

    `on_disk`: its size in bytes and CRC-32, if it is synced already. `errors`: if they were measured.
    """

    bpp: float
    quality: float | None = None
    psnr: float | None = None
    notes: tuple[str, ...] = ()
    lost: str = ""
    on_disk: tuple[int, int] | None = None
    errors: Errors | None = None


@dataclass(frozen=True)
class Stored:
    """A product under its temporary name."""

    temporary: Path
    size: int
    crc32: str
    product: Product
    ms: float


class Books(Protocol):
    """What a writer tells of the files that it writes, from any thread."""

    def fail(self, task: Task, error: BaseException | str) -> None: ...
    def announce(self, files: Sequence[tuple[Task, Stored]]) -> None: ...
    def finish(self, task: Task, stored: Stored) -> None: ...
    def stop(self, error: OSError, place: Path | str) -> VaetoolsError: ...


class Ledger:
    """The books of a job: the outcome, the manifest and the progress, from any thread."""

    def __init__(self, outcome: Outcome, manifest: Manifest, settings: str, progress: JobProgress) -> None:
        self.outcome, self.manifest, self.settings, self.progress = outcome, manifest, settings, progress
        self._lock = threading.Lock()

    def fail(self, task: Task, error: BaseException | str) -> None:
        """Raises VaetoolsError if the manifest cannot be written."""
        with self._lock:
            reason = self.outcome.fail(task.source, error)
        self._append([self._entry(task, FAILED, error=reason)])
        self.progress.advance(task.size, task.pixels)

    def announce(self, files: Sequence[tuple[Task, Stored]]) -> None:
        """Note that these are about to get their names. Raises VaetoolsError if the manifest cannot be written."""
        entries = []
        for task, stored in files:
            product = stored.product
            errors = product.errors
            entries.append(
                self._entry(
                    task,
                    FAILED if product.lost else DONE,
                    output_bytes=stored.size,
                    crc32=stored.crc32,
                    bpp=round(product.bpp, 5),
                    quality=product.quality,
                    psnr=None if product.psnr is None else round(product.psnr, 4),
                    max_error=errors and errors.largest,
                    real_error=errors and errors.real,
                    range_psnr=errors and round(errors.psnr, 4),
                    ms=round(stored.ms, 3),
                    notes=product.notes,
                    error=product.lost,
                )
            )
        self._append(entries, durable=True)

    def finish(self, task: Task, stored: Stored) -> None:
        """It has its name."""
        outcome, product = self.outcome, stored.product
        with self._lock:
            if product.notes:
                outcome.notes.append((str(task.source), product.notes))
            if product.lost:
                outcome.fail(task.source, product.lost)
            else:
                outcome.done += 1
                outcome.bytes_in += task.size
                outcome.bytes_out += stored.size
                outcome.pixels += task.pixels
            if product.psnr is not None:
                outcome.verified += 1
                lowest = outcome.lowest_psnr
                outcome.lowest_psnr = product.psnr if lowest is None else min(lowest, product.psnr)
            if errors := product.errors:
                outcome.measured += 1
                outcome.largest_error = max(outcome.largest_error or 0, errors.largest)
                lowest = outcome.lowest_range_psnr
                outcome.lowest_range_psnr = errors.psnr if lowest is None else min(lowest, errors.psnr)
        self.progress.advance(task.size, task.pixels)

    def stop(self, error: OSError, place: Path | str) -> VaetoolsError:
        """What to raise when nothing more can be written."""
        return cannot_go_on(error, place, self.outcome.done)

    def _append(self, entries: Sequence[Entry], *, durable: bool = False) -> None:
        try:
            self.manifest.append(entries, durable=durable)
        except OSError as error:
            raise self.stop(error, self.manifest.shown) from None

    def _entry(self, task: Task, status: str, **values: Any) -> Entry:
        source = (task.path, task.output, task.size, task.mtime_ns, task.height, task.width)
        return Entry(*source, settings=self.settings, status=status, turn=self.manifest.turn, **values)
