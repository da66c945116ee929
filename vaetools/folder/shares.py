"""Which shard of a folder job does what: whole batches, so that a file's bytes are the same whoever writes it.

Batches are numbered as they are planned from the whole listing, done or not, and shard i of n takes those with number % n = i.
What cannot be read is in no batch: such a file is told of by the shard that its place in the listing falls to, and by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..codec.container import Limits
from ..errors import reason_of
from .ledger import JobProgress, Outcome, Task
from .manifest import DONE, Manifest
from .plan import Selection, in_batches, settle, with_sizes
from .shard import Shard
from .target import Target


@dataclass(frozen=True)
class Share:
    """What one shard has to do: a message to whoever does it.

    batches: those with something to do. settings: of the job, which whoever does it must come to by itself, too.
    turn: of the job (manifest.py).
    """

    shard: Shard
    batches: tuple[tuple[Task, ...], ...]
    settings: str = ""
    turn: int = 0

    @property
    def todo(self) -> list[Task]:
        return [task for batch in self.batches for task in batch if task.todo]


@dataclass(frozen=True)
class Failure:
    """A file that cannot be worked on. place: in the listing. known: the manifest tells of it already."""

    place: int
    task: Task
    reason: str
    known: bool = False


@dataclass(frozen=True)
class Plan:
    """All batches of a job in their order, and what failed while they were planned."""

    batches: list[list[Task]]
    failed: list[Failure]

    @classmethod
    def of(
        cls,
        tasks: Sequence[Task],
        target: Target,
        selection: Selection,
        manifest: Manifest,
        settings: str,
        *,
        size_of: Callable[[Task], tuple[int, int]],
        limits: Limits,
        key_of: Callable[[Task], tuple[int, ...]],
        batch_limit: Callable[[tuple[int, ...]], int],
    ) -> Plan:
        places = {task.path: place for place, task in enumerate(tasks)}
        failed: list[Failure] = []

        def fail(task: Task, error: BaseException | str) -> None:
            failed.append(Failure(places[task.path], task, reason_of(error)))

        told = Outcome()
        kept = settle(tasks, target, selection, manifest, settings, told, fail)
        by_source = {str(task.source): (place, task) for place, task in enumerate(tasks)} if told.failed else {}
        failed += [Failure(*by_source[source], reason, known=True) for source, reason in told.failed]
        batches = list(in_batches(with_sizes(kept, size_of, limits, fail), key_of, batch_limit, every=True))
        return cls(batches, sorted(failed, key=lambda failure: failure.place))

    def batches_of(self, shard: Shard) -> list[list[Task]]:
        return [batch for number, batch in enumerate(self.batches) if shard.takes(number)]

    def failed_of(self, shard: Shard) -> list[Failure]:
        return [failure for failure in self.failed if shard.takes(failure.place)]

    def shares(self, count: int, settings: str, turn: int) -> list[Share]:
        """What there is to do, in so many shares, or fewer where there are fewer batches."""
        todo = [tuple(batch) for batch in self.batches if any(task.todo for task in batch)]
        count = min(count, len(todo))
        return [Share(Shard(index + 1, count), tuple(todo[index::count]), settings, turn) for index in range(count)]


def count_left(tasks: Sequence[Task], outcome: Outcome) -> None:
    """Note those whose results were there already."""
    outcome.skipped += sum(task.left for task in tasks)
    outcome.stale += sum(task.stale for task in tasks)


def take_over_done(share: Share, target: Target, manifest: Manifest, outcome: Outcome, progress: JobProgress) -> None:
    """Note what was done of a share before whoever did it died: it is not done again, but told again."""
    for task in share.todo:
        entry = manifest.last(task.path, task.output)
        if entry is None or (entry.turn, entry.status) != (share.turn, DONE):
            continue
        there = target.look(task.output)
        if there and there.size == entry.output_bytes and target.crc32(task.output) == entry.crc32:
            task.todo = False
            outcome.take_over(task, entry)
            progress.advance(task.size, task.pixels)
