"""Results to files, so that a kill at any moment leaves whole files or none under their names.

    a result --finish--> OUTPUT/.vaetools-PID-TOKEN-N.tmp, synced                     several threads
    a batch of them --> their lines in the manifest, synced --> their names     one thread

Syncing is what takes the time: on an ext4 SSD, files of 2.5 kB went at 250 to 425 a second one after another, at 950 to 2100
from 4 threads and at 1250 to 2300 from 8 or more, since the file system commits what waits for it together. One call of
syncfs per batch came to 1000 to 3000, but waits for whatever else is being written to that disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Generic, TypeVar

from ..errors import ImageError, VaetoolsError
from ..files import sync_file, temporary_path
from .ledger import NO_MORE_SPACE, NO_PLACE, Books, Product, Stored, Task
from .target import Target, target_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Group:
    """A batch on its way: its files, and what to call when they are written or have failed."""

    files: list[tuple[Task, Future[Stored]]]
    after: Callable[[], None]


class Writer(Generic[Result]):
    """Takes batches of results with `put`; files have their names when `close` returns.

    finish: write a result to a path that it is given; called from several threads. A VaetoolsError or OSError of it fails one
    file alone, but for those of a full disk and of an output folder that is no longer writable.
    """

    def __init__(self, target: Target | Path, finish: Callable[[Task, Result, Path], Product], ledger: Books) -> None:
        self.target = target_of(target) if isinstance(target, Path) else target
        self.temporaries, self.finish, self.ledger = self.target.temporaries, finish, ledger
        self._error: BaseException | None = None
        self._temporaries: set[Path] = set()
        self._pool = ThreadPoolExecutor(max(4, min(8, os.cpu_count() or 4)), "store")
        self._queue: Queue[_Group | None] = Queue(1)  # one waits, one is written, and none beyond
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def put(self, results: Sequence[tuple[Task, Result]], ms: float, after: Callable[[], None]) -> None:
        """Wait until there is room, then have them written. ms: the time that each took so far. Raises as `check` does.

        `after` is called when they are written or have failed.
        """
        self.check()
        files = [(task, self._pool.submit(self._store, task, result, ms)) for task, result in results]
        self._queue.put(_Group(files, after))

    def check(self) -> None:
        """Raise what went wrong and is not one file's fault: a VaetoolsError if nothing more can be written."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Finish what was put, unless something went wrong. Nothing is left but files under their names."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        for temporary in list(self._temporaries):
            self._drop(temporary)
        self.target.make_durable()

    # In the pool's threads.

    def _store(self, task: Task, result: Result, ms: float) -> Stored:
        start = time.perf_counter()
        temporary = temporary_path(self.temporaries)
        self._temporaries.add(temporary)
        try:
            product = self.finish(task, result, temporary)
            size, crc32 = product.on_disk or sync_file(temporary)
        except BaseException as error:
            self._drop(temporary)
            if isinstance(error, ImageError) and shutil.disk_usage(self.temporaries).free == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None  # Pillow does not always tell
            raise
        return Stored(temporary, size, f"{crc32:08x}", product, ms + 1e3 * (time.perf_counter() - start))

    # In the writer's thread.

    def _run(self) -> None:
        while (group := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._name(group)
                else:
                    for _, future in group.files:
                        future.cancel()
            except BaseException as error:  # for `check`, in the other thread
                self._error = error
            finally:
                group.after()
                del group

    def _name(self, group: _Group) -> None:
        """Give the files of a group their names, when all are stored."""
        ready = []
        for task, future in group.files:
            try:
                stored = future.result()
            except (VaetoolsError, OSError, MemoryError) as error:
                self._fail(task, error, NO_PLACE, where=self.temporaries)  # nor could another one be written there
                continue
            try:
                self.target.make_folder_of(task.output)
            except (VaetoolsError, OSError) as error:
                self._drop(stored.temporary)
                self._fail(task, error)
            else:
                ready.append((task, stored))
        if ready:
            self.ledger.announce(ready)
        named = self.target.give_names([(stored.temporary, task.output) for task, stored in ready])
        for (task, stored), failure in zip(ready, named, strict=True):
            if failure is None:
                self._temporaries.discard(stored.temporary)
                self.ledger.finish(task, stored)
                continue
            self._drop(stored.temporary)
            if self.target.ends_the_job(failure):
                raise self.ledger.stop(failure, task.destination)
            self._fail(task, failure)

    def _fail(
        self, task: Task, error: BaseException, ends: tuple[int, ...] = NO_MORE_SPACE, *, where: Path | None = None
    ) -> None:
        if isinstance(error, OSError) and error.errno in ends:
            full = error.errno in NO_MORE_SPACE and isinstance(task.folder, Path)
            raise self.ledger.stop(error, task.destination if full else where or str(self.target)) from None
        self.ledger.fail(task, error)

    def _drop(self, temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        self._temporaries.discard(temporary)
