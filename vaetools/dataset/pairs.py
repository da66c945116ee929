"""Parallel folders: `images/train/a.jpg` has its label or mask in `labels/train` or `masks/train`."""

from __future__ import annotations

from collections.abc import Collection

IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "jpegimages"))
MASK_WORDS = frozenset(("mask", "masks", "label", "labels", "gt", "annotation", "annotations", "segmentation", "groundtruth"))


def parallel_folders(path: str, names: Collection[str]) -> list[str]:
    """The folders that match an image's own, with the last one that is named after images replaced by each of `names`."""
    parts = path.split("/")[:-1]
    places = [place for place, part in enumerate(parts) if part.lower() in IMAGE_FOLDERS]
    return ["/".join((*parts[: places[-1]], name, *parts[places[-1] + 1 :])) for name in names] if places else []


def beyond_images(path: str) -> tuple[str, ...]:
    """An image's folders, without the one that is named after images: what may be a split among them."""
    parts = path.split("/")[:-1]
    places = [place for place, part in enumerate(parts) if part.lower() in IMAGE_FOLDERS]
    return (*parts[: places[-1]], *parts[places[-1] + 1 :]) if places else tuple(parts)
