"""Threads that read files ahead of whoever works on them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


DISTANT_THREADS = 16  # where reading mostly waits for a store


def reader_threads(distant: bool = False) -> int:
    """Pillow decodes without holding up other threads, and a disk likes several questions at once."""
    return DISTANT_THREADS if distant else max(4, min(8, os.cpu_count() or 4))


def in_threads(call: Callable[[str], Result], paths: Iterable[str]) -> Iterator[tuple[str, Result]]:
    """`call(path)` of each path, in order, some ahead."""
    threads = reader_threads()
    ahead: deque[tuple[str, Future[Result]]] = deque()  # few, as results may be decoded images
    pool = ThreadPoolExecutor(threads, "look")
    try:
        for path in paths:
            ahead.append((path, pool.submit(call, path)))
            if len(ahead) > threads:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
