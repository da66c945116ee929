"""Batches of files, read ahead of the one that is worked on, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from typing import Generic, TypeVar

from ..model.memory import give_back
from .ledger import Task

Content = TypeVar("Content")
Batch = list[tuple[Task, Future[Content]]]
LARGE = 16_000_000  # pixels of an image around which free memory is given back to the system
WAKE_SECONDS = 0.1  # how often a thread that waits for the other side looks whether the job has ended


class Budget:
    """The pixels that may be in memory at once; an image larger than all of it gets in alone."""

    def __init__(self, pixels: int) -> None:
        self.limit, self.taken, self.closed = pixels, 0, False
        self._changed = threading.Condition()

    def take(self, pixels: int) -> bool:
        """Wait until they fit in. False if the budget was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or not self.taken or self.taken + pixels <= self.limit)
            self.taken += pixels
            return not self.closed

    def give_back(self, pixels: int) -> None:
        with self._changed:
            self.taken -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class ReadAhead(Generic[Content]):
    """Iterate over it for the batches, each with the contents that are being read.

    One batch waits in the queue and one before it, both being read. What is read counts against `pixels` until `release`.
    `batches` is called in a thread, with what tells it to stop; what it raises is raised by the iteration.
    """

    def __init__(
        self,
        batches: Callable[[threading.Event], Iterator[list[Task]]],
        read: Callable[[Task], Content],
        pixels: int,
        threads: int,
    ) -> None:
        self._read, self._batches, self._budget = read, batches, Budget(pixels)
        self._stop = threading.Event()
        self._queue: Queue[Batch[Content] | BaseException | None] = Queue(1)
        self._pool = ThreadPoolExecutor(threads, "read")
        self._feeder = threading.Thread(target=self._feed, name="feed", daemon=True)
        self._feeder.start()

    def __iter__(self) -> Iterator[Batch[Content]]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def release(self, pixels: int) -> None:
        """So many pixels are no longer in memory."""
        self._budget.give_back(pixels)

    def close(self) -> None:
        """Stop reading; what was read and not yet taken is dropped."""
        self._stop.set()
        self._budget.close()
        self._feeder.join()
        self._pool.shutdown(cancel_futures=True)

    def _feed(self) -> None:
        try:
            for batch in self._batches(self._stop):
                if not self._budget.take(sum(task.pixels for task in batch)):
                    return
                self._put([(task, self._pool.submit(self._read_one, task)) for task in batch])
                if self._stop.is_set():
                    return
            self._put(None)
        except BaseException as error:  # into the other thread with it
            self._put(error)

    def _read_one(self, task: Task) -> Content:
        if task.pixels < LARGE:
            return self._read(task)
        give_back()  # of the one before
        content = self._read(task)
        give_back()  # of what reading took beside the result
        return content

    def _put(self, item: Batch[Content] | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=WAKE_SECONDS)
            except Full:
                continue
