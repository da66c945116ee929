"""Augmented copies of a data set of images, in a folder of the same layout.

    read (threads, ahead) -> augment the copies of a batch -> PNG (threads) -> name (one thread) -> annotations, at the end

`cat/a.jpg` becomes `cat/a__v1.png`, `cat/a__v2.png`, ..., and what belongs to it (boxes, masks) is copied along; the rest of the
data set is copied byte for byte. What was written is in OUTPUT/.vaetools-manifest.jsonl (records.py), from which the same call
goes on after a crash at any moment, to the same files byte for byte as without it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..augment.augmenter import Augmenter
from ..augment.bank import LatentBank
from ..augment.operators import Operator
from ..codec.container import Limits
from ..errors import UsageError, VaetoolsError
from ..files import make_names_durable, remove_temporaries, temporary_path, write_new
from ..folder.ledger import JobProgress, Silent, Task, cannot_go_on
from ..folder.plan import ON_EXISTS, check_places, make_target, place_refuses
from .books import AugmentBooks, AugmentOutcome, ClassCount
from .content import read_content
from .counts import count_copies
from .dataset import Dataset, Item, refuse_collisions
from .layouts import open_dataset
from .neighbours import BANK, GATES, Neighbours, needs_bank, with_bank
from .records import Job, Record, Records
from .suitability import refuse_unfit
from .survey import Seen, survey
from .target import check_files, check_job, is_written, remove_files, settle, stale_files, written_files
from .tasks import Plan
from .work import write_outputs

MAX_PIXELS = Limits().max_pixels
PREVIEWED = 8  # images
OF_THE_BANK = frozenset(("bank", "gate", "images"))  # settings that are known only once it is fitted
Tell = Callable[[str], None]
Chains = tuple[tuple[Operator, ...], ...]


@dataclass(frozen=True)
class Options:
    """What an augmenting job does with which data set.

    copies: of each train image. balance: beside those, as many as bring each class to the size of the largest. seed: of the run.
    layout: one of layouts.LAYOUTS. originals: copy the rest of the data set too, byte for byte. gate: "nearest" leaves out copies
    that no longer look like their class. on_exists: "skip" goes on where a job with the same settings was stopped; "overwrite"
    replaces what another one has written; "error" starts in a new folder only. max_pixels: larger images fail.

    Raises UsageError on a policy or a gate that is not known.
    """

    copies: int = 1
    balance: bool = False
    seed: int = 0
    layout: str = "auto"
    originals: bool = True
    gate: str | None = None
    on_exists: str = "skip"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.on_exists not in ON_EXISTS:
            raise UsageError(f"on_exists must be one of {', '.join(ON_EXISTS)}, not {self.on_exists!r}")
        if self.gate is not None and self.gate not in GATES:
            raise UsageError(f"unknown gate {self.gate!r}: choose one of {', '.join(GATES)}")


def augment_folder(
    source: Path,
    target: Path,
    augmenter: Augmenter,
    options: Options = Options(),
    *,
    dataset: Dataset | None = None,
    progress: JobProgress | None = None,
    tell: Tell | None = None,
) -> AugmentOutcome:
    """Write augmented copies of the train images of the data set in `source` to `target`.

    dataset: what open_dataset has found in `source`, if that was asked already. tell: gets a line on what is being done, now and
    then. A bank that the operators or the gate need, and the augmenter has not, is fitted on the train images. Images that cannot
    be read are reported as failed.

    Raises UsageError before anything is written, VaetoolsError if nothing more can be written, KeyboardInterrupt with the number
    of copies that are done.
    """
    start = time.perf_counter()
    tell = tell or (lambda line: None)
    dataset, outcome = _open(source, target, augmenter.operators, options, tell, dataset, gated=augmenter.gate is not None)
    refuse_collisions(dataset, count_copies(dataset.train, options.copies, balance=options.balance))
    before = Records.read(target)
    check_job(before, job_of(augmenter, dataset, options), options.on_exists, but_for=OF_THE_BANK)
    seen = _look(dataset, augmenter, options, outcome, before, tell)
    plan = Plan.of(
        dataset,
        target,
        seen,
        copies=options.copies,
        balance=options.balance,
        seed=options.seed,
        originals=options.originals,
    )
    refuse_collisions(dataset, plan.counts)
    check_files(plan, before, options.on_exists)
    make_target(target)
    with Records.open(target) as records:
        if records.locked:
            remove_temporaries(target)
        check_files(plan, records, options.on_exists)  # again, now that nobody else can write them
        bank, images, fresh = _bank(dataset, augmenter, options, seen, tell, records)
        augmenter = with_bank(augmenter, bank, options.gate)
        job = job_of(augmenter, dataset, options, images)
        check_job(records, job, options.on_exists)
        try:
            _make_ready(plan, records, job, bank, fresh=fresh)
            books = AugmentBooks(outcome, records, progress or Silent(), augmenter.space.model_hash, job.hash)
            for output, reason in settle(plan, records, job, thoroughly=options.on_exists == "overwrite"):
                books.fail(output, reason)
            outcome.skipped = sum(not copy.todo and not copy.refused for copy in plan.copies)
            write_outputs(plan, augmenter, books, options.max_pixels)
            _write_annotations(plan, records, originals=options.originals)
        except OSError as error:
            raise cannot_go_on(error, target, outcome.done) from None
        _count(plan, records, augmenter, outcome)
    outcome.failed.sort()
    outcome.seconds = time.perf_counter() - start
    return outcome


def preview_folder(
    source: Path,
    target: Path,
    augmenter: Augmenter,
    options: Options = Options(),
    *,
    dataset: Dataset | None = None,
    tell: Tell | None = None,
) -> list[Path]:
    """Write a sheet of what becomes of some of the train images to `target`, and nothing else. Returns its files.

    Raises UsageError as augment_folder does.
    """
    from .preview import write_preview

    tell = tell or (lambda line: None)
    dataset, outcome = _open(source, target, augmenter.operators, options, tell, dataset, gated=augmenter.gate is not None)
    enough = None if needs_bank(augmenter, options.gate) else PREVIEWED
    seen = _look(dataset, augmenter, options, outcome, None, tell, enough=enough)
    bank, _, _ = _bank(dataset, augmenter, options, seen, tell)
    labels = dataset.labels
    pictures = []
    for item in _spread([item for item in dataset.train if item.path in seen], PREVIEWED):
        image = read_content(dataset.place(item.path), options.max_pixels, expected=seen[item.path].digest).seen
        pictures.append((item.path, image, None if item.label is None else labels[item.label]))
    return write_preview(with_bank(augmenter, bank, options.gate), pictures, target, seed=options.seed)


def foresee(
    source: Path,
    target: Path,
    operators: Chains,
    options: Options = Options(),
    *,
    dataset: Dataset | None = None,
    tell: Tell | None = None,
) -> AugmentOutcome:
    """What augment_folder would do, from names alone: of each class, the images and the copies that there would be. Writes
    nothing, and needs no model. Raises UsageError as augment_folder does."""
    dataset, outcome = _open(source, target, operators, options, tell or (lambda line: None), dataset)
    counts = count_copies(dataset.train, options.copies, balance=options.balance)
    refuse_collisions(dataset, counts)
    outcome.images = len(dataset.train)
    for item in dataset.train:
        count = outcome.classes.setdefault(item.label or "", ClassCount())
        count.images += 1
        count.copies += counts[item.path]
    return outcome


def _refuse_nested(source: Path, target: Path) -> None:
    """Where one of the two folders holds the other, each would be taken for a class or a split of it the next time."""
    inner, outer = source.resolve(), target.resolve()
    if outer.is_relative_to(inner) or inner.is_relative_to(outer):
        raise UsageError(
            f"{target}: the output folder and the data set ({source}) must not be inside one another: choose another place"
        )


def _open(
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


def _look(
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
        chosen = _spread(dataset.train, enough)
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
    return seen


def _bank(
    dataset: Dataset, augmenter: Augmenter, options: Options, seen: dict[str, Seen], tell: Tell, records: Records | None = None
) -> tuple[LatentBank | None, str | None, bool]:
    """The bank that the augmenter lacks, the identity of its images, and whether it was fitted now."""
    if not needs_bank(augmenter, options.gate):
        return None, None, False
    neighbours = Neighbours(dataset, seen, options.max_pixels)
    saved = None if records is None else neighbours.saved_in(records.path.parent, records.job, augmenter)
    if saved is None:
        tell("encoding train images, as neighbours of the others")
    return saved or neighbours.fit(augmenter), neighbours.identity, saved is None


def _make_ready(plan: Plan, records: Records, job: Job, bank: LatentBank | None, *, fresh: bool) -> None:
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


def _write_annotations(plan: Plan, records: Records, *, originals: bool) -> None:
    """Write the files that name images, with the copies that there are. Raises OSError, or VaetoolsError on links in the way."""
    copies: dict[str, dict[int, str]] = {}
    for copy in plan.copies:
        if is_written(copy, records):
            copies.setdefault(copy.path, {})[copy.copy] = copy.output
    for one in plan.dataset.annotations:
        task = Task(plan.dataset.place(one.path), plan.target, one.path, one.path)
        if reason := place_refuses(task):
            raise VaetoolsError(reason)
        data = one.render(copies, originals=originals)
        if task.target.is_file() and task.target.read_bytes() == data and records.last("", one.path):
            continue
        temporary = temporary_path(plan.target)
        try:
            size, crc32 = write_new(temporary, data)
            task.target.parent.mkdir(parents=True, exist_ok=True)
            records.append([Record("", one.path, size=size, crc32=f"{crc32:08x}")], durable=True)
            os.replace(temporary, task.target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        make_names_durable([task.target.parent])


def _count(plan: Plan, records: Records, augmenter: Augmenter, outcome: AugmentOutcome) -> None:
    classes = outcome.classes
    for item in plan.dataset.train:
        if item.path in plan.seen:
            classes.setdefault(item.label or "", ClassCount()).images += 1
    for copy in plan.copies:
        assert copy.item is not None
        count = classes[copy.item.label or ""]
        count.refused += copy.refused
        count.copies += is_written(copy, records)
    for label, (accepted, tried) in augmenter.acceptance.items():
        count = classes[plan.dataset.classes[label]]
        count.accepted, count.tried = accepted, tried
    outcome.refused = sum(count.refused for count in classes.values())


def _spread(items: list[Item], count: int) -> list[Item]:
    """So many of them, from all over."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
