"""Which files go into which tar, and under which names."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..images.folder import has_suffix
from ..storage.blob import Readable
from ..storage.shards import TarShards
from ..storage.tar import SUFFIX, TarMember, key_of, list_members
from .ledger import Outcome, Task
from .spec import Spec

SAMPLES = 10_000


@dataclass(frozen=True)
class Division:
    """How many samples of a folder a tar gets at most; size: and of how many bytes, as they are in the source, together.

    Raises UsageError where that is none.
    """

    samples: int = SAMPLES
    size: int | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.size is not None and self.size < 1):
            raise UsageError("a tar must be for 1 sample and 1 byte or more")


@dataclass(frozen=True)
class Inside:
    """What a tar is made of. tasks: the files to make, below a folder, under the names that they have in the tar.

    order: all that goes in, tasks and members that are taken over as they are.
    """

    tasks: list[Task]
    order: list[Task | TarMember]

    @classmethod
    def of(cls, tasks: list[Task]) -> Inside:
        return cls(tasks, list(tasks))


def name_in(part: Task | TarMember) -> str:
    return part.output if isinstance(part, Task) else part.inside


def key_in(part: Task | TarMember) -> str:
    """The sample it belongs to."""
    return key_of(name_in(part))


class Group(ABC):
    """One tar to make. name: its own. path: what it is made from, as the manifest has it. size, mtime_ns: of that together."""

    name: str
    path: str
    size: int
    mtime_ns: int
    numbered = False  # the name says nothing of what is in it

    @abstractmethod
    def inside(self, spec: Spec, folder: Path, outcome: Outcome) -> Inside:
        """Look what there is; `folder` is where its files will be made. What fails or is passed over goes into the outcome."""


class TarGroup(Group):
    """From a tar, to one of the same name. prefix: of its files' paths below the source."""

    def __init__(self, tar: Readable, prefix: str) -> None:
        self.tar, self.prefix = tar, prefix
        self.name = self.path = tar.name
        try:
            status = tar.stat()
            self.size, self.mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:  # told when it is listed
            self.size = self.mtime_ns = 0

    def inside(self, spec: Spec, folder: Path, outcome: Outcome) -> Inside:
        listing = list_members(self.tar)
        outcome.failed += listing.problems
        outcome.others += listing.passed
        wanted = [member for member in listing.members if has_suffix(member.inside, spec.suffixes)]
        taken = {member.inside for member in wanted if spec.selection.takes(self.prefix + member.inside)}
        outcome.filtered += len(wanted) - len(taken)
        refused = {member.inside for member in wanted} - taken
        dropped = {key_of(name) for name in refused} - {key_of(name) for name in taken}
        carried = {m.inside for m in listing.members if m.inside not in taken | refused and key_of(m.inside) not in dropped}
        tasks: list[Task] = []
        order: list[Task | TarMember] = []
        for member in listing.members:
            if member.inside in carried:
                order.append(member)
            elif member.inside in taken:
                inside, slash, last = member.inside.rpartition("/")
                task = Task(member, folder, self.prefix + member.inside, inside + slash + spec.output_name(last))
                order.append(task)
                if task.output in carried:
                    outcome.fail(member, f"would become {task.output}, which is in the tar already")
                else:
                    tasks.append(task)
        if not wanted and not listing.problems:
            outcome.fail(self.tar, "no file to work on in it")
        return Inside(tasks, order)


class SampleGroup(Group):
    """From files of a folder."""

    numbered = True

    def __init__(self, number: int, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.name = f"shard-{number:06}{SUFFIX}"
        self.path = f"{tasks[0].path} ... {tasks[-1].path} ({len(tasks)})"
        self.size = sum(task.size for task in tasks)
        state = "\0".join(f"{task.path}\0{task.size}\0{task.mtime_ns}" for task in tasks)
        digest = hashlib.blake2b(state.encode(errors="surrogateescape"), digest_size=8).digest()
        self.mtime_ns = int.from_bytes(digest, "little") >> 1

    def inside(self, spec: Spec, folder: Path, outcome: Outcome) -> Inside:
        return Inside.of([Task(task.source, folder, task.path, task.output) for task in self.tasks])


def divide(spec: Spec, division: Division, outcome: Outcome) -> list[Group]:
    """The tars to make, in order. Raises UsageError if there is nothing to work on."""
    if isinstance(spec.source, TarShards):
        return [TarGroup(tar, spec.source.folder_of(tar)) for tar in spec.source.tars]
    groups: list[list[Task]] = []
    samples = size = 0
    for sample in _samples(spec.tasks(outcome), outcome):
        more = sum(task.size for task in sample)
        if not groups or samples == division.samples or (division.size is not None and size + more > division.size):
            groups.append([])
            samples = size = 0
        groups[-1] += sample
        samples, size = samples + 1, size + more
    return [SampleGroup(number, tasks) for number, tasks in enumerate(groups)]


def _samples(tasks: Sequence[Task], outcome: Outcome) -> list[list[Task]]:
    """Files by sample, in the order of the listing, with their sizes and dates."""
    samples: dict[str, list[Task]] = {}
    fields: dict[tuple[str, str], Task] = {}
    for task in tasks:
        key = key_in(task)
        first = fields.setdefault((key, task.output[len(key) :].lower()), task)
        if first is not task:
            reason = f"is to WebDataset what {first.path} is, which has capital letters elsewhere: rename one of them"
            outcome.fail(task.source, reason)
            continue
        try:
            status = task.source.stat()
            task.size, task.mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:  # told when it is worked on
            pass
        samples.setdefault(key, []).append(task)
    for sample in samples.values():
        if len(sample) > 1:
            note = f"shares its sample with others, as names are the same up to their first dot: {key_in(sample[0])}"
            outcome.notes += [(str(task.source), (note,)) for task in sample]
    return list(samples.values())
