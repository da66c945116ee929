"""The bank of latents of a data set's own train images, where operators or the gate ask for one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..augment.augmenter import Augmenter
from ..augment.bank import LIMIT_PER_CLASS, LatentBank
from ..errors import UsageError
from ..images.ahead import in_threads
from .content import read_content
from .dataset import Dataset, Item
from .records import Job
from .survey import Seen

BANK = ".vaetools-bank.safetensors"


def needs_bank(augmenter: Augmenter, gate: str | None) -> bool:
    """Whether one is to be fitted."""
    return augmenter.bank is None and (augmenter.needs_bank or gate is not None)


class Neighbours:
    """The train images that can be read. seen: each one's path and what was seen."""

    def __init__(self, dataset: Dataset, seen: Mapping[str, Seen], max_pixels: int) -> None:
        self.dataset, self.seen, self.max_pixels = dataset, seen, max_pixels
        self.items = [item for item in dataset.train if item.path in seen]

    @property
    def identity(self) -> str:
        """16 hexadecimal digits of their pixels and classes."""
        lines = "".join(f"{self.seen[item.path].digest} {item.label}\n" for item in self.items)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def fit(self, augmenter: Augmenter) -> LatentBank:
        """On at most LIMIT_PER_CLASS of each class, spread over its images."""
        classes = self.dataset.classes
        chosen: list[Item] = []
        for label in classes or (None,):
            members = [item for item in self.items if item.label == label]
            count = min(len(members), LIMIT_PER_CLASS)
            chosen += [members[place * len(members) // count] for place in range(count)]
        labels = [classes.index(item.label) if item.label is not None else 0 for item in chosen]
        return LatentBank.fit(augmenter.space, self._tensors(chosen), labels, classes=max(1, len(classes)))

    def _tensors(self, items: Sequence[Item]) -> Iterator[Tensor]:
        def read(path: str) -> Tensor:
            return read_content(self.dataset.place(path), self.max_pixels, expected=self.seen[path].digest).seen

        for _, image in in_threads(read, [item.path for item in items]):
            yield image

    def saved_in(self, folder: Path, job: Job | None, augmenter: Augmenter) -> LatentBank | None:
        """The bank that a job has left in its output folder, if it is of these images and this model."""
        if job is None or job.settings.get("images") != self.identity:
            return None
        try:
            bank = LatentBank.load(folder / BANK, augmenter.space.device)
            bank.check(augmenter.space)
        except UsageError:
            return None
        return bank if bank.identity == job.settings.get("bank") else None


def with_bank(augmenter: Augmenter, bank: LatentBank | None, gate: str | None) -> Augmenter:
    """The same augmenter, with a bank if it had none, and a gate if one is named."""
    return Augmenter(
        augmenter.space,
        augmenter.settings()["operators"],
        augmenter.strength,
        detail=augmenter.detail,
        bank=augmenter.bank if bank is None else bank,
        gate=augmenter.gate if gate is None else gate,
        probability=augmenter.probability,
        exact=augmenter.exact,
    )
