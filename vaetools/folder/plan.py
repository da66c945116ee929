"""Which files a job is for, which of them are left to do, and which go through the network together.

Batches are planned from the whole listing, with what is done already: a float network may round differently in another
batch, so a file's bytes depend on the folder and the settings, and not on where a job was stopped.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from ..codec.container import Limits
from ..errors import LimitExceeded, UsageError, VaetoolsError, reason_of
from ..images.ahead import reader_threads
from ..images.folder import walk
from ..storage.blob import Blob, Readable
from ..storage.place import Place, Source
from ..storage.url import Url
from .ledger import Outcome, Task
from .manifest import FAILED, Entry, Manifest
from .target import Folder, LocalTarget, Target
from .target import make_target as make_target

ON_EXISTS = ("skip", "overwrite", "error")
LOOK_CHUNK, LOOK_AHEAD = 16, 16  # files a call, and calls at once, for sizes that the manifest does not tell
MODEL = "model "  # with which the settings of a job end that does not know its model
DISTANT_AHEAD = 32  # files, one a call, where most of the time of a call is the way to a store and back
Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")
Fail = Callable[[Task, BaseException | str], None]


@dataclass(frozen=True)
class Selection:
    """What a job takes from its source folder, and what it does where there is a result.

    on_exists: "skip" leaves what is there. "overwrite" replaces it, unless the manifest says that it was made from the same
        source with the same settings and its checksum agrees. "error" refuses to start.
    include, exclude: patterns (fnmatch: `*` goes through `/` too) of names, or of paths below the source folder. A file
        is taken if one of `include` fits, or there is none, and none of `exclude` does.
    retry_failed: only the files that the manifest says failed.

    Raises UsageError on another policy.
    """

    on_exists: str = "skip"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.on_exists not in ON_EXISTS:
            raise UsageError(f"on_exists must be one of {', '.join(ON_EXISTS)}, not {self.on_exists!r}")

    def takes(self, path: str) -> bool:
        return (not self.include or _fits(path, self.include)) and not _fits(path, self.exclude)


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def check_places(source: Source, target: Folder) -> None:
    """Raises UsageError where a job would write among what it reads, or to no folder."""
    if isinstance(source, Path) and not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if isinstance(target, Path) and target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file, not a folder to write to")
    if isinstance(source, Place):
        same = _asked(target, lambda: source.is_in(target))
    else:
        folder = source if source.is_dir() else source.parent
        same = isinstance(target, Path) and target.resolve() == folder.resolve()
    if same:
        raise UsageError(f"{target}: the output folder must not be the input folder")


def _inside(source: Source, target: Folder) -> str | None:
    """The path of an output folder below the source, where both are in one store."""
    return _asked(target, lambda: target.below(source)) if isinstance(source, Url) and isinstance(target, Url) else None


def _asked(target: Folder, question: Callable[[], T]) -> T:
    """What a store answers to a question about a target."""
    try:
        return question()
    except OSError as error:
        raise UsageError(f"{target}: cannot be opened ({error.strerror})") from None


def list_tasks(
    source: Source,
    target: Folder,
    suffixes: frozenset[str],
    output_name: Callable[[str], str],
    selection: Selection,
    outcome: Outcome,
) -> list[Task]:
    """Every file below `source` (or the one that it is) that is to become `output_name(its name)`, in order.

    What is passed over goes into the outcome, what cannot be looked at is failed there. Raises UsageError if nothing is left.
    """
    found = (
        _list_place(source, target, suffixes, outcome)
        if isinstance(source, Place)
        else _list_folder(source, target, suffixes, outcome)
    )
    tasks = []
    for inside, file in found:
        if selection.takes(inside):
            folder, slash, name = inside.rpartition("/")
            tasks.append(Task(file, target, inside, folder + slash + output_name(name)))
    outcome.filtered = len(found) - len(tasks)
    if not tasks:
        raise UsageError(f"{source}: none of its {len(found)} files is left by --include and --exclude")
    return tasks


def _list_folder(source: Path, target: Folder, suffixes: frozenset[str], outcome: Outcome) -> list[tuple[str, Readable]]:
    root, paths = source, [source]
    if source.is_dir():
        listing = walk(source, suffixes, leave_out=target if isinstance(target, Path) else None)
        paths, outcome.others = listing.images, listing.others
        outcome.linked = [str(path) for path in listing.linked]
        outcome.own_output = str(target) if listing.left_out else ""
        for path, reason in listing.unreadable:
            outcome.fail(path, f"cannot be opened ({reason})")
    else:
        root = source.parent
    start = 0 if root == Path() else len(root.as_posix().rstrip("/")) + 1
    return [(path.as_posix()[start:], path) for path in paths]


def _list_place(source: Place, target: Folder, suffixes: frozenset[str], outcome: Outcome) -> list[tuple[str, Readable]]:
    own = _inside(source, target)
    contents = source.list(suffixes, leave_out=own) if own and isinstance(source, Url) else source.list(suffixes)
    outcome.others, outcome.own_output = contents.others, str(target) if contents.left_out else ""
    for path, reason in contents.refused:
        outcome.fail(path, reason)
    return list(contents.files)


def refuse_existing(tasks: Sequence[Task], target: Target) -> None:
    """Raises UsageError if there is anything under the name of a result."""
    refuse_any([task.destination for task in tasks if target.look(task.output)])


def refuse_any(existing: Sequence[object]) -> None:
    """Raises UsageError if results of these names are there already."""
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"there already: {existing[0]}{more}; on_exists (--on-exists) says what to do with them")


def settle(
    tasks: Sequence[Task], target: Target, selection: Selection, manifest: Manifest, settings: str, outcome: Outcome, fail: Fail
) -> list[Task]:
    """Decide what is to do. The result is all tasks that may share a batch, with or without work to do on them.

    settings: those of this job; or only their beginning, where the rest is not known. `fail` is told what cannot be done.
    Sizes in pixels are taken from the manifest where it knows them.
    """
    kept: list[Task] = []
    first_of: dict[str, Task] = {}
    unsure: list[tuple[Task, Entry]] = []
    for task in tasks:
        first = first_of.setdefault(task.output, task)
        if first is not task:
            name = task.output.rpartition("/")[2]
            reason = f"would be restored as {name}, like {first.source.name}: restore it alone, to another folder"
            _refuse(task, reason, fail)
            continue
        try:
            status = task.source.stat()
        except OSError as error:
            _refuse(task, reason_of(error), fail)
            continue
        kept.append(task)
        task.size, task.mtime_ns = status.st_size, status.st_mtime_ns
        entry = manifest.last(task.path, task.output)
        if entry and _is_of_source(entry, task):
            task.height, task.width = entry.height, entry.width
        if _decide(task, target, entry, selection, settings, outcome, fail) and entry:
            unsure.append((task, entry))
    with ThreadPoolExecutor(reader_threads(), "compare") as pool:
        checksums = pool.map(lambda pair: target.crc32(pair[0].output), unsure)
        for (task, entry), crc32 in zip(unsure, checksums, strict=True):
            if crc32 == entry.crc32:
                _leave(task, "there already, from the same source with the same settings", outcome)
    return kept


def _decide(
    task: Task, target: Target, entry: Entry | None, selection: Selection, settings: str, outcome: Outcome, fail: Fail
) -> bool:
    """Whether a task is to do, by its result and the manifest. True if that hangs on whether the result is still whole."""
    failed = entry is not None and entry.status == FAILED
    if selection.retry_failed and not failed:
        task.todo, task.state = False, "did not fail"
        return False
    there = target.look(task.output)
    if there is None:
        return False
    made_so = entry is not None and _is_of_source(entry, task) and there.size == entry.output_bytes
    made_so = made_so and not failed and entry is not None and has_settings(entry, settings)
    if there.is_folder:
        _refuse(task, f"{task.destination} is a folder, where the result would go", fail)
    elif selection.on_exists == "overwrite":
        return made_so
    elif selection.retry_failed and entry is not None and there.size == entry.output_bytes:
        pass
    elif failed and entry is not None and _is_of_source(entry, task) and there.size == entry.output_bytes:
        reason = outcome.fail(task.source, f"restored in part only: {entry.error}")  # the manifest knows already
        task.todo, task.state = False, f"fails: {reason}"
    else:
        _leave(task, "there already", outcome)
        if entry and not made_so:
            outcome.stale += 1
            task.stale, task.state = True, "there already, but out of date"
    return False


def has_settings(entry: Entry, settings: str) -> bool:
    """Whether a result was made with these; they end with MODEL where it is not known."""
    return entry.settings.startswith(settings) if settings.endswith(MODEL) else entry.settings == settings


def _is_of_source(entry: Entry, task: Task) -> bool:
    """Whether the source is still as it was then."""
    return (entry.size, entry.mtime_ns) == (task.size, task.mtime_ns)


def _leave(task: Task, state: str, outcome: Outcome) -> None:
    task.todo, task.left, task.state = False, True, state
    outcome.skipped += 1


def _refuse(task: Task, reason: str, fail: Fail) -> None:
    task.todo, task.state = False, f"fails: {reason}"
    fail(task, reason)


def are_distant(tasks: Iterable[Task]) -> bool:
    """Whether reading sources mostly waits for a store."""
    return any(task.source.distant for task in tasks if isinstance(task.source, Blob))


def with_sizes(
    tasks: Sequence[Task],
    size_of: Callable[[Task], tuple[int, int]],
    limits: Limits,
    fail: Fail,
    stop: threading.Event | None = None,
) -> Iterator[Task]:
    """The tasks whose height and width are known, or found by `size_of` in threads, some ahead: disks can be slow.

    `fail` is told of those that are to do and have none, or one above the limits.
    """

    def look(chunk: list[Task]) -> None:
        for task in chunk:
            try:
                if not task.pixels:
                    task.height, task.width = size_of(task)
                if not limits.allow(task.width, task.height):
                    raise LimitExceeded(limits.refusal(task.width, task.height))
            except (VaetoolsError, OSError) as error:
                if task.todo:
                    fail(task, error)
                task.height = task.width = 0

    remaining = iter(tasks)
    waiting: deque[tuple[list[Task], Future[None]]] = deque()
    distant = DISTANT_AHEAD if are_distant(tasks) else 0
    length = 1 if distant else LOOK_CHUNK
    with ThreadPoolExecutor(distant or reader_threads(), "look") as pool:
        while not (stop and stop.is_set()):
            chunk = list(itertools.islice(remaining, length))
            if chunk:
                waiting.append((chunk, pool.submit(look, chunk)))
            if not waiting:
                return
            if not chunk or len(waiting) == (distant or LOOK_AHEAD):
                ready, future = waiting.popleft()
                future.result()
                yield from (task for task in ready if task.pixels)
        pool.shutdown(cancel_futures=True)


def in_batches(
    tasks: Iterable[Task], key_of: Callable[[Task], Key], limit: Callable[[Key], int], *, every: bool = False
) -> Iterator[list[Task]]:
    """Batches of tasks of equal keys, each yielded when it has reached the limit of its key, or at the end; those without
    work to do are left out, unless `every` one is asked for."""
    opened: dict[Key, list[Task]] = {}
    for task in tasks:
        key = key_of(task)
        batch = opened.setdefault(key, [])
        batch.append(task)
        if len(batch) >= limit(key):
            del opened[key]
            if every or any(task.todo for task in batch):
                yield batch
    for batch in opened.values():
        if every or any(task.todo for task in batch):
            yield batch


def place_refuses(task: Task) -> str:
    """Why nothing can be written under a task's name, in a folder of this machine; "" if nothing speaks against it."""
    assert isinstance(task.folder, Path)
    return LocalTarget(task.folder).refuses(task.output)
