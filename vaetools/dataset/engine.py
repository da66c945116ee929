"""One augmenting job on several workers: processes of this machine, or Ray's actors, as of folder/engine.py.

    data set, plan, bank of latents (here) -> shares -> process_share (workers) -> outcomes, summed; annotations (here)

A share has whole units, as they are planned for a job of one process, so that the files are the same, byte for byte.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import ModelError, UsageError
from ..files import remove_temporaries
from ..folder.engine import PATIENCE, SHARES_PER_WORKER, plain_lanes, run_shares, shared
from ..folder.engines import Hire, with_engine
from ..folder.ledger import JobProgress
from ..folder.run import never
from ..folder.shard import Shard
from .books import AugmentBooks, AugmentOutcome
from .dataset import Dataset
from .options import Options
from .records import Job, Records
from .target import take_over_done
from .tasks import Unit

if TYPE_CHECKING:
    from ..augment.augmenter import Augmenter
    from ..model.threads import Lanes
    from .job import Prepared
    from .preparation import Tell

USUAL = Options()


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """What an augmenting job is told, which is all that a worker needs to know; see Augmenter.load and augment_folder."""

    # Not the augmenter: it takes a process that was forked after it was imported for one that CUDA cannot be used in.
    imports: ClassVar[tuple[str, ...]] = ("vaetools.augment.operators", "vaetools.dataset.content", "vaetools.images.write")

    source: Path
    target: Path
    model: str
    operators: str
    strength: float
    quality: float
    detail: bool = True
    device: str = "auto"
    options: Options = USUAL

    def augmenter(self, device: str) -> Augmenter:
        """Without a bank and a gate."""
        from ..augment.augmenter import Augmenter

        return Augmenter.load(self.model, self.operators, self.strength, quality=self.quality, device=device, detail=self.detail)

    def load(self, device: str, lanes: Lanes) -> Augmenter:
        """In a worker, when the job is prepared: with the bank that is in the output folder, if one is needed."""
        import torch

        from ..augment.bank import LatentBank
        from .neighbours import BANK, needs_bank, with_bank

        torch.set_num_threads(lanes.count * lanes.threads)
        augmenter = self.augmenter(device)
        if not needs_bank(augmenter, self.options.gate):
            return augmenter
        return with_bank(augmenter, LatentBank.load(self.target / BANK, augmenter.space.device), self.options.gate)

    def process(
        self, share: AugmentShare, loaded: Augmenter, *, progress: JobProgress, patience: float, stopped: Callable[[], bool]
    ) -> AugmentOutcome:
        return process_share(self, share, loaded, progress=progress, patience=patience, stopped=stopped)


@dataclass(frozen=True)
class AugmentShare:
    """What one worker has to do. job: that was planned, which whoever does it must come to, too. turn: of the job."""

    shard: Shard
    units: tuple[Unit, ...]
    job: Job
    turn: int


def shares_of(units: Sequence[Unit], count: int, job: Job, turn: int) -> list[AugmentShare]:
    """What there is to do, in so many shares, or fewer where there are fewer units."""
    todo = [unit for unit in units if unit.todo]
    count = min(count, len(todo))
    return [AugmentShare(Shard(index + 1, count), tuple(todo[index::count]), job, turn) for index in range(count)]


def process_share(
    spec: AugmentSpec,
    share: AugmentShare,
    augmenter: Augmenter,
    *,
    progress: JobProgress,
    patience: float = 0.0,
    stopped: Callable[[], bool] = never,
) -> AugmentOutcome:
    """Do a share of a job, in whatever process: what every engine runs.

    Its files depend on the spec, the share and the bank in the output folder alone. Called again after a death at any moment,
    with the same share, it goes on from there, and its outcome is that of an undisturbed call, but for what the gate said in
    the one that died. Raises as augment_folder does, and ModelError if this is not the job that was planned.
    """
    from .work import write_units

    start, outcome = time.perf_counter(), AugmentOutcome()
    ours = Job(json.loads(json.dumps(augmenter.settings())))
    planned = Job({name: share.job.settings.get(name) for name in ours.settings})
    if differing := planned.differences(ours):
        raise ModelError(
            f"the job that was planned differs from what a worker has: {'; '.join(differing)}; have the same everywhere"
        )
    with Records.open_shard(spec.target, share.shard, turn=share.turn, patience=patience) as records:
        books = AugmentBooks(outcome, records, progress, augmenter.space.model_hash, share.job.hash)
        take_over_done((output for unit in share.units for output in unit.outputs), books)
        write_units(share.units, spec.target, augmenter, books, spec.options.max_pixels, stopped=stopped)
    outcome.seconds = time.perf_counter() - start
    return outcome


def augment_on_engine(
    spec: AugmentSpec,
    engine: str = "local",
    workers: int = 2,
    *,
    address: str | None = None,
    dataset: Dataset | None = None,
    progress: JobProgress | None = None,
    tell: Tell | None = None,
) -> AugmentOutcome:
    """Do a job by several workers: its files are those of augment_folder, byte for byte.

    The rest is as of run_on_engine. The process that calls has the model, too, and the device that a plain job would take.
    """

    def run(device_type: str, hire: Hire) -> AugmentOutcome:
        from .job import augment_folder

        augmenter = spec.augmenter("cpu" if device_type == "cpu" else spec.device)
        if augmenter.space.device.type != device_type:
            raise UsageError(
                f"the workers have {device_type} devices, and this machine, which plans their work, has none: start the job "
                "where there is one, or give all the same (--device cpu)"
            )

        def write(prepared: Prepared) -> None:
            _have_written(prepared, hire, device_type, workers)

        return augment_folder(
            spec.source, spec.target, augmenter, spec.options, dataset=dataset, progress=progress, tell=tell, write=write
        )

    return with_engine(spec, engine, workers, run, address=address)


def _have_written(prepared: Prepared, hire: Hire, device_type: str, workers: int) -> None:
    """By workers. Raises as run_shares does, and UsageError if another job writes there then."""
    books = prepared.books
    records, alone = books.records, books.records.locked
    shares = shares_of(prepared.units, SHARES_PER_WORKER * workers, prepared.job, records.turn + 1)
    if not shares:
        return
    with shared(records, lambda: remove_temporaries(records.folder), patience=PATIENCE):
        run_shares(hire(_lanes(device_type)), min(workers, len(shares)), shares, books.outcome, books.progress)
    if alone and not records.locked:
        raise UsageError(
            f"{prepared.target}: all copies are there, and another job is writing to this folder; run the same command again "
            "when it has ended: what names the images is written then"
        )


def _lanes(device_type: str) -> Lanes:
    """Of all workers on this machine. On a CPU, images go through the network one by one, each by one thread."""
    from ..model.threads import Lanes

    threads = plain_lanes(device_type).all_threads
    return Lanes(threads, 1, threads) if device_type == "cpu" else Lanes(1, threads, threads)
