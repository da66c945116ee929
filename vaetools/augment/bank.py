"""The latents of labelled images, kept to take neighbours and differences from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UsageError
from ..files import replace_bytes
from ..model.pixels import to_model
from ..model.space import LatentSpace
from ..model.threads import one_thread
from .seeds import generator_of, seed_for

SAME = 0.01  # relative distance below which two latents are of the same image
LIMIT_PER_CLASS = 500
LIMIT_BYTES = 1 << 30
LARGEST_SIDE = 256  # pixels, of the images of a bank


class LatentBank:
    """Latents of one size, of images with labels 0..classes-1: y (N, M, h, w), z (N, Z, h/4, w/4), labels (N,) int64.

    Images of other sizes than the bank's take them interpolated to their own.
    """

    def __init__(
        self, y: Tensor, z: Tensor, labels: Tensor, *, model_hash: str, quality: float, classes: int | None = None
    ) -> None:
        """Raises UsageError if the numbers of latents and labels differ, there are none, or a label is below 0.

        model_hash, quality: of what encoded them. classes: how many there are, if the last ones have no image.
        """
        if not len(y) or not len(y) == len(z) == len(labels):
            raise UsageError(f"a bank needs as many labels as latents, and at least one: {len(labels)} and {len(y)}")
        if int(labels.min()) < 0:
            raise UsageError(f"labels are class numbers from 0, not {int(labels.min())}")
        # In one order in memory, whether fresh or from a file: the order of summation, and so the last bit, depends on it.
        self.y, self.z = (x.clone(memory_format=torch.contiguous_format) for x in (y, z))
        self.labels = labels.to("cpu", torch.int64)
        self.model_hash, self.quality = model_hash, quality
        self.classes = max(int(self.labels.max()) + 1, classes or 0)

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def fit(
        cls,
        space: LatentSpace,
        images: Iterable[Tensor],
        labels: Sequence[int] | Tensor,
        *,
        classes: int | None = None,
        limit_per_class: int = LIMIT_PER_CLASS,
        seed: int = 0,
    ) -> LatentBank:
        """Encode labelled images, (C, H, W) of uint8, uint16 or floats in 0..1.

        At most `limit_per_class` of a class, chosen by `seed`, and fewer where that would be more than LIMIT_BYTES. All are
        brought to the size of the first, or to LARGEST_SIDE. Raises UsageError if their numbers differ or there are none.
        """
        whole = [int(label) for label in labels]
        y, z, kept = [], [], []
        shape: tuple[int, int] | None = None
        chosen: set[int] = set()
        count = 0
        with one_thread(space.device):  # as images are encoded one by one, so that a bank does not depend on the machine's cores
            for index, image in enumerate(images):
                count += 1
                if shape is None:
                    shape = _bank_size(int(image.shape[-2]), int(image.shape[-1]))
                    chosen = _limited(whole, _limit(space, shape, whole, limit_per_class), seed)
                if index not in chosen:
                    continue
                x = to_model(image, space.config)[None]
                if x.shape[2:] != shape:
                    x = F.interpolate(x, shape, mode="bilinear", antialias=True, align_corners=False)
                latents = space.encode(x)
                y.append(latents.y)
                z.append(latents.z)
                kept.append(whole[index])
        if count != len(whole):
            raise UsageError(f"{count} images and {len(whole)} labels: there must be one for each")
        if not kept:
            raise UsageError("a bank needs labelled images, and there are none")
        hash_, quality = space.model_hash, space.quality
        return cls(torch.cat(y), torch.cat(z), torch.tensor(kept), model_hash=hash_, quality=quality, classes=classes)

    def check(self, space: LatentSpace) -> None:
        """Raises UsageError if the bank is of another model or quality."""
        if self.model_hash != space.model_hash or self.quality != space.quality:
            raise UsageError(
                f"the bank was fitted with the model {self.model_hash} at quality {self.quality:g}, and this is "
                f"{space.model_hash} at {space.quality:g}: fit it again"
            )

    # Neighbours.

    @cached_property
    def _members(self) -> list[Tensor]:
        """Positions of the images of each class."""
        return [(self.labels == label).nonzero().flatten() for label in range(self.classes)]

    @cached_property
    def _flat(self) -> Tensor:
        return self.y.flatten(1).float()

    def members(self, label: int) -> Tensor:
        """Positions of the images of a class. Raises UsageError if there are none."""
        if not 0 <= label < self.classes or not len(self._members[label]):
            raise UsageError(f"the bank has no image of class {label}; it was fitted on classes {self._present()}")
        return self._members[label]

    def _present(self) -> str:
        return ", ".join(str(label) for label in range(self.classes) if len(self._members[label]))

    def nearest(self, y: Tensor, count: int, *, label: int | None = None, same: bool = False) -> Tensor:
        """Positions of the `count` nearest to y (M, h, w), in its class or all; the image itself is left out unless `same`.

        The image itself alone if there is no other.
        """
        places = torch.arange(len(self)) if label is None else self.members(label)
        query = self._as_query(y)
        flat = self._flat[places.to(self._flat.device)]
        distances = (flat - query).square().sum(1)
        order = distances.argsort(stable=True)
        if not same:
            others = order[distances[order] > SAME**2 * query.square().sum()]
            order = others if len(others) else order
        return places[order[:count].cpu()]

    def _as_query(self, y: Tensor) -> Tensor:
        return self._to_size(y[None], self.y.shape[-2:]).flatten(1).float().to(self._flat.device)

    def is_same(self, place: int, y: Tensor) -> bool:
        """Whether y (M, h, w) is of the very image that is there."""
        query = self._as_query(y)
        return bool((self._flat[place] - query).square().sum() <= SAME**2 * query.square().sum())

    def take(self, places: Tensor, like_y: Tensor, like_z: Tensor) -> tuple[Tensor, Tensor]:
        """y and z at these positions, of the size of the given ones."""
        places = places.to(self.y.device)
        return (
            self._to_size(self.y[places], like_y.shape[-2:]).to(like_y.device),
            self._to_size(self.z[places], like_z.shape[-2:]).to(like_z.device),
        )

    @staticmethod
    def _to_size(x: Tensor, size: Sequence[int]) -> Tensor:
        if tuple(x.shape[-2:]) == tuple(size):
            return x
        return F.interpolate(x.float(), tuple(size), mode="bilinear", align_corners=False)

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """One safetensors file. Raises OSError if it cannot be written."""
        about = {"model": self.model_hash, "quality": self.quality, "classes": self.classes}
        replace_bytes(Path(path), save(self._tensors, {"bank": json.dumps(about)}))  # of several keys, the order would vary

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {"y": self.y.cpu(), "z": self.z.cpu(), "labels": self.labels}

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> LatentBank:
        """To where it is computed with: other devices may take other images for the nearest. Raises UsageError if the file is
        missing or no bank."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["bank"])
                y, z, labels = (file.get_tensor(name) for name in ("y", "z", "labels"))
            return cls(
                y.to(device), z.to(device), labels, model_hash=about["model"], quality=about["quality"], classes=about["classes"]
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: no bank of latents ({error})") from None

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits of its content."""
        content = hashlib.sha256(f"{self.model_hash} {self.quality!r} {self.classes}".encode())
        for tensor in self._tensors.values():
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]


def _bank_size(height: int, width: int) -> tuple[int, int]:
    shrink = min(1.0, LARGEST_SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _limit(space: LatentSpace, size: tuple[int, int], labels: Sequence[int], limit_per_class: int) -> int:
    """Of the images of a class, in LIMIT_BYTES of them all."""
    if limit_per_class < 1:
        raise UsageError(f"the limit of a class must be at least 1, not {limit_per_class}")
    rows, columns = space.shape(*size)
    each = 4 * rows * columns * space.config.latent_channels
    return max(1, min(limit_per_class, LIMIT_BYTES // (each * max(1, len(set(labels))))))


def _limited(labels: Sequence[int], limit: int, seed: int) -> set[int]:
    """Which images to take: all of a small class, a random part of a large one."""
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    chosen: set[int] = set()
    for label, places in by_class.items():
        order = torch.randperm(len(places), generator=generator_of(seed_for(seed, 0, label, 0))).tolist()
        chosen.update(places[place] for place in order[:limit])
    return chosen
