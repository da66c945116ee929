"""Which files of a folder are images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"))
DICOM_SUFFIXES, NIFTI_SUFFIXES = (".dcm", ".dicom"), (".nii", ".nii.gz")
SCAN_SUFFIXES = (*DICOM_SUFFIXES, *NIFTI_SUFFIXES)
SUFFIXES = PICTURE_SUFFIXES | frozenset(SCAN_SUFFIXES)
OWN_PREFIX = ".vaetools-"  # of manifests and of files that are not finished


@dataclass
class Listing:
    """What a walk through a folder found: images in the order of their names, and what was passed over.

    `unreadable`: folders and files that cannot be opened, with the reason. `linked`: links to folders, which are not
    followed. `others`: the number of files that are no images by their suffix, hidden, or not regular files; what vaetools
    puts beside its results is not counted. `left_out`: whether the folder to be left out was met.
    """

    images: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)
    others: int = 0
    left_out: bool = False


def walk(
    folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES, *, leave_out: str | os.PathLike[str] | None = None
) -> Listing:
    """Every image below `folder`, recursively; hidden folders are left out, and the folder `leave_out`.

    Raises UsageError if `folder` is no folder or holds no image.
    """
    root = Path(folder)
    if not root.exists():
        raise UsageError(f"{root}: no such folder")
    if not root.is_dir():
        raise UsageError(f"{root}: not a folder")
    listing = Listing()
    forbidden = _place_below(root, leave_out) if leave_out is not None else None

    def unreadable(error: OSError) -> None:
        listing.unreadable.append((Path(error.filename), error.strerror or str(error)))

    for directory, names, files in os.walk(root, onerror=unreadable):
        visible = [name for name in sorted(names) if not name.startswith(".")]
        names[:] = [name for name in visible if not Path(directory, name).is_symlink()]
        listing.linked += [Path(directory, name) for name in visible if name not in names]
        if forbidden is not None and Path(directory) == forbidden.parent and forbidden.name in names:
            names.remove(forbidden.name)
            listing.left_out = True
        for name in files:
            path = Path(directory, name)
            try:
                wanted = has_suffix(name, suffixes) and not name.startswith(".") and path.is_file()
            except OSError as error:  # the folder can be listed but not entered
                unreadable(error)
                continue
            if wanted:
                listing.images.append(path)
            elif not name.startswith(OWN_PREFIX):
                listing.others += 1
    if not listing.images and listing.unreadable:
        place, reason = listing.unreadable[0]
        raise UsageError(f"{root}: no image can be listed in it or below it; {place}: {reason}")
    if not listing.images:
        kinds = ", ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        raise UsageError(f"{root}: no image in it or below it (looked for {kinds})")
    listing.images.sort()
    listing.unreadable.sort()
    return listing


def has_suffix(name: str, suffixes: frozenset[str] | tuple[str, ...] = SUFFIXES) -> bool:
    """Whether a name, or path, ends with one of them: `.nii.gz` is one, and `.gz` is none."""
    return name.lower().endswith(tuple(suffixes))


def _place_below(root: Path, folder: str | os.PathLike[str]) -> Path | None:
    """`folder` as a path that starts with `root`; None if it is not below it."""
    try:
        inside = Path(folder).resolve().relative_to(root.resolve())
    except ValueError:
        return None
    return root / inside if inside.parts else None


def list_images(folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """The images that `walk` finds. Raises UsageError as it does."""
    return walk(folder, suffixes).images
