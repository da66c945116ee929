"""Masks that would be taken for a class of images, since their folder has a name that is not known."""

from __future__ import annotations

import os
from collections import defaultdict

from ..errors import UsageError
from .listing import Listing, folders_of, stem_of
from .masks import matched
from .pairs import MASK_WORDS
from .splits import CASED_WORDS, Splits, tells_of_held_out

FEW = 4  # names that are not numbers say nothing where there are fewer


def refuse_masks(listing: Listing, splits: Splits) -> None:
    """Raises UsageError if most images of a folder have a namesake in another one, which looks as if it held masks of them.

    Numbers alone are no sign: many data sets count the images of each class from 1.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    train: set[str] = set()
    for path in listing.images:
        folders = folders_of(path)
        split = splits.split_of(folders)
        if splits.is_train(folders):
            name = next(iter(splits.without(folders)), "") or split
            train.add(name)
        elif not split or tells_of_held_out(split):
            continue
        else:
            name = split
        groups[name].append(path)
    for images in sorted(train):
        if _hold_masks(groups[images]):
            raise UsageError(
                f"{listing.root}: most images in {images or 'no folder'} have a mask beside them (a.png and a_mask.png): put "
                "images and masks into folders of these names for --layout masks; if all are images, say --layout imagefolder or "
                "plain"
            )
        for masks in sorted(groups):
            named = len(groups) == 2 and _has_mask_word(masks) and not _has_mask_word(images)
            fitting = named and not len(groups[masks]) % len(groups[images])  # a_labels.png and a_colours.png of a.png, for one
            if masks != images and (fitting or _are_masks(groups[images], groups[masks], images, masks)):
                raise UsageError(
                    f"{listing.root}: most images in {images or 'no folder'} have one in {masks} that is named as they are, as "
                    "if these were masks: rename the folders to images and masks for --layout masks; if both are classes, "
                    "say --layout imagefolder; if they are images and nothing else, say --layout plain"
                )


def _has_mask_word(folder: str) -> bool:
    return any(word.lower() in MASK_WORDS for word in CASED_WORDS.findall(folder))


def _hold_masks(images: list[str]) -> bool:
    """Whether most of some images have a mask among them: a_mask.png in the folder of a.png."""
    stems = {stem_of(path) for path in images}
    masks = {stem for stem in stems for word in MASK_WORDS if stem.lower().endswith((f"_{word}", f"-{word}"))}
    masked = {stem[: max(stem.rfind("_"), stem.rfind("-"))] for stem in masks} & stems
    return 2 * len(masked) > len(stems - masks)


def _are_masks(images: list[str], masks: list[str], folder: str, folder_of_masks: str) -> bool:
    found = matched(images, [path.rpartition("/")[2] for path in masks])
    if not found or 2 * len(found) <= len(images):
        return False
    if _has_mask_word(folder_of_masks) and not _has_mask_word(folder):
        return True
    stems = {stem_of(path.rpartition("/")[2]) for path in found}
    if all(stem_of(mask) not in stems for names in found.values() for mask in names):  # a_mask.png
        return True
    kinds, others = ({os.path.splitext(path)[1].lower() for path in paths} for paths in (images, masks))
    if kinds <= {".jpg", ".jpeg"} and others <= {".png", ".gif", ".bmp", ".tif", ".tiff"}:
        return True
    return len(stems) >= FEW and 2 * len({stem.rstrip("0123456789") for stem in stems}) > len(stems)
