"""A folder of images of several kinds, and what `compress` makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from vaetools.cli import main

from .conftest import photograph

EVIL = """<img src=x onerror="alert('1')"> & ${title} $$.png"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def make_photos(folder: Path) -> Path:
    """Seven images: RGB, a name that is HTML, gray, RGB with alpha, 16 bits, one that is turned by its EXIF, and one of
    two levels, which is kept without loss."""
    (folder / "trip").mkdir(parents=True)
    photograph("astronaut", 192, 176).save(folder / "astronaut.png")
    photograph("coffee", 96, 80).save(folder / EVIL)
    photograph("camera", 96, 80).save(folder / "camera.png")
    clear = photograph("rocket", 80, 64)
    clear.putalpha(photograph("camera", 80, 64))
    clear.save(folder / "clear.png")
    deep = np.asarray(photograph("moon", 96, 80), np.float64) * 16 + np.arange(96)
    Image.fromarray(deep.astype(np.uint16)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    photograph("chelsea", 96, 64).save(folder / "trip" / "turned.jpg", quality=95, exif=exif)
    photograph("camera", 64, 48).convert("1").save(folder / "trip" / "dither.png")
    return folder


def compressed(photos: Path, target: Path, *options: object) -> Path:
    done = run("compress", photos, "-o", target, *options)
    assert done.exit_code == 0, done.output
    return target
