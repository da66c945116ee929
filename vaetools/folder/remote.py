"""An output folder in a store, which can put objects whole, and append to none.

    a result --> a file of this machine
    a batch of them --> their lines in the manifest, put as one small object --> each put under its name, several at once

The manifest is .vaetools-manifest.jsonl beside the output, as in a folder of this machine. What a running job appends goes into
objects of its own, .vaetools-manifest.parts/WHO.TURN.NUMBER-TOKEN.jsonl, where WHO is `whole` or a shard such as `2-of-8`. A job
that comes to its end leaves the manifest, or its shard's one part, with everything, and removes the parts that are in it. The
next whole job takes over what killed jobs and shards left.

Stores have no locks. Each call of a job takes a turn (manifest.py) larger than all that it finds, so that parts can be read in
any state between "put" and "removed": of lines about a file, those of the largest turn hold, and of these the last one.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, VaetoolsError
from ..files import TEMPORARY_NAME
from ..storage.url import FLAT, READ_ONLY, THREADS, Url, at_once
from .manifest import MANIFEST, Entry, Manifest
from .reader import Budget
from .shard import Shard
from .target import Target, There

PARTS = ".vaetools-manifest.parts"
PART = re.compile(r"(whole|[0-9]{1,6}-of-[0-9]{1,6})\.([0-9]{6,})\.([0-9]{6,})-[0-9a-f]{8}\.jsonl")
WHOLE = "whole"
BYTES_AT_ONCE = 256 << 20  # of files that are being put; a larger one has the memory for itself
OF_ONE_FILE = (errno.EINVAL, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EMSGSIZE)  # its own fault


def owner_of(name: str) -> str:
    return WHOLE if name == MANIFEST else name.removeprefix(f"{PARTS}/").partition(".")[0]


@dataclass(frozen=True)
class Books:
    """The manifest and its parts in a store, and a copy of them on this machine, in files as a local folder has them."""

    url: Url
    mirror: Path

    def parts(self, who: str | None = None) -> list[str]:
        """Their names, in the order in which they are read."""
        found = [(match, name) for name in self.url.names(PARTS) if (match := PART.fullmatch(name)) and who in (None, match[1])]
        found.sort(key=lambda pair: (pair[0][1], int(pair[0][2]), int(pair[0][3])))
        return [f"{PARTS}/{name}" for _, name in found]

    def copy_of(self, who: str) -> Path:
        return self.mirror / (MANIFEST if who == WHOLE else f".vaetools-manifest.{who}.jsonl")

    def fetch(self, who: str | None = None) -> list[str]:
        """Copy all of them, or those of one; the parts that the copies hold.

        Parts come before the manifest, since lines may be in both: the manifest has all of a turn, and in their order.
        Raises OSError.
        """
        names = self.parts(who)
        self.add(names)
        if who in (None, WHOLE):  # after the parts: what another job has taken over meanwhile is in it
            self.add([MANIFEST])
        return names

    def add(self, names: Sequence[str]) -> None:
        """Append these to the copies. Raises OSError."""
        for name, data in zip(names, at_once(self._read, names), strict=True):
            if data:
                with self.copy_of(owner_of(name)).open("ab") as file:
                    file.write(data)

    def folded(self, names: Iterable[str]) -> list[str]:
        """Those of which all is in the copy of the manifest."""
        return [name for name in names if owner_of(name) == WHOLE or not self.copy_of(owner_of(name)).exists()]

    def _read(self, name: str) -> bytes:
        with suppress(FileNotFoundError):  # there is none yet, or another job has taken it over
            return self.url.read(name)
        return b""


class RemoteManifest(Manifest):
    """A manifest in a folder of this machine, from which it goes to the store when it must last."""

    # _held: the parts in the store that the copy holds. _sent: how much of the copy is in the store. _number: of the last part.

    _books: Books | None = None

    def attach(self, books: Books, who: str, held: Iterable[str], turn: int) -> None:
        """From now on, what is appended goes there, too."""
        self._who, self._held = who, list(held)
        numbers = [int(name.split(".")[-2].partition("-")[0]) for name in self._held]
        self._number, self._token = max(numbers, default=0), secrets.token_hex(4)
        self._sent = os.path.getsize(self.path)
        self._sending = threading.Lock()
        self.turn = turn
        self._books = books

    @property
    def shown(self) -> str:
        return super().shown if self._books is None else f"{self._books.url}/{MANIFEST}"

    def append(self, entries: Iterable[Entry], *, durable: bool = False) -> None:
        super().append(entries)
        if durable and self._books is not None:
            self.send()

    def send(self) -> None:
        """Put what is not in the store yet. Raises OSError."""
        assert self._books is not None
        with self._sending:
            with self._lock, self.path.open("rb") as file:
                file.seek(self._sent)
                data = file.read()
            if data:
                name = self._next_part()
                self._books.url.write(name, data)
                self._held.append(name)
                self._sent += len(data)

    def settle(self) -> None:
        """Leave one object with all of it, and no parts of it. Raises VaetoolsError; no line is lost then."""
        assert self._books is not None
        url = self._books.url
        try:
            with self._sending:
                data = self.path.read_bytes()
                whole = self._who == WHOLE
                if len(data) > self._sent or len(self._held) > (not whole):
                    name = MANIFEST if whole else self._next_part()
                    url.write(name, data)
                    url.remove(self._held)
                    self._held = [] if whole else [name]
                    self._sent = len(data)
        except OSError as error:
            raise VaetoolsError(f"{self.shown}: cannot be written ({error.strerror}); run the same command again") from None

    def reclaim(self, *, patience: float = 0.0) -> bool:
        """As Manifest has it. In a store, nothing tells whether other jobs write there."""
        if self._books is None:
            return super().reclaim(patience=patience)
        self.settle()
        turn = self.turn
        try:
            with self._sending:
                shards = [name for name in self._books.parts() if owner_of(name) != WHOLE]
                self._books.add(shards)
        except OSError as error:
            raise VaetoolsError(f"{self.shown}: cannot be read ({error.strerror}); run the same command again") from None
        alone = super().reclaim(patience=patience)
        self.turn = max(turn, self.turn)
        self._held += self._books.folded(shards)
        self.settle()
        return alone

    def _next_part(self) -> str:
        self._number += 1
        return f"{PARTS}/{self._who}.{self.turn:06}.{self._number:06}-{self._token}.jsonl"

    def __exit__(self, *raised: object) -> None:
        try:
            if self._books is not None and not any(raised):
                self.settle()
            elif self._books is not None:
                with suppress(OSError):  # what went wrong before is to be told
                    self.send()
        finally:
            self.close()


class RemoteTarget(Target):
    """A folder in a store. Raises UsageError where that can only be read."""

    def __init__(self, url: Url) -> None:
        if url.protocol in READ_ONLY or "::" in url.text:
            raise UsageError(
                f"{url}: can be read, but not written to; write to a folder or to a store such as s3://bucket/folder"
            )
        self.url = url
        self._here: Path | None = None
        self._listing: dict[str, int] | None = None
        self._folders: set[str] = set()
        self._pool: ThreadPoolExecutor | None = None
        self._budget = Budget(BYTES_AT_ONCE)

    def __str__(self) -> str:
        return str(self.url)

    @property
    def temporaries(self) -> Path:
        if self._here is None:
            self._here = Path(tempfile.mkdtemp(prefix="vaetools-"))
        return self._here

    @property
    def _there(self) -> dict[str, int]:
        """The sizes of all objects, from one listing: it is not asked again for the files that the job writes."""
        if self._listing is None:
            try:
                found = self.url.find()
            except FileNotFoundError as error:
                if self.url.protocol in FLAT:
                    raise UsageError(f"{self}: cannot be listed ({error.strerror})") from None
                found = {}  # the folder is made when something is written to it
            except OSError as error:
                raise UsageError(f"{self}: cannot be listed ({error.strerror})") from None
            if "" in found:
                raise UsageError(f"{self}: is a file, not a folder to write to")
            self._listing = {inside: int(info.get("size") or 0) for inside, info in found.items()}
            for inside in self._listing:
                while inside := inside.rpartition("/")[0]:
                    self._folders.add(inside)
        return self._listing

    def prepare(self) -> None:
        _ = self._there

    def tidy_up(self) -> None:
        left = [inside for inside in self._there if TEMPORARY_NAME.fullmatch(inside)]  # where objects are moved to their names
        with suppress(OSError):
            self.url.remove(left)

    def look(self, output: str) -> There | None:
        size = self._there.get(output)
        if size is not None:
            return There(size)
        return There(0, is_folder=True) if output in self._folders else None

    def crc32(self, output: str) -> str:
        try:
            return f"{zlib.crc32(self.url.blob(output, self._there.get(output, 0)).read_bytes()):08x}"
        except OSError:
            return ""

    def refuses(self, output: str) -> str:
        folder = output
        while folder := folder.rpartition("/")[0]:
            if folder in self._there:
                return f"{self}/{folder} is a file, where a folder is needed"
        return ""

    def make_folder_of(self, output: str) -> None:
        if self._listing is not None and (reason := self.refuses(output)):
            raise VaetoolsError(reason)

    def give_names(self, files: Sequence[tuple[Path, str]]) -> Iterator[OSError | None]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, "put")
        yield from self._pool.map(self._put, files)

    def _put(self, file: tuple[Path, str]) -> OSError | None:
        temporary, output = file
        size = temporary.stat().st_size
        self._budget.take(size)
        try:
            self.url.write(output, temporary.read_bytes())
            temporary.unlink()
        except OSError as error:
            return error
        finally:
            self._budget.give_back(size)
        return None

    def ends_the_job(self, error: OSError) -> bool:
        return error.errno not in OF_ONE_FILE

    def make_durable(self) -> None:
        pass  # an answer of the store says that it is

    def open_manifest(self) -> Manifest:
        books = Books(self.url, self.temporaries)
        try:
            held = books.fetch()
        except OSError as error:
            raise UsageError(f"{self}/{MANIFEST}: cannot be read ({error.strerror})") from None
        manifest = RemoteManifest.open(books.mirror)
        held = books.folded(held)
        manifest.attach(books, WHOLE, held, manifest.turn + 1)
        if held or MANIFEST not in self._there:
            try:
                self.url.write(MANIFEST, manifest.path.read_bytes())  # so that it is known now that it can be
                self.url.remove(held)
            except OSError as error:
                manifest.close()
                raise UsageError(f"{self}/{MANIFEST}: cannot be written ({error.strerror})") from None
            manifest.attach(books, WHOLE, [], manifest.turn)
        return manifest

    def open_shard_manifest(self, shard: Shard, *, turn: int | None = None, patience: float = 0.0) -> Manifest:
        books, who = Books(self.url, self.temporaries), f"{shard.index}-of-{shard.count}"
        try:
            held = books.fetch(None if turn is None else who)
        except OSError as error:
            raise UsageError(f"{self}/{MANIFEST}: cannot be read ({error.strerror})") from None
        manifest = RemoteManifest.open_shard(books.mirror, shard, turn=turn)
        manifest.attach(books, who, [name for name in held if owner_of(name) == who], manifest.turn)
        return manifest

    def read_manifest(self) -> Manifest:
        books = Books(self.url, self.temporaries)
        try:
            books.fetch()
        except OSError as error:
            raise UsageError(f"{self}/{MANIFEST}: cannot be read ({error.strerror})") from None
        return Manifest.read(books.mirror)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._here is not None:
            shutil.rmtree(self._here, ignore_errors=True)
            self._here = None
