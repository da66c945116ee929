"""What an augmenting job keeps account of."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import VaetoolsError
from ..folder.ledger import JobProgress, Stored, Task, cannot_go_on, note_failure
from ..folder.manifest import FAILED
from .records import Record, Records
from .tasks import Output, Source


@dataclass
class ClassCount:
    """Of one class of the train images: those that can be read, the copies that there are now, those that the gate refused; and
    what the gate said in this run, which may try several times for a copy."""

    images: int = 0
    copies: int = 0
    refused: int = 0
    tried: int = 0
    accepted: int = 0


@dataclass
class AugmentOutcome:
    """Sums over a job, or a part of it.

    found: the data set, in words. images: of the train split, that can be read. done: copies written now; skipped: those that
    were there already; refused: those that the gate left out, now or before. files: copied byte for byte now.

    classes: by name; "" for images without a label. same: (path, train image) of test and validation images that are train
    images too, pixel for pixel. failed: (path, reason). notes: what to know. pixels, bytes_out: of the copies written now.
    seconds: wall time. model: the hash of its weights; "" where it was not needed.

    whole: whether the data set is, with the files that name its images; only after a shard it may not be. left: the files that
    other shards have yet to write.
    """

    found: str = ""
    layout: str = ""
    images: int = 0
    done: int = 0
    skipped: int = 0
    refused: int = 0
    files: int = 0
    classes: dict[str, ClassCount] = field(default_factory=dict)
    same: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pixels: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    model: str = ""
    whole: bool = True
    left: int = 0

    def fail(self, path: Path, error: BaseException | str) -> str:
        """Returns the reason, in words."""
        return note_failure(self.failed, path, error)

    def add(self, other: AugmentOutcome) -> None:
        """What another part of the same job came to. What is known of the folder as a whole, and the time, stay as they are."""
        for name in ("done", "files", "pixels", "bytes_out"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed
        for label, count in other.classes.items():
            self.count_gate(label, count.accepted, count.tried)

    def count_gate(self, label: str, accepted: int, tried: int) -> None:
        """What the gate said of a class."""
        count = self.classes.setdefault(label, ClassCount())
        count.accepted += accepted
        count.tried += tried

    def to_dict(self) -> dict[str, Any]:
        values = dict(vars(self))
        values["classes"] = {name: vars(count) for name, count in self.classes.items()}
        values["same"] = [{"path": path, "train": train} for path, train in self.same]
        values["failed"] = [{"path": path, "error": reason} for path, reason in self.failed]
        return values


class AugmentBooks:
    """The outcome, the records and the progress of a job, from any thread. model, settings: hashes, for the records."""

    def __init__(self, outcome: AugmentOutcome, records: Records, progress: JobProgress, model: str, settings: str) -> None:
        self.outcome, self.records, self.progress = outcome, records, progress
        self.model, self.settings = model, settings
        self._lock = threading.Lock()

    def fail(self, task: Task, error: BaseException | str) -> None:
        """Raises VaetoolsError if the records cannot be written."""
        with self._lock:
            reason = self.outcome.fail(task.local, error)
        outputs = [copy for copy in task.copies if copy.todo] if isinstance(task, Source) else [task]
        self._append([self._record(output, status=FAILED, error=reason) for output in outputs if isinstance(output, Output)])
        for output in outputs:
            self.progress.advance(_share(output), output.pixels)

    def take_over(self, output: Output, record: Record) -> None:
        """It was done, as its record says, by whoever did this part of the job before and died."""
        output.todo, output.refused = False, not record.accepted
        if record.accepted:
            self._count(output, record.size)
        for each in (output, *(output.companions if output.refused else ())):
            each.todo = False
        self.progress.advance(output.share, output.pixels)

    def refuse(self, copies: Sequence[Output]) -> None:
        """The gate has left these out. Raises as `fail` does."""
        for copy in copies:
            copy.refused = True
        self._append([self._record(copy, accepted=False) for copy in copies])
        for copy in copies:
            self.progress.advance(copy.share, copy.pixels)

    def announce(self, files: Sequence[tuple[Task, Stored]]) -> None:
        """Note that these are about to get their names. Raises as `fail` does."""
        self._append(
            [
                self._record(output, size=stored.size, crc32=stored.crc32, notes=stored.product.notes)
                for output, stored in files
                if isinstance(output, Output)
            ],
            durable=True,
        )

    def finish(self, task: Task, stored: Stored) -> None:
        """It has its name."""
        self._count(task, stored.size)
        self.progress.advance(_share(task), task.pixels)

    def _count(self, task: Task, size: int) -> None:
        with self._lock:
            if isinstance(task, Output) and task.copy:
                self.outcome.done += 1
                self.outcome.bytes_out += size
                self.outcome.pixels += task.pixels
            else:
                self.outcome.files += 1

    def stop(self, error: OSError, place: Path | str) -> VaetoolsError:
        """What to raise when nothing more can be written."""
        return cannot_go_on(error, place, self.outcome.done)

    def _append(self, records: Sequence[Record], *, durable: bool = False) -> None:
        try:
            self.records.append(records, durable=durable)
        except OSError as error:
            raise self.stop(error, self.records.path) from None

    def _record(self, output: Output, **values: Any) -> Record:
        item, seen = output.item, output.seen
        before = self.records.last(output.path, output.output)
        if "size" not in values:
            size, crc32 = (before.size, before.crc32) if before else (output.size_before, output.crc32_before)
            values |= {"size": size, "crc32": crc32}
        if item is not None:
            values |= {"split": item.split, "label": item.label}
        if seen is not None:
            values |= {"digest": seen.digest, "height": seen.height, "width": seen.width}
            values |= {"channels": seen.channels, "bit_depth": seen.bit_depth, "beside": seen.beside}
        if output.copy:
            values |= {"copy": output.copy, "operator": output.operator, "strength": output.strength, "seed": output.seed}
            values |= {"model": self.model, "settings": self.settings}
        values |= {"source_size": output.size, "mtime_ns": output.mtime_ns, "turn": self.records.turn}
        return Record(output.path, output.output, **values)


def _share(task: Task) -> int:
    return task.share if isinstance(task, Output) else 0
