"""A job from its tasks to its outcome: what is left to do, in batches, through the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codec.container import Limits
from ..files import remove_temporaries
from .ledger import JobProgress, Ledger, Outcome, Product, Silent, Task
from .manifest import Manifest
from .pipeline import Pipeline
from .plan import Selection, in_batches, make_target, refuse_existing, settle, with_sizes
from .writer import Writer

if TYPE_CHECKING:  # a plan is made without torch
    from ..model.threads import Lanes


@dataclass(frozen=True)
class Job:
    """What differs between the kinds of jobs: how files are measured, grouped into batches and worked on."""

    settings: str
    limits: Limits
    size_of: Callable[[Task], tuple[int, int]]
    key_of: Callable[[Task], tuple[int, ...]]
    batch_limit: Callable[[tuple[int, ...]], int]
    lanes: Lanes

    def run(
        self,
        tasks: list[Task],
        target: Path,
        selection: Selection,
        outcome: Outcome,
        progress: JobProgress | None,
        read: Callable[[Task], Any],
        work: Callable[[Sequence[Task], Sequence[Any]], Sequence[Any]],
        finish: Callable[[Task, Any, Path], Product],
    ) -> Outcome:
        start = time.perf_counter()
        if selection.on_exists == "error":
            refuse_existing(tasks)
        make_target(target)
        with Manifest.open(target) as manifest:
            if manifest.locked:
                remove_temporaries(target)
            if selection.on_exists == "error":
                refuse_existing(tasks)  # again, now that nobody else can write them
            ledger = Ledger(outcome, manifest, self.settings, progress or Silent())
            tasks = settle(tasks, selection, manifest, self.settings, outcome, ledger.fail)
            todo = [task for task in tasks if task.todo]
            ledger.progress.start(len(todo), sum(task.size for task in todo))

            def batches(stop: threading.Event) -> Iterator[list[Task]]:
                measured = with_sizes(tasks, self.size_of, self.limits, ledger.fail, stop)
                return in_batches(measured, self.key_of, self.batch_limit)

            try:
                if todo:
                    Pipeline(read, work, Writer(target, finish, ledger), ledger.fail, self.lanes.count).run(batches)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"{outcome.done} files are done; the same command goes on from there") from None
            finally:
                self.lanes.leave()
        outcome.failed.sort()
        outcome.notes.sort()
        outcome.seconds = time.perf_counter() - start
        return outcome
