"""The table of all images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from .rows import Row
from .shots import Shot
from .text import LABELS, NOTHING, TIMES, decibels, number_text, printable, size_text


@dataclass(frozen=True)
class _Column:
    """title: what it is, in a sentence. text: a column that is sorted by its letters. low: the lowest
    come first when it is sorted, as with text; else the highest."""

    heading: str
    title: str
    text: bool = False
    low: bool = False


PSNR = _Column("PSNR dB", "Over all pixels and colours; more is closer to the original", low=True)
COLUMNS = (
    _Column("Image", "Name of the source", text=True),
    _Column("Pixels", "Width and height, as stored"),
    _Column("Original", "Bytes of the source"),
    _Column("Compressed", "Bytes of the .vtc file"),
    _Column("bpp", "Bits per pixel of the .vtc file"),
    _Column("Quality", "0 to 100; none where the pixels are kept without loss"),
    PSNR,
    _Column("MS-SSIM", "0 to 1, over five scales; more is closer to the original", low=True),
)
NOTES = _Column("Notes", "Problems first", text=True)


def table_html(rows: Sequence[Row], shots: Sequence[Shot], codecs: Sequence[str]) -> str:
    """A `<table>`: cells have data-v, the value to sort by; "" is not known. Rows with pictures have a button.

    The lowest PSNR comes first; by name, if none is known.
    """
    columns = [
        *COLUMNS,
        *(_Column(f"vs {LABELS.get(codec, codec)}", "dB above it at equal bytes", low=True) for codec in codecs),
        NOTES,
    ]
    heads = "".join(_head(column, rows) for column in columns)
    body = "\n".join(_row(number, row, shots, codecs) for number, row in sorted(enumerate(rows), key=_place))
    return f'<table id="images"><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def _head(column: _Column, rows: Sequence[Row]) -> str:
    first = PSNR if any(row.psnr is not None for row in rows) else COLUMNS[0]
    order = "ascending" if column is first else "none"
    kind = f'data-kind="{"text" if column.text else "number"}"' + " data-low" * (column.text or column.low)
    button = f'<button type="button" title="{escape(column.title)}">{escape(column.heading)}</button>'
    return f'<th scope="col" aria-sort="{order}" {kind}>{button}</th>'


def _place(numbered: tuple[int, Row]) -> tuple[float, int]:
    number, row = numbered
    return (float("inf") if row.psnr is None else row.psnr), number


def _row(number: int, row: Row, shots: Sequence[Shot], codecs: Sequence[str]) -> str:
    size = f"{row.width} {TIMES} {row.height}" if row.pixels else NOTHING
    name = printable(row.name)
    cells = [
        f'<th scope="row" data-v="{escape(name)}">{_name(name, row, shots)}</th>',
        _cell(row.pixels or None, size),
        _cell(row.original_bytes, size_text(row.original_bytes)),
        _cell(row.file_bytes, size_text(row.file_bytes)),
        _cell(row.bpp, number_text(row.bpp, 3)),
        _cell(row.quality, NOTHING if row.quality is None else f"{row.quality:g}"),
        _cell(row.psnr, decibels(row.psnr)),
        _cell(row.ms_ssim, number_text(row.ms_ssim, 4)),
        *(_cell(row.gain(codec), decibels(row.gain(codec), signed=True)) for codec in codecs),
        _notes(row),
    ]
    problem = ' class="problem"' if row.problem else ""
    return f'<tr id="row-{number}"{problem}>{"".join(cells)}</tr>'


def _name(name: str, row: Row, shots: Sequence[Shot]) -> str:
    if row.picture is None:
        return f"<span>{escape(name)}</span>"
    data = shots[row.picture].thumbnail
    with Image.open(io.BytesIO(data)) as small:
        width, height = small.size
    image = (
        f'<img src="data:image/webp;base64,{base64.b64encode(data).decode()}" width="{width}" height="{height}" alt="" '
        'loading="lazy" decoding="async">'
    )
    return f'<button type="button" class="open" data-picture="{row.picture}">{image}<span>{escape(name)}</span></button>'


def _cell(value: float | None, text: str) -> str:
    known = "" if value is None else "Infinity" if value == float("inf") else f"{value:.9g}"
    return f'<td data-v="{known}">{text}</td>'


def _notes(row: Row) -> str:
    problem = printable(row.problem)
    notes = "; ".join(map(printable, row.notes))
    # Problems sort before notes, and those before nothing.
    key = f"0{problem}" if problem else f"1{notes}" if notes else ""
    parts = [f"<strong>{escape(problem)}</strong>" if problem else "", escape(notes)]
    return f'<td class="notes" data-v="{escape(key)}">{"; ".join(part for part in parts if part)}</td>'
