"""From the plan to the files: reading, the network and the disk at the same time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..augment.augmenter import Augmenter
from ..errors import ImageError, VaetoolsError
from ..folder.ledger import JobProgress, Product, Task
from ..folder.names import format_of_name
from ..folder.pipeline import Pipeline
from ..folder.run import never
from ..folder.writer import Writer
from ..images.picture import Picture
from ..images.tensors import to_picture
from ..images.write import save_picture
from .books import AugmentBooks
from .content import CHANGED, Content, read_content
from .tasks import Output, Plan, Source, Unit

MADE = "augmented copy, made by vaetools"  # what a DICOM file has to say
PIXELS_ON_CPU, PIXELS_ON_DEVICE = 500_000, 8_000_000  # of one batch, whose end an interruption waits for

Made = list[tuple[Task, Picture | None]]  # outputs with their pictures; None for files that are copied byte for byte


class _Unpacked:
    """Takes what became of images, and gives the writer one file after another."""

    def __init__(self, writer: Writer[Picture | None]) -> None:
        self.writer = writer

    def put(self, results: Sequence[tuple[Task, Made]], ms: float, after: Callable[[], None]) -> None:
        self.writer.put([pair for _, made in results for pair in made], ms, after)

    def check(self) -> None:
        self.writer.check()

    def close(self) -> None:
        self.writer.close()


def units_of(plan: Plan, augmenter: Augmenter) -> list[Unit]:
    """What is worked on together, by whoever has such a device."""
    on_cpu = augmenter.space.device.type == "cpu"
    return plan.units(by_size=not augmenter.exact, pixels=PIXELS_ON_CPU if on_cpu else PIXELS_ON_DEVICE)


def start_progress(units: Iterable[Unit], progress: JobProgress) -> None:
    todo = [output.share for unit in units for output in unit.outputs if output.todo]
    progress.start(len(todo), sum(todo))


def write_units(
    units: Sequence[Unit],
    target: Path,
    augmenter: Augmenter,
    books: AugmentBooks,
    max_pixels: int,
    *,
    stopped: Callable[[], bool] = never,
) -> None:
    """Write all outputs of some units that are to do. stopped: asked before each unit; if so, KeyboardInterrupt is raised.

    Raises VaetoolsError if nothing more can be written, KeyboardInterrupt with the number of copies that are done.
    """
    if not any(unit.todo for unit in units):
        return
    augmenter.acceptance.clear()

    def read(task: Task) -> Content | None:
        if not isinstance(task, Source):
            return None
        content = read_content(task.local, max_pixels)
        if task.seen is None or (content.digest, content.beside) != (task.seen.digest, task.seen.beside):
            raise ImageError(CHANGED)
        return content

    def work(tasks: Sequence[Task], contents: Sequence[Content | None]) -> list[Made | VaetoolsError]:
        return list(_augment(tasks, contents, augmenter, books))

    def finish(task: Task, picture: Picture | None, path: Path) -> Product:
        if picture is None:
            shutil.copyfile(task.local, path)
            return Product(0.0)
        return Product(0.0, notes=(*picture.notes, *save_picture(path, picture, format_of_name(task.output), made=MADE)))

    def batches(stop: threading.Event) -> Iterator[list[Task]]:
        for unit in units:
            if stopped():
                raise KeyboardInterrupt
            if tasks := unit.tasks():
                yield tasks

    try:
        sink = _Unpacked(Writer(target, finish, books))
        Pipeline(read, work, sink, books.fail).run(batches)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{books.outcome.done} copies are done; the same command goes on from there") from None
    names = {source.label: copy.item.label for unit in units for source in unit.sources for copy in source.copies if copy.item}
    for number, (accepted, tried) in augmenter.acceptance.items():
        books.outcome.count_gate(names[number] or "", accepted, tried)


def _augment(tasks: Sequence[Task], contents: Sequence[Content | None], augmenter: Augmenter, books: AugmentBooks) -> list[Made]:
    """What becomes of each task. Copies that are done already go through the network again only where others of the batch could
    come out differently without them."""
    made: list[Made] = [[] for _ in tasks]
    jobs: list[tuple[int, Output, Content]] = []
    labels: list[int] = []
    for place, (task, content) in enumerate(zip(tasks, contents, strict=True)):
        if isinstance(task, Source) and content is not None:
            copies = [copy for copy in task.copies if copy.todo or not augmenter.exact]
            jobs += [(place, copy, content) for copy in copies]
            labels += [task.label] * len(copies) if task.label is not None else []
        else:
            made[place].append((task, None))
    if not jobs:
        return made
    images = [content.seen for _, _, content in jobs]
    done = augmenter.augment(images, [copy.seed for _, copy, _ in jobs], labels or None)
    refused = []
    for number, (place, copy, content) in enumerate(jobs):
        if not copy.todo:
            continue
        copy.operator, copy.strength = done.operators[number], done.strengths[number]
        if not done.accepted[number]:
            refused.append(copy)
            continue
        source = content.picture
        pixels = to_picture(content.stored(done.images[number])).pixels
        picture = Picture(pixels, source.format, source.mode, source.metadata, source.notes)
        made[place].append((copy, picture))
        made[place] += [(companion, None) for companion in copy.companions if companion.todo]
    books.refuse(refused)
    return made
