"""Where a job's files come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..errors import UsageError
from .blob import Blob

if TYPE_CHECKING:  # it is a place
    from .url import Url


@dataclass(frozen=True)
class Contents:
    """files: the wanted ones, with their paths below the place (`/` between the parts), sorted by the parts of these, as paths
    are. others: how many more there are, without those that vaetools puts beside its results. refused: what cannot be
    used, such as names that no file can have, whole, and why. left_out: whether there was anything in the folder to be left out.
    """

    files: Sequence[tuple[str, Blob]]
    others: int = 0
    refused: Sequence[tuple[str, str]] = ()
    left_out: bool = False


class Place(ABC):
    """A source that is no folder and no file of this machine. Can be pickled.

    shared: whether other processes find the same in it.
    """

    @property
    def shared(self) -> bool:
        return True

    @abstractmethod
    def __str__(self) -> str:
        """As a user would write it, without passwords."""

    @abstractmethod
    def list(self, suffixes: frozenset[str]) -> Contents:
        """Every file whose name ends with one of the suffixes, in any case; no hidden ones, as `images.folder.walk` has it.

        Raises UsageError if there is no such place, it cannot be listed, or it holds none.
        """

    @abstractmethod
    def is_in(self, folder: Path | Url) -> bool:
        """Whether a folder is the one that it is or lies right in, which nothing is to be written to.

        Raises OSError where a store cannot be opened.
        """


Source = Path | Place


def parse_source(text: str) -> Source:
    """What an argument names: a file, a folder, a URL, or tars (shards.py). Raises UsageError on what is no place."""
    from .shards import TarShards, is_tars
    from .url import Url, is_url

    path = local_path(text) if is_url(text) else Path(text)
    if path is None:
        return TarShards.of(text) if is_tars(text) else Url(text)
    if path.is_dir():
        return TarShards.in_folder(path) or path
    return TarShards.of(str(path)) if is_tars(text) else path


def parse_sources(texts: Sequence[str]) -> Source:
    """What several arguments name, such as a shell makes of `shards/*.tar`. Raises UsageError if they are not all tars."""
    from .shards import TarShards, is_tars
    from .url import without_secrets

    if len(texts) == 1:
        return parse_source(texts[0])
    others = [text for text in texts if not is_tars(text)]
    if others:
        raise UsageError(
            f"{without_secrets(others[0])}: only tars can be taken several at once; give one folder, or one command for each"
        )
    return TarShards.of_all(texts)


def parse_folder(text: str) -> Path | Url:
    """What an argument names that is to be written to. Raises UsageError on what is no place."""
    from .url import Url, is_url

    return (local_path(text) or Url(text)) if is_url(text) else Path(text)


def local_path(text: str) -> Path | None:
    """The path that a file:// URL names; None for other URLs."""
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("file", "local"):
        return None
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise UsageError(f"{text}: file:// takes a whole path, with three slashes: file:///album")
    if "?" in path or "#" in path:  # which end the path of a URL
        raise UsageError(f"{text}: in a file:// URL, write %3F for ? and %23 for #; or give the path alone")
    return Path(unquote(slash + path))
