"""For tests of tars: small ones of pieces of photographs, as others write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image


def picture(number: int, format: str = "png") -> bytes:
    """A piece of a photograph, 40 to 90 pixels a side, another for each number."""
    generator = np.random.default_rng(number)
    pixels = getattr(skimage.data, ("astronaut", "chelsea", "coffee")[number % 3])()
    height, width = (int(side) for side in generator.integers(40, 91, 2))
    top, left = (int(generator.integers(0, 150)) for _ in range(2))
    file = io.BytesIO()
    Image.fromarray(pixels[top : top + height, left : left + width]).save(file, format)
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def make_tar(path: Path, members: Iterable[tuple[str, bytes]], *, format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            add(tar, name, data)
    return path


def sample(number: int) -> list[tuple[str, bytes]]:
    """An image, its class, and a text: 0003.cls, 0003.jpg, 0003.json."""
    key = f"{number:04}"
    return [
        (f"{key}.cls", str(number % 3).encode()),
        (f"{key}.jpg", picture(number, "jpeg")),
        (f"{key}.json", f'{{"number": {number}}}'.encode()),
    ]


def samples(numbers: Iterable[int]) -> list[tuple[str, bytes]]:
    return [member for number in numbers for member in sample(number)]


def make_shards(folder: Path, count: int = 3, each: int = 6) -> Path:
    """photos-000.tar and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        make_tar(folder / f"photos-{shard:03}.tar", samples(range(shard * each, (shard + 1) * each)))
    return folder


def content(path: Path) -> dict[str, bytes]:
    """All members of a tar, in order."""
    with tarfile.open(path, "r:") as tar:
        found = {}
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            found[info.name] = file.read()
        return found


def broken_shards(folder: Path) -> Path:
    """Two tars; in the second, one image is broken."""
    make_shards(folder, count=1)
    members = [(name, data[:100] if name == "0007.jpg" else data) for name, data in samples(range(6, 10))]
    make_tar(folder / "photos-001.tar", members)
    return folder
