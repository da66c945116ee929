"""Check a folder of compressed files, long after they were written: by themselves, by its manifest, and by the originals."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codec.container import Limits, check_file
from ..errors import Corrupt, UsageError, VaetoolsError, reason_of
from ..images.folder import SUFFIXES, walk
from ..images.picture import Picture
from ..images.read import read_picture
from ..storage.blob import Readable
from ..storage.place import parse_folder
from ..storage.shards import TarShards
from ..storage.tar import SUFFIX as TAR
from ..storage.tar import list_members
from ..storage.url import Url
from .ledger import JobProgress, Outcome, Silent, Task
from .manifest import FAILED, Entry, Manifest, number_or_inf
from .names import SUFFIX, compressed_name
from .packing import crc32_of_file
from .pipeline import Pipeline
from .plan import Selection, in_batches, list_tasks, with_sizes
from .target import Folder, target_of

if TYPE_CHECKING:  # a quick check does without torch
    from ..codec.codec import Codec

BATCH_SIZE = 64
PSNR_TOLERANCE = 0.5  # dB, more than decoding on another machine makes of the same file


@dataclass
class Verification:
    """What was found; paths are below the folder that was checked, or below that of the originals.

    checked: the number of compressed files. bad: (path, what is wrong), each a reason to keep the originals. unknown: files
    that the manifest does not know, good or bad; manifest: whether there is one. psnr: in dB, of each file that was compared
    with its original. others: how many files lie beside the originals that `compress` takes for no images, and so leaves out.
    """

    checked: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    manifest: bool = True
    psnr: dict[str, float] = field(default_factory=dict)
    others: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "bad": [{"path": path, "problem": problem} for path, problem in self.bad],
            "unknown": self.unknown,
            "manifest": self.manifest,
            "psnr": {path: number_or_inf(value) for path, value in self.psnr.items()},
            "others": self.others,
        }


def verify_folder(
    folder: Folder | str,
    codec: Codec | None,
    *,
    against: Folder | str | None = None,
    batch_size: int = BATCH_SIZE,
    limits: Limits = Limits(),
    progress: JobProgress | None = None,
) -> Verification:
    """Check every .vtc file below `folder`: its checksums, and that it is the file that the manifest knows.

    folder, against: paths, or URLs such as s3://bucket/folder.
    With a codec, also that it decodes to the symbols that were encoded. With `against`, the folder of the originals, that
    each of them has a file; with both, that the file decodes to its original. What the manifest calls done must be there,
    and what it calls failed is told. Of a folder of tars, their .vtc members are checked, and each tar as a whole by the
    manifest. Raises UsageError if there is nothing to check.
    """
    folder = parse_folder(folder) if isinstance(folder, str) else folder
    against = parse_folder(against) if isinstance(against, str) else against
    if isinstance(folder, Path) and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if against is not None and isinstance(folder, Path) and TarShards.in_folder(folder):
        raise UsageError(f"{folder}: holds tars, whose members are not compared with originals: verify them without --against")
    with target_of(folder) as target:
        manifest = target.read_manifest()
        result = Verification(manifest=manifest.path.exists() or len(manifest) > 0)
    entries = {entry.output: entry for entry in manifest if entry.output.endswith(SUFFIX)}
    tasks = _tasks(folder, required=not entries, result=result)
    there = {task.path for task in tasks}
    if isinstance(folder, Path):
        _forget_elsewhere(entries, there, _check_tars(folder, manifest, result))
    originals = {} if against is None else _originals(against, folder, result)
    result.checked = len(tasks)
    result.unknown = [task.path for task in tasks if task.path not in entries]
    for entry in entries.values():
        if entry.status == FAILED and (against is None or entry.output in originals):
            result.bad.append((entry.path, f"was not compressed: {entry.error}"))
        elif entry.status != FAILED and entry.output not in there:
            result.bad.append((entry.output, "is missing: the manifest says that it was written"))
    for name in originals:
        if name not in there and name not in entries:
            result.bad.append((name.removesuffix(SUFFIX), "has no compressed file"))
    _Check(folder, entries, originals, codec, result, limits, progress or Silent()).run(tasks, batch_size)
    result.bad.sort()
    result.psnr = dict(sorted(result.psnr.items()))
    return result


def _originals(against: Folder, folder: Folder, result: Verification) -> dict[str, Readable]:
    """By the names of their compressed files."""
    if isinstance(against, Path):
        listing = walk(against, leave_out=folder if isinstance(folder, Path) else None)
        result.others = listing.others
        result.bad += [(str(path), f"originals that cannot be listed: {reason}") for path, reason in listing.unreadable]
        return {compressed_name(path.relative_to(against).as_posix()): path for path in listing.images}
    contents = against.list(SUFFIXES, leave_out=(folder.below(against) or "") if isinstance(folder, Url) else "")
    result.others = contents.others
    result.bad += [(name, f"an original that is not looked at: {reason}") for name, reason in contents.refused]
    return {compressed_name(path): blob for path, blob in contents.files}


def _tasks(folder: Folder, *, required: bool, result: Verification) -> list[Task]:
    if isinstance(folder, Path) and (shards := TarShards.in_folder(folder)):
        return _members(shards, folder, result)
    outcome = Outcome()
    try:
        tasks = list_tasks(folder, folder, frozenset((SUFFIX,)), str, Selection(), outcome)
    except UsageError:
        if required:
            raise
        tasks = []  # the manifest knows files, and none is there
    result.bad += [(path.removeprefix(f"{folder}/"), reason) for path, reason in outcome.failed]
    return tasks


def _members(shards: TarShards, folder: Path, result: Verification) -> list[Task]:
    """Under the names that manifests have for them."""
    tasks = []
    for tar in shards.tars:
        listing = list_members(tar)
        result.bad += [(path.removeprefix(f"{folder}/"), reason) for path, reason in listing.problems]
        names = [(f"{tar.name}/{member.inside}", member) for member in listing.members if member.inside.endswith(SUFFIX)]
        tasks += [Task(member, folder, name, name) for name, member in names]
    return tasks


def _check_tars(folder: Path, manifest: Manifest, result: Verification) -> dict[str, bool]:
    """The tars that the manifest tells of, and whether each is as it was written: what is in them beside .vtc files is checked
    by nothing else."""
    tars = {entry.output: entry for entry in manifest if "/" not in entry.output and entry.output.endswith(TAR)}
    whole = {name: crc32_of_file(folder / name) == entry.crc32 != "" for name, entry in tars.items()}
    for name, entry in tars.items():
        if entry.output_bytes and not whole[name] and (folder / name).is_file():
            result.bad.append((name, "is not the tar that the manifest tells of: it was replaced or damaged since"))
    return whole


def _forget_elsewhere(entries: dict[str, Entry], there: set[str], tars: dict[str, bool]) -> None:
    """Leave out lines about members of tars that were written anew since without them: of images that are in other tars now, or
    were in the source no more."""
    found = {entry.path for entry in entries.values() if entry.status != FAILED and entry.output in there}
    for output, entry in list(entries.items()):
        tar = output.partition(f"{TAR}/")[0] + TAR
        if output in there or tar not in tars:
            continue
        if entry.path in found or (entry.status != FAILED and tars[tar]):
            del entries[output]


class _Check:
    """The files themselves, one after another; the end of the pipeline, too."""

    def __init__(
        self,
        folder: Folder,
        entries: dict[str, Entry],
        originals: dict[str, Readable],
        codec: Codec | None,
        result: Verification,
        limits: Limits,
        progress: JobProgress,
    ) -> None:
        self.folder, self.entries, self.originals, self.codec = folder, entries, originals, codec
        self.result, self.limits, self.progress = result, limits, progress
        self._lock = threading.Lock()

    def run(self, tasks: list[Task], batch_size: int) -> None:
        for task in tasks:
            with suppress(OSError):  # which is told when it is read
                task.size = task.source.stat().st_size
        self.progress.start(len(tasks), sum(task.size for task in tasks))
        codec = self.codec
        if codec is None:
            for task in with_sizes(tasks, self.size_of, self.limits, self.fail):
                self.progress.advance(task.size, task.pixels)
            return

        def batches(stop: threading.Event) -> Iterator[list[Task]]:
            sized = with_sizes(tasks, self.size_of, self.limits, self.fail, stop)
            return in_batches(
                sized, lambda task: codec.plan_key(task.height, task.width), lambda key: codec.batch_limit(key, batch_size)
            )

        def work(tasks: Sequence[Task], contents: Sequence[tuple[bytes, Picture | None]]) -> list[float | VaetoolsError | None]:
            alone = [data for data, original in contents if original is None]
            if alone:
                codec.decode(alone, batch_size)
            found = [_psnr(codec, data, original) for data, original in contents]
            return [
                value if isinstance(value, VaetoolsError) else self.changed_since(task, value) or value
                for task, value in zip(tasks, found, strict=True)
            ]

        Pipeline(self.read, work, self, self.fail).run(batches)

    def size_of(self, task: Task) -> tuple[int, int]:
        """Height and width, of a file that is whole by itself and by the manifest."""
        data = task.source.read_bytes()
        header = check_file(data, self.limits)
        entry = self.entries.get(task.path)
        if entry and entry.status != FAILED and (entry.output_bytes, entry.crc32) != (len(data), f"{zlib.crc32(data):08x}"):
            raise Corrupt("whole, but not the file that the manifest tells of: it was replaced since")
        return header.height, header.width

    def read(self, task: Task) -> tuple[bytes, Picture | None]:
        original = self.originals.get(task.path)
        picture = None if original is None else read_picture(original, max_pixels=self.limits.max_pixels)
        return task.source.read_bytes(), picture

    def changed_since(self, task: Task, psnr: float | None) -> Corrupt | None:
        """Of the original, by what the manifest has of it, its size and its PSNR: two photographs may be alike enough for the
        rest."""
        original, entry = self.originals.get(task.path), self.entries.get(task.path)
        if original is None or entry is None or entry.status == FAILED:
            return None
        if (size := original.stat().st_size) != entry.size:
            return Corrupt(f"its original has changed since: {size:,} bytes, and {entry.size:,} before")
        before = entry.psnr
        if psnr is not None and before is not None and not math.isclose(psnr, before, rel_tol=0, abs_tol=PSNR_TOLERANCE):
            return Corrupt(f"its original has changed since: {psnr:.2f} dB from what the file holds, and {before:.2f} before")
        return None

    def fail(self, task: Task, error: BaseException | str) -> None:
        with self._lock:
            self.result.bad.append((task.path, reason_of(error).removeprefix(f"{task.source}: ")))
        self.progress.advance(task.size, task.pixels)

    def put(self, results: Sequence[tuple[Task, float | None]], ms: float, after: Callable[[], None]) -> None:
        for task, psnr in results:
            if psnr is not None:
                self.result.psnr[task.path] = psnr
            self.progress.advance(task.size, task.pixels)
        after()

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


def _psnr(codec: Codec, data: bytes, original: Picture | None) -> float | VaetoolsError | None:
    try:
        return None if original is None else codec.check(data, original)
    except VaetoolsError as error:
        return error
