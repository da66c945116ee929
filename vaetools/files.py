"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path in the same folder)`, then move the result to `path`: a failure leaves the old file alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_bytes(path: Path, data: bytes) -> None:
    """`data` under `path`, all of it or none."""
    replace_file(path, lambda temporary: temporary.write_bytes(data))
