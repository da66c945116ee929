"""What there is to write, and in which batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from ..augment.seeds import seed_for
from ..folder.ledger import Task
from .counts import count_copies
from .dataset import Dataset, Item
from .survey import Seen

COPIES_A_BATCH = 64  # and with small images, progress is told of no later
FILES_A_UNIT = 64


@dataclass(slots=True)
class Output(Task):
    """One file of the output folder. copy: 1, 2, ... for augmented copies, 0 for files that are copied byte for byte.

    item, seen: the image that it is or is made from. companions: the files that come with a copy. operator, strength: what was
    done, once it is. refused: by the gate, so that there is no file. size_before, crc32_before: of the file that was written
    before, if one was.
    """

    item: Item | None = None
    seen: Seen | None = None
    copy: int = 0
    seed: int = 0
    companions: list[Output] = field(default_factory=list)
    operator: str = ""
    strength: float = 0.0
    refused: bool = False
    size_before: int = 0
    crc32_before: str = ""

    @property
    def share(self) -> int:
        """Of all the work, in about pixels that go through the network: what takes time are the copies."""
        return self.pixels if self.copy else 1


@dataclass(slots=True)
class Source(Task):
    """One image to read, for some copies of it."""

    seen: Seen | None = None
    label: int | None = None
    copies: list[Output] = field(default_factory=list)

    @property
    def pixels(self) -> int:
        """Of all that it is in memory for."""
        return self.height * self.width * (1 + len(self.copies))


@dataclass(frozen=True, slots=True)
class Unit:
    """What is worked on together, done or not, whoever does it: images that go through the network together, with their copies
    and what belongs to these, and files that are only copied."""

    sources: list[Source]
    files: list[Output]

    @property
    def copies(self) -> Iterator[Output]:
        for source in self.sources:
            yield from source.copies

    @property
    def outputs(self) -> Iterator[Output]:
        for copy in self.copies:
            yield copy
            yield from copy.companions
        yield from self.files

    @property
    def todo(self) -> bool:
        return any(output.todo for output in self.outputs)

    def tasks(self) -> list[Task]:
        """As far as there is something to do. All images, where there is a copy to make: others could come out differently
        without those that are done."""
        for source in self.sources:
            source.todo = any(copy.todo for copy in source.copies)
        done = (copy for copy in self.copies if not copy.todo and not copy.refused)
        loose = [*self.files, *(companion for copy in done for companion in copy.companions)]
        sources = self.sources if any(source.todo for source in self.sources) else []
        return [*sources, *(file for file in loose if file.todo)]


@dataclass(frozen=True)
class Plan:
    """copies: of all images, with their companions; files: those that are copied byte for byte."""

    dataset: Dataset
    target: Path
    counts: Mapping[str, int]
    seen: Mapping[str, Seen]
    copies: list[Output]
    files: list[Output]

    @classmethod
    def of(
        cls, dataset: Dataset, target: Path, seen: Mapping[str, Seen], *, copies: int, balance: bool, seed: int, originals: bool
    ) -> Plan:
        """seen: the images that can be read. The rest is as in job.Options. Raises UsageError as count_copies does."""
        items = [item for item in dataset.train if item.path in seen]
        counts = count_copies(items, copies, balance=balance)
        plan = cls(dataset, target, counts, seen, [], [])
        for item in items:
            plan.copies.extend(plan._copy(item, copy, seed) for copy in range(1, counts[item.path] + 1))
        if originals:
            by_path = {item.path: item for item in dataset.items}
            rewritten = {one.path for one in dataset.annotations}
            plan.files.extend(plan._file(path, path, by_path.get(path)) for path in dataset.files if path not in rewritten)
        return plan

    def _copy(self, item: Item, copy: int, seed: int) -> Output:
        seen = self.seen[item.path]
        output = self._file(item.path, item.copy_path(copy), item)
        output.copy, output.seed = copy, seed_for(seed, 0, seen.digest, copy - 1)
        output.height, output.width = seen.height, seen.width
        output.companions = [self._file(each.path, item.companion_path(each, copy)) for each in item.companions]
        return output

    def _file(self, path: str, output: str, item: Item | None = None) -> Output:
        seen = self.seen.get(path) if item is not None else None
        size, mtime_ns = (seen.size, seen.mtime_ns) if seen else (0, 0)
        return Output(self.dataset.place(path), self.target, path, output, size, mtime_ns, item=item, seen=seen)

    @property
    def outputs(self) -> Iterator[Output]:
        """All of them."""
        for copy in self.copies:
            yield copy
            yield from copy.companions
        yield from self.files

    def units(self, *, by_size: bool, pixels: int) -> list[Unit]:
        """What goes through the network together, about so many pixels, and with each such batch some of the files that are only
        copied. Units follow from the plan alone, and not from what is done already.

        by_size: images of one size come together.
        """
        batches = list(_grouped(self._sources(self.dataset.labels, pixels), by_size=by_size, pixels=pixels))
        chunks = [self.files[start : start + FILES_A_UNIT] for start in range(0, len(self.files), FILES_A_UNIT)]
        return [Unit(batch or [], chunk or []) for batch, chunk in zip_longest(batches, chunks)]

    def _sources(self, labels: Mapping[str, int], pixels: int) -> Iterator[Source]:
        """One for each image, or more for an image with many copies."""
        waiting: list[Output] = []
        for copy in self.copies:
            if waiting and (copy.path != waiting[0].path or copy.pixels * (len(waiting) + 2) > pixels):
                yield _source(waiting, labels)
                waiting = []
            waiting.append(copy)
        if waiting:
            yield _source(waiting, labels)


def _source(copies: list[Output], labels: Mapping[str, int]) -> Source:
    first = copies[0]
    assert first.item is not None
    label = labels[first.item.label] if first.item.label is not None else None
    source = Source(first.source, first.folder, first.path, "", first.size, first.mtime_ns, first.height, first.width)
    source.seen, source.label, source.copies = first.seen, label, copies
    return source


def _grouped(sources: Iterable[Source], *, by_size: bool, pixels: int) -> Iterator[list[Source]]:
    opened: dict[Hashable, list[Source]] = {}
    for source in sources:
        key = (source.height, source.width) if by_size else ()
        batch = opened.setdefault(key, [])
        batch.append(source)
        if sum(each.pixels for each in batch) >= pixels or sum(len(each.copies) for each in batch) >= COPIES_A_BATCH:
            yield opened.pop(key)
    yield from opened.values()
