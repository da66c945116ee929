"""YOLO: `images/train/a.jpg` has its boxes in `labels/train/a.txt`; lists of images (`train.txt`) may say what the splits are."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from .dataset import Annotations, Companion, Dataset, Item, with_stems
from .listing import Listing
from .pairs import beyond_images, parallel_folders
from .splits import is_held_out, is_train, refuse_without_train, split_in, split_level

LABEL_FOLDER = "labels"
PATH_KEY = re.compile(r"^path\s*:\s*['\"]?([^'\"#\r\n]*)", re.M)


def pairs(listing: Listing) -> dict[str, str]:
    """The label file of each image that has one."""
    others = set(listing.others)
    found = {path: label for path in listing.images if (label := _label_of(path))}
    return {path: label for path, label in found.items() if label in others}


def _label_of(path: str) -> str:
    folders = parallel_folders(path, (LABEL_FOLDER,))
    stem = os.path.splitext(path.rpartition("/")[2])[0]
    return f"{folders[0]}/{stem}.txt" if folders else ""


@dataclass(frozen=True)
class ImageList:
    """A text file with a path of an image per line. images: that of each line below the data set's folder; "" if it is none."""

    path: str
    lines: tuple[str, ...]
    images: tuple[str, ...]

    def render(self, copies: Mapping[str, Mapping[int, str]], *, originals: bool) -> bytes:
        """Copies come last, each line as its original's but for the name."""
        lines = list(self.lines) if originals else []
        for line, image in zip(self.lines, self.images, strict=True):
            folder = line[: max(map(line.rfind, "/\\")) + 1]
            lines += [folder + path.rpartition("/")[2] for path in copies.get(image, {}).values()]
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def read(listing: Listing) -> Dataset:
    """Raises UsageError if no image has a label file."""
    labels = pairs(listing)
    if not labels:
        raise UsageError(f"{listing.root}: no image has a label file (images/a.jpg needs labels/a.txt)")
    paths = [path for path in listing.images if _label_of(path)]
    lists = _image_lists(listing)
    listed = _splits_of_lists(lists)
    level = split_level([beyond_images(path) for path in paths])
    items = [_item(path, level, listed, labels) for path in paths]
    bare = sum(item.train and not item.companions for item in items)
    notes = [*listing.notes, *_about_yaml(listing)]
    if bare:
        notes.append(f"{bare} train images have no label file: YOLO takes them, and their copies, for background")
    extended = [each for each in lists if is_train(split_in(each.path))]
    taken = {*paths, *labels.values(), *(each.path for each in extended)}
    others = [path for path in (*listing.images, *listing.others) if path not in taken and not path.endswith(".cache")]
    annotations: tuple[Annotations, ...] = tuple(extended)
    return Dataset(listing.root, "yolo", with_stems(items), tuple(others), annotations, "boxes", tuple(notes))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _item(path: str, level: int | None, listed: Mapping[str, set[str]], labels: Mapping[str, str]) -> Item:
    folders = beyond_images(path)
    split = folders[level] if level is not None and len(folders) > level else ""
    train = level is None or is_train(split)
    if listed:
        here = listed.get(path, set())
        train = train and bool(here) and not any(map(is_held_out, here))
        split = split or min(here, default="")
    label = labels.get(path)
    companions = (Companion(label, label[: label.rfind("/") + 1], ".txt"),) if label else ()
    return Item(path, split, train, None, companions)


def _image_lists(listing: Listing) -> list[ImageList]:
    """The text files beside the folders that are named after a split and list images."""
    lists = []
    known = set(listing.images)
    for path in listing.others:
        if "/" in path or not path.endswith(".txt") or not split_in(path):
            continue
        text = (listing.root / path).read_bytes().decode("utf-8", "surrogateescape")
        lines = tuple(line for line in text.splitlines() if line.strip())
        images = tuple(_found(line, listing, known) for line in lines)
        if any(images):
            lists.append(ImageList(path, lines, images))
    return lists


def _found(line: str, listing: Listing, known: set[str]) -> str:
    """The image that a line names, from here, or from anywhere above: the one whose path it ends with."""
    path = os.path.normpath(line.strip().replace("\\", "/")).replace(os.sep, "/")
    if path in known:
        return path
    fitting = [image for image in listing.by_name.get(_name(path), ()) if path.endswith(f"/{image}")]
    return max(fitting, key=len, default="")


def _splits_of_lists(lists: Sequence[ImageList]) -> dict[str, set[str]]:
    """The splits that each image is listed in. Raises UsageError if none of them is for training."""
    listed: dict[str, set[str]] = defaultdict(set)
    names = {split_in(each.path) for each in lists}
    if names and not any(map(is_train, names)):
        refuse_without_train(names, ())
    for each in lists:
        for image in each.images:
            if image:
                listed[image].add(split_in(each.path))
    return listed


def _about_yaml(listing: Listing) -> list[str]:
    notes = []
    for path in listing.others:
        if "/" not in path and path.endswith((".yaml", ".yml")):
            text = (listing.root / path).read_bytes().decode("utf-8", "replace")
            found = PATH_KEY.search(text)
            if found and found[1].strip() not in ("", ".", "./"):
                notes.append(f"{path} is passed along as it is: set its path ({found[1].strip()}) to the output folder")
    return notes
