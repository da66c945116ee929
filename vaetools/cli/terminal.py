"""Small pictures in a terminal: two pixels in each cell, the upper one as the colour of a half block, the lower one behind it."""

from __future__ import annotations

import sys
from itertools import groupby

from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

UPPER_HALF = "\u2580"
SIDE = 40  # columns, and twice as many pixels as lines, at most
CHECK, DARK, LIGHT = 4, 102, 153  # pixels of a field behind what is transparent, and the grays of two fields


class HalfBlocks:
    """An image for Rich: as many columns as it is pixels wide, and half as many lines as it is high."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image if image.mode == "RGB" else on_checks(image)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = self.image.size
        colours: list[Color | None] = [Color.from_rgb(*self.image.getpixel((x, y))) for y in range(height) for x in range(width)]  # type: ignore[misc]
        for top in range(0, height, 2):
            upper = colours[top * width :][:width]
            lower = colours[(top + 1) * width :][:width] or [None] * width  # of an odd height
            for (front, behind), cells in groupby(zip(upper, lower, strict=True)):
                yield Segment(UPPER_HALF * len(list(cells)), Style(color=front, bgcolor=behind))
            yield Segment.line()


def on_checks(image: Image.Image) -> Image.Image:
    """RGB, on the fields that stand for transparency."""
    behind = Image.new("RGB", image.size, (DARK,) * 3)
    for y in range(0, image.height, CHECK):
        for x in range(y % (2 * CHECK), image.width, 2 * CHECK):
            behind.paste((LIGHT,) * 3, (x, y, x + CHECK, y + CHECK))
    behind.paste(image, mask=image.getchannel("A"))
    return behind


def picture_console(*, asked: bool = False) -> Console | None:
    """Stdout, if pictures can be shown there: a terminal with 256 colours or more, which NO_COLOR does not forbid.

    asked: by the user; FORCE_COLOR then makes a terminal of a pipe, as for `less -R`.
    """
    console = Console()
    shows = console.is_terminal if asked else sys.stdout.isatty()
    if not shows or console.no_color or console.color_system not in ("256", "truecolor"):
        return None
    try:
        UPPER_HALF.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return None
    return console
