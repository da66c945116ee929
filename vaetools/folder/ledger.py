"""What every folder job shares: its plan, its outcome, and how it goes through the files.

    read (threads, one batch ahead) -> work on a batch (this thread) -> write (one thread), in bounded memory

One bad file is one line in the outcome, not the end of the job; a full disk is its end, and the same command goes on
from there.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ..errors import UsageError, VaetoolsError

ON_EXISTS = ("skip", "overwrite", "error")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Task:
    """One file's way: from `source`, of `size` bytes and `pixels` (0 while not known), to `target`."""

    source: Path
    target: Path
    size: int = 0
    pixels: int = 0


@dataclass
class Outcome:
    """Sums over a job. `seconds` is wall time; `bytes_in`, `bytes_out` and `pixels` count finished files only.

    `skipped`: their target was there already. `others`: files in the folder that the job is not for. `linked`: links to
    folders, which are not followed.
    """

    done: int = 0
    skipped: int = 0
    others: int = 0
    linked: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    seconds: float = 0.0

    def fail(self, path: Path, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        self.failed.append((str(path), reason.removeprefix(f"{path}: ")))

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["failed"] = [{"path": path, "error": reason} for path, reason in self.failed]
        return values


class JobProgress(Protocol):
    """What a job tells while it runs."""

    def start(self, total: int) -> None: ...
    def advance(self, pixels: int) -> None: ...


class Silent:
    def start(self, total: int) -> None:
        pass

    def advance(self, pixels: int) -> None:
        pass


def check_places(source: Path, target: Path) -> None:
    """Raises UsageError where a job would write among what it reads, or to no folder."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file, not a folder to write to")
    folder = source if source.is_dir() else source.parent
    if target.resolve() == folder.resolve():
        raise UsageError(f"{target}: the output folder must not be the input folder")


def make_target(target: Path) -> None:
    """Raises UsageError if the folder cannot be made or written to."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{target}: cannot be made ({error.strerror})") from None
    if not os.access(target, os.W_OK):
        raise UsageError(f"{target}: not writable")


def settle_existing(tasks: Sequence[Task], on_exists: str, outcome: Outcome) -> list[Task]:
    """The tasks that are left to do under the policy. Raises UsageError under `error`, before anything is written."""
    if on_exists not in ON_EXISTS:
        raise UsageError(f"on_exists must be one of {', '.join(ON_EXISTS)}, not {on_exists!r}")
    if on_exists == "overwrite":
        return list(tasks)
    there = [task.target.exists() for task in tasks]
    existing = [task for task, exists in zip(tasks, there, strict=True) if exists]
    if existing and on_exists == "error":
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"there already: {existing[0].target}{more}; on_exists (--on-exists) says what to do with them")
    outcome.skipped += len(existing)
    return [task for task, exists in zip(tasks, there, strict=True) if not exists]


@dataclass
class BatchJob(Generic[Read]):
    """`read` one source; `work` on the results of a batch, giving per task the function that writes its target.

    A VaetoolsError of either fails one file alone: a batch on which `work` raises one, or runs out of memory, is tried again
    file by file.
    """

    read: Callable[[Task], Read]
    work: Callable[[Sequence[Task], Sequence[Read]], Sequence[Callable[[Path], object]]]

    def run(self, batches: Sequence[Sequence[Task]], outcome: Outcome, progress: JobProgress) -> None:
        """Raises VaetoolsError if the disk is full."""
        start = time.perf_counter()
        progress.start(sum(task.pixels for batch in batches for task in batch))
        with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as readers, ThreadPoolExecutor(1) as writer:
            ahead: list[list[Future[Read]]] = [[readers.submit(self.read, task) for task in batch] for batch in batches[:1]]
            pending: list[tuple[Task, Future[int]]] = []
            for number, batch in enumerate(batches):
                if number + 1 < len(batches):
                    ahead.append([readers.submit(self.read, task) for task in batches[number + 1]])
                tasks, contents = self._gather(batch, ahead.pop(0), outcome, progress)
                results = self._work_on(tasks, contents)
                self._settle(pending, outcome, progress)
                pending = []
                for task, result in zip(tasks, results, strict=True):
                    if isinstance(result, VaetoolsError):
                        outcome.fail(task.source, result)
                        progress.advance(task.pixels)
                    else:
                        pending.append((task, writer.submit(_write, task, result)))
            self._settle(pending, outcome, progress)
        outcome.seconds += time.perf_counter() - start

    def _work_on(self, tasks: list[Task], contents: list[Read]) -> list[Callable[[Path], object] | VaetoolsError]:
        if not tasks:
            return []
        try:
            return list(self.work(tasks, contents))
        except (VaetoolsError, MemoryError, RuntimeError) as error:
            if not isinstance(error, VaetoolsError) and not _is_out_of_memory(error):
                raise
            if len(tasks) > 1:
                singly = zip(tasks, contents, strict=True)
                return [result for task, content in singly for result in self._work_on([task], [content])]
            if isinstance(error, VaetoolsError):
                return [error]
            return [VaetoolsError(f"not enough memory for {tasks[0].pixels / 1e6:.1f} megapixels")]

    @staticmethod
    def _gather(
        batch: Sequence[Task], futures: Sequence[Future[Read]], outcome: Outcome, progress: JobProgress
    ) -> tuple[list[Task], list[Read]]:
        tasks, contents = [], []
        for task, future in zip(batch, futures, strict=True):
            try:
                contents.append(future.result())
                tasks.append(task)
            except (VaetoolsError, OSError) as error:
                outcome.fail(task.source, error)
                progress.advance(task.pixels)
        return tasks, contents

    @staticmethod
    def _settle(pending: Sequence[tuple[Task, Future[int]]], outcome: Outcome, progress: JobProgress) -> None:
        for task, future in pending:
            try:
                size = future.result()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise VaetoolsError(
                        f"{task.target}: no space left; {outcome.done} files are done: free some space and run the command again"
                    ) from None
                outcome.fail(task.source, error)
            else:
                outcome.done += 1
                outcome.bytes_in += task.size
                outcome.bytes_out += size
                outcome.pixels += task.pixels
            progress.advance(task.pixels)


def _is_out_of_memory(error: BaseException) -> bool:
    """torch raises a RuntimeError of its own kind on a GPU, and a plain one on the CPU."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)


def _write(task: Task, write: Callable[[Path], object]) -> int:
    task.target.parent.mkdir(parents=True, exist_ok=True)
    write(task.target)
    return task.target.stat().st_size
