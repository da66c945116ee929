"""A folder job in words: all that another process needs to know to do a share of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..codec.container import Limits
from ..codec.rate import USUAL_RATE, Rate
from .job import BATCH_SIZE, TILE_SIZE, compress_job, compress_tasks, decompress_job, decompress_tasks
from .ledger import JobProgress, Outcome, Task
from .names import DEFAULT
from .plan import Selection
from .run import Job, never
from .shares import Share

if TYPE_CHECKING:  # a spec is made without torch
    from collections.abc import Callable

    from ..codec.codec import Codec

USUAL_LIMITS, EVERYTHING = Limits(), Selection()


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """What every kind of job is told; see compress_folder. Can be pickled."""

    source: Path
    target: Path
    model: str = "photo"
    device: str = "auto"
    limits: Limits = USUAL_LIMITS
    batch_size: int = BATCH_SIZE
    selection: Selection = EVERYTHING

    @abstractmethod
    def tasks(self, outcome: Outcome) -> list[Task]:
        """As list_tasks."""

    @abstractmethod
    def job(self, codec: Codec) -> Job:
        """Raises UsageError on options that fit no file."""


@dataclass(frozen=True, kw_only=True)
class CompressSpec(Spec):
    rate: Rate = USUAL_RATE
    tile_size: int = TILE_SIZE
    preview: bool = False
    verify: bool = False
    errors: bool = False
    keep_tags: bool = False

    def tasks(self, outcome: Outcome) -> list[Task]:
        return compress_tasks(self.source, self.target, self.selection, outcome)

    def job(self, codec: Codec) -> Job:
        return compress_job(
            codec,
            self.rate,
            batch_size=self.batch_size,
            tile_size=self.tile_size,
            preview=self.preview,
            verify=self.verify,
            errors=self.errors,
            keep_tags=self.keep_tags,
        )


@dataclass(frozen=True, kw_only=True)
class DecompressSpec(Spec):
    format: str = DEFAULT
    allow_partial: bool = False
    window: bool = False

    def tasks(self, outcome: Outcome) -> list[Task]:
        return decompress_tasks(self.source, self.target, self.format, self.selection, outcome)

    def job(self, codec: Codec) -> Job:
        return decompress_job(
            codec, self.format, batch_size=self.batch_size, allow_partial=self.allow_partial, window=self.window
        )


def process_shard(
    spec: Spec,
    share: Share,
    codec: Codec,
    *,
    progress: JobProgress | None = None,
    patience: float = 0.0,
    stopped: Callable[[], bool] = never,
) -> Outcome:
    """Do a share of a job, in whatever process: what every engine runs.

    Its files depend on the spec and the share alone. Called again after a death at any moment, with the same share, it goes on
    from there, and its outcome is that of an undisturbed call. See Job.run_share.
    """
    return spec.job(codec).run_share(share, spec.target, progress, patience=patience, stopped=stopped)
