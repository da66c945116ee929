"""Lists of images: text files named after a split (train.txt, ImageSets/Main/val.txt) that say which images are of it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from .listing import Listing
from .splits import is_held_out, is_train, refuse_without_train, split_in

Listed = Mapping[str, set[str]]  # the splits that each image is said to be of; empty where nothing is said of any


@dataclass(frozen=True)
class ImageList:
    """A text file with the path of an image, or its name without the suffix, per line. images: that of each line below the data
    set's folder; "" if it is none. plain: whether lines hold nothing else, and copies can be added."""

    path: str
    lines: tuple[str, ...]
    images: tuple[str, ...]
    plain: bool = True

    @property
    def split(self) -> str:
        return split_in(_name(self.path))

    @property
    def is_extended(self) -> bool:
        return self.plain and is_train(self.split)

    @property
    def note(self) -> str:
        """What to know about it; "" for nothing."""
        if self.plain or not is_train(self.split):
            return ""
        return f"{self.path} says more of images than their names, and is passed along without the copies"

    def render(self, copies: Mapping[str, Mapping[int, str]], *, originals: bool) -> bytes:
        """Copies come last, each line as its original's but for the name."""
        lines = list(self.lines) if originals else []
        for line, image in zip(self.lines, self.images, strict=True):
            folder = line[: max(map(line.rfind, "/\\")) + 1]
            bare = image and _name(line.strip().replace("\\", "/")) != _name(image)
            names = [_name(path) for path in copies.get(image, {}).values()]
            lines += [folder + (os.path.splitext(name)[0] if bare else name) for name in names]
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def image_lists(listing: Listing) -> list[ImageList]:
    """All of a data set.

    Raises UsageError if a file is called as a held-out split is, val.txt for one, and names no image: nobody could tell which
    images are held out.
    """
    lists = []
    labels = set(listing.sidecars())
    for path in listing.others:
        if not path.endswith(".txt") or not split_in(_name(path)) or path in labels:
            continue
        if "labels" in path.lower().split("/")[:-1]:  # boxes of an image that is called val.jpg
            continue
        found = read_list(listing, path)
        if any(found.images):
            lists.append(found)
        elif found.lines and is_held_out(os.path.splitext(_name(path))[0]):
            raise UsageError(
                f"{listing.root / path}: named after a split, but its lines ({found.lines[0].strip()[:60]!r}, ...) name no image "
                f"below {listing.root}: write a path of an image on each line, or rename it if it is no list of images"
            )
    return lists


def read_list(listing: Listing, path: str) -> ImageList:
    """What one file lists."""
    text = (listing.root / path).read_bytes().decode("utf-8", "surrogateescape")
    lines = tuple(line for line in text.splitlines() if line.strip())
    images = tuple(_found(line, listing) for line in lines)
    if any(images):
        return ImageList(path, lines, images)
    return ImageList(path, lines, tuple(_found(line.split()[0].rstrip(",;"), listing) for line in lines), plain=False)


def _found(line: str, listing: Listing) -> str:
    """The image that a line names, from here, or from anywhere above: the one whose path it ends with; or the only one of that
    name without its suffix."""
    path = os.path.normpath(line.strip().replace("\\", "/")).replace(os.sep, "/")
    if path in listing.known:
        return path
    named = listing.by_name.get(_name(path), ())
    fitting = [image for image in named if path.endswith(f"/{image}")]
    if not fitting and len(named) == 1 and named[0].endswith(f"/{path.lstrip('./')}"):  # from a folder below
        fitting = list(named)
    if not fitting:
        bare = listing.by_stem.get(_name(path), [])
        bare = [image for image in bare if "/" not in path or os.path.splitext(image)[0].endswith(path)]
        bare = [image for image in bare if not _is_mask(image)] or bare
        fitting = bare if len(bare) == 1 else []
    return max(fitting, key=len, default="")


def _is_mask(image: str) -> bool:
    from .masks import MASK_FOLDERS

    folders = image.lower().split("/")[:-1]
    return any(name.lower() in folders for name in (*MASK_FOLDERS, "SegmentationObject"))


def said_of_splits(lists: Sequence[ImageList], others: Iterable[tuple[str, Iterable[str]]] = ()) -> Listed:
    """The splits that each image is said to be of. others: (split, images) from elsewhere.

    Raises UsageError if none of them is for training.
    """
    listed: dict[str, set[str]] = defaultdict(set)
    for split, images in (*((each.split, each.images) for each in lists), *others):
        for image in filter(None, images):
            listed[image].add(split)
    names = {split for splits in listed.values() for split in splits}
    if names and not any(map(is_train, names)):
        refuse_without_train(names, ())
    return listed


def with_lists(path: str, split: str, train: bool, listed: Listed) -> tuple[str, bool]:
    """The split of an image and whether it is for training, from what its folders say and what lists say: both must agree."""
    if not listed:
        return split, train
    here = listed.get(path, set())
    return split or min(here, default=""), train and bool(here) and not any(map(is_held_out, here))


def _name(path: str) -> str:
    return path.rpartition("/")[2]
