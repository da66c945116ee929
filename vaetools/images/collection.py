"""All images of a folder in the batches that a model takes, with the classes that its folders stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError, UsageError, reason_of
from .ahead import in_threads
from .folder import walk
from .opening import MAX_PIXELS
from .read import read_for_training

BATCH_PIXELS = 1 << 20  # of a batch, unless a single image has more


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size, (B, C, H, W), float32 in 0..1; `index` says which of the collection's they are."""

    images: Tensor
    index: list[int]


@dataclass
class Collection:
    """The images below `root`, in the order of their names: paths relative to it, with `/` between the parts.

    failed: what could not be read, and why, as far as `batches` has gone.
    """

    root: Path
    names: list[str]
    failed: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, root: str | os.PathLike[str], *, leave_out: str | os.PathLike[str] | None = None) -> Collection:
        """Raises UsageError if `root` is no folder or holds no image."""
        listing = walk(root, leave_out=leave_out)
        failed = [(path.relative_to(root).as_posix(), reason) for path, reason in listing.unreadable]
        return cls(Path(root), [path.relative_to(root).as_posix() for path in listing.images], failed)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def class_names(self) -> list[str]:
        """Of each image, the first folder of its path; "" directly below `root`."""
        return [name.partition("/")[0] if "/" in name else "" for name in self.names]

    @cached_property
    def classes(self) -> list[str]:
        """All class names, sorted."""
        return sorted(set(self.class_names))

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64: of each image, the position of its class in `classes`."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers[name] for name in self.class_names], np.int64)

    def batches(
        self,
        channels: int,
        bit_depth: int = 8,
        *,
        only: Sequence[int] | None = None,
        batch_pixels: int = BATCH_PIXELS,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[ImageBatch]:
        """Images, or `only` those at these positions, in order; as many to a batch as follow one another in the same size.

        Upright, without alpha, with colours and depths converted to `channels` (1 or 3) and `bit_depth` (8 or 16). What
        cannot be read, or has more than `max_pixels`, is left out and noted in `failed`. Raises UsageError if nothing is left.
        """
        chosen = range(len(self.names)) if only is None else only

        def read(name: str) -> Tensor | str:
            try:
                return _read(self.root / name, channels, bit_depth, max_pixels)
            except (ImageError, OSError, MemoryError) as error:
                return reason_of(error).removeprefix(f"{self.root / name}: ")

        waiting: list[Tensor] = []
        index: list[int] = []
        count, reason = 0, ""
        for position, (name, image) in zip(chosen, in_threads(read, (self.names[i] for i in chosen)), strict=True):
            if isinstance(image, str):
                reason = reason or f"{name}: {image}"
                self.failed.append((name, image))
                continue
            count += 1
            full = len(waiting) * image.shape[1] * image.shape[2] >= batch_pixels
            if waiting and (full or waiting[0].shape != image.shape):
                yield ImageBatch(torch.stack(waiting), index)
                waiting, index = [], []
            waiting.append(image)
            index.append(position)
        if waiting:
            yield ImageBatch(torch.stack(waiting), index)
        if not count:
            raise UsageError(f"{self.root}: none of the {len(chosen)} images can be read; the first: {reason}")


def _read(path: Path, channels: int, bit_depth: int, max_pixels: int) -> Tensor:
    pixels = read_for_training(path, channels, bit_depth, max_pixels=max_pixels)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return torch.from_numpy(planes).div_(2**bit_depth - 1)
