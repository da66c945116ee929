"""The members of a tar as files: found by its headers, read where they lie in it, never extracted."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from ..errors import UsageError, reason_of
from .blob import Blob, Readable
from .url import without_secrets

SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}
BLOCK = tarfile.BLOCKSIZE
BUFFER = 1 << 16  # bytes of a member that are read at a time


@dataclass(frozen=True)
class TarMember(Blob):
    """container: the tar. inside: its name there, with `/` between the parts, none of which is empty, `.` or `..`.

    offset, size: of its content, in bytes. mtime_ns: of the tar, since those of members are often all the same.
    """

    container: Readable
    inside: str
    offset: int
    size: int
    mtime_ns: int

    def __str__(self) -> str:
        return f"{self.container}/{self.inside}"

    def read_bytes(self) -> bytes:
        return self.read_range(0, self.size)

    def read_range(self, start: int, length: int) -> bytes:
        length = max(0, min(length, self.size - start))
        if isinstance(self.container, Blob):
            data = self.container.read_range(self.offset + start, length)
        else:
            with self.container.open("rb", buffering=0) as file:
                data = _read_at(file, self.offset + start, length)
        if len(data) < length:
            raise OSError(f"{self.container} ends within it: it was changed since it was listed")
        return data

    def open(self, mode: str = "rb") -> BinaryIO:
        assert mode == "rb", mode
        return cast(BinaryIO, io.BufferedReader(_Part(self), min(BUFFER, max(BLOCK, self.size))))

    def pieces(self, length: int = 1 << 22) -> Iterator[bytes]:
        """All of it, in order."""
        for start in range(0, self.size, length):
            yield self.read_range(start, length)


class _Part(io.RawIOBase):
    """A member as an open file, of which no more is read than is asked for."""

    def __init__(self, member: TarMember) -> None:
        self.name, self._member, self._place = str(member), member, 0
        container = member.container
        self._file = None if isinstance(container, Blob) else container.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._member.size}[whence]
        if start + offset < 0:
            raise ValueError(f"{start + offset} is before the start of {self.name}")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._member.size - self._place))
        if self._file is None:
            data = self._member.read_range(self._place, length)
        else:
            data = _read_at(self._file, self._member.offset + self._place, length)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _read_at(file: io.FileIO, start: int, length: int) -> bytes:
    file.seek(start)
    found = bytearray()
    while len(found) < length and (piece := file.read(length - len(found))):  # one call gives 2 GiB at most
        found += piece
    return bytes(found)


@dataclass
class TarListing:
    """What the headers of a tar say. members: whole files with names that can be used, in the order of the tar.

    passed: how many there are of others: hidden files, links, devices, and files with holes. problems: what cannot be used, and
    why: (the name of the tar or of a member, the reason).
    """

    members: list[TarMember] = field(default_factory=list)
    passed: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def list_members(container: Readable) -> TarListing:
    """Read the headers. Of a tar that is damaged or cut short, what comes before that; the rest is one problem, and so are names
    that would lead out of a folder."""
    listing = TarListing()
    name = str(container)
    try:
        status = container.stat()
        with _opened(container) as file:
            start = file.read(8)
            file.seek(0)
            packed = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)
            if packed:
                listing.problems.append(
                    (name, f"it is compressed ({packed}), and nothing can be found in it without unpacking all")
                )
            elif reason := _read_headers(file, container, status.st_size, status.st_mtime_ns, listing):
                listing.problems.append((name, reason))
    except OSError as error:
        listing.problems.append((name, f"cannot be read ({reason_of(error)})"))
    return listing


@contextmanager
def _opened(container: Readable) -> Iterator[BinaryIO]:
    with container.open("rb") as file:
        yield cast(BinaryIO, file)


def _read_headers(file: BinaryIO, container: Readable, size: int, mtime_ns: int, listing: TarListing) -> str:
    """What is wrong with the tar as a whole, or ""."""
    seen: set[str] = set()
    unsafe: list[str] = []
    place, reason = 0, ""
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it holds on to all of them
                if info.size < 0 or tar.offset <= place:
                    reason = f"a header at byte {info.offset:,} makes no sense"
                    break
                place = tar.offset
                if info.isreg() and not info.issparse() and info.offset_data + info.size > size:
                    reason = f"it ends within {info.name}"
                    break
                _take(info, container, mtime_ns, listing, seen, unsafe)
            if not reason:
                reason = _end_of(file, tar.offset, size)
    except OSError:
        raise
    except Exception as error:  # tarfile raises whatever it pleases on broken files
        reason = f"it is damaged after byte {place:,} ({error})" if place else f"it is no tar ({error})"
    if unsafe:
        text = f"{len(unsafe)} members have names that lead out of a folder, and are left out; the first: {unsafe[0]}"
        listing.problems.append((str(container), text))
    if reason and listing.members:
        reason += f"; the {len(listing.members)} files before that are used"
    return reason


def _end_of(file: BinaryIO, place: int, size: int) -> str:
    """tarfile takes any block that is no header for the end. Why this one is none, or ""."""
    if place >= size:
        return "it has no end, as if it had been cut short"
    file.seek(place)
    block = file.read(BLOCK)
    return "" if block == bytes(len(block)) and len(block) == BLOCK else f"it is damaged after byte {place:,}"


def _take(
    info: tarfile.TarInfo, container: Readable, mtime_ns: int, listing: TarListing, seen: set[str], unsafe: list[str]
) -> None:
    if info.isdir():
        return
    parts = [part for part in info.name.split("/") if part not in ("", ".")]
    if info.name.startswith("/") or ".." in parts or not parts or "\0" in info.name:
        unsafe.append(info.name)
    elif not info.isreg() or info.issparse() or any(part.startswith(".") for part in parts):
        listing.passed += 1
    elif (inside := "/".join(parts)) in seen:
        listing.problems.append((f"{container}/{inside}", "there is a file of this name before it in the tar, which is used"))
    else:
        seen.add(inside)
        listing.members.append(TarMember(container, inside, info.offset_data, info.size, mtime_ns))


def refuse_compressed(path: str) -> None:
    """Raises UsageError for the names of tars that are compressed as a whole."""
    path = without_secrets(path)  # nor the query of a URL
    if path.lower().endswith(COMPRESSED):
        raise UsageError(f"{path}: members of a compressed tar cannot be read one by one: unpack it to a plain .tar first")


def key_of(name: str) -> str:
    """The sample that a member belongs to, as WebDataset has it: its path up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]
