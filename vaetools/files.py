"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

TEMPORARY_NAME = re.compile(r"\.vaetools-\d+-(?:[0-9a-f]{8}-)?\d+\.tmp")
BLOCK = 1 << 20  # bytes that are read at a time
_numbers = itertools.count()
_token = secrets.token_hex(4)  # machines that share a folder give their processes the same numbers


def temporary_path(folder: Path) -> Path:
    """A name in `folder` that no other call gives, in this process or another, here or on another machine."""
    return folder / f".vaetools-{os.getpid()}-{_token}-{next(_numbers)}.tmp"


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left in `folder` itself. Only safe while no other process writes there."""
    for name in os.listdir(folder):
        if TEMPORARY_NAME.fullmatch(name):
            (folder / name).unlink(missing_ok=True)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path in the same folder)`, then move the result to `path`: a failure leaves the old file alone.

    The content is on the disk before the name is, so that a power cut cannot leave an empty file under `path`.
    """
    temporary = temporary_path(path.parent)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_bytes(path: Path, data: bytes) -> None:
    """`data` under `path`, all of it or none."""
    replace_file(path, lambda temporary: temporary.write_bytes(data))


def write_new(path: Path, data: bytes) -> tuple[int, int]:
    """`data` to a new file, and to the disk. Its size in bytes, and its CRC-32. Raises OSError, also where there is a file or
    a link already."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data), zlib.crc32(data)


def sync_file(path: Path) -> tuple[int, int]:
    """Have the content of a file on the disk when this returns. Its size in bytes, and its CRC-32."""
    size = crc32 = 0
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        while block := file.read(BLOCK):
            size, crc32 = size + len(block), zlib.crc32(block, crc32)
    return size, crc32


def read_from_disk(path: Path) -> bytes:
    """What the disk holds: not what memory remembers of it, where the system lets itself be told so."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def make_names_durable(folders: Iterable[Path]) -> None:
    """The names of the files in these folders survive a power cut, as their content does already."""
    for folder in folders:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:  # on Windows a folder cannot be opened
            continue
        try:
            os.fsync(descriptor)
        except OSError:  # some network file systems have no such call for a folder
            pass
        finally:
            os.close(descriptor)
