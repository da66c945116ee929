"""Compress a folder of images, and give it back.

The tree is kept: `a/b.png` becomes `a/b.png.vtc`, and that `a/b.png` again; `a/b.jpg` becomes `a/b.jpg.vtc`, and that
`a/b.jpg.png`. Each name follows from one name alone, whatever else is in the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError, UsageError, VaetoolsError
from ..files import replace_bytes
from ..images.folder import SUFFIXES, walk
from ..images.read import image_size, read_exact
from ..images.write import write_png
from .codec import Codec
from .container import HEADER_BYTES, read_header
from .job import BatchJob, JobProgress, Outcome, Silent, Task, check_places, make_target, settle_existing

SUFFIX = ".vtc"


def compress_folder(
    source: Path,
    target: Path,
    codec: Codec,
    *,
    quality: float = 60.0,
    batch_size: int = 8,
    on_exists: str = "skip",
    progress: JobProgress | None = None,
) -> Outcome:
    """Compress every image below `source` (or the one image that it is) to `target`.

    Images that this format cannot hold without loss of a channel or of depth are reported as failed; see read_exact.
    Raises UsageError before anything is written, VaetoolsError if the disk is full.
    """
    check_places(source, target)
    codec.check_quality(quality)
    outcome = Outcome()
    root, paths = _listed(source, SUFFIXES, outcome)
    targets = [target / path.relative_to(root).with_name(path.name + SUFFIX) for path in paths]
    tasks = settle_existing([Task(*pair) for pair in zip(paths, targets, strict=True)], on_exists, outcome)
    make_target(target)
    batches = _plan(tasks, codec, batch_size, outcome, image_size)

    def read(task: Task) -> Tensor:
        return to_tensor(read_exact(task.source, codec.config.bit_depth))

    def work(tasks: Sequence[Task], images: Sequence[Tensor]) -> list[Callable[[Path], object]]:
        return [_writer_of_bytes(data) for data in codec.compress(images, quality, batch_size)]

    BatchJob(read, work).run(batches, outcome, progress or Silent())
    return outcome


def decompress_folder(
    source: Path,
    target: Path,
    codec: Codec,
    *,
    batch_size: int = 8,
    on_exists: str = "skip",
    progress: JobProgress | None = None,
) -> Outcome:
    """Restore every .vtc file below `source` (or the one that it is) as a PNG below `target`.

    A file that cannot be decoded is reported as failed. Raises UsageError before anything is written, VaetoolsError if
    the disk is full.
    """
    check_places(source, target)
    outcome = Outcome()
    root, paths = _listed(source, frozenset((SUFFIX,)), outcome)
    tasks: dict[Path, Task] = {}
    for path in paths:
        task = Task(path, target / path.relative_to(root).with_name(restored_name(path.name)))
        if (first := tasks.setdefault(task.target, task)) is not task:
            reason = f"would be restored as {task.target.name}, like {first.source.name}: restore it alone, to another folder"
            outcome.fail(path, UsageError(reason))
    remaining = settle_existing(list(tasks.values()), on_exists, outcome)
    make_target(target)
    batches = _plan(remaining, codec, batch_size, outcome, lambda path: _compressed_size(path, codec))

    def read(task: Task) -> bytes:
        return task.source.read_bytes()

    def work(tasks: Sequence[Task], files: Sequence[bytes]) -> list[Callable[[Path], object]]:
        return [_writer_of_image(image) for image in codec.decompress(files, batch_size)]

    BatchJob(read, work).run(batches, outcome, progress or Silent())
    return outcome


def restored_name(name: str) -> str:
    """`b.png.vtc` -> `b.png`, and anything else `NAME.vtc` -> `NAME.png`."""
    original = name.removesuffix(SUFFIX)
    return original if original.lower().endswith(".png") else original + ".png"


def _listed(source: Path, suffixes: frozenset[str], outcome: Outcome) -> tuple[Path, list[Path]]:
    """The root that names are relative to, and the files; what is passed over goes into the outcome."""
    if not source.is_dir():
        return source.parent, [source]
    listing = walk(source, suffixes)
    outcome.others = listing.others
    outcome.linked = [str(path) for path in listing.linked]
    for path, reason in listing.unreadable:
        outcome.fail(path, ImageError(f"the folder cannot be read ({reason})"))
    return source, listing.images


def _plan(
    tasks: Sequence[Task], codec: Codec, batch_size: int, outcome: Outcome, size_of: Callable[[Path], tuple[int, int]]
) -> list[list[Task]]:
    """Batches of images of one padded shape, in the order of their first image, from the files' headers alone."""
    batches: list[list[Task]] = []
    opened: dict[tuple[int, int], list[Task]] = {}
    for task in tasks:
        try:
            height, width = size_of(task.source)
            size = task.source.stat().st_size
        except (VaetoolsError, OSError) as error:
            outcome.fail(task.source, error)
            continue
        shape = codec.padded_shape(height, width)
        if shape not in opened or len(opened[shape]) >= codec.batch_limit(shape, batch_size):
            opened[shape] = []
            batches.append(opened[shape])
        opened[shape].append(Task(task.source, task.target, size, height * width))
    return batches


def _compressed_size(path: Path, codec: Codec) -> tuple[int, int]:
    with path.open("rb") as file:
        header, _ = read_header(file.read(HEADER_BYTES), codec.limits)
    return header.height, header.width


def to_tensor(pixels: np.ndarray) -> Tensor:
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.array(planes, order="C"))  # a copy: Pillow hands out read-only memory


def _writer_of_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: replace_bytes(path, data)


def _writer_of_image(image: Tensor) -> Callable[[Path], object]:
    return lambda path: write_png(path, image.numpy())
