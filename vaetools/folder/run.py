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
from ..images.ahead import reader_threads
from .ledger import JobProgress, Ledger, Outcome, Product, Silent, Task
from .manifest import Manifest
from .pipeline import Pipeline
from .plan import Selection, are_distant, in_batches, refuse_existing, settle, with_sizes
from .shard import Shard
from .shares import Failure, Plan, Share, count_left, take_over_done
from .target import Folder, Target, target_of
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
        folder: Folder,
        selection: Selection,
        outcome: Outcome,
        progress: JobProgress | None,
        shard: Shard | None = None,
    ) -> Outcome:
        """All of it, or one shard of it. What is known of the folder as a whole, each shard tells."""
        start = time.perf_counter()
        with target_of(folder) as target:
            if shard is not None:
                self._run_shard(shard, tasks, target, selection, outcome, progress or Silent())
            else:
                self._run_all(tasks, target, selection, outcome, progress or Silent())
        outcome.failed.sort()
        outcome.notes.sort()
        outcome.seconds = time.perf_counter() - start
        return outcome

    def plan(self, tasks: Sequence[Task], target: Target, selection: Selection, manifest: Manifest) -> Plan:
        """Every batch, from the whole listing."""
        return Plan.of(
            tasks,
            target,
            selection,
            manifest,
            self.settings,
            size_of=self.size_of,
            limits=self.limits,
            key_of=self.key_of,
            batch_limit=self.batch_limit,
        )

    def _run_all(self, tasks: list[Task], target: Target, selection: Selection, outcome: Outcome, progress: JobProgress) -> None:
        if selection.on_exists == "error":
            refuse_existing(tasks, target)
        target.prepare()
        with target.open_manifest() as manifest:
            if manifest.locked:
                target.tidy_up()
            if selection.on_exists == "error":
                refuse_existing(tasks, target)  # again, now that nobody else can write them
            ledger = Ledger(outcome, manifest, self.settings, progress)
            tasks = settle(tasks, target, selection, manifest, self.settings, outcome, ledger.fail)
            todo = [task for task in tasks if task.todo]
            _tell(progress, todo)

            def batches(stop: threading.Event) -> Iterator[list[Task]]:
                measured = with_sizes(tasks, self.size_of, self.limits, ledger.fail, stop)
                return in_batches(measured, self.key_of, self.batch_limit)

            if todo:
                self._go_through(batches, target, ledger, todo)

    def _run_shard(
        self,
        shard: Shard,
        tasks: list[Task],
        target: Target,
        selection: Selection,
        outcome: Outcome,
        progress: JobProgress,
    ) -> None:
        target.prepare()
        outcome.failed = [failure for place, failure in enumerate(outcome.failed) if shard.takes(place)]
        with target.open_shard_manifest(shard) as manifest:
            plan = self.plan(tasks, target, selection, manifest)
            batches = plan.batches_of(shard)
            mine = [task for batch in batches for task in batch]
            if selection.on_exists == "error":
                refuse_existing(mine, target)
            ledger = Ledger(outcome, manifest, self.settings, progress)
            count_left(mine, outcome)
            todo = [task for task in mine if task.todo]
            _tell(progress, todo)
            note_failures(plan.failed_of(shard), ledger)
            if todo:
                self._go_through(lambda stop: iter(batches), target, ledger, todo)

    def run_share(
        self,
        share: Share,
        folder: Folder,
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

        with (
            target_of(folder) as target,
            target.open_shard_manifest(share.shard, turn=share.turn, patience=patience) as manifest,
        ):
            ledger = Ledger(outcome, manifest, self.settings, progress or Silent())
            _tell(ledger.progress, share.todo)
            take_over_done(share, target, manifest, outcome, ledger.progress)
            if share.todo:
                self._go_through(batches, target, ledger, share.todo)
        outcome.seconds = time.perf_counter() - start
        return outcome

    def _go_through(self, batches: Batches, target: Target, ledger: Ledger, todo: Sequence[Task]) -> None:
        def with_work(stop: threading.Event) -> Iterator[list[Task]]:
            return (batch for batch in batches(stop) if any(task.todo for task in batch))

        try:
            readers, writer = reader_threads(are_distant(todo)), Writer(target, self.finish, ledger)
            Pipeline(self.read, self.work, writer, ledger.fail, self.lanes.count, readers).run(with_work)
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
