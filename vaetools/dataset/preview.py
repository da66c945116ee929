"""A sheet that shows, before a folder is written, what an augmenter makes of a few of its images.

    picture | original | the model alone | jitter 0.25, 0.5, 1 | style 0.25, 0.5, 1 | ... | as written v1, v2, v3

As a PNG file, and as a page of HTML that needs nothing but itself. Their names start with a dot, so that loaders of image
folders do not take them for images.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..augment.augmenter import Augmented, Augmenter
from ..augment.operators import Operator
from ..augment.seeds import digest, seed_for
from ..augment.strength import Strength
from ..errors import UsageError
from ..files import replace_bytes
from ..images.png import png_bytes
from ..images.tensors import to_picture
from ..model.pixels import to_model

Labelled = tuple[str, Tensor, int | None]  # a picture with its name and, if there is one, its label

PREVIEW = ".vaetools-preview"
STRENGTHS = (0.25, 0.5, 1.0)
COPIES = 3  # of each picture, as they will be written
LARGEST, ENLARGED = 160, 96  # pixels a side: larger images are shrunk, smaller ones enlarged to about so many

# The PNG, in pixels.
WIDTH = 2000
MARGIN, GAP, ROW_GAP, GROUP_GAP, BLOCK_GAP = 20, 8, 14, 28, 28
NAME_WIDTH, CELL_WIDTH = 140, 96  # the latter at least
NAME_LINES = 4
TEXT, HEADING, TITLE = 13, 16, 20  # sizes of the font
LINE, HEADING_LINE = 17, 21
INK, SOFT_INK, RULE, PAPER = "#1a1a1a", "#5c5c5c", "#c8c8c8", "#ffffff"
CHECKS, CHECK_SIDE = (244, 204), 8  # what shows through transparent pixels: grays


@dataclass(frozen=True)
class _Column:
    """One cell for each picture: an image of 8 bits, at most LARGEST a side, and what is said below it."""

    heading: str
    images: list[Image.Image]
    captions: list[str]


@dataclass(frozen=True)
class _Group:
    title: str
    columns: list[_Column]


@dataclass(frozen=True)
class _Sheet:
    """The first group is the originals. facts: what the results depend on. rows: names and labels of the pictures."""

    facts: list[str]
    operators: list[Operator]
    rows: list[tuple[str, str]]
    groups: list[_Group]


def write_preview(
    augmenter: Augmenter,
    pictures: Sequence[Labelled],
    target: Path,
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    digests: Sequence[int] | None = None,
) -> list[Path]:
    """Write PREVIEW.png and PREVIEW.html to the folder `target`, which is made if it is missing. Returns their paths.

    pictures: name, (C, H, W) of uint8, uint16 or floats in 0..1, label if there is one. seed: that of the run. strengths:
    0..1, what each of the augmenter's chains of operators is shown at. The last columns are the first copies of each picture,
    pixel for pixel as the augmenter gives them for the seeds of the run; the counts of its gate are left alone.

    Raises UsageError if a picture or a strength cannot be used, or if the files cannot be written: those there were stay.
    """
    sheet = _sheet(augmenter, pictures, seed, strengths, digests)
    contents = png_bytes(np.asarray(_drawn(sheet))), _page(sheet).encode()
    paths = [target / f"{PREVIEW}.png", target / f"{PREVIEW}.html"]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, data in zip(paths, contents, strict=True):
            replace_bytes(path, data)
    except OSError as error:
        raise UsageError(f"{target}: the preview cannot be written there ({error.strerror or error})") from None
    return paths


# What is on the sheet.


def _sheet(
    augmenter: Augmenter, pictures: Sequence[Labelled], seed: int, strengths: Sequence[float], digests: Sequence[int] | None
) -> _Sheet:
    if not pictures or not strengths:
        raise UsageError("a preview needs at least one picture and one strength")
    levels = [Strength.constant(strength) for strength in strengths]
    for name, image, _ in pictures:
        try:
            to_model(image, augmenter.space.config)
        except UsageError as error:
            raise UsageError(f"{_printable(name)}: {error}") from None
    images = [image for _, image, _ in pictures]
    known = [label for _, _, label in pictures]
    labels = None if all(label is None for label in known) else [-1 if label is None else label for label in known]
    items = digest(images) if digests is None else digests

    def alike(chains: Iterable[Sequence[Operator]], strength: Strength, **options: Any) -> Augmenter:
        """With counts of its own."""
        names = [_named(each) for each in chains]
        same: dict[str, Any] = {"detail": augmenter.detail, "bank": augmenter.bank, "exact": augmenter.exact}
        return Augmenter(augmenter.space, names, strength, **same, **options)

    def augmented(by: Augmenter, copy: int) -> Augmented:
        return by.augment(images, [seed_for(seed, 0, item, copy) for item in items], labels)

    chains = list(dict.fromkeys(augmenter.operators))
    groups = [_Group("as given", [_column("original", images)])]
    groups.append(_Group("the model alone", [_column("reconstruction", augmenter.reconstruct(images))]))
    for number, each in enumerate(chains):
        columns = []
        for place, level in enumerate(levels):
            result = augmented(alike([each], level), number * len(levels) + place)
            columns.append(_column(f"strength {level.start:g}", result.images, _mixtures(result)))
        groups.append(_Group(_named(each), columns))
    writer = alike(augmenter.operators, augmenter.strength, gate=augmenter.gate, probability=augmenter.probability)
    copies = [augmented(writer, copy) for copy in range(COPIES)]
    written = [_column(f"v{copy}", result.images, _verdicts(result)) for copy, result in enumerate(copies, start=1)]
    groups.append(_Group("as written", written))
    operators = list(dict.fromkeys(chain(*chains)))
    rows = [(_printable(name), "" if label is None else f"label {label}") for name, _, label in pictures]
    return _Sheet(_facts(augmenter, seed), operators, rows, groups)


def _named(operators: Iterable[Operator]) -> str:
    return "+".join(operator.name for operator in operators)


def _column(heading: str, images: Sequence[Tensor], captions: list[str] | None = None) -> _Column:
    return _Column(heading, [_picture_of(image) for image in images], captions or [""] * len(images))


def _picture_of(image: Tensor) -> Image.Image:
    """As 8 bits, at most LARGEST a side: "L", "LA", "RGB" or "RGBA"."""
    pixels = to_picture(image).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS, reducing_gap=None)
    return picture


def _mixtures(result: Augmented) -> list[str]:
    """The soft labels of images that are of several classes now."""
    shares = [] if result.labels is None or result.labels.ndim == 1 else result.labels.tolist()
    parts = [[f"{label}: {share:.2f}" for label, share in enumerate(row) if share > 0] for row in shares]
    return [f"label {', '.join(several)}" if len(several) > 1 else "" for several in parts] or [""] * len(result.images)


def _verdicts(result: Augmented) -> list[str]:
    """What was done to images, or why nothing was."""
    captions = []
    for index, mixture in enumerate(_mixtures(result)):
        left = "left as it is" if result.accepted[index] else "refused by the gate, left as it is"
        done = f"{result.operators[index]} {result.strengths[index]:g}" if result.operators[index] else left
        captions.append(f"{done}, {mixture}" if mixture else done)
    return captions


def _facts(augmenter: Augmenter, seed: int) -> list[str]:
    settings, strength = augmenter.settings(), augmenter.strength
    ramp = f"{strength.start:g} to {strength.stop:g} over {strength.epochs} epochs"
    words = ramp if strength.epochs and strength.start != strength.stop else f"{strength.stop:g}"
    return [
        f"model {augmenter.space.config.name} {settings['model']}",
        f"quality {settings['quality']:g}",
        "detail kept: the model's change is added to the image" if augmenter.detail else "detail not kept: as the model decodes",
        f"strength {words}" + (", other values for some labels" if strength.classes else ""),
        f"probability {augmenter.probability:g}",
        f"seed {seed}",
        *(f"{what} {settings[what]}" for what in ("bank", "gate") if settings[what] is not None),
    ]


def _printable(name: str) -> str:
    """One line of text that every encoding takes, whatever bytes a file was named with."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


# The PNG.


def _drawn(sheet: _Sheet) -> Image.Image:
    """The sheet, at most WIDTH wide: groups that do not fit beside each other go below, beside the originals once more."""
    cell = max([CELL_WIDTH, *(_enlarged(image).width for image in sheet.groups[0].columns[0].images)])
    blocks = _blocks(sheet.groups, cell)
    width = max(_reach(block, cell) for block in blocks) + MARGIN
    facts = _lines("; ".join(sheet.facts), TEXT, width - 2 * MARGIN)
    strips = [Image.new("RGB", (width, MARGIN + 30 + len(facts) * LINE), PAPER)]
    _write(strips[0], MARGIN, MARGIN, ["vaetools augment: preview"], TITLE)
    _write(strips[0], MARGIN, MARGIN + 30, facts, ink=SOFT_INK)
    for block in blocks:
        strips.append(_headings(block, cell, width))
        strips += [_row(name, label, row, block, cell, width) for row, (name, label) in enumerate(sheet.rows)]
    canvas = Image.new("RGB", (width, sum(strip.height for strip in strips) + MARGIN), PAPER)
    top = 0
    for strip in strips:
        canvas.paste(strip, (0, top))
        top += strip.height
    return canvas


def _headings(block: Sequence[_Group], cell: int, width: int) -> Image.Image:
    lefts = _lefts(block, cell)
    titles = [_lines(group.title, HEADING, at[-1] + cell - at[0]) for group, at in zip(block, lefts, strict=True)]
    bottom = BLOCK_GAP + max(len(lines) for lines in titles) * HEADING_LINE + 4
    strip = Image.new("RGB", (width, bottom + 5 + LINE + 4), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.line((MARGIN, BLOCK_GAP // 2, width - MARGIN, BLOCK_GAP // 2), RULE)
    for group, at, lines in zip(block, lefts, titles, strict=True):
        _write(strip, at[0], BLOCK_GAP, lines, HEADING)
        draw.line((at[0], bottom, at[-1] + cell - 1, bottom), RULE)
        for left, column in zip(at, group.columns, strict=True):
            _write(strip, left, bottom + 5, [column.heading], ink=SOFT_INK)
    return strip


def _row(name: str, label: str, row: int, block: Sequence[_Group], cell: int, width: int) -> Image.Image:
    names, labels = (_lines(text, TEXT, NAME_WIDTH) for text in (name, label))
    if len(names) > NAME_LINES:
        names = ["...", *names[1 - NAME_LINES :]]  # the end tells files apart
    columns = [column for group in block for column in group.columns]
    captions = [_lines(column.captions[row], TEXT, cell) for column in columns]
    below = _enlarged(columns[0].images[row]).height + 5
    height = max((len(names) + len(labels)) * LINE, below + max(len(lines) for lines in captions) * LINE)
    strip = Image.new("RGB", (width, height + ROW_GAP), PAPER)
    _write(strip, MARGIN, 0, names)
    _write(strip, MARGIN, len(names) * LINE, labels, ink=SOFT_INK)
    for left, column, lines in zip(chain(*_lefts(block, cell)), columns, captions, strict=True):
        picture = _on_checks(_enlarged(column.images[row]))
        ImageDraw.Draw(strip).rectangle((left - 1, 0, left + picture.width, picture.height + 1), RULE)
        strip.paste(picture, (left, 1))
        _write(strip, left, below, lines, ink=SOFT_INK)
    return strip


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(strip: Image.Image, x: int, y: int, lines: Iterable[str], size: int = TEXT, ink: str = INK) -> None:
    for number, line in enumerate(lines):
        place = x, y + number * (LINE if size == TEXT else HEADING_LINE)
        ImageDraw.Draw(strip).text(place, line, ink, _font(size))


def _enlarged(picture: Image.Image) -> Image.Image:
    """By a whole factor, to about ENLARGED a side if it is smaller."""
    factor = max(1, round(ENLARGED / max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _on_checks(picture: Image.Image) -> Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return picture.convert("RGB")
    y, x = np.indices((picture.height, picture.width)) // CHECK_SIDE
    checks = Image.fromarray(np.array(CHECKS, np.uint8)[(x + y) % 2]).convert("RGBA")
    return Image.alpha_composite(checks, picture.convert("RGBA")).convert("RGB")


def _blocks(groups: Sequence[_Group], cell: int) -> list[list[_Group]]:
    """Groups that fit beside each other, the first of all in front of each; one that is too wide by itself is cut."""
    originals, *rest = groups
    most = (WIDTH - MARGIN - _reach([originals], cell) - GROUP_GAP + GAP) // (cell + GAP)
    blocks = [[originals]]
    for group in rest:
        for start in range(0, len(group.columns), most):
            title = f"{group.title} (continued)" if start else group.title
            piece = _Group(title, group.columns[start : start + most])
            if _reach([*blocks[-1], piece], cell) + MARGIN > WIDTH:
                blocks.append([originals])
            blocks[-1].append(piece)
    return blocks


def _lefts(block: Sequence[_Group], cell: int) -> list[list[int]]:
    """The left edge of each column, by groups."""
    lefts: list[list[int]] = []
    for group in block:
        left = lefts[-1][-1] + cell + GROUP_GAP if lefts else MARGIN + NAME_WIDTH + GAP
        lefts.append([left + number * (cell + GAP) for number in range(len(group.columns))])
    return lefts


def _reach(block: Sequence[_Group], cell: int) -> int:
    """Where a block ends on the right."""
    return _lefts(block, cell)[-1][-1] + cell


def _lines(text: str, size: int, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels, broken after a space or a sign if there is one."""
    font = _font(size)
    lines = [""] if text else []
    for word in re.findall(r"[^\s/+_-]*[\s/+_-]|[^\s/+_-]+", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return [line.strip() for line in lines]


# The page.

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #595959; --paper: #fff; --card: #f4f4f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #a8a8a8; --paper: #161616; --card: #242424; } }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
h4 { font-size: .9rem; margin: 0 0 .4rem; }
h3 span, dd span, .facts, figcaption { font-weight: 400; color: var(--soft); }
dl { columns: 24rem; } dt { font-weight: 600; break-after: avoid; } dd { margin: 0 0 .6rem; break-inside: avoid; }
.facts, .groups, .cells { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; list-style: none; }
.facts { gap: .2rem 1.2rem; }
.group { padding: .6rem; border-radius: .5rem; background: var(--card); }
figure { margin: 0; width: min(max(var(--side), 6rem), (100vw - 4.5rem) / 3); }
figcaption { font-size: .8rem; line-height: 1.3; } figcaption b { font-weight: 500; color: var(--ink); }
img { display: block; width: var(--side); max-width: 100%; height: auto; margin-bottom: .2rem; }
.pixels { image-rendering: pixelated; }
.alpha { background: repeating-conic-gradient(#ccc 0 25%, #f4f4f4 0 50%) 0 0 / 16px 16px; }
"""


def _page(sheet: _Sheet) -> str:
    """HTML5 without scripts; its images are in it."""
    facts = "\n".join(f"<li>{escape(fact)}</li>" for fact in sheet.facts)
    legend = "\n".join(_explained(operator) for operator in sheet.operators)
    sections = "".join(_section(sheet, row) for row in range(len(sheet.rows)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>vaetools augment: preview</title>
<style>{STYLE}</style>
</head>
<body>
<h1>vaetools augment: preview</h1>
<ul class="facts">{facts}</ul>
<h2>Operators</h2>
<dl>{legend}</dl>
<h2>Images</h2>
<p>Each choice of operators, always applied, at several strengths; then the first copies as they are written.</p>
{sections}</body>
</html>
"""


def _explained(operator: Operator) -> str:
    parts = ["keeps pixels in place" if operator.keeps_pixels else "may move what the image shows: not for boxes and masks"]
    parts += ["takes other images' latents"] * operator.needs_bank + ["mixes labels"] * operator.mixes_labels
    promises = escape("; ".join(parts))
    return f"<dt>{escape(operator.name)}</dt><dd>{escape(operator.summary)}<br><span>{promises}</span></dd>"


def _section(sheet: _Sheet, row: int) -> str:
    name, label = sheet.rows[row]
    side = _enlarged(sheet.groups[0].columns[0].images[row]).width
    groups = []
    for group in sheet.groups:
        figures = "".join(_figure(name, group, column, row) for column in group.columns)
        groups.append(f'<div class="group"><h4>{escape(group.title)}</h4><div class="cells">\n{figures}</div></div>\n')
    heading = f"{escape(name)} <span>{escape(label)}</span>"
    return f'<section style="--side: {side}px">\n<h3>{heading}</h3>\n<div class="groups">\n{"".join(groups)}</div>\n</section>\n'


def _figure(name: str, group: _Group, column: _Column, row: int) -> str:
    picture, caption = column.images[row], column.captions[row]
    kinds = ["pixels"] * (max(picture.size) < ENLARGED) + ["alpha"] * (picture.mode in ("LA", "RGBA"))
    source = "data:image/png;base64," + base64.b64encode(png_bytes(np.asarray(picture))).decode()
    told = escape(", ".join(part for part in (name, group.title, column.heading) if part))
    size = f'width="{picture.width}" height="{picture.height}"'
    image = f'<img class="{" ".join(kinds)}" src="{source}" {size} alt="{told}">'
    words = f"<b>{escape(column.heading)}</b>" + (f"<br>{escape(caption)}" if caption else "")
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>\n"
