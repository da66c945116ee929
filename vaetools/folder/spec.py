"""A folder job in words: all that another process needs to know to do a share of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..codec.container import Limits
from ..codec.rate import USUAL_RATE, Rate
from ..images.folder import SUFFIXES
from ..storage.place import Source
from .engine import load_codec
from .job import (
    BATCH_SIZE,
    TILE_SIZE,
    compress_job,
    compress_settings,
    compress_tasks,
    compressed_size,
    decompress_job,
    decompress_settings,
    decompress_tasks,
    opened_size,
)
from .ledger import JobProgress, Outcome, Task
from .names import DEFAULT, SUFFIX, compressed_name, restored_name
from .plan import Selection
from .run import Job, never
from .shares import Share
from .target import Folder

if TYPE_CHECKING:  # a spec is made without torch
    from collections.abc import Callable

    from ..codec.codec import Codec
    from ..model.threads import Lanes

USUAL_LIMITS, EVERYTHING = Limits(), Selection()


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """What both directions are told; see compress_folder. Can be pickled: it is the engine.Work of workers."""

    imports: ClassVar[tuple[str, ...]] = ("vaetools.codec.codec",)

    source: Source
    target: Folder
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

    def load(self, device: str, lanes: Lanes) -> Codec:
        return load_codec(self, device, lanes)

    def process(
        self, share: Share, loaded: Codec, *, progress: JobProgress, patience: float, stopped: Callable[[], bool]
    ) -> Outcome:
        return process_shard(self, share, loaded, progress=progress, patience=patience, stopped=stopped)

    # What can be told without a model.

    @property
    @abstractmethod
    def suffixes(self) -> frozenset[str]:
        """Of the files that it is for."""

    @property
    @abstractmethod
    def settings(self) -> str:
        """The beginning of the job's settings."""

    @abstractmethod
    def output_name(self, name: str) -> str:
        """What a file, or path, is called when it is done."""

    @abstractmethod
    def size_of(self, task: Task) -> tuple[int, int]:
        """(height, width) of an image, by its header. Raises VaetoolsError or OSError."""


@dataclass(frozen=True, kw_only=True)
class CompressSpec(Spec):
    rate: Rate = USUAL_RATE
    tile_size: int = TILE_SIZE
    preview: bool = False
    verify: bool = False
    errors: bool = False
    keep_tags: bool = False
    effort: int = 0

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
            effort=self.effort,
        )

    @property
    def suffixes(self) -> frozenset[str]:
        return SUFFIXES

    @property
    def settings(self) -> str:
        options: dict[str, Any] = {"errors": self.errors, "keep_tags": self.keep_tags, "effort": self.effort}
        return compress_settings(self.rate, self.tile_size, preview=self.preview, **options)

    def output_name(self, name: str) -> str:
        return compressed_name(name)

    def size_of(self, task: Task) -> tuple[int, int]:
        return opened_size(task)


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

    @property
    def suffixes(self) -> frozenset[str]:
        return frozenset((SUFFIX,))

    @property
    def settings(self) -> str:
        return decompress_settings(self.format, window=self.window)

    def output_name(self, name: str) -> str:
        return restored_name(name, self.format)

    def size_of(self, task: Task) -> tuple[int, int]:
        return compressed_size(task, self.limits)


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
