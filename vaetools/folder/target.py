"""A job's output folder: what is in it, how finished files get their names there, and where its manifest is.

    Local    a folder of this machine: temporary files lie in it, and are moved to their names
    Remote   a folder in a store: temporary files lie in a folder of this machine, and each is put under its name by one request
             (remote.py)

A file is never seen half written under its name in either.
"""

from __future__ import annotations

import os
import stat
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from ..errors import UsageError, VaetoolsError
from ..files import make_names_durable, remove_temporaries
from ..storage.url import Url
from .manifest import Manifest
from .shard import Shard

Folder = Path | Url


@dataclass(frozen=True)
class There:
    """What is under a name already. size: in bytes."""

    size: int
    is_folder: bool = False


class Target(ABC):
    """An output folder, for one job. Outputs are named by their paths below it, with `/` between the parts."""

    @property
    @abstractmethod
    def temporaries(self) -> Path:
        """The folder of this machine for files that are not finished."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def prepare(self) -> None:
        """Raises UsageError if the folder cannot be made or written to."""

    @abstractmethod
    def tidy_up(self) -> None:
        """Remove what killed jobs left. Only while no other job writes there."""

    @abstractmethod
    def look(self, output: str) -> There | None:
        """What is there; None if there is nothing, or it cannot be told."""

    @abstractmethod
    def crc32(self, output: str) -> str:
        """In 8 hexadecimal digits; "" if it cannot be read, or is a link."""

    @abstractmethod
    def refuses(self, output: str) -> str:
        """Why nothing can be written under a name, from what is there now; "" if nothing speaks against it."""

    @abstractmethod
    def make_folder_of(self, output: str) -> None:
        """Raises VaetoolsError or OSError where it cannot be made: then the file fails, and no other."""

    @abstractmethod
    def give_names(self, files: Sequence[tuple[Path, str]]) -> Iterator[OSError | None]:
        """Move temporary files to their outputs, in this order; what went wrong with each. What had a name before is replaced."""

    def ends_the_job(self, error: OSError) -> bool:
        """Whether no other file can get its name either, where one could not."""
        return False

    @abstractmethod
    def make_durable(self) -> None:
        """Names that were given survive a power cut from now on."""

    @abstractmethod
    def open_manifest(self) -> Manifest:
        """As Manifest.open."""

    @abstractmethod
    def open_shard_manifest(self, shard: Shard, *, turn: int | None = None, patience: float = 0.0) -> Manifest:
        """As Manifest.open_shard."""

    @abstractmethod
    def read_manifest(self) -> Manifest:
        """As Manifest.read."""

    @abstractmethod
    def close(self) -> None:
        """Nothing of the job is left on this machine but what the folder is to hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LocalTarget(Target):
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: set[PurePosixPath] = {PurePosixPath()}

    @property
    def temporaries(self) -> Path:
        return self.folder

    def __str__(self) -> str:
        return str(self.folder)

    def prepare(self) -> None:
        make_target(self.folder)

    def tidy_up(self) -> None:
        remove_temporaries(self.folder)

    def look(self, output: str) -> There | None:
        try:
            status = os.lstat(self.folder / output)
        except OSError:
            return None  # what cannot be looked at cannot be written either, and that is told then
        return There(status.st_size, stat.S_ISDIR(status.st_mode))

    def crc32(self, output: str) -> str:
        path = self.folder / output
        try:
            return "" if path.is_symlink() else f"{zlib.crc32(path.read_bytes()):08x}"
        except OSError:
            return ""

    def refuses(self, output: str) -> str:
        parts = output.split("/")[:-1]
        place = self.folder
        for part in ("", *parts):
            place = place / part
            if place.is_symlink() and part:
                return f"{place} is a link, and nothing is written through links"
            if not place.exists():
                break
            if not place.is_dir():
                return f"{place} is a file, where a folder is needed"
        while not place.exists():
            place = place.parent
        return "" if os.access(place, os.W_OK | os.X_OK) else f"{place}: not writable"

    def make_folder_of(self, output: str) -> None:
        self._make(PurePosixPath(output).parent)

    def _make(self, inside: PurePosixPath) -> None:
        """Raises VaetoolsError rather than go through a link."""
        if inside in self._made:
            return
        self._make(inside.parent)
        path = self.folder / inside
        try:
            path.mkdir()
        except FileExistsError:
            if path.is_symlink():
                raise VaetoolsError(f"{path} is a link, and nothing is written through links") from None
            if not path.is_dir():
                raise VaetoolsError(f"{path} is a file, where a folder is needed") from None
        self._made.add(inside)

    def give_names(self, files: Sequence[tuple[Path, str]]) -> Iterator[OSError | None]:
        for temporary, output in files:
            try:
                os.replace(temporary, self.folder / output)
            except OSError as error:
                yield error
            else:
                yield None

    def make_durable(self) -> None:
        make_names_durable(self.folder / inside for inside in sorted(self._made))
        self._made = {PurePosixPath()}

    def open_manifest(self) -> Manifest:
        return Manifest.open(self.folder)

    def open_shard_manifest(self, shard: Shard, *, turn: int | None = None, patience: float = 0.0) -> Manifest:
        return Manifest.open_shard(self.folder, shard, turn=turn, patience=patience)

    def read_manifest(self) -> Manifest:
        return Manifest.read(self.folder)

    def close(self) -> None:
        pass


def target_of(folder: Folder) -> Target:
    if isinstance(folder, Path):
        return LocalTarget(folder)
    from .remote import RemoteTarget

    return RemoteTarget(folder)


def make_target(target: Path) -> None:
    """Raises UsageError if the folder cannot be made or written to."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{target}: cannot be made ({error.strerror})") from None
    if not os.access(target, os.W_OK | os.X_OK):
        raise UsageError(f"{target}: not writable")
