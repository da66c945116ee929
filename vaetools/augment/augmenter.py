"""The one class that applies operators to images.

    image --encode--> latents --a chain of operators, drawn per image--> latents' --gate--> decode --> image'

With `detail`, image' = image + decode(latents') - decode(latents): what the model cannot show of the image stays in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import index as index_of
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..model.pixels import moved, shown, to_model
from ..model.space import Latents, LatentSpace
from ..model.threads import MOST_LANES
from ..model.weights import find_by_name, load_weights
from .bank import LatentBank
from .chains import rows_by_chain
from .gate import Gate, NearestGate
from .operators import Context, Operator, parse_operators, refuse_moving
from .seeds import generator_of, seed_for
from .strength import Strength, as_strength

DEFAULT_OPERATORS = "hyper"
DEFAULT_STRENGTH = 0.15
DEFAULT_QUALITY = 50.0
BATCH = 64  # images that go through the network at once, where they do
TRIES = 5  # draws for one image before the gate has it left as it is
_IMPORTED_BY = os.getpid()


@dataclass(frozen=True)
class Augmented:
    """images: as they came in, each (C, H, W) of the same type, size and channels. labels: (B, K) floats if an operator mixes
    classes, else (B,) as given, None if none were.

    operators: "jitter" or "jitter+style" for each image, "" if it was left as it is. accepted: False where the gate refused every
    draw, so that the image was left as it is.
    """

    images: list[Tensor]
    labels: Tensor | None
    operators: tuple[str, ...]
    strengths: tuple[float, ...]
    accepted: tuple[bool, ...]


@dataclass
class _Job:
    """One image on its way."""

    image: Tensor
    seed: int
    label: int
    result: Tensor
    soft: Tensor | None = None
    operators: str = ""
    strength: float = 0.0
    accepted: bool = True
    tried: int = 0


class Augmenter:
    """Operators on the latents of one model.

    What becomes of an image depends on its pixels, its label, its seed, the epoch and this object's settings; not on the images
    beside it. To the last bit that needs `exact`: images go through the network one by one, each by one thread. It is what
    happens on CPUs; elsewhere, and with exact=False, images of one size go through together.

    >>> augmenter = Augmenter.load("photo", "jitter,hyper", 0.5)
    >>> augmenter.augment([image], seeds=[1]).images[0]
    """

    def __init__(
        self,
        space: LatentSpace,
        operators: str | Sequence[str] = DEFAULT_OPERATORS,
        strength: float | Strength = DEFAULT_STRENGTH,
        *,
        detail: bool = True,
        bank: LatentBank | str | os.PathLike[str] | None = None,
        gate: Gate | str | None = None,
        probability: float = 1.0,
        exact: bool | None = None,
    ) -> None:
        """operators: of which each image gets one, "jitter,style" or ["jitter", "hyper+style"], where + joins a chain. strength:
        0..1, or a schedule. detail: what the model cannot show stays in the image. bank: of other images' latents, or its file.
        gate: "nearest", or one of your own. probability: of an image to be changed at all. exact: see above.

        Raises UsageError on operators, strengths or a bank that cannot be used.
        """
        if not 0 <= probability <= 1:
            raise UsageError(f"the probability must be from 0 to 1, not {probability:g}")
        self.space, self.operators, self.strength = space, parse_operators(operators), as_strength(strength)
        self.detail, self.probability = detail, float(probability)
        self.exact = space.device.type == "cpu" if exact is None else exact
        self.bank = bank if isinstance(bank, LatentBank) or bank is None else LatentBank.load(bank)
        if self.bank is not None:
            self.bank.check(space)
        if isinstance(gate, str):
            if gate != "nearest":
                raise UsageError(f"unknown gate {gate!r}: it is 'nearest', or an object with a method `keeps`")
            if self.bank is None:
                raise UsageError("the gate 'nearest' compares with real images: give a bank (LatentBank.fit)")
            gate = NearestGate(self.bank)
        self.gate = gate
        self.acceptance: dict[int, tuple[int, int]] = {}

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "photo",
        operators: str | Sequence[str] = DEFAULT_OPERATORS,
        strength: float | Strength = DEFAULT_STRENGTH,
        *,
        quality: float = DEFAULT_QUALITY,
        device: str = "auto",
        bfloat16: bool | None = None,
        **options: Any,
    ) -> Augmenter:
        """model: an installed model's name, a weights file, or the folder of a training run. quality: 0..100, how fine the steps
        are that strengths are measured in. device: "auto" is a GPU where there is one. bfloat16: where the chip has it, unless
        said otherwise. operators, strength, options: as of the class.

        Raises ModelError if the model cannot be used, UsageError on anything else.
        """
        refuse_forked_cuda(device)
        return cls(
            LatentSpace(load_weights(find_by_name(model)), device, quality=quality, bfloat16=bfloat16),
            operators,
            strength,
            **options,
        )

    # What the operators ask for.

    @property
    def _each(self) -> list[Operator]:
        return [operator for chain in self.operators for operator in chain]

    @property
    def keeps_pixels(self) -> bool:
        """Whether what an image shows stays where it is, so that boxes and masks hold."""
        return all(operator.keeps_pixels for operator in self._each)

    @property
    def needs_bank(self) -> bool:
        """Whether an operator takes other images' latents; without a bank, those of the same call."""
        return any(operator.needs_bank for operator in self._each)

    @property
    def needs_labels(self) -> bool:
        """Whether an operator looks at the class of an image."""
        return any(operator.needs_labels for operator in self._each)

    @property
    def mixes_labels(self) -> bool:
        """Whether an operator makes images of several classes, so that labels become (B, classes) floats."""
        return any(operator.mixes_labels for operator in self._each)

    def refuse_moving(self, what: str) -> None:
        """Raises UsageError if an operator may move what `what` (boxes, masks) mark."""
        refuse_moving(self.operators, what)

    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside image, label, seed and epoch; ready for JSON."""
        return {
            "model": self.space.model_hash,
            "quality": self.space.quality,
            "operators": ["+".join(operator.name for operator in chain) for chain in self.operators],
            "strength": self.strength.to_dict(),
            "detail": self.detail,
            "probability": self.probability,
            "bank": None if self.bank is None else self.bank.identity,
            "gate": None if self.gate is None else self.gate.identity,
            "exact": self.exact,
            "precision": "bfloat16" if self.space.bfloat16 else "float32",
        }

    # Images.

    def augment(
        self,
        images: Sequence[Tensor] | Tensor,
        seeds: Sequence[int],
        labels: Sequence[int] | Tensor | None = None,
        *,
        epoch: int = 0,
    ) -> Augmented:
        """One augmented image for each: (C, H, W) of uint8, uint16 or floats in 0..1, of any sizes, 1 to 4 channels.

        seeds: one for each image, such as `seed_for` gives. labels: class numbers. Without a bank, operators that need one take
        the other images of the call. Raises UsageError if something is missing, or not as it should be.
        """
        refuse_forked_cuda(self.space.device.type)
        if not len(images) == len(seeds) or (labels is not None and len(labels) != len(images)):
            raise UsageError(
                f"{len(images)} images need as many seeds and labels, not {len(seeds)} and {0 if labels is None else len(labels)}"
            )
        if not len(images):
            return Augmented([], None if labels is None else torch.as_tensor(labels), (), (), ())
        if self.needs_labels and labels is None:
            raise UsageError("some of the operators work within a class: give the labels of the images")
        if self.gate is not None and labels is None:
            raise UsageError("the gate compares with labels: give those of the images")
        numbers = [-1] * len(images) if labels is None else [_class_number(label) for label in labels]
        bank = self._bank_for(images, numbers)
        classes = bank.classes if bank is not None and self.mixes_labels else 0
        jobs = [_Job(image, seed, label, image) for image, seed, label in zip(images, seeds, numbers, strict=True)]
        self._go(jobs, lambda group: self._augment(group, bank, classes, epoch))
        if self.gate is not None:
            for job in jobs:
                accepted, tried = self.acceptance.get(job.label, (0, 0))
                if job.tried:
                    self.acceptance[job.label] = (accepted + job.accepted, tried + job.tried)
        given = None if labels is None else torch.as_tensor(labels)
        return Augmented(
            [job.result for job in jobs],
            torch.stack([job.soft for job in jobs]) if classes and labels is not None else given,  # type: ignore[misc]
            tuple(job.operators for job in jobs),
            tuple(job.strength for job in jobs),
            tuple(job.accepted for job in jobs),
        )

    def reconstruct(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """What the model makes of images as they are."""
        jobs = [_Job(image, 0, -1, image) for image in images]

        def run(group: list[_Job]) -> None:
            x = self._stacked(group)
            restored = self.space.decode(self.space.encode(x).y, x.shape[2], x.shape[3])
            for job, one in zip(group, restored, strict=True):
                job.result = shown(job.image, one)

        self._go(jobs, run)
        return [job.result for job in jobs]

    def _bank_for(self, images: Sequence[Tensor] | Tensor, labels: list[int]) -> LatentBank | None:
        if self.bank is not None or not self.needs_bank:
            return self.bank
        if len(images) < 2:
            raise UsageError("some operators take other images' latents: give a bank (LatentBank.fit), or more images at once")
        return LatentBank.fit(self.space, images, [max(0, label) for label in labels])

    def _stacked(self, group: list[_Job]) -> Tensor:
        return torch.stack([to_model(job.image, self.space.config) for job in group]).to(self.space.device)

    def _go(self, jobs: list[_Job], run: Callable[[list[_Job]], None]) -> None:
        """`run` on all of them, alone or in groups of one size."""
        if not self.exact:
            sizes: dict[tuple[int, ...], list[_Job]] = {}
            for job in jobs:
                sizes.setdefault(tuple(job.image.shape[-2:]), []).append(job)
            for same in sizes.values():
                for start in range(0, len(same), BATCH):
                    run(same[start : start + BATCH])
            return
        threads = torch.get_num_threads()
        lanes = min(threads, MOST_LANES)
        if lanes == 1:  # as in the workers of a loader
            for job in jobs:
                run([job])
            return
        # The number of threads changes what rounding does: a thread of its own, where it is 1, leaves the caller's alone.
        try:
            with ThreadPoolExecutor(min(lanes, len(jobs)), "augment", lambda: torch.set_num_threads(1)) as pool:
                for _ in pool.map(lambda job: run([job]), jobs):
                    pass
        finally:
            torch.set_num_threads(threads)  # which also is what threads to come start with

    def _augment(self, group: list[_Job], bank: LatentBank | None, classes: int, epoch: int) -> None:
        generators = [generator_of(job.seed) for job in group]
        for job in group:
            job.soft = _one_hot(job.label, classes)
        acting = [row for row, generator in enumerate(generators) if _uniform(generator) < self.probability]
        if not acting:
            for job in group:
                to_model(job.image, self.space.config)  # what cannot be augmented is an error, whatever was drawn
            return
        x = self._stacked(group)
        latents = self.space.encode(x)
        labels = torch.tensor([job.label for job in group])
        if classes:
            latents = Latents(latents.y, latents.z, torch.stack([job.soft for job in group]).to(latents.y.device))  # type: ignore[misc]
        context = Context(self.space, bank, labels)
        before = self.space.decode(latents.y, x.shape[2], x.shape[3]) if self.detail else None
        attempt = 0
        while acting:
            acting = self._attempt(group, acting, generators, x, latents, before, context, epoch)
            attempt += 1
            if attempt == TRIES:
                break
            for row in acting:
                generators[row] = generator_of(seed_for(group[row].seed, 0, 0, attempt))
        for row in acting:
            group[row].accepted, group[row].operators, group[row].strength = False, "", 0.0

    def _attempt(
        self,
        group: list[_Job],
        acting: list[int],
        generators: list[torch.Generator],
        x: Tensor,
        latents: Latents,
        before: Tensor | None,
        context: Context,
        epoch: int,
    ) -> list[int]:
        """Draw once for the rows `acting`. Returns those that the gate refuses."""
        refused: list[int] = []
        for number, rows in rows_by_chain(generators, len(self.operators), rows=acting).items():
            chain, index = self.operators[number], torch.tensor(rows, device=latents.y.device)
            strengths = [self.strength.at(epoch, group[row].label) for row in rows]
            drawn, there = latents.rows(index), context.rows(index.cpu())
            for operator in chain:
                drawn = operator.apply(drawn, there, torch.tensor(strengths), [generators[row] for row in rows])
            after = self.space.decode(drawn.y, x.shape[2], x.shape[3])
            if before is not None:
                unchanged = (drawn.y == latents.y[index]).flatten(1).all(1)
                delta = torch.where(unchanged[:, None, None, None], 0.0, after - before[index])
                after = (x[index] + delta).clamp(0, 1)
            kept = [True] * len(rows)
            if self.gate is not None:
                meant = there.labels if drawn.labels is None else drawn.labels.argmax(1).cpu()
                assert meant is not None
                kept = self.gate.keeps(after, drawn, meant)
            for place, row in enumerate(rows):
                job = group[row]
                job.tried += 1
                if not kept[place]:
                    refused.append(row)
                    continue
                job.result = moved(job.image, delta[place]) if before is not None else shown(job.image, after[place])
                job.operators, job.strength = "+".join(operator.name for operator in chain), strengths[place]
                if drawn.labels is not None:
                    job.soft = drawn.labels[place].cpu()
        return sorted(refused)


def refuse_forked_cuda(device: str) -> None:
    """Raises UsageError in a process that was forked, if `device` is a GPU, or would be: CUDA cannot be used there."""
    wants_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if wants_cuda and os.getpid() != _IMPORTED_BY:
        raise UsageError(
            "CUDA cannot be used in a forked worker: augment after collate with BatchAugment, or give the loader "
            "multiprocessing_context='spawn', or the augmenter device='cpu'"
        )


def _class_number(label: Any) -> int:
    try:
        return index_of(label)
    except TypeError:
        raise UsageError(f"labels are class numbers, not {label!r}") from None


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))


def _one_hot(label: int, classes: int) -> Tensor | None:
    if not classes:
        return None
    if not 0 <= label < classes:
        raise UsageError(f"the label {label} is not among the {classes} classes of the bank")
    return F.one_hot(torch.tensor(label), classes).float()
