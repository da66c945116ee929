"""What a folder job has done: one line of JSON per file, appended to OUTPUT/.vaetools-manifest.jsonl.

The file lies beside the output and not in a folder of its own, which data loaders would take for a class of images. Nothing
is ever changed in it: the last line about a file holds. A line that says "done" is written before the file gets its final
name, so it counts only if a file of that size is there; a line that a crash cut short is no line.

Shards of a job, which run at the same time, have manifests of their own beside it (sharded.py).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields

from .journal import MANIFEST as MANIFEST
from .sharded import ShardedJournal

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


class Manifest(ShardedJournal[Entry]):
    """The last entry about each file of an output folder, from its manifest and those of shards.

    >>> with Manifest.open(folder) as manifest:
    ...     manifest.append([Entry("a.png", "a.png.vtc", output_bytes=812)])
    >>> Manifest.read(folder).last("a.png", "a.png.vtc").output_bytes
    812
    """

    @staticmethod
    def parse(line: bytes) -> Entry | None:
        return Entry.from_line(line)

    def last(self, path: str, output: str) -> Entry | None:
        """What is known about the file `path` that becomes `output`."""
        return self.find((path, output))
