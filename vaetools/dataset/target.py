"""What is in the output folder already, and whether it fits what a job is about to write."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ..errors import UsageError, reason_of
from ..folder.manifest import DONE, FAILED
from ..images.ahead import reader_threads
from .books import AugmentBooks
from .dataset import Dataset
from .options import Options
from .records import Job, Record, Records
from .tasks import Output, Plan

CHOICES = "choose another folder, or --on-exists overwrite to replace what is there"
CHOICES_OF_SHARDS = "choose another folder, or remove what is there: a shard replaces nothing of other jobs"


def check_job(
    records: Records, job: Job, on_exists: str, *, but_for: frozenset[str] = frozenset(), choices: str = CHOICES
) -> None:
    """Raises UsageError if the folder was written with other settings, those named by `but_for` left aside, and they may not be
    replaced. choices: what can be done then, in words."""
    before = records.job
    if before is None or on_exists == "overwrite":
        return
    if on_exists == "error":
        raise UsageError(f"{records.path.parent}: holds augmented images already; {CHOICES}")
    ours = Job({name: value for name, value in job.settings.items() if name not in but_for})
    theirs = Job({name: value for name, value in before.settings.items() if name not in but_for})
    if differing := theirs.differences(ours):
        raise UsageError(f"{records.path.parent}: was written with other settings ({'; '.join(differing)}); {choices}")


def check_files(
    plan: Plan, records: Records, on_exists: str, outputs: Iterable[Output] | None = None, *, choices: str = CHOICES
) -> None:
    """Raises UsageError if something else than this job's files has their names, or the folder holds others of such a job.

    outputs: those of a part of the job, in place of all.
    """
    names = [output.output for output in (plan.outputs if outputs is None else outputs)]
    rewritten = {one.path for one in plan.dataset.annotations}
    written = set(written_files(records))
    for name in (*names, *sorted(rewritten)):
        path = plan.target / name
        if path.is_dir() and not path.is_symlink():
            raise UsageError(f"{path}: is a folder, where a file is to be written")
        if on_exists != "overwrite" and name not in written and os.path.lexists(path):
            raise _taken(path, choices)
    stale = stale_files(plan, records)
    if stale and on_exists != "overwrite":
        raise UsageError(
            f"{plan.target}: holds {len(stale)} files that are not of this job, such as {stale[0]}, of more copies or of other "
            f"images; {choices}"
        )


def check_without_model(target: Path, dataset: Dataset, counts: Mapping[str, int], options: Options) -> None:
    """What check_job and check_files refuse whatever the model is, if it is a new one. counts: copies of each train image."""
    if options.on_exists == "overwrite":
        return
    if Records.read(target).job is not None:
        raise UsageError(f"{target}: holds augmented images of another model than the one to be trained; {CHOICES}")
    names = [item.copy_path(copy) for item in dataset.train for copy in range(1, counts[item.path] + 1)]
    for name in (*names, *(one.path for one in dataset.annotations), *(dataset.files if options.originals else ())):
        if os.path.lexists(target / name):
            raise _taken(target / name, CHOICES)


def _taken(path: Path, choices: str) -> UsageError:
    return UsageError(f"{path}: there already, and not written by such a job; {choices}")


def written_files(records: Records) -> list[str]:
    """Names of files that such a job has written here. Those that it failed to write may be somebody else's."""
    return sorted({record.output for record in records.files if record.is_written})


def stale_files(plan: Plan, records: Records) -> list[str]:
    """Names of files that such a job has written here, and this one would not."""
    wanted = {output.output for output in plan.outputs} | {one.path for one in plan.dataset.annotations}
    return [name for name in written_files(records) if name not in wanted and os.path.lexists(plan.target / name)]


def remove_files(target: Path, names: Iterable[str]) -> None:
    """Remove files below `target`, and folders that are empty then. Nothing is touched through links.

    Raises UsageError if one cannot be removed.
    """
    for name in names:
        inside = PurePosixPath(name)
        folders = [target.joinpath(*inside.parts[:end]) for end in range(1, len(inside.parts))]
        if inside.is_absolute() or ".." in inside.parts or any(folder.is_symlink() for folder in folders):
            continue
        try:
            (target / inside).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{target / inside}: cannot be removed ({reason_of(error)})") from None
        for folder in reversed(folders):
            try:
                folder.rmdir()
            except OSError:  # not empty
                break


def settle(outputs: Sequence[Output], records: Records, job: Job, *, thoroughly: bool) -> list[tuple[Output, str]]:
    """Decide which outputs of a plan are left to do. Returns those that cannot be done, with the reason.

    What is there counts if its record says that it was made from the same pixels and metadata with the same settings, or copied
    from the same file, and its size is right; with `thoroughly`, its checksum too.
    """
    failed = []
    sizes: dict[str, tuple[int, int] | str] = {}
    unsure: list[tuple[Output, Record]] = []
    for output in outputs:
        if not output.mtime_ns:
            if output.path not in sizes:
                sizes[output.path] = _size_and_time(output.local)
            found = sizes[output.path]
            if isinstance(found, str):
                output.todo = False
                failed.append((output, found))
                continue
            output.size, output.mtime_ns = found
        record = records.last(output.path, output.output)
        if record is not None:
            output.size_before, output.crc32_before = record.size, record.crc32
        if record is None or record.status != DONE or not _is_of_source(record, output, job):
            continue
        output.operator, output.strength = record.operator, record.strength
        if not record.accepted:
            output.todo, output.refused = False, True
        elif _size_of(output.target) == record.size:
            output.todo = False
            unsure.append((output, record))
    if thoroughly:
        with ThreadPoolExecutor(reader_threads(), "compare") as pool:
            for (output, record), crc32 in zip(unsure, pool.map(lambda pair: _crc32_of(pair[0].target), unsure), strict=True):
                output.todo = crc32 != record.crc32
    for copy in outputs:
        for companion in copy.companions:
            companion.todo = companion.todo and not copy.refused
    return failed


def take_over_done(outputs: Iterable[Output], books: AugmentBooks) -> None:
    """Note what was done of a part of a job before whoever did it died: it is not done again, but told again."""
    for output in outputs:
        record = books.records.last(output.path, output.output)
        if not output.todo or record is None or (record.turn, record.status) != (books.records.turn, DONE):
            continue
        there = _size_of(output.target) == record.size and _crc32_of(output.target) == record.crc32
        if there or not record.accepted:
            books.take_over(output, record)


def left_of(plan: Plan, records: Records, job: Job) -> int:
    """How many outputs of a plan are neither there, nor left out by the gate, nor known to have failed."""
    outputs = list(plan.outputs)
    settle(outputs, records, job, thoroughly=False)
    for output in outputs:
        record = records.last(output.path, output.output)
        if output.todo and record is not None and record.status == FAILED and _is_of_source(record, output, job):
            for each in (output, *output.companions):
                each.todo = False
    return sum(output.todo for output in outputs)


def is_refused(copy: Output, records: Records) -> bool:
    """Whether the gate has left a copy out, as its record says."""
    record = records.last(copy.path, copy.output)
    return record is not None and record.status == DONE and not record.accepted


def is_written(copy: Output, records: Records) -> bool:
    """Whether a copy is there, as its record says."""
    record = records.last(copy.path, copy.output)
    done = record is not None and record.status == DONE and record.accepted
    return record is not None and done and _size_of(copy.target) == record.size


def _is_of_source(record: Record, output: Output, job: Job) -> bool:
    if output.copy:
        assert output.seen is not None
        return (record.digest, record.beside, record.settings, record.seed) == (
            output.seen.digest,
            output.seen.beside,
            job.hash,
            output.seed,
        )
    return (record.source_size, record.mtime_ns) == (output.size, output.mtime_ns)


def _size_and_time(path: Path) -> tuple[int, int] | str:
    try:
        status = path.stat()
    except OSError as error:
        return reason_of(error)
    return status.st_size, status.st_mtime_ns


def _size_of(path: Path) -> int:
    """-1 for what is no regular file."""
    try:
        status = os.lstat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _crc32_of(path: Path) -> str:
    try:
        return f"{zlib.crc32(path.read_bytes()):08x}"
    except OSError:
        return ""
