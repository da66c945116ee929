"""Folders and objects in stores: whatever fsspec knows by a URL, with the credentials that fsspec finds by itself."""

from __future__ import annotations

import errno
import functools
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar, cast
from urllib.parse import unquote

from ..errors import UsageError
from ..files import temporary_path
from ..images.folder import OWN_PREFIX, has_suffix
from .blob import Blob, NamedBytes
from .head import HEAD, SMALL, Ahead
from .place import Contents, Place

if TYPE_CHECKING:  # fsspec is imported when a URL is met
    from fsspec import AbstractFileSystem

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
WEB = frozenset(("http", "https"))
READ_ONLY = WEB | frozenset(("data", "git", "github", "hf", "jupyter", "libarchive", "reference", "tar", "zip"))
# Stores without folders, where one request makes an object whole or not at all. In others it is moved to its name.
FLAT = frozenset(("abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a", "tos"))
PACKAGES = {"gcs": "gcsfs", "gs": "gcsfs", "s3": "'vaetools[s3]'", "s3a": "'vaetools[s3]'"} | dict.fromkeys(
    ("abfs", "abfss", "adl", "az"), "adlfs"
)
PACKAGES |= {"sftp": "paramiko", "ssh": "paramiko", "http": "aiohttp", "https": "aiohttp", "smb": "smbprotocol"}
LARGE = 64 << 20  # bytes of objects that some packages rather read in several parts at once
THREADS = 16  # requests at the same time
WAITS = (0.2, 1.0)  # seconds before a request is made again, where the reason may pass
PASSING = frozenset((errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE))
PASSING |= {errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EBUSY)}
REASON = 200  # characters, at most, of what a store says

Answer = TypeVar("Answer")
Item = TypeVar("Item")
_shared: dict[str, tuple[AbstractFileSystem, str]] = {}
_own = threading.local()


def is_url(text: str) -> bool:
    return URL.match(text) is not None


def at_once(call: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """`call(item)` of each, several at the same time. Raises what one of them raises."""
    if len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(THREADS, len(items)), "ask") as pool:
        return list(pool.map(call, items))


@dataclass(frozen=True)
class Url(Place):
    """A folder in a store, or one object. Paths below it have `/` between their parts.

    text: with all that is needed to open it; str() is without passwords and tokens.
    Raises UsageError if no installed package knows the protocol.

    >>> str(Url("sftp://me:secret@host/album/"))
    'sftp://me:***@host/album'
    """

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        text = self.text if self.text.endswith("://") else self.text.rstrip("/")
        object.__setattr__(self, "text", text + "//" if text.endswith(":") else text)
        for bit in self.text.split("::"):
            _check_protocol(bit.partition("://")[0], str(self))

    @property
    def protocol(self) -> str:
        return self.text.partition("::")[0].partition("://")[0].lower()

    def __str__(self) -> str:
        return without_secrets(self.text)

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    @property
    def shared(self) -> bool:
        return "memory" not in re.split(r"://|::", self.text)

    @property
    def file_system(self) -> AbstractFileSystem:
        return self._opened[0]

    @property
    def path(self) -> str:
        """Of it all, as its file system has it."""
        return self._opened[1]

    @property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        """Connections of synchronous file systems are not for several threads: each thread has its own."""
        own: dict[str, tuple[AbstractFileSystem, str]] = _own.__dict__
        found = _shared.get(self.text) or own.get(self.text)
        if found is None:
            from fsspec.core import url_to_fs

            try:
                file_system, path = url_to_fs(self.text)
            except Exception as error:
                raise self._as_os_error(error) from error
            found = file_system, path.rstrip("/")
            (_shared if file_system.async_impl else own)[self.text] = found
        return found

    # Objects, by their paths below it. Whatever goes wrong is an OSError.

    def read(self, inside: str) -> bytes:
        path = self._join(inside)
        return self.ask(lambda files: files.cat_file(path))

    def write(self, inside: str, data: bytes) -> None:
        """`data` under this name, all of it or none, whatever is there now."""
        path = self._join(inside)
        if self.protocol in FLAT:
            self.ask(lambda files: files.pipe_file(path, data))
            return
        _make_folders(self, path.rpartition("/")[0])
        temporary = self._join(temporary_path(Path()).name)

        def write(files: AbstractFileSystem) -> None:
            files.pipe_file(temporary, data)
            files.mv(temporary, path)

        self.ask(write)

    def remove(self, insides: Iterable[str]) -> None:
        """What is not there any more is passed over."""

        def remove(inside: str) -> None:
            with suppress(FileNotFoundError):
                self.ask(lambda files: files.rm_file(self._join(inside)))

        at_once(remove, list(insides))

    def names(self, inside: str) -> Sequence[str]:
        """Of what is directly below a folder; none if there is no such folder."""

        def look(files: AbstractFileSystem) -> list[str]:
            files.invalidate_cache()
            return [str(path) for path in files.ls(self._join(inside), detail=False)]

        try:
            return sorted(path.rstrip("/").rpartition("/")[2] for path in self.ask(look))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self) -> dict[str, dict[str, Any]]:
        """What fsspec knows of each object below, from one listing; "" is the object that this names itself."""

        def look(files: AbstractFileSystem) -> dict[str, dict[str, Any]]:
            files.invalidate_cache()
            if self.protocol not in WEB:
                return dict(files.find(self.path, detail=True))
            inside = self.path.partition("://")[2].partition("/")[2]
            if "?" in inside or "." in inside.rpartition("/")[2]:
                return {self.path: files.info(self.path)}
            found = dict(files.find(self.path + "/", detail=True))
            unknown = [path for path, info in found.items() if info.get("size") is None and info.get("type") == "file"]
            return found | dict(zip(unknown, at_once(lambda path: dict(files.info(path)), unknown), strict=True))

        start, found = len(self.path), self.ask(look)
        self.file_system.invalidate_cache()  # which holds on to what was found
        objects = ((path, info) for path, info in found.items() if info.get("type") == "file" and not path.endswith("/"))
        return {path[start:].removeprefix("/"): info for path, info in objects}

    def is_in(self, folder: Path | Url) -> bool:
        return isinstance(folder, Url) and folder.below(self) == ""

    def shares_store(self, other: Url) -> bool:
        one, two = self.file_system, other.file_system
        return (type(one), one.storage_options) == (type(two), two.storage_options)

    def below(self, folder: Url) -> str | None:
        """Its path below another one, "" if it is the same; None if it is elsewhere."""
        if not self.shares_store(folder):
            return None
        if self.path == folder.path:
            return ""
        return self.path[len(folder.path) + 1 :] if self.path.startswith(folder.path + "/") else None

    def list(self, suffixes: frozenset[str], *, leave_out: str = "") -> Contents:
        """As Place.list, without the folder `leave_out` below it."""
        try:
            found = self.find()
        except OSError as error:
            raise UsageError(f"{self}: cannot be read ({error.strerror})") from None
        files: list[tuple[str, Blob]] = []
        refused: list[tuple[str, str]] = []
        others, left_out = 0, False
        for inside, info in found.items():
            path = self._join(inside)
            web = self.protocol in WEB
            inside = inside or (path.partition("?")[0] if web else path).rpartition("/")[2]
            inside = unquote(inside) if web else inside
            folder, _, name = inside.rpartition("/")
            if leave_out and f"{folder}/".startswith(leave_out + "/"):
                left_out = True
                continue
            if any(part.startswith(".") for part in folder.split("/")):
                continue
            if not has_suffix(name, suffixes) or name.startswith("."):
                others += not name.startswith(OWN_PREFIX)
            elif "" in inside.split("/") or "\0" in inside:
                refused.append((f"{self}/{inside}", "no file can be named like that: a part of its name is empty"))
            else:
                files.append((inside, RemoteBlob(self, path, inside, int(info.get("size") or 0), _state_of(info))))
        if not files and not refused:
            kinds = ", ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
            raise UsageError(f"{self}: no image in it or below it (looked for {kinds})" if found else f"{self}: nothing is there")
        files.sort(key=lambda pair: pair[0].split("/"))
        return Contents(files, others, refused, left_out)

    def blob(self, inside: str = "", size: int = 0) -> RemoteBlob:
        """The object of that name, or the one that this names itself. size: in bytes, 0 where it is not known.

        Raises OSError where the store cannot be opened.
        """
        return RemoteBlob(self, self._join(inside), inside, size, 0)

    def ask(self, call: Callable[[AbstractFileSystem], Answer]) -> Answer:
        """What the store answers. Raises OSError, and nothing else, with a short reason."""
        files = self.file_system
        for wait in (*WAITS, None):
            try:
                return call(files)
            except Exception as error:
                told = self._as_os_error(error)
                if wait is None or told.errno not in PASSING:
                    raise told from error
            time.sleep(wait)
        raise AssertionError("the last one is never waited for")

    def _as_os_error(self, error: Exception) -> OSError:
        """botocore, aiohttp, paramiko and the others each raise their own kinds."""
        number = error.errno if isinstance(error, OSError) and error.errno else _number_of(error)
        answer = getattr(error.__cause__, "response", None)  # of botocore, of which s3fs tells what it knows
        if isinstance(answer, dict) and answer.get("Error", {}).get("Code") == "KeyTooLongError":
            number = errno.ENAMETOOLONG
        said = getattr(error, "strerror", None) or str(error)
        if number == errno.ENOENT and " " not in said:
            said = "no such object"  # nothing but its path
        lines = said.strip().splitlines() or [type(error).__name__]
        return OSError(number, _hiding(self.text, lines[0])[:REASON])

    def _join(self, inside: str) -> str:
        return f"{self.path}/{inside}" if inside else self.path


@dataclass(frozen=True)
class RemoteBlob(Blob):
    """An object. path: as its file system has it. inside: below the folder that was listed."""

    url: Url
    path: str
    inside: str
    size: int
    mtime_ns: int
    distant: ClassVar[bool] = True

    def __str__(self) -> str:
        return str(self.url) if self.path == self.url.path else f"{self.url}/{self.inside}"

    def is_right_in(self, folder: Url) -> bool:
        return self.url.shares_store(folder) and self.path.rpartition("/")[0] == folder.path

    def read_bytes(self) -> bytes:
        kept = SMALL.take(self)
        if kept is not None:
            return kept
        if 0 < self.size <= LARGE and self.url.protocol not in WEB:  # s3fs asks for the size first, unless a part is asked for
            return self.read_range(0, self.size)
        return self.url.ask(lambda files: cast(bytes, files.cat_file(self.path)))

    def read_range(self, start: int, length: int) -> bytes:
        end = min(start + length, self.size)
        if start >= end:
            return b""
        data = self.url.ask(lambda files: cast(bytes, files.cat_file(self.path, start=start, end=end)))
        return data if len(data) <= end - start else data[start:end]  # some web servers give all of it

    def open(self, mode: str = "rb") -> BinaryIO:
        assert mode == "rb", mode
        if self.size > HEAD:
            return cast(BinaryIO, Ahead(self))
        data = self.read_bytes()
        if len(data) <= HEAD:
            SMALL.keep(self, data)
        return NamedBytes(data, str(self))


def without_secrets(text: str) -> str:
    """An argument as messages have it: URLs without passwords and tokens."""
    if not is_url(text):
        return text
    protocol = text.partition("::")[0].partition("://")[0].lower()
    return _hiding(text, text.partition("?")[0] if protocol in WEB else text)


def _hiding(url: str, text: str) -> str:
    """A text about a URL, without the user's password, and the tokens of URLs."""
    for bit in url.split("::"):
        protocol, _, rest = bit.partition("://")
        web = protocol.lower() in WEB
        user, at, _ = rest.partition("/")[0].rpartition("@")
        name, colon, _ = user.partition(":")
        if at and (colon or web):
            text = text.replace(f"{user}@", f"{name}:***@" if colon else "***@")
        if web and rest.partition("?")[2]:
            text = text.replace(rest.partition("?")[2], "***")
    return text


def _check_protocol(protocol: str, shown: str) -> None:
    """Raises UsageError if no package that is installed knows it."""
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(protocol.lower())
    except ValueError:
        raise UsageError(f"{shown}: {protocol}:// is no protocol that fsspec knows; s3, gs, az and https are some") from None
    except ImportError as error:
        package = PACKAGES.get(protocol.lower())
        advice = f"pip install {package}" if package else str(error).partition("\n")[0]
        raise UsageError(f"{shown}: {protocol}:// needs another package: {advice}") from None


def _number_of(error: Exception) -> int:
    kinds: Iterator[tuple[type[Exception], int]] = iter(
        (
            (FileNotFoundError, errno.ENOENT),
            (PermissionError, errno.EACCES),
            (FileExistsError, errno.EEXIST),
            (IsADirectoryError, errno.EISDIR),
            (NotADirectoryError, errno.ENOTDIR),
            (UnicodeError, errno.EINVAL),  # a name of bytes that are no text, which stores do not take
            (TimeoutError, errno.ETIMEDOUT),
            (ConnectionError, errno.ECONNRESET),
        )
    )
    return next((number for kind, number in kinds if isinstance(error, kind)), errno.EIO)


def _state_of(info: dict[str, Any]) -> int:
    """A number that changes with the object: of its checksum where the listing has one, else of the time of its last change."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "checksum"):
        if value := info.get(name):
            return int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=6).digest(), "big")
    for name in ("mtime", "LastModified", "last_modified", "modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return int(value.timestamp() * 1_000_000) * 1000
        if isinstance(value, int | float):
            return int(value * 1_000_000) * 1000
        if value:
            return int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=6).digest(), "big")
    return 0


@functools.lru_cache(4096)
def _make_folders(url: Url, path: str) -> None:
    url.ask(lambda files: files.makedirs(path, exist_ok=True))
