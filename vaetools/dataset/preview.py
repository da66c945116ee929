"""A sheet that shows, before a folder is written, what an augmenter makes of a few of its images.

    picture | original | the model alone | jitter 0.25, 0.5, 1 | style 0.25, 0.5, 1 | ... | as written v1, v2, v3

As a PNG file, and as a page of HTML that needs nothing but itself. Their names start with a dot, so that loaders of image
folders do not take them for images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
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
from .sheet import LARGEST, Column, Group, Sheet
from .sheet_drawing import drawn
from .sheet_page import page_of

Labelled = tuple[str, Tensor, int | None]  # a picture with its name and, if there is one, its label

PREVIEW = ".vaetools-preview"
STRENGTHS = (0.25, 0.5, 1.0)
COPIES = 3  # of each picture, as they will be written


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
    contents = png_bytes(np.asarray(drawn(sheet))), page_of(sheet).encode()
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
) -> Sheet:
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
    groups = [Group("as given", [_column("original", images)])]
    groups.append(Group("the model alone", [_column("reconstruction", augmenter.reconstruct(images))]))
    for number, each in enumerate(chains):
        columns = []
        for place, level in enumerate(levels):
            result = augmented(alike([each], level), number * len(levels) + place)
            columns.append(_column(f"strength {level.start:g}", result.images, _mixtures(result)))
        groups.append(Group(_named(each), columns))
    writer = alike(augmenter.operators, augmenter.strength, gate=augmenter.gate, probability=augmenter.probability)
    copies = [augmented(writer, copy) for copy in range(COPIES)]
    written = [_column(f"v{copy}", result.images, _verdicts(result)) for copy, result in enumerate(copies, start=1)]
    groups.append(Group("as written", written))
    operators = list(dict.fromkeys(chain(*chains)))
    rows = [(_printable(name), "" if label is None else f"label {label}") for name, _, label in pictures]
    return Sheet(_facts(augmenter, seed), operators, rows, groups)


def _named(operators: Iterable[Operator]) -> str:
    return "+".join(operator.name for operator in operators)


def _column(heading: str, images: Sequence[Tensor], captions: list[str] | None = None) -> Column:
    return Column(heading, [_picture_of(image) for image in images], captions or [""] * len(images))


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
