"""How far a folder job is: a bar on a terminal, a line now and then elsewhere, always on stderr.

The time that is left is told by the bytes of the files that are left: they are known before the first file is opened.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..folder.ledger import JobProgress

LINE_SECONDS = 10.0
TOLD_FROM = 0.02  # of all; before that, an estimate would be a guess


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self.bar, self.started = bar, time.monotonic()
        self.task: TaskID | None = None
        self.files = self.done = self.pixels = 0

    def start(self, files: int, size: int) -> None:
        """Called again where more is known of what is to do."""
        self.files = files
        if self.task is not None:
            self.bar.update(self.task, total=size)
            return
        self.task, self.started = self.bar.add_task("", total=size), time.monotonic()

    def advance(self, size: int, pixels: int) -> None:
        self.done, self.pixels = self.done + 1, self.pixels + pixels
        rate = self.pixels / 1e6 / max(1e-6, time.monotonic() - self.started)
        if self.task is not None:
            self.bar.update(self.task, advance=size, description=f"{self.done:,} of {self.files:,} files, {rate:.2f} MP/s")


class _Lines:
    def __init__(self) -> None:
        self.files = self.done = self.total = self.size = self.pixels = 0
        self.started = self.printed = time.monotonic()

    def start(self, files: int, size: int) -> None:
        if not self.files:
            self.started = self.printed = time.monotonic()
        self.files, self.total = files, size

    def advance(self, size: int, pixels: int) -> None:
        self.done, self.size, self.pixels = self.done + 1, self.size + size, self.pixels + pixels
        now = time.monotonic()
        if now - self.printed > LINE_SECONDS:
            self.printed, taken = now, now - self.started
            left = taken * (self.total - self.size) / max(1, self.size)
            rate = self.pixels / 1e6 / taken
            line = f"{self.done:,} of {self.files:,} files, {rate:.2f} MP/s"
            if self.size >= TOLD_FROM * self.total:  # the first file of a batch comes when most others are nearly done
                line += f", about {duration(left)} left"
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextmanager
def job_progress() -> Iterator[JobProgress]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar)
