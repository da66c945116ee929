"""Which files a compressed folder has, has lost, and never had: from its names, its manifest and the folder of the originals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..folder.manifest import FAILED, Entry, Manifest
from ..folder.names import SUFFIX, compressed_name
from ..images.folder import walk


@dataclass(frozen=True)
class Compressed:
    """One image. name: of the source, below its folder. path: of the compressed file, None if there is none.

    original: the source, None if it is not there, or not asked for. entry: what the manifest says of it.
    problem: why there is no file.
    """

    name: str
    path: Path | None
    original: Path | None = None
    entry: Entry | None = None
    problem: str = ""


def list_compressed(folder: Path, originals: Path | None = None) -> list[Compressed]:
    """Every .vtc file below `folder` in the order of the names, and every image that should have one.

    Raises UsageError if there is no file, or a folder is missing.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    files = {_inside(path, folder): path for path in walk(folder, frozenset((SUFFIX,))).images}
    entries = {entry.output: entry for entry in Manifest.read(folder) if entry.output.endswith(SUFFIX)}
    sources: dict[str, Path] = {}
    if originals is not None:
        if originals.resolve() == folder.resolve():
            raise UsageError(f"{originals}: is the compressed folder itself; give the folder that it was made from")
        sources = {compressed_name(_inside(path, originals)): path for path in walk(originals, leave_out=folder).images}
    found = []
    for output in sorted({*files, *entries, *sources}):
        path, entry, source = files.get(output), entries.get(output), sources.get(output)
        problem = ""
        if path is None:
            if originals is not None and source is None and entry is not None and entry.status == FAILED:
                continue  # it is no original any more
            problem = _reason(entry)
        found.append(Compressed(output.removesuffix(SUFFIX), path, source, entry, problem))
    return found


def _reason(entry: Entry | None) -> str:
    if entry is None:
        return "has no compressed file"
    return f"was not compressed: {entry.error}" if entry.status == FAILED else "is missing: the manifest says that it was written"


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
