"""A tar of files and of members of another tar: the same bytes whenever it is made of the same."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import VaetoolsError, reason_of
from ..files import BLOCK
from ..storage.tar import TarMember

Content = Path | TarMember


def write_tar(path: Path, members: Iterable[tuple[str, Content]]) -> None:
    """A new tar of (name, content), in order: USTAR, and PAX for names that it has no room for; no dates, no owners.

    Raises OSError where it cannot be written, VaetoolsError where a content cannot be read.
    """
    with path.open("xb") as file, tarfile.open(fileobj=file, mode="w", encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in members:
            with _Source(content) as source:
                info = tarfile.TarInfo(name)
                info.size, info.mode = source.size, 0o644
                tar.format = tarfile.USTAR_FORMAT if _fits(info) else tarfile.PAX_FORMAT
                tar.addfile(info, source)  # type: ignore[arg-type]


def _fits(info: tarfile.TarInfo) -> bool:
    try:
        info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    except (ValueError, UnicodeError):  # too long, too large, or not ASCII
        return False
    return True


class _Source:
    """What tarfile reads from; its errors are not to be taken for those of the tar that is written."""

    def __init__(self, content: Content) -> None:
        self.content = content
        try:
            self._file: BinaryIO = content.open("rb")
            self.size = content.size if isinstance(content, TarMember) else os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._failure(error) from None

    def read(self, length: int) -> bytes:
        try:
            data = self._file.read(length)
        except OSError as error:
            raise self._failure(error) from None
        if len(data) < length:
            raise self._failure("it ends too early")
        return data

    def _failure(self, error: OSError | str) -> VaetoolsError:
        return VaetoolsError(f"{self.content}: cannot be read ({reason_of(error)})")

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def crc32_of_file(path: Path) -> str:
    """ "" if it cannot be read."""
    crc32 = 0
    try:
        with path.open("rb") as file:
            for block in _blocks(file):
                crc32 = zlib.crc32(block, crc32)
    except OSError:
        return ""
    return f"{crc32:08x}"


def _blocks(file: io.BufferedReader) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
