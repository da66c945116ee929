"""One of several parts of an augmenting job: whole units, as they are planned from the whole data set, done or not.

What all parts depend on, the bank of latents and the line about the job, is made by the shard that comes first, while the others
wait. The files that name images are written when everything else is there, by the shard that finds it so with the folder to
itself, or else by the next command without a shard: until then the folder has none of them, or those of what it was before.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from ..augment.augmenter import Augmenter
from ..errors import UsageError
from ..files import remove_temporaries
from ..folder.ledger import JobProgress, Silent, cannot_go_on
from ..folder.plan import make_target
from ..folder.shard import Shard
from .books import AugmentBooks, AugmentOutcome
from .completion import complete, count_classes
from .dataset import Dataset
from .neighbours import BANK, with_bank
from .options import Options
from .preparation import Tell, bank_for, job_of, make_plan, plan_of, prepared_by_one
from .records import Job, Records
from .target import CHOICES_OF_SHARDS, check_files, check_job, left_of, settle
from .tasks import Output, Plan
from .work import start_progress, units_of, write_units


def augment_shard(
    source: Path,
    target: Path,
    augmenter: Augmenter,
    options: Options,
    shard: Shard,
    *,
    dataset: Dataset | None = None,
    progress: JobProgress | None = None,
    tell: Tell | None = None,
) -> AugmentOutcome:
    """Write one part of what augment_folder writes; see there. Shards may run at the same time and in any order, here and
    elsewhere; together they write what the whole job writes, if it is the same data set with the same options for all of them.

    What cannot be read is told by one of the shards. With on_exists "overwrite", what such a job has written is made again where
    its checksum is wrong; what another one has written is refused. Raises as augment_folder does.
    """
    start = time.perf_counter()
    tell = tell or (lambda line: None)
    alike = replace(options, on_exists="skip")  # towards other jobs
    plan, outcome, before = make_plan(source, target, augmenter, alike, tell, dataset, choices=CHOICES_OF_SHARDS)
    outcome.failed = [failure for place, failure in enumerate(outcome.failed) if shard.takes(place)]
    units = [unit for number, unit in enumerate(units_of(plan, augmenter)) if shard.takes(number)]
    outputs = [output for unit in units for output in unit.outputs]
    _check(plan, outputs, before, options)
    make_target(target)
    with Records.open_shard(target, shard) as records:
        _check(plan, outputs, records, options)
        try:
            augmenter, job = _prepare(plan, augmenter, alike, records, tell)
            books = AugmentBooks(outcome, records, progress or Silent(), augmenter.space.model_hash, job.hash)
            for output, reason in settle(outputs, records, job, thoroughly=options.on_exists == "overwrite"):
                books.fail(output, reason)
            outcome.skipped = sum(output.copy > 0 and not output.todo and not output.refused for output in outputs)
            start_progress(units, books.progress)
            write_units(units, target, augmenter, books, options.max_pixels)
        except OSError as error:
            raise cannot_go_on(error, target, outcome.done) from None
    _complete(plan_of(plan.dataset, target, plan.seen, options), job, options, outcome)
    outcome.failed.sort()
    outcome.seconds = time.perf_counter() - start
    return outcome


def _check(plan: Plan, outputs: list[Output], records: Records, options: Options) -> None:
    """Raises UsageError if there is something else under the names of this shard's files, or of files that name images, or, with
    on_exists "error", anything. Other shards may be writing theirs."""
    check_files(plan, records, "skip", outputs, choices=CHOICES_OF_SHARDS)
    there = [output for output in outputs if options.on_exists == "error" and os.path.lexists(output.target)]
    if there:
        raise UsageError(f"{there[0].target}: there already; {CHOICES_OF_SHARDS}")


def _prepare(plan: Plan, augmenter: Augmenter, options: Options, records: Records, tell: Tell) -> tuple[Augmenter, Job]:
    """What all shards depend on: made by the first of them, or by a job before; by one with other settings, it is refused."""
    with prepared_by_one(plan.target, tell):
        records.refresh()
        bank, images, fresh = bank_for(plan.dataset, augmenter, options, plan.seen, tell, records)
        augmenter = with_bank(augmenter, bank, options.gate)
        job = job_of(augmenter, plan.dataset, options, images)
        check_job(records, job, options.on_exists, choices=CHOICES_OF_SHARDS)
        if bank is not None and fresh:
            bank.save(plan.target / BANK)
        if records.job is None:
            if bank is None:
                (plan.target / BANK).unlink(missing_ok=True)
            records.append_to_all([job])
    return augmenter, job


def _complete(plan: Plan, job: Job, options: Options, outcome: AugmentOutcome) -> None:
    """Count what there is of the data set; if that is all of it and nobody else is writing, do what is done once for all of it.

    Whoever is writing then comes here, too: the last one finds the folder free. plan: with nothing in it settled.
    """
    records = Records.read(plan.target)
    outcome.left, outcome.whole = left_of(plan, records, job), False
    count_classes(plan, records, outcome)
    if outcome.left:
        return
    try:
        records = Records.open(plan.target)
    except UsageError:  # another one has it
        return
    with records:
        check_job(records, job, "skip", choices=CHOICES_OF_SHARDS)  # again, now that nobody else can write
        check_files(plan, records, "skip", choices=CHOICES_OF_SHARDS)
        try:
            if records.locked:
                remove_temporaries(plan.target)
            complete(plan, records, originals=options.originals)
        except OSError as error:
            raise cannot_go_on(error, plan.target, outcome.done) from None
    outcome.whole = True
