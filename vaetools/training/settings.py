"""How a network is trained: budget, batches, schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError

MIN_STEPS_PER_EPOCH = 50
PHOTO_CROPS = ((0.0, 128), (0.85, 192))
CROPS = {"photo": PHOTO_CROPS, "gray16": PHOTO_CROPS, "small": ((0.0, 32),)}  # by preset
MIRRORED = frozenset(("photo",))  # presets
SMALLEST_SCALE = {"photo": 0.4}  # by preset; others take images as they are


@dataclass(frozen=True)
class TrainingSettings:
    """Budget, batches and schedules of a training run.

    epochs, minutes: the budget, one of them. batch: images per step and process, at the first crop size. crops: (from which
    fraction of the budget, crop side in pixels). Later, larger crops come in smaller batches, so that a step costs about the
    same throughout. learning_rate: at its height, above 0 and below 1. mirrored: crops are flipped and transposed at random,
    which photographs bear and images with a right way up may not. smallest_scale: most crops are of the image made smaller, at a
    random scale between this and 1; with 1, all are of the image as it is. seed: of crops, qualities and initial weights.
    cache_bytes: memory for decoded images, of each process. steps_per_epoch: as many as there are images if None, and at least
    50.

    Raises UsageError on values out of range.
    """

    epochs: int | None = None
    minutes: float | None = None
    batch: int = 16
    crops: tuple[tuple[float, int], ...] = PHOTO_CROPS
    learning_rate: float = 2e-3
    mirrored: bool = True
    smallest_scale: float = 1.0
    seed: int = 0
    cache_bytes: int = 4 << 30
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise UsageError("give the training budget either as epochs or as minutes")
        if (self.epochs is not None and self.epochs < 1) or (self.minutes is not None and not 0 < self.minutes < math.inf):
            raise UsageError("the training budget must be above 0")
        if self.batch < 1 or not 0 < self.learning_rate < 1:
            raise UsageError("the batch must be at least 1, and the learning rate between 0 and 1")
        if not 0 < self.smallest_scale <= 1:
            raise UsageError(f"the smallest scale of an image must be above 0 and at most 1, not {self.smallest_scale}")
        if self.seed < 0:
            raise UsageError(f"the seed must be at least 0, not {self.seed}")
        if not self.crops or self.crops[0][0] != 0:
            raise UsageError("crops: the first must start at fraction 0")

    def epoch_steps(self, image_count: int, world: int) -> int:
        """As many crops as there are images; on a small folder at least 50 steps, for an epoch ends with a checkpoint."""
        return self.steps_per_epoch or max(MIN_STEPS_PER_EPOCH, math.ceil(image_count / (self.batch * world)))

    def crop(self, fraction: float) -> tuple[int, int]:
        """(crop side, batch) at a fraction of the budget."""
        first = self.crops[0][1]
        side = [side for start, side in self.crops if start <= fraction][-1]
        return side, max(1, self.batch * first**2 // side**2)

    def rate(self, step: int, fraction: float, total_steps: int | None) -> float:
        """Learning rate: linear warm-up, constant to 30 % of the budget, then half a cosine down to 2 %."""
        warm_up = min(200, max(1, total_steps // 10)) if total_steps else 200
        decay = 1.0 if fraction < 0.3 else 0.02 + 0.49 * (1 + math.cos(math.pi * min(1, (fraction - 0.3) / 0.7)))
        return self.learning_rate * min(1.0, (step + 1) / warm_up) * decay
