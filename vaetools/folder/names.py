"""The names of compressed and restored files: each follows from one name alone, whatever else is in its folder."""

from __future__ import annotations

SUFFIX = ".vtc"
# The endings of names that stand for a format; the first is the one that is added.
ENDINGS = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "tiff": (".tiff", ".tif"),
    "avif": (".avif",),
    "bmp": (".bmp",),
    "ppm": (".ppm", ".pgm"),
}
SCANS = {"dicom": (".dcm", ".dicom"), "nifti.gz": (".nii.gz",), "nifti": (".nii",)}  # written only under their own names
ORIGINAL, DEFAULT = "original", "default"
RESTORED_FORMATS = ("png", "jpeg", "webp", "tiff", ORIGINAL)


def compressed_name(name: str) -> str:
    return name + SUFFIX


def restored_name(name: str, format: str = DEFAULT) -> str:
    """`b.png.vtc` -> `b.png`, and `b.jpg.vtc` -> `b.jpg.png`: the format's ending is added unless it is there already.

    The format "original" takes `b.jpg.vtc` to `b.jpg`, and what cannot be written as it was, `b.gif.vtc`, to `b.gif.png`.
    "default" is "original" for DICOM and NIfTI, whose geometry no image format holds, and "png" for all others.
    """
    original = name.removesuffix(SUFFIX)
    own = format in (ORIGINAL, DEFAULT)
    endings = ENDINGS["png" if own else format]
    kept = [*(_all_of(SCANS) if own else ()), *(_all_of(ENDINGS) if format == ORIGINAL else endings)]
    return original if original.lower().endswith(tuple(kept)) else original + endings[0]


def _all_of(formats: dict[str, tuple[str, ...]]) -> list[str]:
    return [ending for endings in formats.values() for ending in endings]


def format_of_name(name: str) -> str:
    """The format that the end of a restored name stands for."""
    return next(format for format, endings in (ENDINGS | SCANS).items() if name.lower().endswith(endings))
