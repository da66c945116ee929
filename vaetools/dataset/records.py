"""What an augmenting job has done: one line of JSON per file of its output folder, and one about the job itself.

    {"job": {"seed": 0, "operators": ["jitter"], ...}}
    {"parent": "cat/a.png", "output": "cat/a__v1.png", "copy": 1, "label": "cat", "operator": "jitter", ...}

It is a journal as that of a folder job (folder/manifest.py), and follows the same rules; its shards' are folder/sharded.py's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..folder.manifest import DONE, FAILED
from ..folder.sharded import ShardedJournal

JOB_KEY = ("job",)


@dataclass(frozen=True, slots=True)
class Record:
    """One file of the output folder. Paths are as in folder.manifest.Entry.

    parent: the image that it was made from, or the file that it is a copy of, below the source folder; "" if it was written
        anew. output: below the output folder. copy: 1 for __v1, ...; 0 for files that were copied byte for byte.
    split, label: of the image, where there are such. operator, strength: what was done to it. seed: that it was drawn from.
    accepted: False if the gate refused it; then there is no file.
    model, settings: the hashes of the model and of the line about the job.
    source_size, mtime_ns: of the parent in bytes, when it was read. digest: of its pixels; height, width, channels, bit_depth:
        theirs. All 0 where there are no pixels. beside: the hash of what the parent says beside its pixels and copies take over.
    status: DONE or FAILED. size, crc32: of the file; where it failed or was not accepted, of the one that was written before.
    notes: what to know about it. error: why it failed.
    turn: of the call of the job that wrote the line; 0 in folders that had no shards.
    """

    parent: str
    output: str
    copy: int = 0
    split: str = ""
    label: str | None = None
    operator: str = ""
    strength: float = 0.0
    seed: int = 0
    accepted: bool = True
    model: str = ""
    settings: str = ""
    source_size: int = 0
    mtime_ns: int = 0
    digest: int = 0
    height: int = 0
    width: int = 0
    channels: int = 0
    bit_depth: int = 0
    beside: str = ""
    status: str = DONE
    size: int = 0
    crc32: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""
    turn: int = 0

    @property
    def is_written(self) -> bool:
        """Whether there is a file that a job has written, or was about to."""
        return self.size > 0 or (self.status == DONE and self.accepted)

    @property
    def key(self) -> tuple[str, str]:
        return self.parent, self.output

    def to_line(self) -> bytes:
        """ASCII. Copies say all that makes them what they are; else what has its default is left out."""
        values = {name: getattr(self, name) for name in DEFAULTS}
        told = ALWAYS_OF_COPIES if self.copy else ("status",)
        return json.dumps({name: value for name, value in values.items() if value != DEFAULTS[name] or name in told}).encode()


@dataclass(frozen=True, slots=True)
class Job:
    """All that the copies depend on beside their images; JSON-ready."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str]:
        return JOB_KEY

    @property
    def turn(self) -> int:
        """There is one such line, in the manifest of the folder."""
        return 0

    @property
    def hash(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(self.to_line()).hexdigest()[:16]

    def to_line(self) -> bytes:
        return json.dumps({"job": self.settings}, sort_keys=True).encode()

    def differences(self, other: Job) -> list[str]:
        """In words, from here to there."""
        names = sorted({*self.settings, *other.settings})
        ours, theirs = ({name: json.dumps(job.settings.get(name), sort_keys=True) for name in names} for job in (self, other))
        return [f"{name} {_short(ours[name])} there, {_short(theirs[name])} now" for name in names if ours[name] != theirs[name]]


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


DEFAULTS = {field.name: field.default for field in fields(Record)}
ALWAYS_OF_COPIES = ("status", "label", "split", "operator", "strength", "seed", "accepted")
KINDS: dict[str, type | tuple[type, ...]] = {name: type(default) for name, default in DEFAULTS.items()}
KINDS |= {"parent": str, "output": str, "label": (str, type(None)), "strength": (int, float)}


class Records(ShardedJournal[Record | Job]):
    """The last record of each file, and of the job."""

    @staticmethod
    def parse(line: bytes) -> Record | Job | None:
        """Names that a later version may add are left out."""
        try:
            values = json.loads(line)
            if "job" in values:
                return Job(values["job"]) if isinstance(values["job"], dict) else None
            values["notes"] = tuple(str(note) for note in values.get("notes", ()))
            for name in ("model", "settings", "operator", "split"):  # the same for many files
                values[name] = sys.intern(values.get(name, ""))
            record = Record(**{name: value for name, value in values.items() if name in DEFAULTS})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        known = all(isinstance(getattr(record, name), kind) for name, kind in KINDS.items())
        return record if known and record.status in (DONE, FAILED) else None

    @property
    def job(self) -> Job | None:
        """None if no augmenting job has written here."""
        found = self.find(JOB_KEY)
        return found if isinstance(found, Job) else None

    @property
    def files(self) -> list[Record]:
        return [line for line in self if isinstance(line, Record)]

    def last(self, parent: str, output: str) -> Record | None:
        found = self.find((parent, output))
        return found if isinstance(found, Record) else None
