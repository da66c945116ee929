"""From a folder to a data set: the layouts that are known, and which one it is.

imagefolder   cat/a.png, train/cat/a.png              a folder for each class
coco          train/a.jpg, annotations/train.json     a JSON file that names images and their boxes
yolo          images/train/a.jpg, labels/train/a.txt  a text file of boxes for each image
masks         images/a.jpg, masks/a_mask.png          an image of classes for each image
huggingface   train/a.jpg, train/metadata.jsonl       a line for each image, of whatever is known of it
plain         a.png                                   images, and nothing about them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UsageError
from . import coco, huggingface, masks, yolo
from .dataset import Dataset, Item, with_stems
from .listing import Listing, folders_of
from .lists import ImageList, Listed, image_lists, said_of_splits, with_lists
from .mistaken import refuse_masks
from .pairs import IMAGE_FOLDERS
from .splits import Splits


def open_dataset(root: Path, layout: str = "auto", *, leave_out: Path | None = None) -> Dataset:
    """The data set in `root`, but for the folder `leave_out`. layout: one of LAYOUTS.

    Raises UsageError if it is none, is not of that layout, or contradicts itself.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    listing = Listing.of(root, leave_out=leave_out)
    if layout == "auto":
        layout = detect(listing)
    dataset = _READERS[layout](listing)
    if not dataset.train and dataset.items:
        splits = ", ".join(sorted({item.split for item in dataset.items if item.split}))
        raise UsageError(
            f"{root}: as {layout}, all of its {len(dataset.items)} images are held out, by their folders or by lists of images "
            f"({splits or 'in none of which they are'}), and held-out images are not augmented"
        )
    if not dataset.train:
        raise UsageError(f"{root}: as {layout}, it has no image to augment")
    return dataset


def detect(listing: Listing) -> str:
    """The name of its layout."""
    for layout, found in (("coco", coco.find), ("yolo", yolo.pairs)):
        if found(listing):
            listing.notes.extend(huggingface.about_unread(listing))
            return layout
    if huggingface.is_one(listing):
        return "huggingface"
    if masks.pairs(listing):
        return "masks"
    splits = _splits_of(listing)
    classes = {_class_of(path, splits) for path in listing.images if splits.is_train(folders_of(path))}
    refuse_masks(listing, splits)
    return "plain" if "" in classes or {name.lower() for name in classes} <= IMAGE_FOLDERS else "imagefolder"


def _splits_of(listing: Listing) -> Splits:
    return Splits.of([folders_of(path) for path in listing.images])


def _class_of(path: str, splits: Splits) -> str:
    """The first folder of its path that is no split; "" if there is none."""
    return next(iter(splits.without(folders_of(path))), "")


def _item(path: str, splits: Splits, listed: Listed, label: str | None) -> Item:
    folders = folders_of(path)
    return Item(path, *with_lists(path, splits.split_of(folders), splits.is_train(folders), listed), label)


def _imagefolder(listing: Listing) -> Dataset:
    splits, lists = _splits_of(listing), image_lists(listing)
    listed = said_of_splits(lists)
    items = [_item(path, splits, listed, _class_of(path, splits)) for path in listing.images if _class_of(path, splits)]
    if not items:
        raise UsageError(f"{listing.root}: no image lies in a folder of its class (such as {listing.root / 'cat' / 'a.png'})")
    beside = [path for path in listing.images if not _class_of(path, splits)]
    notes = [*listing.notes, *_about_sidecars(listing), *_about_empty(listing, splits.level)]
    if beside:
        notes.append(f"{len(beside)} images lie in no class folder and are not augmented, such as {beside[0]}")
    return _with_lists("imagefolder", listing, with_stems(items), beside, lists, notes)


def _plain(listing: Listing) -> Dataset:
    splits, lists = _splits_of(listing), image_lists(listing)
    listed = said_of_splits(lists)
    items = with_stems(_item(path, splits, listed, None) for path in listing.images)
    notes = [*listing.notes, *_about_sidecars(listing)]
    in_folders = [bool(_class_of(path, splits)) for path in listing.images]
    if any(in_folders) and not all(in_folders):
        notes.append("images lie both in folders and beside them, so folders are not taken for classes")
    return _with_lists("plain", listing, items, (), lists, notes)


def _with_lists(
    layout: str,
    listing: Listing,
    items: tuple[Item, ...],
    beside: Sequence[str],
    lists: Sequence[ImageList],
    notes: Sequence[str],
) -> Dataset:
    """beside: images that are no items. Lists of train images get the copies' names."""
    extended = tuple(each for each in lists if each.is_extended)
    taken = {each.path for each in extended}
    others = (*beside, *(path for path in listing.others if path not in taken))
    told = (*notes, *(each.note for each in lists if each.note))
    return Dataset(listing.root, layout, items, others, extended, notes=told)


def _about_sidecars(listing: Listing) -> list[str]:
    found = listing.sidecars()
    return [f"{len(found)} files are named as images are, such as {found[0]}: copies get none of their own"] if found else []


def _about_empty(listing: Listing, level: int | None) -> list[str]:
    """Folders beside those of the classes, without an image."""
    depth = 2 if level == 0 else 1
    filled = {folders_of(path)[:depth] for path in listing.images}
    splits = {path[:-1] for path in filled}
    found = [tuple(folder.split("/")) for folder in listing.folders]
    empty = [path for path in found if len(path) == depth and path[:-1] in splits and path != ("",) and path not in filled]
    return [f"{listing.root.joinpath(*path)}: a class without an image" for path in sorted(empty)]


_READERS: dict[str, Callable[[Listing], Dataset]] = {
    "imagefolder": _imagefolder,
    "coco": coco.read,
    "yolo": yolo.read,
    "masks": masks.read,
    "huggingface": huggingface.read,
    "plain": _plain,
}
LAYOUTS = ("auto", *_READERS)
