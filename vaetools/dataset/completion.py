"""What is done once for a whole data set, when all of its copies are there."""

from __future__ import annotations

import os

from ..errors import VaetoolsError
from ..files import make_names_durable, temporary_path, write_new
from ..folder.ledger import Task
from ..folder.plan import place_refuses
from .books import AugmentOutcome, ClassCount
from .preparation import forget_preparation
from .records import Record, Records
from .target import is_refused, is_written
from .tasks import Plan


def complete(plan: Plan, records: Records, *, originals: bool) -> None:
    """Write the files that name images, and remove what shards held on to. Raises as _write_annotations does."""
    _write_annotations(plan, records, originals=originals)
    if records.locked:
        forget_preparation(plan.target)


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
            records.append([Record("", one.path, size=size, crc32=f"{crc32:08x}", turn=records.turn)], durable=True)
            os.replace(temporary, task.target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        make_names_durable([task.target.parent])


def count_classes(plan: Plan, records: Records, outcome: AugmentOutcome) -> None:
    """The images of each class, and the copies that there are; what the gate said is counted already."""
    classes: dict[str, ClassCount] = {}
    for item in plan.dataset.train:
        if item.path in plan.seen:
            label = item.label or ""
            classes.setdefault(label, outcome.classes.get(label, ClassCount())).images += 1
    for copy in plan.copies:
        assert copy.item is not None
        count = classes[copy.item.label or ""]
        count.refused += is_refused(copy, records)
        count.copies += is_written(copy, records)
    outcome.classes = classes
    outcome.refused = sum(count.refused for count in classes.values())
