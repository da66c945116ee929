"""COCO: JSON files that name images by file_name and id, and annotations that name images by image_id."""

from __future__ import annotations

import json
import posixpath
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .dataset import Annotations, Dataset, Item, with_stems
from .listing import Listing, folders_of
from .splits import is_held_out, is_train, refuse_without_train, split_in

SEARCHED = 1000  # images of a file, to find the folder that it names them from


def find(listing: Listing) -> dict[str, dict[str, Any]]:
    """The JSON files that name images, parsed, and parsed once for all who ask. Raises as _find does."""
    if listing.coco is None:
        listing.coco = _find(listing)
    return listing.coco


def _find(listing: Listing) -> dict[str, dict[str, Any]]:
    """The JSON files that name images, parsed: in the data set's folder, in one named annotations, or beside images.

    Raises UsageError if one of those in the first two cannot be parsed.
    """
    beside_images = {path.rpartition("/")[0] for path in listing.images}
    sidecars = set(listing.sidecars())
    found = {}
    for path in listing.others:
        folder = path.rpartition("/")[0]
        expected = not folder or folder.rpartition("/")[2].lower().startswith("annotation")
        if not path.lower().endswith(".json") or path in sidecars or not (expected or folder in beside_images):
            continue
        try:
            data = json.loads((listing.root / path).read_bytes())
        except (ValueError, RecursionError) as error:
            if not expected:
                continue
            raise UsageError(
                f"{listing.root / path}: no JSON ({error}); repair it, or take it out, or say --layout if it is of no importance"
            ) from None
        if isinstance(data, dict) and isinstance(data.get("images"), list) and ("annotations" in data or "categories" in data):
            _check(str(listing.root / path), data)
            found[path] = data
    return found


def _check(name: str, data: dict[str, Any]) -> None:
    """Raises UsageError where it cannot be told which image is meant."""
    seen = set()
    for place, image in enumerate(data["images"]):
        if (
            not isinstance(image, dict)
            or not isinstance(image.get("file_name"), str)
            or not isinstance(image.get("id"), int | str)
        ):
            raise UsageError(f"{name}: images[{place}] has no file_name and id")
        if image["id"] in seen:
            raise UsageError(f"{name}: images[{place}] has the id {image['id']!r} of another image")
        seen.add(image["id"])
    annotations = data.get("annotations", [])
    if not isinstance(annotations, list):
        raise UsageError(f"{name}: annotations is no list")
    for place, annotation in enumerate(annotations):
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            raise UsageError(f"{name}: annotations[{place}] has no image_id")


@dataclass(frozen=True)
class Numbers:
    """The ids of copies: the same in all files of a data set, above all ids that there are, whatever the number of copies."""

    first: int
    place: Mapping[tuple[str, int | str], int]

    @classmethod
    def of(cls, named: Sequence[tuple[str, int | str]]) -> Numbers:
        """named: (path, id) of the images of all files."""
        place = {pair: number for number, pair in enumerate(dict.fromkeys(named))}
        return cls(max((number for _, number in named if isinstance(number, int)), default=0) + 1, place)

    def copy(self, path: str, original: int | str, copy: int) -> int | str:
        if isinstance(original, str):
            return f"{original}__v{copy}"
        return self.first + (copy - 1) * len(self.place) + self.place[path, original]


@dataclass(frozen=True)
class AnnotationFile:
    """One JSON file. images: the path of each image that it names, below the data set's folder; "" where there is none."""

    path: str
    data: Mapping[str, Any]
    images: tuple[str, ...]
    numbers: Numbers

    def render(self, copies: Mapping[str, Mapping[int, str]], *, originals: bool) -> bytes:
        """Copies come last, with all that is said of their originals but for ids and file names."""
        of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        given = self.data.get("annotations", [])
        for annotation in given:
            of_image[str(annotation["image_id"])].append(annotation)
        images = list(self.data["images"]) if originals else []
        annotations = list(given) if originals else []
        next_id = max((one["id"] for one in given if isinstance(one.get("id"), int)), default=0) + 1
        for image, path in zip(self.data["images"], self.images, strict=True):
            for copy, copy_path in copies.get(path, {}).items():
                image_id = self.numbers.copy(path, image["id"], copy)
                folder = image["file_name"][: max(map(image["file_name"].rfind, "/\\")) + 1]
                images.append({**image, "id": image_id, "file_name": folder + copy_path.rpartition("/")[2]})
                for annotation in of_image[str(image["id"])]:
                    annotations.append({**annotation, "image_id": image_id})
                    if "id" in annotation:
                        annotations[-1]["id"] = next_id
                        next_id += 1
        changed: dict[str, Any] = {"images": images}
        if "annotations" in self.data:
            changed["annotations"] = annotations
        return json.dumps({**self.data, **changed}).encode()


@dataclass(frozen=True)
class _Named:
    """What one JSON file says: the split that it is for, and the path of each of its images."""

    split: str
    images: tuple[str, ...]
    missing: tuple[str, ...]


def read(listing: Listing) -> Dataset:
    """Raises UsageError if there is no JSON file that names images, or one names none that is there."""
    files = find(listing)
    if not files:
        raise UsageError(
            f"{listing.root}: no JSON file with images and annotations, beside the images or in a folder annotations"
        )
    named = {path: _resolve(listing, path, data) for path, data in files.items()}
    if not any(any(one.images) for one in named.values()):
        first = next(iter(files))
        example = next((image["file_name"] for image in files[first]["images"]), "nothing")
        raise UsageError(f"{listing.root / first}: none of the images that it names ({example}, ...) is below {listing.root}")
    splits = _splits(named)
    items = [Item(path, *splits[path]) for path in splits]
    failed = []
    notes = list(listing.notes)
    for path, one in named.items():
        if one.missing and is_held_out(one.split):
            notes.append(f"{path} names {len(one.missing)} images that are not there, such as {one.missing[0]}")
        elif one.missing:
            failed += [(missing, f"named in {path}, but not there") for missing in one.missing]
    unnamed = [path for path in listing.images if path not in splits]
    if unnamed:
        notes.append(f"{len(unnamed)} images are in no JSON file and are not augmented, such as {unnamed[0]}")
    pairs = [
        (where, image["id"])
        for path in sorted(files)
        for image, where in zip(files[path]["images"], named[path].images, strict=True)
    ]
    numbers = Numbers.of(pairs)
    train = {item.path for item in items if item.train}
    annotations: tuple[Annotations, ...] = tuple(
        AnnotationFile(path, data, named[path].images, numbers)
        for path, data in files.items()
        if not train.isdisjoint(named[path].images)
    )
    extended = {one.path for one in annotations}
    others = [path for path in (*unnamed, *listing.others) if path not in extended]
    return Dataset(listing.root, "coco", with_stems(items), tuple(others), annotations, "boxes", tuple(notes), tuple(failed))


def _resolve(listing: Listing, path: str, data: dict[str, Any]) -> _Named:
    """Find the folder that the images are named from: that of the same split, then that of most of them, then the nearest."""
    split = split_in(path.rpartition("/")[2]) or next((name for name in reversed(folders_of(path)) if _is_split(name)), "")
    names = [posixpath.normpath(image["file_name"].replace("\\", "/")) for image in data["images"]]
    hits: Counter[str] = Counter()
    for name in names[:SEARCHED]:
        for image in listing.by_name.get(name.rpartition("/")[2], ()):
            if image == name or image.endswith(f"/{name}"):
                hits[image[: len(image) - len(name)]] += 1
    here = path[: path.rfind("/") + 1]

    def fitness(folder: str) -> tuple[bool, int, int, bool]:
        same = bool(split) and any(_same_split(name, split) for name in folder.split("/"))
        other = any(_is_split(name) and not _same_split(name, split) for name in folder.split("/")) if split else False
        return same or not other, same, hits[folder], folder == here

    best = max(sorted(hits), key=fitness, default="")
    there = set(listing.images)
    images = tuple(best + name if best + name in there else "" for name in names)
    missing = tuple(best + name for name, image in zip(names, images, strict=True) if not image)
    return _Named(split, images, missing)


def _is_split(name: str) -> bool:
    return is_train(name) or is_held_out(name)


def _same_split(name: str, split: str) -> bool:
    return (is_train(name) and is_train(split)) or (is_held_out(name) and name.lower()[:2] == split.lower()[:2])


def _splits(named: Mapping[str, _Named]) -> dict[str, tuple[str, bool]]:
    """The split of each image, and whether that is for training: what a JSON file's name says, or else the image's folders.

    An image that anything says is held out is held out.
    """
    said: dict[str, set[str]] = defaultdict(set)
    for one in named.values():
        for image in filter(None, one.images):
            said[image].add(one.split)
    for image, splits in said.items():
        splits.update(filter(_is_split, folders_of(image)))
    everything = {split for splits in said.values() for split in splits}
    train, held_out = set(filter(is_train, everything)), set(filter(is_held_out, everything))
    if held_out and not train:
        refuse_without_train(held_out, everything - held_out)
    result = {}
    for image, splits in said.items():
        held = sorted(filter(is_held_out, splits))
        trains = sorted(filter(is_train, splits))
        if held or (train and not trains):
            result[image] = (held[0] if held else max(splits), False)
        else:
            result[image] = (trains[0] if trains else "", True)
    return result
