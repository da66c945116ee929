"""Images with masks: `images/a.jpg` and `masks/a.png`, or `masks/a_mask.png`; several masks of one image, too."""

from __future__ import annotations

from collections import defaultdict

from ..errors import UsageError
from .dataset import Annotations, Companion, Dataset, Item, with_stems
from .listing import Listing, stem_of
from .lists import image_lists, said_of_splits, with_lists
from .pairs import beyond_images, parallel_folders
from .splits import Splits

MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "SegmentationClass")
SEPARATORS = "_-. "
NO_MASKS = (".txt", ".json", ".xml", ".csv")


def pairs(listing: Listing) -> dict[str, tuple[Companion, ...]]:
    """The masks of each image that has some. A mask's name starts with its image's, and goes on with nothing or a separator."""
    files: dict[str, list[str]] = defaultdict(list)
    images: dict[str, list[str]] = defaultdict(list)
    for path in (*listing.images, *listing.others):
        files[path.rpartition("/")[0]].append(path.rpartition("/")[2])
    for path in listing.images:
        images[path.rpartition("/")[0]].append(path)
    spelled = {folder.lower(): folder for folder in files}
    found: dict[str, tuple[Companion, ...]] = {}
    for paths in images.values():
        for wanted in parallel_folders(paths[0], MASK_FOLDERS):
            folder = spelled.get(wanted.lower(), wanted)
            masks = [name for name in files.get(folder, ()) if not name.endswith(NO_MASKS)]
            for path, names in matched(paths, masks).items():
                found[path] = found.get(path, ()) + tuple(_companion(folder, name, path) for name in sorted(names))
    return found


def _companion(folder: str, mask: str, image: str) -> Companion:
    """Where a mask's name holds all of its image's, a.jpg.png, that of a copy does so too: a__v1.png.png."""
    name = image.rpartition("/")[2]
    stem = stem_of(name)
    suffix = name[len(stem) :]
    after = mask[len(stem) :]
    if after.startswith(suffix) and after != suffix:
        after = ".png" + after[len(suffix) :]
    return Companion(f"{folder}/{mask}", f"{folder}/", after)


def matched(images: list[str], masks: list[str]) -> dict[str, list[str]]:
    """Of the images that a mask's name starts with, it belongs to those of the longest: x_2_mask to x_2, and not to x."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in images:
        by_stem[stem_of(path.rpartition("/")[2])].append(path)
    matched: dict[str, list[str]] = defaultdict(list)
    for mask in masks:
        ends = [end for end in range(len(mask), 0, -1) if end == len(mask) or mask[end] in SEPARATORS]
        stem = next((mask[:end] for end in ends if mask[:end] in by_stem), None)
        for path in by_stem[stem] if stem is not None else ():
            matched[path].append(mask)
    return matched


def read(listing: Listing) -> Dataset:
    """Raises UsageError if no image has a mask."""
    masks = pairs(listing)
    if not masks:
        raise UsageError(f"{listing.root}: no image has a mask (images/a.jpg needs masks/a.png or masks/a_mask.png, for one)")
    paths = [path for path in listing.images if parallel_folders(path, MASK_FOLDERS)]
    splits = Splits.of([beyond_images(path) for path in paths])
    lists = image_lists(listing)
    listed = said_of_splits(lists)
    items: list[Item] = []
    failed: list[tuple[str, str]] = []
    for path in paths:
        folders = beyond_images(path)
        split, train = with_lists(path, splits.split_of(folders), splits.is_train(folders), listed)
        if path in masks or not train:
            items.append(Item(path, split, train, None, masks.get(path, ())))
        else:
            failed.append((path, "it has no mask, and is not augmented"))
    taken = {item.path for item in items} | {mask.path for each in masks.values() for mask in each}
    notes = [*listing.notes, *(each.note for each in lists if each.note)]
    reported = taken.union(path for path, _ in failed)
    if left := [path for path in listing.images if path not in reported]:
        notes.append(f"{len(left)} images are neither of the data set nor its masks, and not augmented, such as {left[0]}")
    extended = [each for each in lists if each.is_extended]
    taken |= {each.path for each in extended}
    others = [path for path in (*listing.images, *listing.others) if path not in taken]
    annotations: tuple[Annotations, ...] = tuple(extended)
    return Dataset(
        listing.root,
        "masks",
        with_stems(items),
        tuple(others),
        annotations,
        marks="masks",
        notes=tuple(notes),
        failed=tuple(failed),
    )
