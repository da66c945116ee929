"""The sheet of a preview as one picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .sheet import Group, Sheet, enlarged

WIDTH = 2000
MARGIN, GAP, ROW_GAP, GROUP_GAP, BLOCK_GAP = 20, 8, 14, 28, 28
NAME_WIDTH, CELL_WIDTH = 140, 96  # the latter at least
NAME_LINES = 4
TEXT, HEADING, TITLE = 13, 16, 20  # sizes of the font
LINE, HEADING_LINE = 17, 21
INK, SOFT_INK, RULE, PAPER = "#1a1a1a", "#5c5c5c", "#c8c8c8", "#ffffff"
CHECKS, CHECK_SIDE = (244, 204), 8  # what shows through transparent pixels: grays


def drawn(sheet: Sheet) -> Image.Image:
    """The sheet, at most WIDTH wide: groups that do not fit beside each other go below, beside the originals once more."""
    cell = max([CELL_WIDTH, *(enlarged(image).width for image in sheet.groups[0].columns[0].images)])
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


def _headings(block: Sequence[Group], cell: int, width: int) -> Image.Image:
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


def _row(name: str, label: str, row: int, block: Sequence[Group], cell: int, width: int) -> Image.Image:
    names, labels = (_lines(text, TEXT, NAME_WIDTH) for text in (name, label))
    if len(names) > NAME_LINES:
        names = ["...", *names[1 - NAME_LINES :]]  # the end tells files apart
    columns = [column for group in block for column in group.columns]
    captions = [_lines(column.captions[row], TEXT, cell) for column in columns]
    below = enlarged(columns[0].images[row]).height + 5
    height = max((len(names) + len(labels)) * LINE, below + max(len(lines) for lines in captions) * LINE)
    strip = Image.new("RGB", (width, height + ROW_GAP), PAPER)
    _write(strip, MARGIN, 0, names)
    _write(strip, MARGIN, len(names) * LINE, labels, ink=SOFT_INK)
    for left, column, lines in zip(chain(*_lefts(block, cell)), columns, captions, strict=True):
        picture = _on_checks(enlarged(column.images[row]))
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


def _on_checks(picture: Image.Image) -> Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return picture.convert("RGB")
    y, x = np.indices((picture.height, picture.width)) // CHECK_SIDE
    checks = Image.fromarray(np.array(CHECKS, np.uint8)[(x + y) % 2]).convert("RGBA")
    return Image.alpha_composite(checks, picture.convert("RGBA")).convert("RGB")


def _blocks(groups: Sequence[Group], cell: int) -> list[list[Group]]:
    """Groups that fit beside each other, the first of all in front of each; one that is too wide by itself is cut."""
    originals, *rest = groups
    most = (WIDTH - MARGIN - _reach([originals], cell) - GROUP_GAP + GAP) // (cell + GAP)
    blocks = [[originals]]
    for group in rest:
        for start in range(0, len(group.columns), most):
            title = f"{group.title} (continued)" if start else group.title
            piece = Group(title, group.columns[start : start + most])
            if _reach([*blocks[-1], piece], cell) + MARGIN > WIDTH:
                blocks.append([originals])
            blocks[-1].append(piece)
    return blocks


def _lefts(block: Sequence[Group], cell: int) -> list[list[int]]:
    """The left edge of each column, by groups."""
    lefts: list[list[int]] = []
    for group in block:
        left = lefts[-1][-1] + cell + GROUP_GAP if lefts else MARGIN + NAME_WIDTH + GAP
        lefts.append([left + number * (cell + GAP) for number in range(len(group.columns))])
    return lefts


def _reach(block: Sequence[Group], cell: int) -> int:
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
