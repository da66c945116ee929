"""Small data sets on the disk, in every layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaetools.dataset.records import Record, Records
from vaetools.folder.manifest import MANIFEST


def picture(number: int, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> Image.Image:
    """Smooth, with some noise; another one for each number. size: (width, height)."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, np.int16) + generator.integers(-5, 6, (size[1], size[0], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def save(root: Path, path: str, number: int, **options: Any) -> Path:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    picture(number, **options).save(place)
    return place


def imagefolder(root: Path, counts: dict[str, int], **options: Any) -> Path:
    """counts: of each folder, such as {"train/cat": 3}."""
    for place, (folder, count) in enumerate(sorted(counts.items())):
        for number in range(count):
            save(root, f"{folder}/{number}.png", 100 * place + number, **options)
    return root


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def coco_json(names: list[str], first_id: int = 1) -> dict[str, Any]:
    """Two boxes on the first image, one on each other."""
    images = [{"id": first_id + n, "file_name": name, "width": 40, "height": 32, "license": 3} for n, name in enumerate(names)]
    owners = [images[0]["id"], *(image["id"] for image in images)]
    boxes = [
        {"id": 500 + n, "image_id": owner, "category_id": 1, "bbox": [1.5, 2, 3 + n, 4], "area": 12.25, "iscrowd": 0}
        for n, owner in enumerate(owners)
    ]
    return {"info": {"year": 2024}, "images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}


def coco(root: Path) -> Path:
    """As COCO 2017 is laid out: two train images, one of validation."""
    for number in range(2):
        save(root, f"train2017/{number:012}.jpg", number)
    save(root, "val2017/000000000007.jpg", 7)
    write_json(root / "annotations/instances_train2017.json", coco_json([f"{number:012}.jpg" for number in range(2)], 41))
    write_json(root / "annotations/captions_train2017.json", coco_json([f"{number:012}.jpg" for number in range(2)], 41))
    write_json(root / "annotations/instances_val2017.json", coco_json(["000000000007.jpg"], 90))
    return root


def yolo(root: Path) -> Path:
    """Two train images, one of them without a label file, and one of validation."""
    for number, path in enumerate(("images/train/a.jpg", "images/train/empty.png", "images/val/c.jpg")):
        save(root, path, number)
    for path in ("labels/train/a.txt", "labels/val/c.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"0 0.5 0.5 0.25 0.25\r\n")
    (root / "data.yaml").write_text("path: ../elsewhere  # here\ntrain: images/train\nval: images/val\nnames: [cat]\n")
    return root


def masks(root: Path, suffix: str = "_mask") -> Path:
    """Three images, whose names start alike."""
    for number, stem in enumerate(("x", "x_2", "y")):
        save(root, f"images/{stem}.jpg", number)
        save(root, f"masks/{stem}{suffix}.png", number, mode="L")
    return root


def files_below(folder: Path) -> dict[str, bytes]:
    """Every visible file, by its path."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def records_of(folder: Path) -> dict[str, Record]:
    """By what they are of."""
    assert (folder / MANIFEST).exists()
    return {record.output: record for record in Records.read(folder).files}


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)
