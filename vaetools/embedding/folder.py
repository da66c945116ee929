"""Embeddings of all images of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ..folder.ledger import JobProgress, Silent
from ..images.collection import Collection
from ..images.opening import MAX_PIXELS
from .embedder import ORIGINAL, REMEDY, Embedder
from .table import About, Embeddings

Failures = list[tuple[str, str]]


def embed_folder(
    folder: str | os.PathLike[str], embedder: Embedder, *, max_pixels: int = MAX_PIXELS, progress: JobProgress | None = None
) -> tuple[Embeddings, Failures]:
    """The embeddings of all images below `folder`, in the order of their names, and which images failed, with the reason.

    Labels are the first folders of the paths. Images are read as for training: upright, without alpha, in the channels and the
    depth of the model. Raises UsageError if `folder` is no folder, holds no image, or none that can be read.
    """
    collection = Collection.of(folder)
    config, watched = embedder.space.config, _Watched(collection, progress or Silent())

    def images() -> Iterator[Tensor]:
        for batch in collection.batches(config.image_channels, config.bit_depth, max_pixels=max_pixels):
            for image, place in zip(batch.images, batch.index, strict=True):
                watched.taken.append((place, image.shape[1] * image.shape[2]))
                yield image

    places: list[int] = []
    vectors: list[np.ndarray] = []
    failed = collection.failed
    for number, vector in enumerate(embedder.each(images())):
        place = watched.advance(number)
        if vectors and len(vector) != len(vectors[0]):
            failed.append((collection.names[place], f"{len(vector)} values, and others {len(vectors[0])}: {REMEDY}"))
            continue
        places.append(place)
        vectors.append(vector.numpy())
    watched.finish()
    about = About(embedder.model, embedder.space.quality, embedder.features, embedder.pooling, _size_name(embedder))
    names, labels = (
        np.array([values[place] for place in places], np.str_) for values in (collection.names, collection.class_names)
    )
    return Embeddings(np.stack(vectors), names, labels, about), sorted(failed)


def _size_name(embedder: Embedder) -> str:
    return ORIGINAL if embedder.size is None else f"{embedder.size[1]}x{embedder.size[0]}"


class _Watched:
    """Tells how far a collection is. taken: of each image that was read, its place and its pixels."""

    def __init__(self, collection: Collection, progress: JobProgress) -> None:
        self.sizes = [_bytes_of(collection.root / name) for name in collection.names]
        self.taken: list[tuple[int, int]] = []
        self.progress, self.told = progress, 0
        progress.start(len(self.sizes), sum(self.sizes))

    def advance(self, number: int) -> int:
        """The place of the image `number` of those taken; images before it that were not taken have failed."""
        place, pixels = self.taken[number]
        self._pass(place)
        self.progress.advance(self.sizes[place], pixels)
        self.told = place + 1
        return place

    def finish(self) -> None:
        self._pass(len(self.sizes))

    def _pass(self, place: int) -> None:
        for failed in range(self.told, place):
            self.progress.advance(self.sizes[failed], 0)
        self.told = place


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is told when it is read
        return 0
