"""What goes from a worker to the device: whole numbers, and where the wanted pixels are in what they decode to.

LatentFolder[i] -> LatentItem --latent_collate--> LatentBatch -> LatentAugment
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ..codec.tiles import Rect
from ..errors import UsageError

ALL_LEVELS = (0.0, 1.0)


@dataclass(frozen=True)
class LatentItem:
    """One image, or the part of it that a crop takes: `place`, in pixels of the image.

    Of a file with latents: z (Z, r, c) and residuals (M, 4r, 4c), int16, of a window of hyper-latents; tiles: the parts of the
    window whose means are computed apart, in hyper-latents; seen: what is decoded, in latents. Of a file that was kept
    lossless: pixels (C, h, w), uint8 or uint16, without alpha.
    wanted: the pixels to come out, within those that are decoded. height, width: of the result; what `wanted` lacks to it, if the
    image is smaller than the crop, is its last row and column again.
    quality: 0..100. gray: the image has no colours. levels: what the model's 0 and 1 stand for, of the range of values.
    label: as the data set has it. classes: how many there are.
    identity: 63 bits that tell the file, by its content and its place in the folder. epoch: as set_epoch had it.
    epoch_call: which call of it that was (see SeedStream.said), 0 if nobody called it.
    """

    z: Tensor | None
    residuals: Tensor | None
    pixels: Tensor | None
    tiles: tuple[Rect, ...]
    seen: Rect
    wanted: Rect
    place: Rect
    height: int
    width: int
    quality: float
    gray: bool
    levels: tuple[float, float]
    label: Any
    classes: int
    identity: int
    epoch: int
    epoch_call: int
    model_hash: str

    @property
    def _kind(self) -> tuple[Any, ...]:
        """Items of one kind are stacked."""
        window = self.z if self.pixels is None else self.pixels
        assert window is not None
        seen = self.seen.height, self.seen.width
        return window.shape, window.dtype, self.tiles, seen, self._plain, self.gray, self.levels == ALL_LEVELS

    @property
    def _plain(self) -> bool:
        return self.wanted == Rect(0, 0, self.height, self.width)


@dataclass(frozen=True)
class LatentGroup:
    """The items of a batch whose windows are alike, stacked: fields as of LatentItem.

    rows (G,): where they stand in the batch, on the CPU. seen (G, 2): top and left, in latents; seen_size: height and width.
    wanted (G, 4): top, left, bottom, right; plain: the wanted pixels start where the decoded ones do, and none is missing.
    quality (G,), in 0..1. levels (G, 2), or None where they are 0 and 1.
    """

    rows: Tensor
    z: Tensor | None
    residuals: Tensor | None
    pixels: Tensor | None
    tiles: tuple[Rect, ...]
    seen: Tensor
    seen_size: tuple[int, int]
    wanted: Tensor
    plain: bool
    quality: Tensor
    gray: bool
    levels: Tensor | None

    def __len__(self) -> int:
        return len(self.rows)

    def map(self, function: Callable[[Tensor], Tensor]) -> LatentGroup:
        """With `function` applied to every tensor but `rows`."""
        moved = {name: function(value) for name, value in vars(self).items() if isinstance(value, Tensor) and name != "rows"}
        return replace(self, **moved)  # type: ignore[arg-type]

    def split(self, most: int) -> Iterator[LatentGroup]:
        """Groups of at most so many."""
        for start in range(0, len(self), most):
            part = slice(start, start + most)
            yield replace(self.map(lambda tensor, part=part: tensor[part]), rows=self.rows[part])  # type: ignore[misc]


@dataclass(frozen=True)
class LatentBatch:
    """groups: the images, of which each is in one. labels (B,), or as default_collate makes them of what the data set has.

    height, width: of every image that comes out, in pixels. identities (B,): int64, on the CPU.
    epoch, epoch_call: what was said last to one of them.
    """

    groups: tuple[LatentGroup, ...]
    labels: Any
    height: int
    width: int
    classes: int
    identities: Tensor
    epoch: int
    epoch_call: int
    model_hash: str

    def __len__(self) -> int:
        return len(self.identities)

    def to(self, device: str | torch.device, *, non_blocking: bool = False) -> LatentBatch:
        """With all tensors that the device needs on it."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> LatentBatch:
        """What a DataLoader calls if it was made with pin_memory=True."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> LatentBatch:
        labels = function(self.labels) if isinstance(self.labels, Tensor) else self.labels
        return replace(self, groups=tuple(group.map(function) for group in self.groups), labels=labels)


def latent_collate(items: Sequence[LatentItem]) -> LatentBatch:
    """For DataLoader(collate_fn=latent_collate). Raises UsageError if the images are of different sizes or models."""
    for item in items:
        if not isinstance(item, LatentItem):
            raise UsageError(f"latent_collate makes a batch of what LatentFolder gives, LatentItem, not of {type(item).__name__}")
    sizes = sorted({(item.height, item.width) for item in items})
    if len(sizes) != 1:
        raise UsageError(
            f"the images of one batch must be of one size, and these are of {_named(sizes)} pixels (height x width): "
            "give LatentFolder a crop=, or the loader a batch sampler that puts images of one size together"
        )
    hashes = sorted({item.model_hash for item in items})
    if len(hashes) != 1:
        raise UsageError(f"the images of one batch must be of one model, and these are of {' and '.join(hashes)}")
    epoch_call, epoch = max((item.epoch_call, item.epoch) for item in items)
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for row, item in enumerate(items):
        kinds.setdefault(item._kind, []).append(row)
    return LatentBatch(
        tuple(_group([items[row] for row in rows], rows) for rows in kinds.values()),
        default_collate([item.label for item in items]),
        *sizes[0],
        max(item.classes for item in items),
        torch.tensor([item.identity for item in items]),
        epoch,
        epoch_call,
        hashes[0],
    )


def _named(sizes: Sequence[tuple[int, int]]) -> str:
    shown = [f"{height} x {width}" for height, width in sizes[:4]]
    return ", ".join(shown) + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")


def _group(items: Sequence[LatentItem], rows: Sequence[int]) -> LatentGroup:
    def stacked(name: str) -> Tensor | None:
        tensors = [getattr(item, name) for item in items]
        return None if tensors[0] is None else torch.stack(tensors)

    one = items[0]
    return LatentGroup(
        torch.tensor(rows),
        stacked("z"),
        stacked("residuals"),
        stacked("pixels"),
        one.tiles,
        torch.tensor([(item.seen.top, item.seen.left) for item in items]),
        (one.seen.height, one.seen.width),
        torch.tensor([(item.wanted.top, item.wanted.left, item.wanted.bottom, item.wanted.right) for item in items]),
        one._plain,
        torch.tensor([item.quality for item in items]) / 100,
        one.gray,
        None if one.levels == ALL_LEVELS else torch.tensor([item.levels for item in items]),
    )
