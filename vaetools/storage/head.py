"""The heads of objects: what planning a job reads of them, by few requests for few bytes."""

from __future__ import annotations

import errno
import io
import threading
from collections import OrderedDict
from typing import Any

from .blob import Blob

HEAD, GROWTH = 1 << 16, 8  # bytes of the first request for a part of an object; each further one is so many times as large
LARGEST = 8 << 20  # bytes of such a request, at most, unless more is asked for at once: the headers of a tar lie all over it
KEPT = 64 << 20  # bytes of small objects, at most, between a look at the head and the reading


class Small:
    """Small objects that were opened for their heads, until they are read: one request does for both."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Blob, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, blob: Blob, data: bytes) -> None:
        self.take(blob)
        with self._lock:
            self._kept[blob] = data
            self._bytes += len(data)
            while self._bytes > KEPT:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def take(self, blob: Blob) -> bytes | None:
        with self._lock:
            data = self._kept.pop(blob, None)
            self._bytes -= len(data or b"")
            return data


SMALL = Small()


class Ahead(io.RawIOBase):
    """An object opened for its head: parts of it are fetched as they are needed, first a small one and then ever larger ones."""

    def __init__(self, blob: Blob) -> None:
        super().__init__()
        self.blob, self.name = blob, str(blob)
        self._position, self._start, self._part, self._next = 0, 0, b"", HEAD

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.blob.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "before the start of the file")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """All that was asked for, unless the file ends before."""
        left = max(0, self.blob.size - self._position)
        size = left if size is None or size < 0 else min(size, left)
        inside = self._position - self._start
        if not 0 <= inside <= inside + size <= len(self._part):
            self._part = self.blob.read_range(self._position, max(size, self._next))
            self._start, self._next, inside = self._position, min(self._next * GROWTH, LARGEST), 0
        data = self._part[inside : inside + size]
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
