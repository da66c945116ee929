"""LatentItems of WebDataset's samples, which never become pixels in a worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..augment.stream import SeedStream
from ..errors import FormatError, UsageError
from ..model.weights import find_by_name
from .batch import LatentItem
from .item import ItemReader

SUFFIX = "vtc"


class LatentSamples(ItemReader):
    """From a sample as webdataset reads it, a dict of bytes, to a LatentItem; see vaetools.webdataset.latent_samples."""

    def __init__(
        self,
        model: str | os.PathLike[str] = "photo",
        *,
        image: str | None = None,
        label: str | None = "cls",
        target_transform: Callable[[bytes], Any] = int,
        classes: int = 1,
        crop: int | None = None,
        seed: int | None = None,
    ) -> None:
        if crop is not None and crop < 1:
            raise UsageError(f"the crop must be 1 pixel a side or more, not {crop}")
        self.image, self.label, self.target_transform, self.classes = image, label, target_transform, classes
        self.crop, self.stream = crop, SeedStream(seed)
        self.model = find_by_name(model)
        self.model_hash = self.reader.model_hash.hex()

    def __call__(self, sample: Mapping[str, Any]) -> LatentItem:
        """Raises FormatError, with the sample's key, if it has no such image, or one that cannot be decoded."""
        key = str(sample.get("__key__", ""))
        image = self.image or next((name for name in sample if name.rpartition(".")[2] == SUFFIX), "")
        if image not in sample:
            raise FormatError(f"{key}: has no {image or f'.{SUFFIX} member'}: it has {', '.join(map(str, sample))}")
        try:
            label = -1 if self.label is None else self.target_transform(sample[self.label])
        except (KeyError, ValueError, TypeError) as error:
            raise FormatError(f"{key}: {self.label} is no label ({error!r}): say which field is with label=") from None
        try:
            return self.item(f"{key}.{image}", sample[image], label, classes=self.classes)
        except FormatError as error:
            raise type(error)(f"{key}.{image}: {error}") from None
