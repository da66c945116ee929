"""Augmented copies of a data set of images, in a folder of the same layout.

    read (threads, ahead) -> augment the copies of a batch -> PNG (threads) -> name (one thread) -> annotations, at the end

`cat/a.jpg` becomes `cat/a__v1.png`, `cat/a__v2.png`, ..., and what belongs to it (boxes, masks) is copied along; the rest of the
data set is copied byte for byte. What was written is in OUTPUT/.vaetools-manifest.jsonl (records.py), from which the same call
goes on after a crash at any moment, to the same files byte for byte as without it.

Several processes share the middle of it (engine.py), or do it at other times and places (shard.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..augment.augmenter import Augmenter
from ..files import remove_temporaries
from ..folder.ledger import JobProgress, Silent, cannot_go_on
from ..folder.plan import make_target
from .books import AugmentBooks, AugmentOutcome, ClassCount
from .completion import complete, count_classes
from .content import read_content
from .counts import count_copies
from .dataset import Dataset, refuse_collisions
from .neighbours import needs_bank, with_bank
from .options import Options as Options
from .preparation import Chains, Tell, bank_for, job_of, look_at, make_plan, make_ready, open_data_set, spread
from .records import Job, Records
from .target import check_files, check_job, check_without_model, settle
from .tasks import Unit
from .work import start_progress, units_of, write_units

PREVIEWED = 8  # images


@dataclass(frozen=True)
class Prepared:
    """What there is to write, in units, of which some may be done; and what all of it depends on."""

    units: list[Unit]
    target: Path
    augmenter: Augmenter
    job: Job
    options: Options
    books: AugmentBooks


def write_here(prepared: Prepared) -> None:
    write_units(prepared.units, prepared.target, prepared.augmenter, prepared.books, prepared.options.max_pixels)


def augment_folder(
    source: Path,
    target: Path,
    augmenter: Augmenter,
    options: Options = Options(),
    *,
    dataset: Dataset | None = None,
    progress: JobProgress | None = None,
    tell: Tell | None = None,
    write: Callable[[Prepared], None] = write_here,
) -> AugmentOutcome:
    """Write augmented copies of the train images of the data set in `source` to `target`.

    dataset: what open_dataset has found in `source`, if that was asked already. tell: gets a line on what is being done, now and
    then. A bank that the operators or the gate need, and the augmenter has not, is fitted on the train images. Images that cannot
    be read are reported as failed. write: has the units written.

    Raises UsageError before anything is written, VaetoolsError if nothing more can be written, KeyboardInterrupt with the number
    of copies that are done.
    """
    start = time.perf_counter()
    tell = tell or (lambda line: None)
    plan, outcome, before = make_plan(source, target, augmenter, options, tell, dataset)
    dataset = plan.dataset
    check_files(plan, before, options.on_exists)
    make_target(target)
    with Records.open(target) as records:
        if records.locked:
            remove_temporaries(target)
        check_files(plan, records, options.on_exists)  # again, now that nobody else can write them
        bank, images, fresh = bank_for(dataset, augmenter, options, plan.seen, tell, records)
        augmenter = with_bank(augmenter, bank, options.gate)
        job = job_of(augmenter, dataset, options, images)
        check_job(records, job, options.on_exists)
        try:
            make_ready(plan, records, job, bank, fresh=fresh)
            books = AugmentBooks(outcome, records, progress or Silent(), augmenter.space.model_hash, job.hash)
            for output, reason in settle(list(plan.outputs), records, job, thoroughly=options.on_exists == "overwrite"):
                books.fail(output, reason)
            outcome.skipped = sum(not copy.todo and not copy.refused for copy in plan.copies)
            units = units_of(plan, augmenter)
            start_progress(units, books.progress)
            write(Prepared(units, target, augmenter, job, options, books))
            complete(plan, records, originals=options.originals)
        except OSError as error:
            raise cannot_go_on(error, target, outcome.done) from None
        count_classes(plan, records, outcome)
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
    dataset, outcome = open_data_set(
        source, target, augmenter.operators, options, tell, dataset, gated=augmenter.gate is not None
    )
    enough = None if needs_bank(augmenter, options.gate) else PREVIEWED
    seen = look_at(dataset, augmenter, options, outcome, None, tell, enough=enough)
    bank, _, _ = bank_for(dataset, augmenter, options, seen, tell)
    labels = dataset.labels
    pictures, digests = [], []
    for item in spread([item for item in dataset.train if item.path in seen], PREVIEWED):
        image = read_content(dataset.place(item.path), options.max_pixels, expected=seen[item.path].digest).seen
        pictures.append((item.path, image, None if item.label is None else labels[item.label]))
        digests.append(seen[item.path].digest)  # of the pixels as stored, which copies are drawn by
    return write_preview(with_bank(augmenter, bank, options.gate), pictures, target, seed=options.seed, digests=digests)


def foresee(
    source: Path,
    target: Path,
    operators: Chains,
    options: Options = Options(),
    *,
    dataset: Dataset | None = None,
    tell: Tell | None = None,
    new_model: bool = False,
) -> AugmentOutcome:
    """What augment_folder would do, from names alone: of each class, the images and the copies that there would be. Writes
    nothing, and needs no model. Raises UsageError as augment_folder does.

    new_model: whether the model is still to be trained, so that nothing in `target` can be of this job.
    """
    dataset, outcome = open_data_set(source, target, operators, options, tell or (lambda line: None), dataset)
    counts = count_copies(dataset.train, options.copies, balance=options.balance)
    refuse_collisions(dataset, counts)
    if new_model:
        check_without_model(target, dataset, counts, options)
    outcome.images = len(dataset.train)
    for item in dataset.train:
        count = outcome.classes.setdefault(item.label or "", ClassCount())
        count.images += 1
        count.copies += counts[item.path]
    return outcome
