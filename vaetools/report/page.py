"""The page: one file of HTML that needs nothing but itself.

Pixels are text in blocks that a browser does not look into until an image is opened, so that a page of hundreds opens at once.
The policy in its head forbids everything from elsewhere, and every script and style but its own, told by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

import numpy as np

from .heatmap import coloured, palette
from .job import Report
from .plot import legend_html, plot_svg, series_of
from .rows import AtEqualBytes, PeerTotal, Row, Totals
from .shots import ORIGINAL, OWN, Shot
from .table import table_html
from .text import LABELS, MINUS, decibels, number_text, printable, signed_text, size_text

PROBLEMS_SHOWN = 20
BRIGHTEST = 99.5  # percent of the positions are below the end of the scale of bits


def page_html(report: Report) -> bytes:
    """UTF-8. The same report gives the same bytes."""
    style, script = (_part(name) for name in ("page.css", "page.js"))
    codecs = series_of(report.rows)[1:]
    most = scale_end(report.shots)
    subtitle = f"model {report.model}; {f'originals: {report.originals}' if report.originals else 'without the originals'}"
    page = Template(_part("page.html")).substitute(
        policy=escape(_policy(script, style)),
        title=escape(printable(f"vaetools report: {report.folder}")),
        style=style,
        subtitle=escape(printable(subtitle)),
        totals=_totals(report.totals),
        problems=_problems(report.rows),
        viewer=_viewer(report, most),
        plot=_plot(report.rows),
        shown=_shown(report),
        table=table_html(report.rows, report.shots, codecs),
        method=_method(report),
        data=_json([_data(row, shot) for row, shot in zip(_with_pictures(report), report.shots, strict=True)]),
        pixels="\n".join(_pixels(number, shot, most) for number, shot in enumerate(report.shots)),
        script=script,
    )
    return page.encode()


def scale_end(shots: Sequence[Shot]) -> float:
    """Bits per pixel at the light end of all maps of the page."""
    maps = [shot.all_bits.ravel() for shot in shots if shot.all_bits is not None]
    return float(np.percentile(np.concatenate(maps), BRIGHTEST)) if maps else 0.0


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    script_hash, style_hash = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style))
    return (
        f"default-src 'none'; img-src data:; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(value: object) -> str:
    """For a script element, which ends at the first `</script`."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# Totals.


def _totals(totals: Totals) -> str:
    cards = [("Images", f"{totals.images:,}", f"{totals.pixels / 1e6:,.1f} megapixels")]
    if totals.original_bytes:
        cards.append(("Originals", size_text(totals.original_bytes), ""))
    cards.append(("Compressed", size_text(totals.file_bytes), f"{number_text(totals.bpp, 3)} bits per pixel"))
    if totals.original_bytes:
        saved = 100 * (1 - totals.file_bytes / totals.original_bytes)
        ratio = totals.original_bytes / max(1, totals.file_bytes)
        cards.append(("Saved", f"{saved:.1f} %".replace("-", MINUS), f"1 to {ratio:.1f}"))
    if totals.mean_psnr is not None:
        cards.append(("Mean PSNR", f"{totals.mean_psnr:.2f} dB", f"of {totals.lossy:,} images"))
    if totals.worst is not None:
        cards.append(("Lowest PSNR", f"{decibels(totals.worst.psnr)} dB", printable(totals.worst.name)))
    if totals.mean_ms_ssim is not None:
        cards.append(("Mean MS-SSIM", f"{totals.mean_ms_ssim:.4f}", ""))
    if totals.lossless:
        cards.append(("Without loss", f"{totals.lossless:,}", "kept as they were"))
    cards += [_peer_card(peer) for peer in totals.peers]
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(detail)}</small></dd></div>"
        for name, value, detail in cards
    )
    return f'<dl class="totals">{items}</dl>'


def _peer_card(peer: PeerTotal) -> tuple[str, str, str]:
    gain = None if peer.psnr is None or peer.own_psnr is None else peer.own_psnr - peer.psnr
    value = f"{decibels(gain, signed=True)} dB" if gain is not None else "no loss"
    share = 100 * (peer.file_bytes / max(1, peer.own_bytes) - 1)
    detail = f"mean of {peer.images} images; its bytes: {signed_text(share, 1)} %"
    return f"Against {LABELS.get(peer.codec, peer.codec)}, equal bytes", value, detail


def _problems(rows: Sequence[Row]) -> str:
    bad = [row for row in rows if row.problem]
    if not bad:
        return ""
    items = "".join(f"<li>{escape(printable(row.name))}: {escape(printable(row.problem))}</li>" for row in bad[:PROBLEMS_SHOWN])
    more = f"<p>{len(bad) - PROBLEMS_SHOWN} more are in the table.</p>" if len(bad) > PROBLEMS_SHOWN else ""
    title = f"{len(bad)} image{'s' * (len(bad) != 1)}: keep the original{'s' * (len(bad) != 1)}"
    return f'<section class="problems" aria-label="Problems"><strong>{title}</strong><ul>{items}</ul>{more}</section>'


# The viewer.


def _with_pictures(report: Report) -> list[Row]:
    """In the order of the pictures."""
    return sorted((row for row in report.rows if row.picture is not None), key=lambda row: row.picture or 0)


def _data(row: Row, shot: Shot) -> dict[str, object]:
    peers = {peer.codec: peer for peer in row.peers}
    return {
        "name": printable(row.name),
        "width": shot.width,
        "height": shot.height,
        "place": [shot.place.left, shot.place.top, shot.place.width, shot.place.height],
        "bits": shot.bits is not None,
        "views": [_view(key, row, peers.get(key)) for key in sorted(shot.views, key=[ORIGINAL, OWN, *peers].index)],
    }


def _view(key: str, row: Row, peer: AtEqualBytes | None) -> dict[str, str]:
    label = LABELS.get(key, key)
    if key == ORIGINAL:
        return {"key": key, "label": label, "tag": label, "facts": f"{label}: {size_text(row.original_bytes)}"}
    name = label if row.quality is None else f"{label} {row.quality:g}"
    size, psnr, similar = row.pixel_bytes or 0, row.psnr, row.ms_ssim
    if peer is not None:
        name, size, psnr, similar = f"{label} {peer.setting}", peer.file_bytes, peer.psnr, peer.ms_ssim
    facts = [f"{size:,} bytes"]
    quality = "without loss" if psnr is not None and math.isinf(psnr) else f"{decibels(psnr)} dB"
    if psnr is not None:
        facts.append(quality)
    if similar is not None and not math.isnan(similar):
        facts.append(f"MS-SSIM {similar:.4f}")
    if peer is not None and row.pixel_bytes:
        facts.append(f"{signed_text(100 * (size / row.pixel_bytes - 1), 1)} % in bytes")
    tag = name if psnr is None else f"{name}, {quality}"
    return {"key": key, "label": label, "tag": tag, "facts": f"{name}: {', '.join(facts)}"}


def _pixels(number: int, shot: Shot, most: float) -> str:
    blocks = dict(shot.views)
    if shot.bits is not None and shot.all_bits is not None:
        blocks |= {"bits": coloured(shot.bits, most), "all-bits": coloured(shot.all_bits, most)}
    return "\n".join(
        f'<script type="text/plain" id="pixels-{number}-{key}">{base64.b64encode(data).decode()}</script>'
        for key, data in blocks.items()
    )


def _viewer(report: Report, most: float) -> str:
    if not report.shots:
        return ""
    legend = ""
    if most:
        colours = palette()
        bars = "".join(
            f'<rect x="{step}" width="1.05" height="1" fill="#{red:02x}{green:02x}{blue:02x}"/>'
            for step, (red, green, blue) in enumerate(colours)
        )
        bar = f'<svg viewBox="0 0 {len(colours)} 1" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>'
        legend = (
            f'<div class="scale">Bits per pixel, one scale for all images{bar}'
            f"<span><span>0</span><span>{most / 2:.2g}</span><span>{most:.2g}+</span></span></div>"
        )
    return Template(_part("viewer.html")).substitute(legend=legend)


# The rest.


def _plot(rows: Sequence[Row]) -> str:
    svg, told = plot_svg(rows), "Point at an image to see its name."
    if not svg:
        return "<p>PSNR is not known: give the folder of the originals (<code>--originals</code>) to measure it.</p>"
    return (
        '<section aria-labelledby="plot-heading"><h2 id="plot-heading">Rate and distortion</h2>'
        f'{legend_html(rows)}\n{svg}\n<p id="told" class="soft" aria-live="polite">{told}</p></section>'
    )


def _shown(report: Report) -> str:
    if not report.shots or len(report.shots) == report.totals.images:
        return ""
    return (
        f"{len(report.shots)} of {report.totals.images} images have pictures: the worst by PSNR, and others evenly from the rest."
    )


def _method(report: Report) -> str:
    against = ""
    if report.against:
        codecs = "; ".join(f"{LABELS.get(peer.name, peer.name)}: {peer.how}" for peer in report.against)
        against = (
            "<li>At equal bytes: each image with pictures is also encoded with the quality setting whose file is nearest in "
            f"bytes to the .vtc file without its metadata and alpha. {escape(codecs)}.</li>"
        )
    return Template(_part("method.html")).substitute(against=against)
