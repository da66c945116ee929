"""For tests of shards and engines: folders of small images, what jobs left, and what runs beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from vaetools.images.folder import OWN_PREFIX


def make_album(folder: Path, count: int, largest: int = 129) -> Path:
    """Pieces of photographs, 40 pixels a side and more, in three folders; and a file that is no image."""
    generator = np.random.default_rng(1)
    photographs = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee")]
    for number in range(count):
        pixels = photographs[number % 3]
        height, width = (int(side) for side in generator.integers(40, largest, 2))
        top, left = (int(generator.integers(0, 150)) for _ in range(2))
        inside = folder / f"{number % 3}"
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[top : top + height, left : left + width]).save(inside / f"{number:04}.png")
    (folder / "broken.png").write_bytes((folder / "0" / "0000.png").read_bytes()[:200])
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Everything but manifests; what was left behind, too."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(f"{OWN_PREFIX}manifest"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def descendants(pid: int) -> list[tuple[int, str]]:
    """Processes below one, with their command lines."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(place.name))
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            try:
                found.append((child, Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")))
            except OSError:
                continue
    return found
