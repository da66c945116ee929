"""Which files of a folder are images."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UsageError

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"])


def list_images(folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Every image below `folder`, recursively, in the order of their names; hidden folders are left out.

    Raises UsageError if `folder` is no folder or holds no image.
    """
    root = Path(folder)
    if not root.exists():
        raise UsageError(f"{root}: no such folder")
    if not root.is_dir():
        raise UsageError(f"{root}: not a folder")
    found = []
    for directory, names, files in os.walk(root, followlinks=False):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(directory, name) for name in files if Path(name).suffix.lower() in suffixes and not name.startswith(".")]
    if not found:
        kinds = ", ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        raise UsageError(f"{root}: no image in it or below it (looked for {kinds})")
    return sorted(found)
