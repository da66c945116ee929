"""PSNR over bits per pixel as SVG: a point for every image, and one for each codec at equal bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .rows import Row
from .text import LABELS, printable

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 46  # margins
MOST_POINTS = 2000  # of more images, so many are drawn
TICKS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50)
# Told apart without colours too. Outlines around 0, 0.
SHAPES = (
    "M5,0A5,5 0 1 1 -5,0A5,5 0 1 1 5,0Z",
    "M-4,-4H4V4H-4Z",
    "M0,-5L5,4H-5Z",
    "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
)


@dataclass(frozen=True)
class _Point:
    row: int
    series: int
    bpp: float
    psnr: float
    words: str


def series_of(rows: Sequence[Row]) -> list[str]:
    """vaetools, and the codecs that it was held against."""
    return ["vaetools", *dict.fromkeys(peer.codec for row in rows for peer in row.peers)]


def plot_svg(rows: Sequence[Row]) -> str:
    """An `<svg>` element; "" if no PSNR is known. Images without loss are at the upper edge.

    Points have data-row, the place of their row, and data-picture where the image has pictures; classes series-0 (vaetools),
    series-1, ... give the colours.
    """
    points = _points(rows)
    if not points:
        return ""
    finite = [point.psnr for point in points if not math.isinf(point.psnr)] or [40.0]
    low, high = math.floor(min(finite) - 0.5), math.ceil(max(finite) + 0.5)
    first, last = (end * factor for end, factor in ((min(p.bpp for p in points), 0.9), (max(p.bpp for p in points), 1.1)))

    def x_of(bpp: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(bpp / first) / math.log(last / first)

    def y_of(psnr: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(psnr, high)) / (high - low)

    parts = [
        f'<svg id="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" tabindex="0" '
        'aria-label="PSNR over bits per pixel; arrow keys go from image to image, Enter opens one">'
    ]
    bottom = HEIGHT - BOTTOM
    for tick in _ticks(first, last):
        x = x_of(tick)
        parts.append(f'<path class="grid" d="M{x:.1f},{TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    step = next(step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step <= 10)
    for level in range(-(-low // step) * step, high + 1, step):
        y = y_of(level)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">bits per pixel, metadata and alpha left out</text>')
    parts.append(f'<text transform="translate(14 {HEIGHT / 2 - 16}) rotate(-90)" text-anchor="middle">PSNR, dB</text>')
    for point in sorted(points, key=lambda point: -point.series):  # ours on top
        picture = rows[point.row].picture
        data = f'data-row="{point.row}"' + ("" if picture is None else f' data-picture="{picture}"')
        place = f'transform="translate({x_of(point.bpp):.1f} {y_of(point.psnr):.1f})"'
        shape = SHAPES[point.series % len(SHAPES)]
        parts.append(
            f'<path class="dot series-{point.series}" {place} {data} d="{shape}"><title>{escape(point.words)}</title></path>'
        )
    parts.append("</svg>")
    return "\n".join(parts)


def legend_html(rows: Sequence[Row]) -> str:
    """The shapes and their names."""
    items = []
    for number, name in enumerate(series_of(rows)):
        shape = SHAPES[number % len(SHAPES)]
        mark = f'<svg viewBox="-7 -7 14 14" aria-hidden="true"><path class="series-{number}" d="{shape}"/></svg>'
        items.append(f"<li>{mark}{escape(LABELS.get(name, name))}{' at equal bytes' * (number > 0)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _points(rows: Sequence[Row]) -> list[_Point]:
    able = [number for number, row in enumerate(rows) if row.psnr is not None and row.pixel_bpp]
    if len(able) > MOST_POINTS:
        able = [able[number * len(able) // MOST_POINTS] for number in range(MOST_POINTS)]
    codecs = series_of(rows)
    points = []
    for number in able:
        row = rows[number]
        values = [("vaetools", row.pixel_bpp or 0.0, row.psnr or 0.0)]
        values += [(peer.codec, 8 * peer.file_bytes / row.pixels, peer.psnr) for peer in row.peers]
        for codec, bpp, psnr in values:
            quality = "without loss" if math.isinf(psnr) else f"{psnr:.2f} dB"
            words = f"{printable(row.name)}: {LABELS.get(codec, codec)}, {bpp:.3f} bits per pixel, {quality}"
            points.append(_Point(number, codecs.index(codec), bpp, psnr, words))
    return points


def _ticks(first: float, last: float) -> list[float]:
    inside = [tick for tick in TICKS if first <= tick <= last]
    return (
        inside if len(inside) > 1 else [float(f"{value:.2g}") for value in (first * 1.02, math.sqrt(first * last), last * 0.98)]
    )
