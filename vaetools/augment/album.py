"""The augmenter in albumentations 2.0.8.

    A.Compose([A.HorizontalFlip(), LatentAugmentation("photo", "jitter,hyper", 0.5), A.ToFloat()])

docs/loaders.md tells how to use it. Import this module before `A.load` or `A.from_dict` of what has such a transform in it.
"""

from __future__ import annotations

import os
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it asks the package index when it is imported

import albumentations as A  # type: ignore[import-untyped]
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import get_worker_info

from ..errors import UsageError
from ..images.tensors import to_tensor
from ..model.space import LatentSpace
from ..model.weights import find_by_name, load_weights
from .augmenter import DEFAULT_OPERATORS, DEFAULT_QUALITY, DEFAULT_STRENGTH, Augmenter, refuse_forked_cuda
from .operators import parse_operators
from .seeds import SEED_BITS, seed_for
from .stream import SeedStream

IMAGES = ("image", "images", "volume", "volumes")
MARKS = {
    "bboxes": "boxes",
    "mask": "masks",
    "masks": "masks",
    "mask3d": "masks",
    "masks3d": "masks",
    "keypoints": "keypoints",
}


class LatentAugmentation(A.ImageOnlyTransform):
    """Augments images (H, W) or (H, W, C), uint8, uint16 or floats in 0..1, of any target that holds images: all of a call alike.

    model: an installed model's name, a weights file or the folder of a training run. bank: a file of `LatentBank.save`, for
    operators that need one. Both are loaded when an image first needs them, and once in a process for all transforms alike.

    seed: None for a draw from albumentations' own random numbers, which are made to differ between a loader's workers and epochs;
    a number for images, and whether they are augmented at all, that follow from it (see `SeedStream`).

    Raises ValueError on arguments of a wrong type or range, as all transforms of albumentations do, and UsageError on operators
    that need what there is not: labels, or a bank.
    """

    class InitSchema(A.ImageOnlyTransform.InitSchema):
        model: str | Path
        operators: str | list[str]
        strength: float = Field(ge=0, le=1)
        quality: float = Field(ge=0, le=100)
        detail: bool
        bank: str | Path | None
        device: str
        seed: int | None

    def __init__(
        self,
        model: str | os.PathLike[str] = "photo",
        operators: str | list[str] = DEFAULT_OPERATORS,
        strength: float = DEFAULT_STRENGTH,
        quality: float = DEFAULT_QUALITY,
        detail: bool = True,
        bank: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        seed: int | None = None,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.operators = operators if isinstance(operators, str) else ",".join(operators)
        for operator in (operator for chain in parse_operators(self.operators) for operator in chain):
            if operator.needs_labels or operator.mixes_labels:
                raise UsageError(
                    f"{operator.name} works on labels, which albumentations does not show to its transforms: use LatentTransform "
                    "or BatchAugment"
                )
            if operator.needs_bank and bank is None:
                raise UsageError(f"{operator.name} takes other images' latents: give a bank, the file of a LatentBank")
        self.model, self.bank = os.fspath(model), None if bank is None else os.fspath(bank)
        self.strength, self.quality, self.detail, self.device = strength, quality, detail, device
        self.stream = SeedStream(seed)  # `self.seed` is what Compose seeds its transforms with
        self._marks = dict(MARKS)
        self._drawn = 0
        self._worker_seed: int | None = None

    def get_transform_init_args(self) -> dict[str, Any]:
        """All of them: the base class leaves out a seed."""
        names = ("model", "operators", "strength", "quality", "detail", "bank", "device")
        return {**{name: getattr(self, name) for name in names}, "seed": self.stream.seed}

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch: with a seed, images then are the same for any number of workers."""
        self.stream.set_epoch(epoch)

    @property
    def augmenter(self) -> Augmenter:
        """Raises UsageError for a GPU in a process that was forked, ModelError and UsageError for what cannot be loaded."""
        refuse_forked_cuda(self.device)
        model = find_by_name(self.model)
        bank = None if self.bank is None else (self.bank, _modified(self.bank))
        return _augmenter((model, _modified(model)), self.operators, self.strength, self.quality, self.detail, bank, self.device)

    # What albumentations calls.

    def add_targets(self, additional_targets: dict[str, str]) -> None:
        super().add_targets(additional_targets)
        self._marks.update({name: MARKS[target] for name, target in additional_targets.items() if target in MARKS})

    def __call__(self, *args: Any, force_apply: bool = False, **kwargs: Any) -> Any:
        """Raises UsageError on boxes, masks or keypoints, if an operator may move what they mark."""
        for name in sorted(self._marks.keys() & kwargs.keys()):
            if kwargs[name] is not None:
                self.augmenter.refuse_moving(self._marks[name])
        if not self.replay_mode:
            self._reseed_in_worker()
            self._drawn = self._draw(kwargs)
        return super().__call__(*args, force_apply=force_apply, **kwargs)

    def should_apply(self, force_apply: bool = False) -> bool:
        if self.stream.seed is None or force_apply or not 0 < self.p < 1:
            return super().should_apply(force_apply)
        return random.Random(self._drawn).random() < self.p  # whatever was augmented before it

    def get_params(self) -> dict[str, Any]:
        return {"seed": self._drawn}

    def apply(self, img: np.ndarray, *args: Any, seed: int = 0, **params: Any) -> np.ndarray:
        return self._augmented([img], seed)[0]

    def apply_to_images(self, images: np.ndarray, *args: Any, seed: int = 0, **params: Any) -> np.ndarray:
        return np.stack(self._augmented(list(images), seed)) if len(images) else images

    # Seeds and pixels.

    def _reseed_in_worker(self) -> None:
        """Workers begin with the random numbers of the process that started them, in each epoch the same."""
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed:
            self._worker_seed = worker.seed
            mixed = seed_for(self.py_random.getrandbits(SEED_BITS), worker.seed, 0, 0)
            self.set_random_state(np.random.default_rng(mixed), random.Random(mixed))

    def _draw(self, data: dict[str, Any]) -> int:
        if self.stream.seed is None:
            return self.py_random.getrandbits(SEED_BITS)
        name = next((name for name in IMAGES if data.get(name) is not None), None)
        return 0 if name is None else self.stream.draw([_planes(name, data[name])])[0]

    def _augmented(self, images: list[np.ndarray], seed: int) -> list[np.ndarray]:
        result = self.augmenter.augment([to_tensor(image) for image in images], [seed] * len(images)).images
        return [_like(image, tensor) for image, tensor in zip(images, result, strict=True)]


def _planes(name: str, images: Any) -> Tensor:
    """All that a target holds, as one (C, H, W)."""
    if name == "image":
        return to_tensor(images)
    if name == "volumes":
        images = [image for volume in images for image in volume]
    return torch.cat([to_tensor(image) for image in images])


def _like(image: np.ndarray, augmented: Tensor) -> np.ndarray:
    pixels = augmented.numpy()
    return np.ascontiguousarray(pixels[0] if image.ndim == 2 else pixels.transpose(1, 2, 0))


def _modified(path: str | Path) -> int:
    """When a file was written, 0 if it is not there: what is there instead of it is loaded anew."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=32)
def _augmenter(
    model: tuple[Path, int],
    operators: str,
    strength: float,
    quality: float,
    detail: bool,
    bank: tuple[str, int] | None,
    device: str,
) -> Augmenter:
    return Augmenter(_space(model, quality, device), operators, strength, detail=detail, bank=None if bank is None else bank[0])


@lru_cache(maxsize=4)
def _space(model: tuple[Path, int], quality: float, device: str) -> LatentSpace:
    return LatentSpace(load_weights(model[0]), device, quality=quality)
