"""A folder job whose results are tars for WebDataset.

    source --division.py--> groups, one for each tar
    a group --folder job--> OUTPUT/.vaetools-spool-.../ --packing.py--> a temporary file, synced --> manifest --> OUTPUT/NAME.tar

A group's files are made by a plain folder job in a hidden folder beside the tars, which has a manifest of its own: killed at any
moment, the same call goes on from there. A tar has its name when it is whole; then the hidden folder is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError, VaetoolsError
from ..files import make_names_durable, remove_temporaries, sync_file, temporary_path
from ..images.folder import OWN_PREFIX
from ..storage.tar import TarMember
from .division import Division, Group, Inside, SampleGroup, divide, key_in, name_in
from .job import Forecast
from .ledger import JobProgress, Outcome, Silent, Task, cannot_go_on
from .manifest import DONE, FAILED, Entry, Manifest
from .packing import Content, crc32_of_file, write_tar
from .plan import Selection, check_places, has_settings, make_target, refuse_any, with_sizes
from .run import Job
from .shard import Shard
from .spec import Spec

if TYPE_CHECKING:  # a plan is made without torch
    from ..codec.codec import Codec

SPOOL = f"{OWN_PREFIX}spool-"
NUMBERED = re.compile(r"shard-([0-9]{6,})\.tar")
THERE = "there already"
LEFT_OUT = "left out of its tar, as an image of its sample failed"
ANEW = Selection("overwrite")  # in the hidden folder, what is of other settings is made again


def run_tars(
    spec: Spec,
    codec: Codec,
    division: Division = Division(),
    *,
    shard: Shard | None = None,
    progress: JobProgress | None = None,
) -> Outcome:
    """Do a job, with tars below `spec.target`; whole tars fall to a shard.

    A sample with an image that fails is left out of its tar, with all that belongs to it. Raises as compress_folder does, and
    UsageError where the folder of the tars was divided otherwise before.
    """
    start, outcome, target = time.perf_counter(), Outcome(), _folder_of(spec)
    job = spec.job(codec)
    groups = divide(spec, division, outcome)
    mine = _part(groups, shard, outcome)
    _refuse_existing(mine, target, spec)
    make_target(target)
    with Manifest.open(target) if shard is None else Manifest.open_shard(target, shard) as manifest:
        alone = manifest.locked and shard is None
        if alone:
            remove_temporaries(target)
        _refuse_existing(mine, target, spec)  # again, now that nobody else can write them
        _refuse_other_division(groups, target, spec, manifest)
        _Tars(spec, target, job, manifest, outcome, progress or Silent()).make(mine)
        if alone:
            _remove_spools(target)
    outcome.failed.sort()
    outcome.notes.sort()
    outcome.seconds = time.perf_counter() - start
    return outcome


def foresee_tars(spec: Spec, division: Division = Division(), *, shard: Shard | None = None) -> Forecast:
    """What run_tars would do, from names and headers. Writes nothing, and needs neither torch nor a model."""
    outcome, target = Outcome(), _folder_of(spec)
    groups = divide(spec, division, outcome)
    manifest = Manifest.read(target)
    _refuse_other_division(groups, target, spec, manifest)
    mine = _part(groups, shard, outcome)
    _refuse_existing(mine, target, spec)
    told: list[Task] = []

    def fail(task: Task, error: BaseException | str) -> None:
        task.todo, task.state = False, f"fails: {outcome.fail(task.source, error)}"

    for group in mine:
        todo, state = _look(group, target, spec, spec.settings, manifest, outcome)
        tasks = group.inside(spec, target, outcome).tasks
        for task in tasks:
            task.output = f"{group.name}/{task.output}"
            task.todo, task.state = todo, state
        outcome.skipped += len(tasks) if state.startswith(THERE) else 0
        told += tasks
        list(with_sizes([task for task in tasks if todo], spec.size_of, spec.limits, fail))
    outcome.failed.sort()
    return Forecast(told, outcome)


def _folder_of(spec: Spec) -> Path:
    """Where the tars go."""
    check_places(spec.source, spec.target)
    if not isinstance(spec.target, Path):
        raise UsageError(f"{spec.target}: tars are written to folders of this machine; copy them from there")
    return spec.target


def _part(groups: list[Group], shard: Shard | None, outcome: Outcome) -> list[Group]:
    """A shard's groups; of what has failed already, it keeps its part."""
    if shard is None:
        return groups
    outcome.failed = [failure for place, failure in enumerate(outcome.failed) if shard.takes(place)]
    return [group for number, group in enumerate(groups) if shard.takes(number)]


def _look(group: Group, target: Path, spec: Spec, settings: str, manifest: Manifest, outcome: Outcome) -> tuple[bool, str]:
    """Whether a tar is to be made, and what is known of it, in words."""
    place, selection = target / group.name, spec.selection
    entry = manifest.last(group.path, group.name)
    failed = entry is not None and entry.status == FAILED
    if selection.retry_failed and not failed:
        return False, "did not fail"
    try:
        there = os.lstat(place)
    except OSError:
        return True, ""
    if stat.S_ISDIR(there.st_mode):
        return False, f"fails: {outcome.fail(place, 'is a folder, where the result would go')}"
    made_so = entry is not None and (entry.size, entry.mtime_ns) == (group.size, group.mtime_ns)
    made_so = made_so and entry is not None and there.st_size == entry.output_bytes and has_settings(entry, settings)
    if selection.on_exists == "overwrite":
        whole = made_so and not failed and entry is not None and crc32_of_file(place) == entry.crc32
        return not whole, f"{THERE}, from the same source with the same settings" if whole else ""
    if selection.retry_failed:
        return True, ""
    if failed and made_so and entry is not None:
        outcome.fail(place, f"{entry.error}; --retry-failed makes it again")
    if entry and not made_so:
        outcome.stale += 1
        return False, f"{THERE}, but out of date"
    return False, THERE


def _refuse_existing(groups: list[Group], target: Path, spec: Spec) -> None:
    if spec.selection.on_exists == "error":
        refuse_any([target / group.name for group in groups if os.path.lexists(target / group.name)])


def _refuse_other_division(groups: list[Group], target: Path, spec: Spec, manifest: Manifest) -> None:
    """Raises UsageError where numbered tars that are there would be mixed with others that hold the same samples."""
    if not groups or not isinstance(groups[0], SampleGroup) or not target.is_dir():
        return
    found = {name for name in os.listdir(target) if NUMBERED.fullmatch(name)}
    beyond = sorted(found - {group.name for group in groups})
    if beyond:
        raise UsageError(
            f"{target / beyond[0]}: is beyond the {len(groups)} tars that this job makes, and may hold the same samples: "
            "move it away, or choose another output folder"
        )
    if spec.selection.on_exists == "overwrite":
        return
    made_of = {entry.output: entry.path for entry in manifest}  # a tar of each division has a line of its own: the last holds
    for group in groups:
        if group.name in found and made_of.get(group.name) != group.path:
            raise UsageError(
                f"{target / group.name}: holds other samples than this job would put there, since the source or the options "
                "were others: --on-exists overwrite makes all tars anew; or choose another output folder"
            )


def spool_of(folder: Path, name: str) -> Path:
    return folder / f"{SPOOL}{zlib.crc32(os.fsencode(name)):08x}"


def _remove_spool(spool: Path) -> None:
    if spool.is_dir() and not spool.is_symlink():
        shutil.rmtree(spool)


def _remove_spools(folder: Path) -> None:
    for name in os.listdir(folder):
        if re.fullmatch(re.escape(SPOOL) + "[0-9a-f]{8}", name):
            _remove_spool(folder / name)


class _Rest:
    """The progress of many jobs as one of all: how many files there are in tars that were not opened is estimated."""

    def __init__(self, progress: JobProgress, size: int) -> None:
        self.progress, self.size = progress, size
        self.files = self.bytes = 0  # of the jobs before, and of this one
        self.source = 0  # bytes of the tars that these come from

    def begin(self, size: int) -> None:
        self.source += size

    def start(self, files: int, size: int) -> None:
        self.files, self.bytes = self.files + files, self.bytes + size
        scale = self.size / max(1, self.source)
        self.progress.start(round(self.files * scale), round(self.bytes * scale))

    def advance(self, size: int, pixels: int) -> None:
        self.progress.advance(size, pixels)


@dataclass
class _Tars:
    spec: Spec
    target: Path
    job: Job
    manifest: Manifest
    outcome: Outcome
    progress: JobProgress

    def make(self, groups: list[Group]) -> None:
        done = Counter(e.output.partition("/")[0] for e in self.manifest if e.status == DONE and "/" in e.output)
        todo = []
        for group in groups:
            needed, state = _look(group, self.target, self.spec, self.job.settings, self.manifest, self.outcome)
            if needed:
                todo.append(group)
            else:
                if state.startswith(THERE):
                    self.outcome.skipped += done[group.name] or 1  # a tar of which the manifest knows nothing
                _remove_spool(spool_of(self.target, group.name))  # if it was killed while it removed it
        progress = _Rest(self.progress, sum(group.size for group in todo))
        for group in todo:
            progress.begin(group.size)
            self._make_one(group, progress)

    def _make_one(self, group: Group, progress: JobProgress) -> None:
        part, spool = Outcome(), spool_of(self.target, group.name)
        if spool.is_symlink():
            raise UsageError(f"{spool} is a link, and nothing is written through links: remove it")
        try:
            inside = group.inside(self.spec, spool, part)
            if inside.tasks:
                self.job.run(inside.tasks, spool, ANEW, part, progress)
            if inside.tasks or part.failed:
                self._pack(group, inside, spool, part)
        except KeyboardInterrupt:
            count = self.outcome.done + part.done
            raise KeyboardInterrupt(f"{count} files are done; the same command goes on from there") from None
        self.outcome.add(part)
        self.outcome.filtered += part.filtered
        self.outcome.others += part.others

    def _pack(self, group: Group, inside: Inside, spool: Path, part: Outcome) -> None:
        """From what a job has left in the hidden folder to the tar, and to lines in the manifest."""
        made, target = Manifest.read(spool), self.target / group.name
        entries = [(task, made.last(task.path, task.output)) for task in inside.tasks]
        parts = _whole_samples(inside, {task.path for task, entry in entries if self._is_made(task, entry)}, part)
        temporary = temporary_path(self.target)
        output_bytes, crc32 = 0, ""
        try:
            if parts:
                try:
                    write_tar(temporary, parts)
                    output_bytes, number = sync_file(temporary)
                    crc32 = f"{number:08x}"
                except VaetoolsError as error:
                    part.fail(target, error)
            reason = f"{len(part.failed)} of what belongs into it failed" if part.failed else ""
            packed = {name for name, _ in parts} if crc32 else set()
            lines = [_line_of(entry, group.name, entry.output in packed) for _, entry in entries if entry]
            whole = Entry(
                group.path,
                group.name,
                group.size,
                group.mtime_ns,
                settings=self.job.settings,
                status=FAILED if reason else DONE,
                output_bytes=output_bytes,
                crc32=crc32,
                error=reason,
            )
            self.manifest.append([replace(line, turn=self.manifest.turn) for line in (*lines, whole)], durable=True)
            if crc32:
                os.replace(temporary, target)
                make_names_durable([self.target])
        except OSError as error:
            raise cannot_go_on(error, target, self.outcome.done + part.done) from None
        finally:
            temporary.unlink(missing_ok=True)
        if crc32 or not parts:
            _remove_spool(spool)

    def _is_made(self, task: Task, entry: Entry | None) -> bool:
        """Whether the file in the hidden folder is what the job would make: one from before may be there beside a failure."""
        if entry is None or not entry.output_bytes or entry.settings != self.job.settings:
            return False
        try:
            size = os.lstat(task.target).st_size
        except OSError:
            return False
        return (entry.size, entry.mtime_ns, entry.output_bytes) == (task.size, task.mtime_ns, size)


def _line_of(entry: Entry, tar: str, packed: bool) -> Entry:
    """What the manifest of the tars says of a file that was made, or failed; packed: it is in its tar."""
    entry = replace(entry, output=f"{tar}/{entry.output}")
    if packed or entry.status == FAILED:
        return entry
    return replace(entry, status=FAILED, output_bytes=0, crc32="", error=LEFT_OUT)


def _whole_samples(inside: Inside, made: set[str], part: Outcome) -> list[tuple[str, Content]]:
    """What goes into the tar; [] if there would be nothing made in it."""
    bad = {key_in(one) for one in inside.order if isinstance(one, Task) and one.path not in made}
    result: list[tuple[str, Content]] = []
    for one in inside.order:
        if key_in(one) not in bad:
            result.append((name_in(one), one.target if isinstance(one, Task) else one))
        elif isinstance(one, TarMember) or one.path in made:
            source = one.source if isinstance(one, Task) else one
            part.notes.append((str(source), (LEFT_OUT,)))
    return result if any(isinstance(one, Task) and key_in(one) not in bad for one in inside.order) else []
