"""One folder job on several workers: processes of this machine, or Ray's actors.

    listing, plan of batches (here) -> shares -> process_shard (workers) -> outcomes, summed (here)

More shares than workers are made, so that a slow worker takes fewer of them. A share whose worker dies is given to another.
Shares have manifests of their own; at the end they are folded into the one of the folder, which then looks as after a plain job.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..errors import VaetoolsError
from .ledger import JobProgress, Ledger, Outcome, Silent
from .manifest import Manifest
from .plan import check_places, refuse_existing
from .run import note_failures
from .shard import Shard
from .sharded import ShardedJournal
from .shares import count_left
from .target import Target, target_of

if TYPE_CHECKING:  # shares are planned without torch
    import torch

    from ..codec.codec import Codec
    from ..model.threads import Lanes
    from .spec import Spec

SHARES_PER_WORKER = 4
DEATHS = 3  # of workers that one share may cost
LISTEN_SECONDS = 0.5
PATIENCE = 100.0  # seconds; NFS servers keep the locks of a machine that is gone for 90

File = tuple[int, int]  # size and pixels, as JobProgress.advance is told


class Part(Protocol):
    """What one worker is given to do: a message, which can be pickled."""

    @property
    def shard(self) -> Shard: ...


class Sums(Protocol):
    """What parts of a job come to, and the job."""

    done: int

    def add(self, other: Any) -> None:
        """What another part of the same job came to."""


class Work(Protocol):
    """A job in words: all that a worker needs to know to do a share of it. Can be pickled."""

    @property
    def device(self) -> str: ...

    @property
    def imports(self) -> Sequence[str]:
        """Modules that take long to import, and that nothing comes of but time if they are, before the worker is forked."""

    def load(self, device: str, lanes: Lanes) -> Any:
        """What a worker has until it ends."""

    def process(self, share: Any, loaded: Any, *, progress: JobProgress, patience: float, stopped: Callable[[], bool]) -> Sums:
        """Do a share, with what `load` gave. Called again after a death at any moment, with the same share, it goes on from there
        to the same files; patience, stopped: as of Job.run_share."""


@dataclass(frozen=True)
class Told:
    """Files that a worker is through with, in its share: all since it began, or those since it last told."""

    files: Sequence[File]
    since_start: bool = False


@dataclass(frozen=True)
class Died:
    reason: str


Message = Told | Sums | VaetoolsError | Died
WorkerT = TypeVar("WorkerT")


class Workers(ABC, Generic[WorkerT]):
    """Where shares are done. A worker has one at a time, and is told nothing else."""

    @abstractmethod
    def hire(self, number: int) -> WorkerT:
        """Does not wait until it is ready."""

    @abstractmethod
    def give(self, worker: WorkerT, share: Part) -> None: ...

    @abstractmethod
    def listen(self, workers: Sequence[WorkerT]) -> Iterator[tuple[WorkerT, Message]]:
        """What those who have a share tell, after LISTEN_SECONDS at most; sums, an error or a death are their last word."""

    @abstractmethod
    def close(self, *, gently: bool) -> None:
        """End all of them. gently: let them finish the batches that they work on."""


class _Progress:
    """Counts each file once, also where a second worker tells of it again."""

    def __init__(self, progress: JobProgress) -> None:
        self.progress = progress
        self.files = 0
        self._seen: Counter[Shard] = Counter()
        self._counted: Counter[Shard] = Counter()

    def begin(self, shard: Shard) -> None:
        self._seen[shard] = 0

    def take(self, shard: Shard, told: Told) -> None:
        start = 0 if told.since_start else self._seen[shard]
        self._seen[shard] = start + len(told.files)
        for size, pixels in told.files[max(0, self._counted[shard] - start) :]:
            self.files += 1
            self.progress.advance(size, pixels)
        self._counted[shard] = max(self._counted[shard], self._seen[shard])


def run_shares(workers: Workers[WorkerT], count: int, shares: Sequence[Part], outcome: Sums, progress: JobProgress) -> None:
    """Have all shares done by up to `count` workers.

    Raises what a worker raises, and VaetoolsError, when all others are done, if a share has cost too many of them their lives.
    """
    waiting, busy, idle = deque(shares), dict[WorkerT, Part](), list[WorkerT]()
    hired, deaths, given_up = 0, Counter[Shard](), list[str]()
    told = _Progress(progress)
    gently = True
    try:
        while waiting or busy:
            while waiting and (idle or len(busy) < count):
                if not idle:
                    idle.append(workers.hire(hired))
                    hired += 1
                worker, share = idle.pop(), waiting.popleft()
                busy[worker] = share
                told.begin(share.shard)
                workers.give(worker, share)
            for worker, message in workers.listen(list(busy)):
                share = busy[worker]
                if isinstance(message, Told):
                    told.take(share.shard, message)
                    continue
                del busy[worker]
                if isinstance(message, VaetoolsError):
                    raise message
                if not isinstance(message, Died):
                    outcome.add(message)
                    idle.append(worker)
                    continue
                deaths[share.shard] += 1
                if deaths[share.shard] < DEATHS:
                    waiting.appendleft(share)
                else:
                    given_up.append(f"shard {share.shard} ({message.reason})")
        if given_up:
            raise VaetoolsError(
                f"{DEATHS} workers died one after another in {', '.join(given_up)}; {outcome.done} files are done: give each "
                "worker more memory, or take fewer (--workers), and run the same command again, which goes on from there"
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{told.files} files are done; the same command goes on from there") from None
    except VaetoolsError:
        raise
    except BaseException:
        gently = False
        raise
    finally:
        workers.close(gently=gently)


def run_job(
    spec: Spec,
    codec: Codec,
    workers: Callable[[], Workers[WorkerT]],
    count: int,
    progress: JobProgress | None = None,
) -> Outcome:
    """Plan a job here, and have it done. codec: to plan with, as that of the workers but for the device.

    workers: called when there is something to do. Raises as compress_folder does, too.
    """
    start, outcome = time.perf_counter(), Outcome()
    check_places(spec.source, spec.target)
    job = spec.job(codec)
    tasks = spec.tasks(outcome)
    refusing = spec.selection.on_exists == "error"
    if refusing:
        with target_of(spec.target) as target:
            refuse_existing(tasks, target)
    with target_of(spec.target) as target, _opened(target) as manifest:
        if manifest.locked:
            target.tidy_up()
        if refusing:
            refuse_existing(tasks, target)
        ledger = Ledger(outcome, manifest, job.settings, progress or Silent())
        plan = job.plan(tasks, target, spec.selection, manifest)
        shares = plan.shares(SHARES_PER_WORKER * count, job.settings, manifest.turn + 1)
        todo = [task for share in shares for task in share.todo]
        ledger.progress.start(len(todo), sum(task.size for task in todo))
        count_left([task for batch in plan.batches for task in batch], outcome)
        note_failures(plan.failed, ledger)
        if shares:
            with shared(manifest, target.tidy_up):
                run_shares(workers(), min(count, len(shares)), shares, outcome, ledger.progress)
    outcome.failed.sort()
    outcome.notes.sort()
    outcome.seconds = time.perf_counter() - start
    return outcome


@contextmanager
def shared(manifest: ShardedJournal[Any], tidy_up: Callable[[], object], *, patience: float = 0.0) -> Iterator[None]:
    """Let workers write to the folder meanwhile; then leave it as a plain job does, if nobody else writes there.

    tidy_up: removes what killed workers left.
    """
    manifest.share()
    try:
        yield
    except BaseException:
        with suppress(OSError, VaetoolsError):  # what went wrong is to be told, and not what follows from it
            _reclaim(manifest, tidy_up)
        raise
    _reclaim(manifest, tidy_up, patience)


def _reclaim(manifest: ShardedJournal[Any], tidy_up: Callable[[], object], patience: float = 0.0) -> None:
    if manifest.reclaim(patience=patience):
        tidy_up()


def _opened(target: Target) -> Manifest:
    target.prepare()
    return target.open_manifest()


def planner(spec: Spec, device_type: str) -> tuple[Codec, Lanes]:
    """A codec to plan with, on this machine's CPU, for workers with a device of that type; and the lanes of a plain job."""
    from ..codec.codec import BATCH_PIXELS, BATCH_PIXELS_ELSEWHERE, Codec

    codec = Codec.load(spec.model, "cpu", limits=spec.limits)
    codec.batch_pixels = BATCH_PIXELS.get(device_type, BATCH_PIXELS_ELSEWHERE)
    return codec, plain_lanes(device_type)


def plain_lanes(device_type: str) -> Lanes:
    """Those of a plain job on this machine."""
    import torch

    from ..model.threads import Lanes

    return Lanes.of(torch.device(device_type))


class Teller:
    """The progress of a worker, as a list of what it is through with; from any thread."""

    def __init__(self, tell: Callable[[File], object]) -> None:
        self.tell = tell

    def start(self, files: int, size: int) -> None:
        pass

    def advance(self, size: int, pixels: int) -> None:
        self.tell((size, pixels))


def load_codec(spec: Spec, device: str | torch.device, lanes: Lanes) -> Codec:
    """In a worker: as a plain job on the machine of the plan would have it, with the lanes that it is given."""
    import torch

    from ..codec.codec import Codec

    torch.set_num_threads(lanes.all_threads)
    codec = Codec.load(spec.model, str(device), limits=spec.limits)
    codec.lanes = lanes
    return codec


def lanes_of_each(lanes: Lanes, workers: int, device_type: str) -> Lanes:
    """The lanes of a plain job, dealt out; each batch has as many threads as there, since bytes may depend on their number.

    On GPUs each worker has as many as a plain job, so that a GPU need not wait for the entropy coder.
    """
    return lanes if device_type == "cuda" else replace(lanes, count=max(1, lanes.count // workers))
