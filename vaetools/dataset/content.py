"""An image of a data set that was read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..augment.seeds import digest_one
from ..errors import ImageError
from ..images.picture import Picture
from ..images.read import read_picture
from ..images.tensors import to_tensor

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

    @property
    def beside(self) -> str:
        """16 hexadecimal digits of what a copy takes over beside the pixels: profile, EXIF, XMP, and the mode."""
        found = hashlib.sha256(self.picture.mode.encode())
        metadata = self.picture.metadata
        for data in (metadata.icc, metadata.exif, metadata.xmp):
            found.update(len(data).to_bytes(8, "little") + data)
        return found.hexdigest()[:16]


def read_content(path: Path, max_pixels: int, *, expected: int | None = None) -> Content:
    """Raises ImageError if it cannot be read, or has other pixels than those of the digest that is expected."""
    picture = read_picture(path, max_pixels=max_pixels)
    content = Content(picture, to_tensor(picture.pixels))
    if expected is not None and content.digest != expected:
        raise ImageError(f"{path}: {CHANGED}")
    return content
