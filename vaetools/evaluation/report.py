"""What an evaluation tells: tables on the terminal, a JSON file, a rate-distortion plot."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import UsageError
from .bd_rate import BDRate, Curve
from .measure import Comparison, Evaluation

SCHEMA = "vaetools-evaluation/1"
LISTED_IMAGES = 24
COLOURS = ("#c1272d", "#0072b2", "#009e73", "#b8720a", "#8a4f9e", "#444444")  # told apart by colour-blind readers too
PUBLISHED_COLOUR = "#8c8c8c"
BPP_TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20)


def print_report(evaluation: Evaluation, console: Console | None = None) -> None:
    """Tables of the averages, the images, the speeds and the BD-rates, at most 80 columns unless names are longer."""
    console = console or Console()
    count = f"{evaluation.images} image{'s' if evaluation.images != 1 else ''}"
    console.print(Text(f"{evaluation.folder}: {count}, {evaluation.machine}"))
    for left in evaluation.left_out[:LISTED_IMAGES]:
        console.print(Text(f"left out: {left.image}: {left.reason}"))
    if len(evaluation.left_out) > LISTED_IMAGES:
        console.print(f"left out: {len(evaluation.left_out) - LISTED_IMAGES} more images")
    for table in (averages_table(evaluation), images_table(evaluation), speed_table(evaluation)):
        console.print(table)
    if evaluation.comparisons:
        console.print(bd_rate_table(evaluation))
    if evaluation.anchors:
        console.print(Text(f"Published curves are of {evaluation.anchors.dataset}: they compare only to the same images."))


def averages_table(evaluation: Evaluation) -> Table:
    table = _table("Averages over the images", "codec", "setting", "bpp", "PSNR-RGB dB", "MS-SSIM")
    for codec in evaluation.codecs:
        for point in evaluation.averages:
            if point.codec == codec:
                table.add_row(
                    codec, f"{point.setting:g}", f"{point.bpp:.4f}", _number(point.psnr_db, 2), _number(point.ms_ssim, 4)
                )
        table.add_section()
    return table


def images_table(evaluation: Evaluation) -> Table:
    """The first images at the middle setting of the codec under test."""
    own = evaluation.codecs[0]
    settings = [point.setting for point in evaluation.averages if point.codec == own]
    middle = settings[len(settings) // 2]
    rows = [row for row in evaluation.rows if (row.codec, row.setting) == (own, middle)]
    table = _table(f"Per image, {own} at {middle:g}", "image", "size", "bytes", "bpp", "PSNR-RGB dB", "MS-SSIM")
    for row in rows[:LISTED_IMAGES]:
        size = f"{row.width}x{row.height}"
        table.add_row(
            Text(row.image), size, str(row.file_bytes), f"{row.bpp:.4f}", _number(row.psnr_db, 2), _number(row.ms_ssim, 4)
        )
    if len(rows) > LISTED_IMAGES:
        table.caption = f"and {len(rows) - LISTED_IMAGES} more, in the JSON"
    return table


def speed_table(evaluation: Evaluation) -> Table:
    table = _table("Speed, all settings", "codec", "encode MP/s", "decode MP/s", "how")
    for speed in evaluation.speeds:
        table.add_row(speed.codec, _three_digits(speed.encode_mp_per_s), _three_digits(speed.decode_mp_per_s), Text(speed.how))
    return table


def bd_rate_table(evaluation: Evaluation) -> Table:
    table = _table(f"BD-rate of {evaluation.codecs[0]} (negative: fewer bits)", "against", "BD-rate", "PSNR window")
    for comparison in evaluation.comparisons:
        table.add_row(Text(_label(comparison)), *_bd_rate_cells(comparison.result))
    return table


def _bd_rate_cells(result: BDRate) -> tuple[str, str]:
    if result.percent is None:
        return "none", result.reason or ""
    return f"{result.percent:+.1f} %", f"{result.low_db:.2f}..{result.high_db:.2f} dB"


def _label(comparison: Comparison) -> str:
    return f"{comparison.against} (published)" if comparison.published else comparison.against


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        words = column in ("codec", "against", "image", "how", "PSNR window")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def _number(value: float, digits: int) -> str:
    """Infinite PSNR is an identical image; a missing MS-SSIM one that is too small for it."""
    return "-" if math.isnan(value) else "identical" if math.isinf(value) else f"{value:.{digits}f}"


def _three_digits(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def to_json(evaluation: Evaluation, command: str) -> dict[str, Any]:
    """Everything measured, with units in the keys, for json.dumps. `command` is how to measure it again.

    A psnr_db of null is an image that came back identical, an ms_ssim of null one that is too small for it.
    """
    return finite(
        {
            "schema": SCHEMA,
            "command": command,
            "folder": evaluation.folder,
            "images": evaluation.images,
            "left_out": [asdict(left) for left in evaluation.left_out],
            "machine": asdict(evaluation.machine),
            "codecs": [asdict(speed) for speed in evaluation.speeds],
            "averages": [asdict(point) for point in evaluation.averages],
            "bd_rate": [
                {
                    "codec": evaluation.codecs[0],
                    "against": comparison.against,
                    "published": comparison.published,
                    "bd_rate_percent": comparison.result.percent,
                    "psnr_low_db": comparison.result.low_db,
                    "psnr_high_db": comparison.result.high_db,
                    "reason": comparison.result.reason,
                }
                for comparison in evaluation.comparisons
            ],
            "anchors": None if evaluation.anchors is None else asdict(evaluation.anchors),
            "rows": [{**asdict(row), "bpp": row.bpp} for row in evaluation.rows],
        }
    )


def finite(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(evaluation: Evaluation, path: str | os.PathLike[str], command: str) -> None:
    """Raises UsageError if the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(to_json(evaluation, command), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


def save_plot(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """PSNR over bits per pixel, one labelled line per codec, as PNG. Raises UsageError if the file cannot be written.

    The bpp axis is logarithmic, so that a horizontal distance is a saving in percent, as the BD-rate is. It shows the
    range of the codecs measured here, up to a little beyond the codec under test.
    """
    measured = [evaluation.curve(codec) for codec in evaluation.codecs]
    published = evaluation.anchors.curves if evaluation.anchors else ()
    left, right = 0.9 * min(min(curve.bpp) for curve in measured), 1.5 * max(measured[0].bpp)
    lines = [_Line(curve, COLOURS[min(i, len(COLOURS) - 1)], False, left, right) for i, curve in enumerate(measured)]
    lines += [_Line(curve, PUBLISHED_COLOUR, True, left, right) for curve in published]
    lines = [line for line in lines if line.bpp]
    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for order, line in enumerate(lines):
        axes.plot(line.bpp, line.psnr, color=line.colour, zorder=4 - order / len(lines), **line.style)
    seen = [value for line in lines for value in line.psnr] or [0.0]
    bottom, top = min(seen) - 0.5, max(seen) + 0.5
    heights = spread([line.height_at(right) for line in lines], 0.036 * (top - bottom))
    axes.set(xscale="log", xlim=(left, right), ylim=(min([bottom, *heights]), max([top, *heights])))
    axes.set(xlabel="bits per pixel of the whole file (logarithmic)", ylabel="PSNR-RGB, dB")
    ticks = [tick for tick in BPP_TICKS if left <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_plot_title(evaluation), loc="left", fontsize=10)
    for line, height in zip(lines, heights, strict=True):
        leader = {
            "arrowstyle": "-",
            "color": line.colour,
            "linewidth": 0.6,
            "alpha": 0.5,
            "shrinkA": 0,
            "shrinkB": 0,
            "relpos": (0, 0.5),
        }
        place = (1.06 * right, height)
        end = (line.bpp[-1], line.psnr[-1])
        axes.annotate(line.name, end, place, color=line.colour, va="center", fontsize=9, annotation_clip=False, arrowprops=leader)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


class _Line:
    """The part of a curve between two values of bpp, and how it is drawn."""

    def __init__(self, curve: Curve, colour: str, published: bool, left: float, right: float) -> None:
        bpp, psnr = curve.frontier()
        low, high = (bpp[0], bpp[-1]) if bpp else (math.inf, -math.inf)
        ends = {max(left, low), min(right, high)} if max(left, low) < min(right, high) else set()
        inside = {rate for rate in bpp if left <= rate <= right}
        self.bpp = sorted(inside | ends)
        self.psnr = [float(np.interp(math.log(rate), np.log(bpp), psnr)) for rate in self.bpp]
        self.name, self.colour = curve.name, colour
        self.style: dict[str, Any] = {
            "linewidth": 1.8,
            "marker": "o",
            "markersize": 3.5,
            "markevery": [r in inside for r in self.bpp],
        }
        if published:
            self.style = {"linewidth": 0.9, "linestyle": "--"}

    def height_at(self, bpp: float) -> float:
        """Where the line would be at `bpp` if it went on as it ends: labels there are in the order of the curves."""
        if len(self.bpp) < 2:
            return self.psnr[-1]
        (start, end), (low, high) = np.log(self.bpp[-2:]), self.psnr[-2:]
        return float(high + (high - low) / (end - start) * (math.log(bpp) - end))


def _plot_title(evaluation: Evaluation) -> str:
    count = f"{evaluation.images} image{'s' if evaluation.images != 1 else ''}"
    published = f"; dashed: published for {evaluation.anchors.dataset}" if evaluation.anchors else ""
    return f"{Path(evaluation.folder).name}, average of {count}{published}"


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move labels apart, as little as keeps neighbours `gap` apart, in the order they are in."""
    order = np.argsort(heights, kind="stable")
    # Least squares under y[i+1] - y[i] >= gap is isotonic regression of y[i] - i * gap: pool what is out of order.
    pools: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        pools.append((heights[index] - rank * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (first, n), (second, m) = pools[-2:]
            pools[-2:] = [((first * n + second * m) / (n + m), n + m)]
    level = [mean for mean, size in pools for _ in range(size)]
    moved = [0.0] * len(heights)
    for rank, index in enumerate(order):
        moved[index] = level[rank] + rank * gap
    return moved
