"""What is on the sheet of a preview, however it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from ..augment.operators import Operator

LARGEST, ENLARGED = 160, 96  # pixels a side: larger images are shrunk, smaller ones enlarged to about so many


@dataclass(frozen=True)
class Column:
    """One cell for each picture: an image of 8 bits, at most LARGEST a side, and what is said below it."""

    heading: str
    images: list[Image.Image]
    captions: list[str]


@dataclass(frozen=True)
class Group:
    title: str
    columns: list[Column]


@dataclass(frozen=True)
class Sheet:
    """The first group is the originals. facts: what the results depend on. rows: names and labels of the pictures."""

    facts: list[str]
    operators: list[Operator]
    rows: list[tuple[str, str]]
    groups: list[Group]


def enlarged(picture: Image.Image) -> Image.Image:
    """By a whole factor, to about ENLARGED a side if it is smaller."""
    factor = max(1, round(ENLARGED / max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
