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
ORIGINAL = "original"
RESTORED_FORMATS = ("png", "jpeg", "webp", "tiff", ORIGINAL)


def compressed_name(name: str) -> str:
    return name + SUFFIX


def restored_name(name: str, format: str = "png") -> str:
    """`b.png.vtc` -> `b.png`, and `b.jpg.vtc` -> `b.jpg.png`: the format's ending is added unless it is there already.

    The format "original" takes `b.jpg.vtc` to `b.jpg`, and what cannot be written as it was, `b.gif.vtc`, to `b.gif.png`.
    """
    original = name.removesuffix(SUFFIX)
    endings = ENDINGS["png" if format == ORIGINAL else format]
    kept = tuple(ending for known in ENDINGS.values() for ending in known) if format == ORIGINAL else endings
    return original if original.lower().endswith(kept) else original + endings[0]


def format_of_name(name: str) -> str:
    """The format that the end of a restored name stands for."""
    return next(format for format, endings in ENDINGS.items() if name.lower().endswith(endings))
