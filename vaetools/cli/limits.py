"""The limit that commands have on the images that they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def max_megapixels_option(help: str) -> Callable[..., Any]:
    """An option of which every value stands for a whole number of pixels: none is infinite."""
    return click.option(
        "--max-megapixels", type=click.FloatRange(0, 1e6, min_open=True), default=100.0, show_default=True, help=help
    )
