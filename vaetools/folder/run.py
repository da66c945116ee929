"""A job from its tasks to its outcome: what is left to do, in batches, through the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codec.container import Limits
from ..errors import ModelError
from ..files import remove_temporaries
from .ledger import JobProgress, Ledger, Outcome, Product, Silent, Task
from .manifest import Manifest
from .pipeline import Pipeline
from .plan import Selection, in_batches, make_target, refuse_existing, settle, with_sizes
from .shard import Shard
from .shares import Failure, Plan, Share, count_left, take_over_done
from .writer import Writer

if TYPE_CHECKING:  # a plan is made without torch
    from ..model.threads import Lanes


Batches = Callable[[threading.Event], Iterator[list[Task]]]


def never() -> bool:
    return False


@dataclass(frozen=True)
class Job:
    """What differs between the kinds of jobs: how files are measured, grouped into batches, read, worked on and written."""

    settings: str
    limits: Limits
    size_of: Callable[[Task], tuple[int, int]]
    key_of: Callable[[Task], tuple[int, ...]]
    batch_limit: Callable[[tuple[int, ...]], int]
    lanes: Lanes
    read: Callable[[Task], Any]
    work: Callable[[Sequence[Task], Sequence[Any]], Sequence[Any]]
    finish: Callable[[Task, Any, Path], Product]

    def run(
        self,
        tasks: list[Task],
        target: Path,
        selection: Selection,
        outcome: Outcome,
        progress: JobProgress | None,
        shard: Shard | None = None,
    ) -> Outcome:
        """All of it, or one shard of it. What is known of the folder as a whole, each shard tells."""
        start = time.perf_counter()
        if shard is not None:
            self._run_shard(shard, tasks, target, selection, outcome, progress or Silent())
        else:
            self._run_all(tasks, target, selection, outcome, progress or Silent())
        outcome.failed.sort()
        outcome.notes.sort()
        outcome.seconds = time.perf_counter() - start
        return outcome

    def plan(self, tasks: Sequence[Task], selection: Selection, manifest: Manifest) -> Plan:
        """Every batch, from the whole listing."""
        return Plan.of(
            tasks,
            selection,
            manifest,
            self.settings,
            size_of=self.size_of,
            limits=self.limits,
            key_of=self.key_of,
            batch_limit=self.batch_limit,
        )

    def _run_all(self, tasks: list[Task], target: Path, selection: Selection, outcome: Outcome, progress: JobProgress) -> None:
        if selection.on_exists == "error":
            refuse_existing(tasks)
        make_target(target)
        with Manifest.open(target) as manifest:
            if manifest.locked:
                remove_temporaries(target)
            if selection.on_exists == "error":
                refuse_existing(tasks)  # again, now that nobody else can write them
            ledger = Ledger(outcome, manifest, self.settings, progress)
            tasks = settle(tasks, selection, manifest, self.settings, outcome, ledger.fail)
            todo = [task for task in tasks if task.todo]
            _tell(progress, todo)

            def batches(stop: threading.Event) -> Iterator[list[Task]]:
                measured = with_sizes(tasks, self.size_of, self.limits, ledger.fail, stop)
                return in_batches(measured, self.key_of, self.batch_limit)

            if todo:
                self._go_through(batches, target, ledger)

    def _run_shard(
        self,
        shard: Shard,
        tasks: list[Task],
        target: Path,
        selection: Selection,
        outcome: Outcome,
        progress: JobProgress,
    ) -> None:
        make_target(target)
        outcome.failed = [failure for place, failure in enumerate(outcome.failed) if shard.takes(place)]
        with Manifest.open_shard(target, shard) as manifest:
            plan = self.plan(tasks, selection, manifest)
            batches = plan.batches_of(shard)
            mine = [task for batch in batches for task in batch]
            if selection.on_exists == "error":
                refuse_existing(mine)
            ledger = Ledger(outcome, manifest, self.settings, progress)
            count_left(mine, outcome)
            todo = [task for task in mine if task.todo]
            _tell(progress, todo)
            note_failures(plan.failed_of(shard), ledger)
            if todo:
                self._go_through(lambda stop: iter(batches), target, ledger)

    def run_share(
        self,
        share: Share,
        target: Path,
        progress: JobProgress | None = None,
        *,
        patience: float = 0.0,
        stopped: Callable[[], bool] = never,
    ) -> Outcome:
        """Do a share of a job that was planned elsewhere. Done again after a death at any moment, it goes on from there.

        patience: seconds to wait for the lock of whoever did it before. stopped: asked before each batch; if it says so,
        KeyboardInterrupt is raised. Raises ModelError if this is not the job that was planned, else as `run` does.
        """
        start, outcome = time.perf_counter(), Outcome()
        if share.settings != self.settings:
            raise ModelError(
                f"the job is {share.settings!r}, and would be {self.settings!r} here: have the same model everywhere"
            )

        def batches(stop: threading.Event) -> Iterator[list[Task]]:
            for batch in share.batches:
                if stopped():
                    raise KeyboardInterrupt
                yield list(batch)

        with Manifest.open_shard(target, share.shard, turn=share.turn, patience=patience) as manifest:
            ledger = Ledger(outcome, manifest, self.settings, progress or Silent())
            _tell(ledger.progress, share.todo)
            take_over_done(share, manifest, outcome, ledger.progress)
            if share.todo:
                self._go_through(batches, target, ledger)
        outcome.seconds = time.perf_counter() - start
        return outcome

    def _go_through(self, batches: Batches, target: Path, ledger: Ledger) -> None:
        def with_work(stop: threading.Event) -> Iterator[list[Task]]:
            return (batch for batch in batches(stop) if any(task.todo for task in batch))

        try:
            Pipeline(self.read, self.work, Writer(target, self.finish, ledger), ledger.fail, self.lanes.count).run(with_work)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{ledger.outcome.done} files are done; the same command goes on from there") from None
        finally:
            self.lanes.leave()


def note_failures(failed: Iterable[Failure], ledger: Ledger) -> None:
    for failure in failed:
        if failure.known:
            ledger.outcome.fail(failure.task.source, failure.reason)
        else:
            ledger.fail(failure.task, failure.reason)


def _tell(progress: JobProgress, todo: Iterable[Task]) -> None:
    sizes = [task.size for task in todo]
    progress.start(len(sizes), sum(sizes))
