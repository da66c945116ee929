"""What an augmenting job finds out and settles before the first copy is made."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..augment.augmenter import Augmenter
from ..augment.bank import LatentBank
from ..augment.operators import Operator
from ..errors import UsageError
from ..folder.journal import lock_file, open_file
from ..folder.plan import check_places
from .books import AugmentOutcome
from .counts import count_copies
from .dataset import Dataset, Item, refuse_collisions
from .layouts import open_dataset
from .neighbours import BANK, Neighbours, needs_bank
from .options import Options
from .records import Job, Records
from .suitability import refuse_unfit
from .survey import Seen, survey
from .target import CHOICES, check_job, remove_files, stale_files, written_files
from .tasks import Plan

OF_THE_BANK = frozenset(("bank", "gate", "images"))  # settings that are known only once it is fitted
PREPARATION = ".vaetools-manifest.lock"  # of the shard that settles what all of them depend on
Tell = Callable[[str], None]
Chains = tuple[tuple[Operator, ...], ...]


def _refuse_nested(source: Path, target: Path) -> None:
    """Where one of the two folders holds the other, each would be taken for a class or a split of it the next time."""
    inner, outer = source.resolve(), target.resolve()
    if outer.is_relative_to(inner) or inner.is_relative_to(outer):
        raise UsageError(
            f"{target}: the output folder and the data set ({source}) must not be inside one another: choose another place"
        )


def open_data_set(
    source: Path,
    target: Path,
    operators: Chains,
    options: Options,
    tell: Tell,
    dataset: Dataset | None = None,
    *,
    gated: bool = False,
) -> tuple[Dataset, AugmentOutcome]:
    """The data set, and an outcome that knows of it. Raises UsageError if the operators or the gate do not go with it."""
    check_places(source, target)
    _refuse_nested(source, target)
    dataset = dataset or open_dataset(source, options.layout, leave_out=target)
    tell(f"{source}: {dataset.summary()}")
    refuse_unfit(dataset, operators, gated=gated or options.gate is not None)
    outcome = AugmentOutcome(found=dataset.summary(), layout=dataset.layout, notes=list(dataset.notes))
    for path, reason in dataset.failed:
        outcome.fail(dataset.place(path), reason)
    return dataset, outcome


def job_of(augmenter: Augmenter, dataset: Dataset, options: Options, images: str | None = None) -> Job:
    """All that the copies depend on beside their own images. images: the identity of those of the bank."""
    settings = {**augmenter.settings(), "seed": options.seed, "layout": dataset.layout, "images": images}
    if augmenter.needs_labels or augmenter.strength.classes or augmenter.gate is not None or options.gate is not None:
        settings["classes"] = dataset.classes  # their order says which label is which
    return Job(json.loads(json.dumps(settings)))


def look_at(
    dataset: Dataset,
    augmenter: Augmenter,
    options: Options,
    outcome: AugmentOutcome,
    records: Records | None,
    tell: Tell,
    enough: int | None = None,
) -> dict[str, Seen]:
    """What can be read of the train images, and of the others; or of so many train images as are enough, from all over.

    Raises UsageError if no train image can be augmented.
    """
    items = list(dataset.items)
    if enough is not None:
        chosen = spread(dataset.train, enough)
        items = list({item.path: item for item in (*chosen, *dataset.train)}.values())
    known = {record.parent: record for record in records.files} if records is not None else {}
    tell(f"looking at {len(items) if enough is None else min(enough, len(items))} images")
    gray_only = augmenter.space.config.image_channels == 1
    seen: dict[str, Seen] = {}
    first: dict[int, str] = {}  # the first train image of these pixels
    twice: list[str] = []
    held_out: list[tuple[str, int]] = []
    reason = ""
    for item, found in zip(items, survey(dataset.root, [item.path for item in items], options.max_pixels, known), strict=True):
        if item.train and not isinstance(found, str) and gray_only and not found.is_gray:
            found = f"the model {augmenter.space.config.name} is for gray images, and this one has colours"
        if isinstance(found, str):
            if item.train:
                reason = reason or f"{item.path}: {found}"
                outcome.fail(dataset.place(item.path), found)
            else:
                outcome.notes.append(f"{item.path}, which is not for training: {found}")
            continue
        seen[item.path] = found
        if item.train:
            outcome.images += 1
            if outcome.images == enough:
                break
            if (other := first.setdefault(found.digest, item.path)) != item.path:
                twice.append(f"{item.path} is {other}")
        else:
            held_out.append((item.path, found.digest))
    if not outcome.images:
        raise UsageError(f"{dataset.root}: none of the {len(dataset.train)} train images can be augmented; the first: {reason}")
    if twice:
        outcome.notes.append(f"{len(twice)} train images are others, too, pixel for pixel, and so are their copies: {twice[0]}")
    outcome.same = [(path, first[digest]) for path, digest in held_out if digest in first]
    if enough is None:
        outcome.notes += about_lonely(dataset, seen, augmenter)
    return seen


def about_lonely(dataset: Dataset, seen: Mapping[str, Seen], augmenter: Augmenter) -> list[str]:
    """Classes of one train image, of which operators that look at others of the class make nothing."""
    counts = Counter(item.label for item in dataset.train if item.path in seen)
    lonely = sorted(str(label) for label, count in counts.items() if count == 1 and label is not None)
    alone = [[each.name for each in chain if each.needs_labels and not each.mixes_labels] for chain in augmenter.operators]
    names = ", ".join(sorted({name for chain in alone for name in chain}))
    if not lonely or not names:
        return []
    return [
        f"{len(lonely)} classes have one image, such as {lonely[0]!r}: {'all' if all(alone) else 'some'} of its copies are the "
        f"image itself, for {names} take from others of the class; style and resample do without them"
    ]


def make_plan(
    source: Path,
    target: Path,
    augmenter: Augmenter,
    options: Options,
    tell: Tell,
    dataset: Dataset | None = None,
    *,
    choices: str = CHOICES,
) -> tuple[Plan, AugmentOutcome, Records]:
    """All that there is to write, whether it is there or not; an outcome that knows what failed so far; what the output folder
    says of itself. choices: what can be done where another job has written there, in words.

    Raises UsageError as augment_folder does.
    """
    dataset, outcome = open_data_set(
        source, target, augmenter.operators, options, tell, dataset, gated=augmenter.gate is not None
    )
    refuse_collisions(dataset, count_copies(dataset.train, options.copies, balance=options.balance))
    before = Records.read(target)
    check_job(before, job_of(augmenter, dataset, options), options.on_exists, but_for=OF_THE_BANK, choices=choices)
    seen = look_at(dataset, augmenter, options, outcome, before, tell)
    plan = plan_of(dataset, target, seen, options)
    refuse_collisions(dataset, plan.counts)
    outcome.model = augmenter.space.model_hash
    return plan, outcome, before


def plan_of(dataset: Dataset, target: Path, seen: Mapping[str, Seen], options: Options) -> Plan:
    """Nothing in it is settled."""
    return Plan.of(
        dataset,
        target,
        seen,
        copies=options.copies,
        balance=options.balance,
        seed=options.seed,
        originals=options.originals,
    )


def bank_for(
    dataset: Dataset,
    augmenter: Augmenter,
    options: Options,
    seen: Mapping[str, Seen],
    tell: Tell,
    records: Records | None = None,
) -> tuple[LatentBank | None, str | None, bool]:
    """The bank that the augmenter lacks, the identity of its images, and whether it was fitted now."""
    if not needs_bank(augmenter, options.gate):
        return None, None, False
    neighbours = Neighbours(dataset, seen, options.max_pixels)
    saved = None if records is None else neighbours.saved_in(records.path.parent, records.job, augmenter)
    if saved is None:
        tell("encoding train images, as neighbours of the others")
    return saved or neighbours.fit(augmenter), neighbours.identity, saved is None


@contextmanager
def prepared_by_one(target: Path, tell: Tell) -> Iterator[None]:
    """Of several shards, let one at a time in; the others wait. Where there are no locks, nobody waits."""
    descriptor = open_file(target / PREPARATION)
    try:
        try:
            lock_file(descriptor, target)
        except UsageError:
            tell(f"{target}: another shard is preparing the data set, which is waited for")
            lock_file(descriptor, target, patience=math.inf)
        yield
    finally:
        os.close(descriptor)


def forget_preparation(target: Path) -> None:
    """For whoever has the folder alone."""
    (target / PREPARATION).unlink(missing_ok=True)


def make_ready(plan: Plan, records: Records, job: Job, bank: LatentBank | None, *, fresh: bool) -> None:
    """Take away what is of another job, and note what this one is. fresh: the bank is not saved yet."""
    if records.job == job:
        remove_files(plan.target, stale_files(plan, records))
        if bank is not None and fresh:  # its file was lost
            bank.save(plan.target / BANK)
        return
    if records.job is not None:
        remove_files(plan.target, written_files(records))
        records.clear()
    if bank is not None:
        bank.save(plan.target / BANK)
    else:
        (plan.target / BANK).unlink(missing_ok=True)
    records.append([job], durable=True)


def spread(items: list[Item], count: int) -> list[Item]:
    """So many of them, from all over."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
