"""How far a folder job is: a bar on a terminal, a line now and then elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..codec.job import JobProgress

LINE_SECONDS = 10.0


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self.bar, self.task, self.start_time, self.pixels = bar, TaskID(0), time.monotonic(), 0

    def start(self, total: int) -> None:
        self.task = self.bar.add_task("", total=total)
        self.start_time = time.monotonic()

    def advance(self, pixels: int) -> None:
        self.pixels += pixels
        rate = self.pixels / 1e6 / max(1e-6, time.monotonic() - self.start_time)
        self.bar.update(self.task, advance=pixels, description=f"{rate:.2f} MP/s")


class _Lines:
    def __init__(self) -> None:
        self.total = self.pixels = 0
        self.printed = time.monotonic()

    def start(self, total: int) -> None:
        self.total = total

    def advance(self, pixels: int) -> None:
        self.pixels += pixels
        if time.monotonic() - self.printed > LINE_SECONDS:
            self.printed = time.monotonic()
            print(f"{self.pixels / 1e6:.1f} of {self.total / 1e6:.1f} megapixels", file=sys.stderr, flush=True)


@contextmanager
def job_progress() -> Iterator[JobProgress]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar)
