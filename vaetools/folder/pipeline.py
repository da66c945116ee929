"""How a folder job goes through its files.

    read (threads, two batches ahead) -> work on a batch (lanes) -> code, store (threads) -> name (one thread)

All queues are bounded, and so is the number of pixels that are in memory at once. One bad file is one line in the outcome,
not the end of the job; a full disk is its end, and so is Ctrl-C; the same command goes on from there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from ..errors import VaetoolsError
from ..images.ahead import reader_threads
from .ledger import Task
from .reader import Batch, ReadAhead

PIXELS_IN_FLIGHT = 64_000_000  # a larger image has the memory for itself
# What no file can cause, however damaged; anything else that reading one raises is that file's fault.
BUGS = (TypeError, AttributeError, NameError, AssertionError, ImportError)
Content = TypeVar("Content")
Result = TypeVar("Result")
Taken = TypeVar("Taken", contravariant=True)


class Sink(Protocol[Taken]):
    """Where results go; a Writer, for one."""

    def put(self, results: Sequence[tuple[Task, Taken]], ms: float, after: Callable[[], None]) -> None:
        """Take the results of a batch, which took `ms` each; call `after` when they are no longer in memory."""

    def check(self) -> None:
        """Raise what ends the job."""

    def close(self) -> None:
        """Finish what was put."""


class Pipeline(Generic[Content, Result]):
    """`read` one source (threads); `work` on the contents of a batch; then put the results into `sink`.

    lanes: batches that are worked on at the same time; one is worked on in this thread, more in threads of their own, and
    then `sink.put` is called from those. readers: threads that read.

    `work` gives one result per task, or the VaetoolsError that it failed with. `fail` is told what failed: a VaetoolsError of
    either fails one file alone. A batch on which `work` raises one, or runs out of memory, is tried again file by file.
    """

    def __init__(
        self,
        read: Callable[[Task], Content],
        work: Callable[[Sequence[Task], Sequence[Content]], Sequence[Result | VaetoolsError]],
        sink: Sink[Result],
        fail: Callable[[Task, BaseException], None],
        lanes: int = 1,
        readers: int | None = None,
    ) -> None:
        self.read, self.work, self.sink, self.fail, self.lanes = read, work, sink, fail, lanes
        self.readers = readers or reader_threads()

    def run(self, batches: Callable[[threading.Event], Iterator[list[Task]]]) -> None:
        """Go through the batches; `batches` is called in a thread, with what tells it to stop.

        Whatever is raised, KeyboardInterrupt too, is raised when the threads have ended: what was worked on by then is
        finished, and nothing is left half done.
        """
        ahead = ReadAhead(batches, self.read, PIXELS_IN_FLIGHT, self.readers)
        pool = ThreadPoolExecutor(self.lanes, "lane") if self.lanes > 1 else None
        try:
            running: deque[Future[None]] = deque()
            for batch in ahead:
                if pool is None:
                    self._pass_on(batch, ahead)
                    continue
                running.append(pool.submit(self._pass_on, batch, ahead))
                del batch
                if len(running) == self.lanes:
                    running.popleft().result()
            while running:
                running.popleft().result()
        finally:
            ahead.close()
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            self.sink.close()
        self.sink.check()

    def _pass_on(self, batch: Batch[Content], ahead: ReadAhead[Content]) -> None:
        """From what was read to the sink. Nothing here outlives its use: these are the job's pixels."""
        start = time.perf_counter()
        pixels = sum(task.pixels for task, _ in batch)
        tasks, contents = self._gather(batch)
        results: list[tuple[Task, Result | VaetoolsError]] = []
        if any(task.todo for task in tasks):  # else what was left to do in this batch could not be read
            results = self._work_on(tasks, contents)
        del contents
        good = []
        for task, result in results:
            if isinstance(result, VaetoolsError):
                self.fail(task, result)
            else:
                good.append((task, result))
        del results
        ms = 1e3 * (time.perf_counter() - start) / max(1, len(tasks))
        self.sink.put(good, ms, lambda: ahead.release(pixels))

    def _gather(self, batch: Batch[Content]) -> tuple[list[Task], list[Content]]:
        tasks, contents = [], []
        while batch:
            task, future = batch.pop(0)
            try:
                contents.append(future.result())
            except BUGS:
                raise
            except Exception as error:
                if task.todo:
                    self.fail(task, error)
            else:
                tasks.append(task)
        return tasks, contents

    def _work_on(self, tasks: list[Task], contents: list[Content]) -> list[tuple[Task, Result | VaetoolsError]]:
        """The results of those that are to be written."""
        try:
            results = self.work(tasks, contents)
            return [(task, result) for task, result in zip(tasks, results, strict=True) if task.todo]
        except VaetoolsError as error:
            failure = error.with_traceback(None)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            failure = VaetoolsError(f"not enough memory for {tasks[0].pixels / 1e6:.1f} megapixels")
        # Not in the clauses above, where the error still holds on to what filled the memory.
        if len(tasks) == 1:
            return [(task, failure) for task in tasks if task.todo]
        singly = zip(tasks, contents, strict=True)
        return [pair for task, content in singly if task.todo for pair in self._work_on([task], [content])]


def _is_out_of_memory(error: BaseException) -> bool:
    """torch raises a RuntimeError of its own kind on a GPU, and a plain one on the CPU."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)
