"""An image of a data set that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..augment.seeds import digest_one
from ..codec.boxes import levels_of
from ..errors import ImageError
from ..images.picture import Picture
from ..images.read import read_picture
from ..images.tensors import to_tensor

LARGEST = 65535
CHANGED = "it was changed while the job ran; run the same command again"


@dataclass(frozen=True, eq=False)
class Content:
    """tensor: (C, H, W) uint8 or uint16, the picture's pixels."""

    picture: Picture
    tensor: Tensor

    @cached_property
    def digest(self) -> int:
        """Of the pixels."""
        return digest_one(self.tensor)

    @cached_property
    def levels(self) -> tuple[int, int]:
        """The values that a model is to see as 0 and 1."""
        return levels_of(self.picture)

    @property
    def seen(self) -> Tensor:
        """(C, H, W) uint8, or uint16 stretched over the range of the type, as the codec stretches it."""
        if self.tensor.dtype == torch.uint8:
            return self.tensor
        return self._with_colours(lambda x, low, high: (x - low) * (LARGEST / (high - low)), self.tensor)

    def stored(self, image: Tensor) -> Tensor:
        """Back from that scale to the values of the picture."""
        if image.dtype == torch.uint8:
            return image
        return self._with_colours(lambda x, low, high: low + x * ((high - low) / LARGEST), image)

    def _with_colours(self, scale: Callable[[Tensor, int, int], Tensor], image: Tensor) -> Tensor:
        whole = image.to(torch.int32)
        colours = whole[: self.picture.colour.shape[2]]
        colours.copy_(scale(colours.double(), *self.levels).round().clamp(0, LARGEST))
        return whole.to(image.dtype)

    @property
    def beside(self) -> str:
        """16 hexadecimal digits of what a copy takes over beside the pixels: profile, EXIF, XMP, and the mode."""
        found = hashlib.sha256(self.picture.mode.encode())
        metadata = self.picture.metadata
        for data in (metadata.icc, metadata.exif, metadata.xmp, *((metadata.scan,) if metadata.scan else ())):
            found.update(len(data).to_bytes(8, "little") + data)
        return found.hexdigest()[:16]


def refuse_labels(picture: Picture, path: object, what: str) -> None:
    """Raises ImageError for a picture of labels, whose values `what` would mix."""
    if picture.exact:
        raise ImageError(f"{path}: its few values look like labels, which {what} would mix: keep it out of the folder")


def read_content(path: Path, max_pixels: int, *, expected: int | None = None) -> Content:
    """Raises ImageError if it cannot be read, holds labels, or has other pixels than those of the digest that is expected."""
    picture = read_picture(path, max_pixels=max_pixels)
    refuse_labels(picture, path, "a copy")
    content = Content(picture, to_tensor(picture.pixels))
    if expected is not None and content.digest != expected:
        raise ImageError(f"{path}: {CHANGED}")
    return content
