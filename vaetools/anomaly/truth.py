"""What is known of images to be scored: which are good, by the folder they are in, and masks of what is wrong with the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import UsageError
from ..images.read import read_for_training

MASK_LEVEL = 127  # of 255; what is brighter is anomalous
MASK_ENDINGS = (".png", "_mask.png")


@dataclass(frozen=True)
class Truth:
    """good: names of folders below the one that is scored, or paths such as test/good, whose images are good; those of all
    other folders are anomalous.

    masks: a folder with a mask of each image at the same place, `a/b.png` or `a/b_mask.png` for `a/b.jpg`; images of good folders
    need none. Without `good`, an image is good if its mask is empty.
    """

    good: frozenset[str] = frozenset()
    masks: Path | None = None

    def __post_init__(self) -> None:
        if self.masks is not None and not self.masks.is_dir():
            raise UsageError(f"{self.masks}: no such folder of masks")

    def mask(self, name: str, size: tuple[int, ...]) -> np.ndarray | None:
        """(H, W) boolean, True where the image `name` is anomalous; None if it is not known. Raises ImageError, and UsageError if
        the mask has another size than the image, (H, W)."""
        if self.masks is None:
            return None
        if self.is_good(name):
            return np.zeros(size, bool)
        found = [self.masks / PurePosixPath(name).with_suffix("")]
        files = [path.with_name(path.name + ending) for path in found for ending in MASK_ENDINGS]
        file = next((path for path in files if path.is_file()), None)
        if file is None:
            return None
        mask = read_for_training(file, 1, 8)[:, :, 0] > MASK_LEVEL
        if mask.shape != size:
            raise UsageError(f"its mask {file} has {mask.shape[1]} x {mask.shape[0]} pixels, and the image {size[1]} x {size[0]}")
        return mask

    def is_good(self, name: str) -> bool:
        folders = f"/{PurePosixPath(name).parent}/"
        return any(f"/{PurePosixPath(one)}/" in folders for one in self.good)

    def label(self, name: str, mask: np.ndarray | None) -> str | None:
        """ "" for a good image, the class of an anomalous one (its first folder), None where it is not known."""
        if self.good:
            return "" if self.is_good(name) else _folder(name)
        if mask is None:
            return None
        return _folder(name) if mask.any() else ""


def _folder(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash else "anomalous"
