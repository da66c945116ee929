"""Numbers and names as they are read."""

from __future__ import annotations

import math

NOTHING, MINUS, TIMES = "\u2013", "\u2212", "\u00d7"
LABELS = {"original": "Original", "jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}  # of what has another name than its key


def printable(text: str) -> str:
    """On one line, also where a name holds line breaks, marks that turn the direction of writing, or bytes that are no text."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def size_text(size: int | None) -> str:
    """In bytes, kB or MB, of three digits or so."""
    if size is None:
        return NOTHING
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 999.5 * unit else f"{size / unit:,.0f} {name}"
    return f"{size} bytes"


def decibels(value: float | None, *, signed: bool = False) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "no loss"
    return signed_text(value, 2) if signed else f"{value:.2f}"


def signed_text(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def number_text(value: float | None, digits: int) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"
