"""Compress a folder of images, and give it back.

The tree is kept: `a/b.png` becomes `a/b.png.vtc`, and that `a/b.png` again; `a/b.jpg` becomes `a/b.jpg.vtc`, and that
`a/b.jpg.png`. Each name follows from one name alone, whatever else is in the folder.

The output folder holds a manifest (manifest.py), from which the same call goes on after a crash at any moment, to the same
files byte for byte as without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codec.container import HEADER_ROOM, VERSION, Limits, read_header
from ..codec.rate import USUAL_RATE, Rate
from ..errors import UsageError, VaetoolsError
from ..files import read_from_disk, write_new
from ..images.folder import SUFFIXES
from ..images.picture import Picture
from ..images.read import probe, read_picture
from ..images.write import save_picture
from ..medical.windowing import scan_of, windowed
from ..storage.place import Source, parse_folder, parse_source
from .ledger import Errors, JobProgress, Outcome, Product, Task
from .names import DEFAULT, ORIGINAL, SCANS, SUFFIX, compressed_name, format_of_name
from .names import restored_name as restored_name
from .plan import (
    MODEL,
    Selection,
    check_places,
    list_tasks,
    refuse_existing,
    settle,
    with_sizes,
)
from .run import Job
from .shard import Shard
from .shares import count_left
from .sizes import NO_LIMIT, size_of_image
from .target import Folder, target_of

if TYPE_CHECKING:  # a plan is made without torch
    from ..codec.codec import Codec, Restored
    from ..codec.fidelity import Fidelity

BATCH_SIZE, TILE_SIZE = 64, 1024


@dataclass(frozen=True)
class _Compressed:
    """The bytes of a file, and what to tell of it; `psnr` if it was decoded again already."""

    data: bytes
    quality: float
    notes: tuple[str, ...]
    psnr: float | None = None
    errors: Errors | None = None


def compress_folder(
    source: Source | str,
    target: Folder | str,
    codec: Codec,
    rate: Rate = USUAL_RATE,
    *,
    batch_size: int = BATCH_SIZE,
    tile_size: int = TILE_SIZE,
    preview: bool = False,
    verify: bool = False,
    errors: bool = False,
    keep_tags: bool = False,
    effort: int = 0,
    selection: Selection = Selection(),
    shard: Shard | None = None,
    progress: JobProgress | None = None,
) -> Outcome:
    """Compress every image below `source` (or the one image that it is) to `target`.

    source, target: paths, or URLs such as s3://bucket/folder (docs/remote.md). Text with :// in it is a URL.
    errors: put into files of 16 bits, and of DICOM and NIfTI, how far pixels are off at most. keep_tags: put names, dates and
    all else that DICOM and NIfTI files say into their files.
    effort: see Codec.compress.
    verify: decode every file again, compare it with its image, and read it back from the disk, before it gets its name.
    shard: only this part of the job. Shards may run at the same time and in any order, here and on other machines; together
    they write what the whole job writes, if it is the same folder with the same options for all of them.
    Images that cannot be read are reported as failed. Raises UsageError before anything is written, VaetoolsError if
    nothing more can be written, KeyboardInterrupt with the number of files that are done.
    """

    source, target = _places(source, target)
    options: dict[str, Any] = {"preview": preview, "verify": verify, "errors": errors, "keep_tags": keep_tags, "effort": effort}
    job = compress_job(codec, rate, batch_size=batch_size, tile_size=tile_size, **options)
    outcome = Outcome()
    return job.run(compress_tasks(source, target, selection, outcome), target, selection, outcome, progress, shard)


def _places(source: Source | str, target: Folder | str) -> tuple[Source, Folder]:
    """Raises UsageError as check_places does, and on text that names no place."""
    source = parse_source(source) if isinstance(source, str) else source
    target = parse_folder(target) if isinstance(target, str) else target
    check_places(source, target)
    return source, target


def compress_tasks(source: Source, target: Folder, selection: Selection, outcome: Outcome) -> list[Task]:
    return list_tasks(source, target, SUFFIXES, compressed_name, selection, outcome)


def compress_job(
    codec: Codec,
    rate: Rate = USUAL_RATE,
    *,
    batch_size: int = BATCH_SIZE,
    tile_size: int = TILE_SIZE,
    preview: bool = False,
    verify: bool = False,
    errors: bool = False,
    keep_tags: bool = False,
    effort: int = 0,
) -> Job:
    """What compress_folder does with its files; arguments are the same. Raises UsageError on those that fit no image."""
    from ..codec.boxes import is_measured
    from ..codec.encoder import psnr

    def read(task: Task) -> Picture:
        if keep_tags:
            return read_picture(task.source, max_pixels=codec.limits.max_pixels, keep_tags=True)
        return read_picture(task.source, max_pixels=codec.limits.max_pixels)

    def work(tasks: Sequence[Task], pictures: Sequence[Picture]) -> list[_Compressed | VaetoolsError]:
        codec.lanes.enter(alone=len(codec.plan_key(tasks[0].height, tasks[0].width, tile_size)) > 2)
        coded = codec.encode(pictures, rate, batch_size, tile_size=tile_size, preview=preview, errors=errors, effort=effort)
        results: list[_Compressed | VaetoolsError] = []
        for task, picture, one in zip(tasks, pictures, coded, strict=True):
            # The entropy coder runs here, and not in yet another thread: it would only take Python's lock from the network.
            data, measured = b"", is_measured(picture)
            found: Fidelity | None = None
            reached: float | None = None
            try:
                if task.todo:
                    data = one.to_bytes()
                if task.todo and errors and measured:
                    data, found = codec.with_errors(data, picture)
                elif task.todo and verify and measured:
                    found = codec.examine(data, picture)
                elif task.todo and verify:
                    reached = codec.check(data, picture)
                if found and verify:
                    reached = psnr(found.mean_squared_error, picture.bit_depth)
                report = errors_of(found, picture) if found else None
                results.append(_Compressed(data, one.quality, (*picture.notes, *one.notes), reached, report))
            except VaetoolsError as error:
                results.append(error)
        return results

    def finish(task: Task, result: _Compressed, path: Path) -> Product:
        on_disk = write_new(path, result.data)
        if verify and read_from_disk(path) != result.data:
            raise VaetoolsError("what the disk gives back is not what was written to it; check the disk")
        bpp = 8 * len(result.data) / task.pixels
        return Product(bpp, result.quality, result.psnr, result.notes, on_disk=on_disk, errors=result.errors)

    codec.encode([], rate, batch_size, tile_size=tile_size, effort=effort)  # refuses what it would refuse for every image
    options: dict[str, Any] = {"preview": preview, "errors": errors, "keep_tags": keep_tags, "effort": effort}
    return Job(
        settings=compress_settings(rate, tile_size, **options, model=codec.model.hash.hex()),
        limits=codec.limits,
        size_of=lambda task: size_of_image(task.source),
        key_of=lambda task: codec.plan_key(task.height, task.width, tile_size),
        batch_limit=lambda key: codec.batch_limit(key, batch_size),
        lanes=codec.lanes,
        read=read,
        work=work,
        finish=finish,
    )


def decompress_folder(
    source: Source | str,
    target: Folder | str,
    codec: Codec,
    format: str = DEFAULT,
    *,
    batch_size: int = BATCH_SIZE,
    allow_partial: bool = False,
    window: bool = False,
    selection: Selection = Selection(),
    shard: Shard | None = None,
    progress: JobProgress | None = None,
) -> Outcome:
    """Restore every .vtc file below `source` (or the one that it is) below `target`.

    format: one of names.RESTORED_FORMATS; "original" is that of the original's name where it can be written, else PNG.
        "default" is PNG, too, but for what was DICOM or NIfTI.
    allow_partial: restore what is left of damaged files, too; they count as failed.
    window: write what was DICOM or NIfTI as 8-bit gray, as its window shows it; only in image formats.
    shard: only this part of the job, as in compress_folder.
    A file that cannot be decoded is reported as failed. Raises as compress_folder does.
    """

    job = decompress_job(codec, format, batch_size=batch_size, allow_partial=allow_partial, window=window)
    source, target = _places(source, target)
    outcome = Outcome()
    tasks = decompress_tasks(source, target, format, selection, outcome)
    return job.run(tasks, target, selection, outcome, progress, shard)


def decompress_tasks(source: Source, target: Folder, format: str, selection: Selection, outcome: Outcome) -> list[Task]:
    return list_tasks(source, target, frozenset((SUFFIX,)), lambda name: restored_name(name, format), selection, outcome)


def decompress_job(
    codec: Codec,
    format: str = DEFAULT,
    *,
    batch_size: int = BATCH_SIZE,
    allow_partial: bool = False,
    window: bool = False,
) -> Job:
    """What decompress_folder does with its files; arguments are the same."""

    def read(task: Task) -> bytes:
        return task.source.read_bytes()

    def work(tasks: Sequence[Task], files: Sequence[bytes]) -> list[Restored | VaetoolsError]:
        codec.lanes.enter(alone=len(codec.plan_key(tasks[0].height, tasks[0].width)) > 2)
        return list(codec.decode(files, batch_size, allow_partial=allow_partial))

    def finish(task: Task, restored: Restored, path: Path) -> Product:
        picture, name = restored.picture, format_of_name(task.output)
        if window and picture.metadata.scan:
            picture = windowed(picture)
        ratio = None if restored.lossless else picture.pixels.nbytes / max(1, task.size)
        notes = save_picture(path, picture, name, ratio=ratio)
        if picture.metadata.scan and name not in SCANS:
            notes = (*notes, f"{name} holds no geometry and no signed values: {_added(picture)} is added to the stored ones")
        return Product(8 * task.size / task.pixels, notes=(*restored.picture.notes, *notes), lost="; ".join(restored.lost))

    if window and format in (ORIGINAL, DEFAULT):
        raise UsageError("a window is for images to look at: take it with the format png, jpeg, webp or tiff (--format)")
    return Job(
        settings=decompress_settings(format, window=window),
        limits=codec.limits,
        size_of=lambda task: compressed_size(task, codec.limits),
        key_of=lambda task: codec.plan_key(task.height, task.width),
        batch_limit=lambda key: codec.batch_limit(key, batch_size),
        lanes=codec.lanes,
        read=read,
        work=work,
        finish=finish,
    )


@dataclass(frozen=True)
class Forecast:
    """What a job would do: its tasks, and an outcome with what is known beforehand, failures too."""

    tasks: list[Task]
    outcome: Outcome


def foresee_compression(
    source: Source | str,
    target: Folder | str,
    rate: Rate = USUAL_RATE,
    *,
    tile_size: int = TILE_SIZE,
    preview: bool = False,
    errors: bool = False,
    keep_tags: bool = False,
    effort: int = 0,
    limits: Limits = Limits(),
    selection: Selection = Selection(),
) -> Forecast:
    """What compress_folder would do, from names and headers. Writes nothing, and needs neither torch nor a model."""
    outcome = Outcome()
    source, target = _places(source, target)
    tasks = compress_tasks(source, target, selection, outcome)
    settings = compress_settings(rate, tile_size, preview=preview, errors=errors, keep_tags=keep_tags, effort=effort)
    return _foresee(tasks, target, selection, settings, outcome, opened_size, limits)


def foresee_decompression(
    source: Source | str,
    target: Folder | str,
    format: str = DEFAULT,
    *,
    window: bool = False,
    limits: Limits = Limits(),
    selection: Selection = Selection(),
) -> Forecast:
    """As foresee_compression, for decompress_folder."""
    outcome = Outcome()
    source, target = _places(source, target)
    tasks = decompress_tasks(source, target, format, selection, outcome)
    return _foresee(
        tasks,
        target,
        selection,
        decompress_settings(format, window=window),
        outcome,
        lambda task: compressed_size(task, limits),
        limits,
    )


def _foresee(
    tasks: list[Task],
    folder: Folder,
    selection: Selection,
    settings: str,
    outcome: Outcome,
    size_of: Callable[[Task], tuple[int, int]],
    limits: Limits,
) -> Forecast:
    def fail(task: Task, error: BaseException | str) -> None:
        task.todo, task.state = False, f"fails: {outcome.fail(task.source, error)}"

    with target_of(folder) as target:
        if selection.on_exists == "error":
            refuse_existing(tasks, target)
        settle(tasks, target, selection, target.read_manifest(), settings, outcome, fail)
        for task in with_sizes([task for task in tasks if task.todo], size_of, limits, fail):
            if reason := target.refuses(task.output):
                fail(task, reason)
    outcome.failed.sort()
    return Forecast(tasks, outcome)


def foresee_shard(job: Job, tasks: list[Task], folder: Folder, selection: Selection, outcome: Outcome, shard: Shard) -> Forecast:
    """What a shard of a job would do. Which batches it takes hangs on the model, so this needs one."""
    with target_of(folder) as target:
        plan = job.plan(tasks, target, selection, target.read_manifest())
        mine = [task for batch in plan.batches_of(shard) for task in batch]
        if selection.on_exists == "error":
            refuse_existing(mine, target)
        failed = [(failure.task, failure.reason) for failure in plan.failed_of(shard)]
        for task in mine:
            if task.todo and (reason := target.refuses(task.output)):
                failed.append((task, reason))
    count_left(mine, outcome)
    outcome.failed = [failure for place, failure in enumerate(outcome.failed) if shard.takes(place)]
    for task, reason in failed:
        task.todo, task.state = False, f"fails: {outcome.fail(task.source, reason)}"
    outcome.failed.sort()
    told = {id(task): task for task in [*mine, *(task for task, _ in failed)]}
    return Forecast(sorted(told.values(), key=lambda task: task.path), outcome)


def errors_of(found: Fidelity, picture: Picture) -> Errors:
    """In the units of the file that the picture was read from."""
    scan = scan_of(picture)
    if scan is None:
        return Errors(found.max_error, found.max_error, found.psnr)
    largest = scan.largest_error(found.max_error)
    return Errors(largest, abs(largest * scan.slope), found.psnr)


def _added(picture: Picture) -> str:
    scan = scan_of(picture)
    return "nothing" if scan is None else f"{-scan.origin:g}"


def compress_settings(
    rate: Rate,
    tile_size: int,
    *,
    preview: bool,
    errors: bool = False,
    keep_tags: bool = False,
    effort: int = 0,
    model: str = "",
) -> str:
    """All that a compressed file depends on beside its image; without a model, the beginning of that."""
    words = f"vtc {VERSION[0]}.{VERSION[1]}, {rate.kind} {rate.value!r}, tiles of {tile_size}{', preview' * preview}"
    words += ", errors" * errors + ", tags" * keep_tags + f", effort {effort}" * bool(effort)
    return f"{words}, {MODEL}{model}"


def decompress_settings(format: str, *, window: bool = False) -> str:
    return f"restored as {'png' if format == DEFAULT else format}{', in its window' * window}"


def opened_size(task: Task) -> tuple[int, int]:
    found = probe(task.source, max_pixels=NO_LIMIT)
    return found.height, found.width


def compressed_size(task: Task, limits: Limits) -> tuple[int, int]:
    with task.source.open("rb") as file:
        header, _ = read_header(file.read(HEADER_ROOM), limits)
    return header.height, header.width
