"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

_numbers = itertools.count()


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path in the same folder)`, then move the result to `path`: a failure leaves the old file alone.

    The content is on the disk before the name is, so that a power cut cannot leave an empty file under `path`.
    """
    temporary = path.with_name(f".vaetools-{os.getpid()}-{next(_numbers)}.tmp")
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
