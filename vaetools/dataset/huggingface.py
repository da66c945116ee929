"""Hugging Face `datasets`, its builder "imagefolder": metadata.jsonl or metadata.csv names images by file_name, from its own
folder, and says whatever it likes of each: https://huggingface.co/docs/datasets/image_dataset

    train/metadata.jsonl   {"file_name": "a.jpg", "caption": "a cat", "objects": {"bbox": [[1, 2, 30, 40]], "categories": [0]}}
    train/a.jpg
    validation/metadata.jsonl ...
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import replace_bytes
from .dataset import Annotations, Companion, Dataset, Item, with_stems
from .listing import Listing, folders_of
from .pairs import IMAGE_FOLDERS
from .splits import Splits, is_held_out, is_train, refuse_without_train

NAMES = ("metadata.jsonl", "metadata.csv")
PARQUET = "metadata.parquet"
FILE_NAME, LABEL, SPLIT = "file_name", "label", "split"
OTHER_FILE = "_file_name"  # what the names of fields end with that name further files of a line
OTHER_FILES = "_file_names"  # several of a kind, which have none made for copies
BOXES = ("objects", "box", "boxes", "bbox", "bboxes")
SHAPES = ("mask", "masks", "segmentation", "polygon", "polygons", "points", "keypoints", "landmarks")
OF_PLACES = frozenset((*BOXES, *SHAPES))  # fields that say where something is
BOM = b"\xef\xbb\xbf"
Row = dict[str, Any]


# Files.


def read_rows(place: Path) -> list[Row]:
    """The lines of a file, as dictionaries. Raises UsageError if it is no JSON lines, or no CSV."""
    data = place.read_bytes().removeprefix(BOM)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _broken(place, f"no UTF-8 ({error})") from None
    return list(_csv_rows(place, text) if place.suffix == ".csv" else _json_rows(place, text))


def _json_rows(place: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _broken(place, f"line {number} is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise _broken(place, f"line {number} is no JSON object")
        yield row


def _csv_rows(place: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        for row in filter(None, reader):
            if len(row) != len(header):
                raise _broken(place, f"line {reader.line_num} has {len(row)} fields, and the first one {len(header)}")
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise _broken(place, f"line {reader.line_num} is no CSV ({error})") from None


def _broken(place: Path, reason: str) -> UsageError:
    return UsageError(f"{place}: {reason}; repair it, or take it out, or say --layout if it is of no importance")


def lines_of(name: str, rows: Iterable[Row], *, end: str = "\n", header: bool = False) -> bytes:
    """Such rows as lines of a file of this name. end: of a line. header: put the line with the fields before those of CSV."""
    if not name.endswith(".csv"):
        text = "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)
        return text.encode("utf-8", "backslashreplace")  # half a surrogate pair, which stood there as an escape
    out = io.StringIO(newline="")
    rows = list(rows)
    writer = csv.writer(out, lineterminator=end)
    if header and rows:
        writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return out.getvalue().encode()


# The layout.


def find(listing: Listing) -> dict[str, list[Row]]:
    """The files that name images by file_name, read once for all who ask. Raises UsageError if one cannot be read, or names
    images in another way only."""
    if listing.metadata is None:
        listing.metadata = _find(listing)
    return listing.metadata


def about_unread(listing: Listing) -> list[str]:
    """Of a data set of another layout: files that will not name its copies."""
    found = [path for path in listing.others if path.rpartition("/")[2] in (*NAMES, PARQUET)]
    return [f"{path} is passed along without the copies; --layout huggingface reads {' and '.join(NAMES)}" for path in found]


def _find(listing: Listing) -> dict[str, list[Row]]:
    found = {}
    for path in listing.others:
        folder, _, name = path.rpartition("/")
        if name == PARQUET:
            listing.notes.append(f"{path} is passed along without the copies: write it as {NAMES[0]} for them to be added")
        if name not in NAMES:
            continue
        rows = read_rows(listing.root / path)
        if any(FILE_NAME in row for row in rows):
            for number, row in enumerate(rows, 1):
                if not isinstance(row.get(FILE_NAME), str) or not row[FILE_NAME]:
                    raise _broken(listing.root / path, f"entry {number} has no {FILE_NAME}, and others have one")
            found[path] = rows
        elif keys := sorted({key for row in rows for key in _other_files(row) if _place(folder, row[key]) in listing.known}):
            raise UsageError(
                f"{listing.root / path}: names images by {' and '.join(keys)}, and not by {FILE_NAME}, so that it cannot be told "
                f"which to augment: rename one of these fields to {FILE_NAME}, or say --layout plain for images alone"
            )
    return found


def is_one(listing: Listing) -> bool:
    """Whether an image is named by one of its files. Raises UsageError as find does."""
    return any(
        _place(path.rpartition("/")[0], row[FILE_NAME]) in listing.known for path, rows in find(listing).items() for row in rows
    )


def _place(folder: str, name: Any) -> str:
    """What is named from a folder, below the data set's own; what is named otherwise is no path that there is."""
    return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/"))) if isinstance(name, str) and name else ""


def _other_files(row: Row) -> list[str]:
    return [key for key in row if key.endswith(OTHER_FILE)]


@dataclass(frozen=True)
class MetadataFile:
    """One file. rows: its lines. images: those that they name, "" where there is none. items: all images of the data set."""

    path: str
    data: bytes
    rows: tuple[Row, ...]
    images: tuple[str, ...]
    items: Mapping[str, Item]

    def render(self, copies: Mapping[str, Mapping[int, str]], *, originals: bool) -> bytes:
        """Lines of copies come last, as their originals' but for the names of files."""
        rows = []
        for row, image in zip(self.rows, self.images, strict=True):
            for copy, path in copies.get(image, {}).items():
                rows.append({**row, FILE_NAME: _renamed(row[FILE_NAME], path), **self._companions(row, image, copy)})
        end = "\r\n" if b"\r\n" in self.data else "\n"
        before = self.data if originals else b""
        if before and not before.endswith(b"\n"):
            before += end.encode()
        return before + lines_of(self.path, rows, end=end, header=not before)

    def _companions(self, row: Row, image: str, copy: int) -> Row:
        """The further files of a copy's line: copies have their own, too."""
        item, folder = self.items[image], self.path.rpartition("/")[0]
        by_path = {companion.path: companion for companion in item.companions}
        named = ((key, by_path.get(_place(folder, row[key]))) for key in _other_files(row))
        return {key: _renamed(row[key], item.companion_path(each, copy)) for key, each in named if each is not None}


def _renamed(name: str, path: str) -> str:
    """In the folder that it names, the file of that path."""
    return name[: max(map(name.rfind, "/\\")) + 1] + path.rpartition("/")[2]


@dataclass
class _Said:
    """What is said of one image, by all lines that name it."""

    splits: set[str]
    labels: set[str]
    companions: dict[str, Companion]
    lines: int = 0


def read(listing: Listing) -> Dataset:
    """Raises UsageError if no image is named in one of the files, or no train image is."""
    files = find(listing)
    images = {path: tuple(_image(listing, path, row) for row in rows) for path, rows in files.items()}
    if not any(map(any, images.values())):
        raise UsageError(f"{listing.root}: no {' or '.join(NAMES)} names an image by {FILE_NAME}, from the folder that it is in")
    said = _said(listing, files, images)
    splits = Splits.of([folders_of(path) for path in said])
    classes, about_classes = _classes(said, splits)
    items = with_stems(_item(path, each, splits, classes) for path, each in said.items())
    by_path = {item.path: item for item in items}
    train = {item.path for item in items if item.train}
    annotations: tuple[Annotations, ...] = tuple(
        MetadataFile(path, (listing.root / path).read_bytes(), tuple(rows), images[path], by_path)
        for path, rows in files.items()
        if not train.isdisjoint(images[path])
    )
    notes, failed = [*listing.notes, *about_classes], []
    for path, rows in files.items():
        missing = [row[FILE_NAME] for row, image in zip(rows, images[path], strict=True) if not image]
        if missing and (train.isdisjoint(images[path]) and any(images[path])):
            notes.append(f"{path} names {len(missing)} images that are not there, such as {missing[0]}")
        else:
            failed += [(_place(path.rpartition("/")[0], name), f"named in {path}, but not there") for name in missing]
    companions = {companion.path for item in items for companion in item.companions}
    if unnamed := [path for path in listing.images if path not in by_path and path not in companions]:
        notes.append(f"{len(unnamed)} images are in no {' or '.join(NAMES)} and are not augmented, such as {unnamed[0]}")
    taken = {*companions, *(one.path for one in annotations)}
    others = tuple(path for path in (*unnamed, *listing.others) if path not in taken)
    if in_lists := sorted({key for rows in files.values() for row in rows for key in row if key.endswith(OTHER_FILES)}):
        notes.append(
            f"files that {' and '.join(in_lists)} name get no copies: copies of the images name those of their originals"
        )
    placed = any(_has_places(row) for rows in files.values() for row in rows)
    marks = "boxes" if placed else "masks" if companions or in_lists else ""
    return Dataset(listing.root, "huggingface", items, others, annotations, marks, tuple(notes), tuple(failed))


def _image(listing: Listing, path: str, row: Row) -> str:
    place = _place(path.rpartition("/")[0], row[FILE_NAME])
    return place if place in listing.known else ""


def _said(listing: Listing, files: Mapping[str, list[Row]], images: Mapping[str, tuple[str, ...]]) -> dict[str, _Said]:
    """Of each image that is named, and there."""
    there = {*listing.images, *listing.others}
    found: dict[str, _Said] = defaultdict(lambda: _Said(set(), set(), {}))
    for path, rows in files.items():
        folder = path.rpartition("/")[0]
        for row, image in zip(rows, images[path], strict=True):
            if not image:
                continue
            said = found[image]
            said.lines += 1
            if isinstance(row.get(SPLIT), str):
                said.splits.add(row[SPLIT])
            if isinstance(row.get(LABEL), str | int) and row[LABEL] != "":
                said.labels.add(str(row[LABEL]))
            for key in _other_files(row):
                place = _place(folder, row[key])
                if place in there and place != image:
                    said.companions[place] = _companion(place, image, key)
    named = {split for said in found.values() for split in said.splits}
    held_out, train = set(filter(is_held_out, named)), set(filter(is_train, named))
    if held_out and not train:
        refuse_without_train(held_out, named - held_out)
    return found


def _companion(path: str, image: str, key: str) -> Companion:
    """A copy's is named after the copy, as far as this one is named after its image: a_mask.png becomes a__v1_mask.png."""
    folder, name, stem = path[: path.rfind("/") + 1], path.rpartition("/")[2], posixpath.splitext(image.rpartition("/")[2])[0]
    after = name[len(stem) :] if name.startswith(stem) else f"_{key.removesuffix(OTHER_FILE)}{posixpath.splitext(name)[1]}"
    return Companion(path, folder, after)


def _classes(said: Mapping[str, _Said], splits: Splits) -> tuple[dict[str, str], list[str]]:
    """The class of each image, where all for training have one: their label; or else their folder, as without metadata. Notes."""
    judged = [each for path, each in said.items() if splits.is_train(folders_of(path)) and all(map(is_train, each.splits))]
    if all(len(each.labels) == 1 for each in judged):
        return {path: next(iter(each.labels)) for path, each in said.items() if len(each.labels) == 1}, []
    if any(each.labels for each in judged):
        several = sum(len(each.labels) > 1 for each in judged)
        what = f"{several} images have several labels" if several else "some images have no label"
        return {}, [f"{what}, so that there are no classes"]
    folders = {path: next(iter(splits.without(folders_of(path))), "") for path in said}
    train = {folder for path, folder in folders.items() if splits.is_train(folders_of(path))}
    return ({}, []) if "" in train or {name.lower() for name in train} <= IMAGE_FOLDERS else (folders, [])


def _item(path: str, said: _Said, splits: Splits, classes: Mapping[str, str]) -> Item:
    """A split that a line tells of must agree with that of the folder for the image to be augmented."""
    folders = folders_of(path)
    split = splits.split_of(folders) or min(said.splits, default="")
    train = splits.is_train(folders) and all(map(is_train, said.splits))
    return Item(path, split, train, classes.get(path), tuple(said.companions.values()))


def _has_places(value: Any) -> bool:
    """Whether something in it says where something is in the image."""
    if isinstance(value, dict):
        return any(key.lower() in OF_PLACES or _has_places(part) for key, part in value.items() if part not in (None, "", [], {}))
    return isinstance(value, list) and any(map(_has_places, value))


# Compressed folders.


def carry_metadata(source: Path | str, compressed: Path | str) -> list[Path]:
    """Write the metadata files of `source` beside the .vtc files that `vaetools compress` has made of its images, with the names
    of these in them: `a.jpg` becomes `a.jpg.vtc`. Lines of images that were not compressed are left out.

    Returns what was written.
    `datasets.load_dataset("imagefolder", data_dir=compressed)` reads such a folder once vaetools is imported.

    Raises UsageError if there are none, or there is another file in the place of one; OSError.
    """
    source, compressed = Path(source), Path(compressed)
    listing = Listing.of(source, leave_out=compressed)
    written: dict[Path, bytes] = {}
    for path, rows in find(listing).items():
        folder = (compressed / path).parent
        kept = [_compressed(row, folder) for row in rows if (folder / f"{row[FILE_NAME]}.vtc").is_file()]
        if kept:
            written[compressed / path] = lines_of(path, kept, header=True)
    if not written:
        raise UsageError(f"{compressed}: no .vtc file of an image that {' or '.join(NAMES)} in {source} names")
    for place, data in written.items():
        if place.exists() and place.read_bytes() != data:
            raise UsageError(f"{place}: there already, with something else in it: move it away first")
    for place, data in written.items():
        replace_bytes(place, data)
    return list(written)


def _compressed(row: Row, folder: Path) -> Row:
    keys = (key for key in (FILE_NAME, *_other_files(row)) if isinstance(row[key], str))
    return {**row, **{key: f"{row[key]}.vtc" for key in keys if (folder / f"{row[key]}.vtc").is_file()}}
