"""Compress a folder of images, and give it back.

The tree is kept: `a/b.jpg` becomes `a/b.jpg.vtc`, and that `a/b.png` again, or `a/b.jpg.png` where two restored files
would bear one name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FormatError, UsageError, VaetoolsError
from ..files import replace_bytes
from ..images.folder import list_images
from ..images.read import image_size, read_exact
from ..images.write import write_png
from .codec import BATCH_PIXELS, Codec
from .container import PREFIX, read_header
from .job import BatchJob, JobProgress, Outcome, Silent, Task, check_folders, settle_existing

SUFFIX = ".vtc"
HEADER_READ = PREFIX.size + 65_535 + 4


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
    outcome = Outcome()
    check_folders(source, target)
    codec.check_quality(quality)
    root = source if source.is_dir() else source.parent
    paths = list_images(source) if source.is_dir() else [source]
    targets = [target / path.relative_to(root).with_name(path.name + SUFFIX) for path in paths]
    tasks = settle_existing([Task(*pair, pixels=0) for pair in zip(paths, targets, strict=True)], on_exists, outcome)
    batches = _plan(tasks, codec, batch_size, outcome, image_size)

    def work(tasks: Sequence[Task], images: Sequence[Tensor]) -> list[Callable[[Path], object] | VaetoolsError]:
        try:
            files = codec.compress(images, quality, batch_size)
        except UsageError as error:  # an image above the limits: they come alone in their batch or fail together
            if len(tasks) > 1:
                return [work([task], [image])[0] for task, image in zip(tasks, images, strict=True)]
            return [error]
        return [_writer_of_bytes(data) for data in files]

    BatchJob(lambda task: to_tensor(read_exact(task.source, codec.config.bit_depth)), work).run(
        batches, outcome, progress or Silent()
    )
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
    outcome = Outcome()
    check_folders(source, target)
    root = source if source.is_dir() else source.parent
    paths = list_images(source, frozenset((SUFFIX,))) if source.is_dir() else [source]
    tasks = [Task(path, target / name, pixels=0) for path, name in zip(paths, restored_names(paths, root), strict=True)]
    tasks = settle_existing(tasks, on_exists, outcome)
    batches = _plan(tasks, codec, batch_size, outcome, lambda path: _compressed_size(path, codec))

    def work(tasks: Sequence[Task], files: Sequence[bytes]) -> list[Callable[[Path], object] | VaetoolsError]:
        try:
            images = codec.decompress(files, batch_size)
        except FormatError as error:
            if len(tasks) > 1:
                return [work([task], [data])[0] for task, data in zip(tasks, files, strict=True)]
            return [error]
        return [_writer_of_image(image) for image in images]

    BatchJob(lambda task: task.source.read_bytes(), work).run(batches, outcome, progress or Silent())
    return outcome


def restored_names(paths: Sequence[Path], root: Path) -> list[Path]:
    """The PNG names of compressed files, relative to `root`, all different."""
    originals = [path.relative_to(root).with_name(path.name.removesuffix(SUFFIX)) for path in paths]
    short = [name.with_suffix(".png") for name in originals]
    count = Counter(short)
    return [
        short_name if name.suffix.lower() == ".png" or count[short_name] == 1 else name.with_name(name.name + ".png")
        for name, short_name in zip(originals, short, strict=True)
    ]


def _plan(
    tasks: Sequence[Task], codec: Codec, batch_size: int, outcome: Outcome, size_of: Callable[[Path], tuple[int, int]]
) -> list[list[Task]]:
    """Batches of images of one padded shape, in the order of their first image, from the files' headers alone."""
    stride = codec.config.hyper_stride
    full: list[list[Task]] = []
    opened: dict[tuple[int, int], list[Task]] = {}
    for task in tasks:
        try:
            height, width = size_of(task.source)
        except (VaetoolsError, OSError) as error:
            outcome.fail(task.source, error)
            continue
        shape = (-(-height // stride), -(-width // stride))
        most = max(1, min(batch_size, BATCH_PIXELS // (shape[0] * shape[1] * stride**2)))
        if shape not in opened or len(opened[shape]) >= most:
            opened[shape] = []
            full.append(opened[shape])
        opened[shape].append(Task(task.source, task.target, height * width))
    return full


def _compressed_size(path: Path, codec: Codec) -> tuple[int, int]:
    with path.open("rb") as file:
        header, _ = read_header(file.read(HEADER_READ), codec.limits)
    return header.height, header.width


def to_tensor(pixels: np.ndarray) -> Tensor:
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.array(planes, order="C"))  # a copy: Pillow hands out read-only memory


def _writer_of_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: replace_bytes(path, data)


def _writer_of_image(image: Tensor) -> Callable[[Path], object]:
    return lambda path: write_png(path, image.numpy())
