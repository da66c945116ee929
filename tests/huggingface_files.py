"""Small data sets as Hugging Face's builder "imagefolder" reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from . import dataset_files as files

Row = dict[str, Any]


def objects(number: int) -> Row:
    return {"bbox": [[1.5, 2, 3 + number, 4], [5, 6, 7, 8.25]], "categories": [number, 0]}


def captions(root: Path, **splits: int) -> Path:
    """So many images a split, each with a label, a caption and boxes."""
    for place, (split, count) in enumerate(splits.items()):
        rows = []
        for number in range(count):
            files.save(root, f"{split}/{number}.png", 10 * place + number)
            rows.append(
                {"file_name": f"{number}.png", "label": number % 2, "caption": f'Nº {number}, "so"', "objects": objects(number)}
            )
        write_lines(root / split / "metadata.jsonl", rows)
    return root


def write_lines(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[Row], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    return path


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
