"""YOLO: `images/train/a.jpg` has its boxes in `labels/train/a.txt`; lists of images (`train.txt`) may say what the splits are."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UsageError
from .dataset import Annotations, Companion, Dataset, Item, with_stems
from .listing import Listing
from .lists import Listed, image_lists, said_of_splits, with_lists
from .pairs import beyond_images, parallel_folders
from .splits import Splits
from .yaml import top_level, yaml_files, yaml_splits

LABEL_FOLDER = "labels"


def pairs(listing: Listing) -> dict[str, str]:
    """The label file of each image that has one."""
    others = set(listing.others)
    found = {path: label for path in listing.images if (label := _label_of(path))}
    return {path: label for path, label in found.items() if label in others}


def _label_of(path: str) -> str:
    folders = parallel_folders(path, (LABEL_FOLDER,))
    stem = os.path.splitext(path.rpartition("/")[2])[0]
    return f"{folders[0]}/{stem}.txt" if folders else ""


def read(listing: Listing) -> Dataset:
    """Raises UsageError if no image has a label file."""
    labels = pairs(listing)
    if not labels:
        raise UsageError(f"{listing.root}: no image has a label file (images/a.jpg needs labels/a.txt)")
    paths = [path for path in listing.images if _label_of(path)]
    lists = image_lists(listing)
    listed = said_of_splits(lists, yaml_splits(listing))
    splits = Splits.of([beyond_images(path) for path in paths])
    items = [_item(path, splits, listed, labels) for path in paths]
    bare = sum(item.train and not item.companions for item in items)
    notes = [*listing.notes, *_about_yaml(listing)]
    if bare:
        notes.append(f"{bare} train images have no label file: YOLO takes them, and their copies, for background")
    extended = [each for each in lists if each.is_extended]
    notes += [each.note for each in lists if each.note]
    taken = {*paths, *labels.values(), *(each.path for each in extended)}
    others = [path for path in (*listing.images, *listing.others) if path not in taken and not path.endswith(".cache")]
    annotations: tuple[Annotations, ...] = tuple(extended)
    return Dataset(listing.root, "yolo", with_stems(items), tuple(others), annotations, "boxes", tuple(notes))


def _item(path: str, splits: Splits, listed: Listed, labels: Mapping[str, str]) -> Item:
    folders = beyond_images(path)
    split, train = with_lists(path, splits.split_of(folders), splits.is_train(folders), listed)
    label = labels.get(path)
    companions = (Companion(label, label[: label.rfind("/") + 1], ".txt"),) if label else ()
    return Item(path, split, train, None, companions)


def _about_yaml(listing: Listing) -> list[str]:
    notes = []
    for path in yaml_files(listing):
        base = " ".join(top_level(listing, path).get("path", [])).strip("'\"")
        if base not in ("", ".", "./"):
            notes.append(f"{path} is passed along as it is: set its path ({base}) to the output folder")
    return notes
