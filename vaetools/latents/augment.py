"""From a batch of whole numbers to a batch of images, on the device, with operators of the augmenter in between.

    LatentBatch --means--> y = mean + residuals, z --operators--> y' --decoder--> images --cut--> (B, C, H, W)

Without operators it is the codec's decoder. With them it is the augmenter without its encoder, and without its detail mode: the
pixels that a difference could be added to are not there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..augment.augmenter import DEFAULT_OPERATORS, DEFAULT_STRENGTH
from ..augment.bank import LatentBank
from ..augment.chains import rows_by_chain
from ..augment.operators import Context, Operator, parse_operators
from ..augment.seeds import generator_of
from ..augment.stream import SeedStream
from ..augment.strength import Strength, as_strength
from ..codec.batches import shape_limit
from ..codec.codec import BATCH_PIXELS, BATCH_PIXELS_ELSEWHERE
from ..errors import ModelError, UsageError
from ..model.config import ModelConfig
from ..model.pixels import to_model
from ..model.space import Latents
from ..model.weights import LoadedModel, find_by_name, load_weights
from .batch import LatentBatch, LatentGroup
from .space import FileSpace


class LatentAugment:
    """Makes images of what LatentFolder and latent_collate give.

    >>> augment = LatentAugment(dataset.model, "jitter", 0.5, device="cuda")
    >>> for batch in loader:
    ...     images, labels = augment(batch)

    Latents are perturbed and decoded a batch at a time, but random numbers are drawn image by image. An image's do not depend on
    those beside it; its pixels may, by what rounding does in a batch of another size.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LoadedModel,
        operators: str | Sequence[str] = DEFAULT_OPERATORS,
        strength: float | Strength = DEFAULT_STRENGTH,
        *,
        device: str | torch.device = "auto",
        bank: LatentBank | str | os.PathLike[str] | None = None,
        probability: float = 1.0,
        seed: int | None = None,
        dtype: torch.dtype = torch.float32,
        bfloat16: bool | None = None,
    ) -> None:
        """model: that of the files, such as `dataset.model`. operators: of the augmenter, () for none. strength: 0..1, or a
        schedule, which counts the epochs of LatentFolder.set_epoch. probability: of an image to be changed at all.
        bank: for operators that take other images' latents; without one they take those of the batch.
        seed: makes what becomes of a file a function of it, the epoch, the file, how many times it was met in this epoch, and its
        window. Without one, seeds come from torch's generator.
        dtype: of the images. bfloat16: where the chip has it, unless said otherwise.
        Raises ModelError if the model cannot be used, UsageError on anything else.
        """
        if not 0 <= probability <= 1:
            raise UsageError(f"the probability must be from 0 to 1, not {probability:g}")
        if not dtype.is_floating_point:
            raise UsageError(f"images are floats in 0..1, and {dtype} is no type of floats: scale them afterwards")
        loaded = model if isinstance(model, LoadedModel) else load_weights(find_by_name(model))
        if loaded.vae.config.posterior != "uniform":
            raise ModelError(
                f"{loaded.path}: a model with a {loaded.vae.config.posterior} posterior has no codec, so no file is of it"
            )
        self.space = FileSpace(loaded, device, bfloat16=bfloat16)
        self.operators = parse_operators(operators) if operators else ()
        self.strength, self.probability = as_strength(strength), float(probability)
        self.stream, self.dtype = SeedStream(seed), dtype
        self._epoch_call = 0  # the newest that a batch has come with
        self.bank = bank if isinstance(bank, LatentBank) or bank is None else LatentBank.load(bank)
        if self.bank is not None and self.bank.model_hash != self.space.model_hash:
            raise UsageError(
                f"the bank was fitted with the model {self.bank.model_hash}, and this is {self.space.model_hash}: fit it again"
            )
        self._batch_pixels = BATCH_PIXELS.get(self.device.type, BATCH_PIXELS_ELSEWHERE)

    @property
    def device(self) -> torch.device:
        return self.space.device

    @property
    def config(self) -> ModelConfig:
        return self.space.config

    def _any(self, what: str) -> bool:
        return any(getattr(operator, what) for chain in self.operators for operator in chain)

    def __call__(self, batch: LatentBatch) -> tuple[Tensor, Any]:
        """Images (B, C, H, W) in 0..1, with the model's channels, and labels, both on the device.

        Labels are as they came in, but (B, K) floats if an operator mixes classes. Gray images have equal channels; alpha is
        left out. A file that was kept lossless comes out as it is, changed by what the operators change of its reconstruction.
        Raises UsageError if the batch is of another model, or lacks what an operator needs.
        """
        if not isinstance(batch, LatentBatch):
            raise UsageError(f"expected a LatentBatch, got {type(batch).__name__}: give the loader collate_fn=latent_collate")
        if batch.model_hash != self.space.model_hash:
            raise UsageError(
                f"the files are of the model {batch.model_hash}, and this is {self.space.model_hash}: give LatentAugment the "
                "path `model` of the LatentFolder"
            )
        numbers = self._numbers(batch)
        batch = batch.to(self.device, non_blocking=True)
        # Made outside of the inference mode: training goes on from here.
        images = torch.empty(
            len(batch), self.config.image_channels, batch.height, batch.width, dtype=self.dtype, device=self.device
        )
        with torch.inference_mode():
            parts = [part for group in batch.groups for part in group.split(self._most(group))]
            latents = [self._latents(part) for part in parts]
            bank = self._bank_for(parts, latents, numbers, batch)
            draw = _Draw(self, batch, numbers, bank) if self.operators else None
            for part, there in zip(parts, latents, strict=True):
                images[part.rows.to(self.device)] = self._images(part, there, draw, batch).to(self.dtype)
        return images, batch.labels if draw is None or draw.soft is None else draw.soft.to(self.device)

    def _most(self, group: LatentGroup) -> int:
        """How many of a group go through the network at once: on CPUs, more of them are slower."""
        if group.pixels is not None:
            return shape_limit((group.pixels.shape[2], group.pixels.shape[3]), 1, len(group), self._batch_pixels)
        return shape_limit(group.seen_size, self.config.latent_stride, len(group), self._batch_pixels)

    def _numbers(self, batch: LatentBatch) -> list[int]:
        """The labels as class numbers, -1 where they are none."""
        labels = batch.labels
        if isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point():
            return [int(label) for label in labels.tolist()]
        if self._any("needs_labels"):
            raise UsageError("some of the operators work within a class: labels must be class numbers, which these are not")
        return [-1] * len(batch)

    def _seeds(self, batch: LatentBatch) -> list[int]:
        """What was met is forgotten when a batch is of a newer call of set_epoch, even if it said the same epoch again. Older
        ones come beside it, if the batches of several data sets take turns."""
        if batch.epoch_call and (batch.epoch_call > self._epoch_call or batch.epoch != self.stream.epoch):
            self._epoch_call = max(batch.epoch_call, self._epoch_call)
            self.stream.set_epoch(batch.epoch)
        return self.stream.draw(batch.identities[:, None, None, None])

    # Latents.

    def _latents(self, group: LatentGroup) -> Latents | None:
        """None where they are not needed."""
        space = self.space.at(group.quality)
        if group.pixels is not None:
            return space.encode(_to_model(group.pixels, self.config)) if self.operators else None
        assert group.z is not None
        assert group.residuals is not None
        if len(group.tiles) == 1:
            return space.from_symbols(group.z, group.residuals)
        per_side = self.config.hyper_stride // self.config.latent_stride
        y = group.residuals.float()
        for tile in group.tiles:
            there = (..., *tile.times(per_side).slices)
            y[there] = space.from_symbols(group.z[(..., *tile.slices)], group.residuals[there]).y
        return Latents(y, group.z.float())

    def _bank_for(
        self, parts: Sequence[LatentGroup], latents: Sequence[Latents | None], numbers: Sequence[int], batch: LatentBatch
    ) -> LatentBank | None:
        if self.bank is not None or not self._any("needs_bank"):
            return self.bank
        if len(batch) < 2:
            raise UsageError("some operators take other images' latents: give a bank (LatentBank.fit), or more images at once")
        quality = float(parts[0].quality[0]) * 100
        classes = torch.tensor(numbers).clamp(min=0)

        def bank_of(y: Tensor, z: Tensor, rows: Tensor) -> LatentBank:
            return LatentBank(y, z, classes[rows], model_hash=self.space.model_hash, quality=quality, classes=batch.classes)

        found = [there for there in latents if there is not None]
        banks = [
            bank_of(there.y * self.space.at(part.quality).rescaling_to(quality), there.z, part.rows)
            for part, there in zip(parts, found, strict=True)
        ]
        taken = [bank.take(torch.arange(len(bank)), banks[0].y, banks[0].z) for bank in banks]  # all of one size
        y, z = (torch.cat(each) for each in zip(*taken, strict=True))
        return bank_of(y, z, torch.cat([part.rows for part in parts]))

    # Images.

    def _images(self, group: LatentGroup, latents: Latents | None, draw: _Draw | None, batch: LatentBatch) -> Tensor:
        """(G, C, H, W) in 0..1."""
        space = self.space.at(group.quality)
        moved, changed = (latents, None) if draw is None or latents is None else draw(space, group, latents)
        if group.pixels is not None:
            x = _to_model(group.pixels, self.config)
            if changed is not None and latents is not None and moved is not None:
                height, width = group.pixels.shape[2:]
                delta = space.decode(moved.y, height, width) - space.decode(latents.y, height, width)
                x = torch.where(changed, x + delta, x)
        else:
            assert moved is not None
            stride = self.config.latent_stride
            height, width = group.seen_size
            whole = tuple(moved.y.shape[2:]) == group.seen_size
            y = moved.y if whole else _cut(moved.y, group.seen, height, width)
            x = space.decode(y, height * stride, width * stride)
        if group.gray:
            x = x.mean(1, keepdim=True).expand_as(x)
        x = x.clamp(0, 1)
        x = x[..., : batch.height, : batch.width] if group.plain else _cut(x, group.wanted, batch.height, batch.width)
        if group.levels is not None:
            low, high = group.levels[:, :, None, None, None].unbind(1)
            x = x * (high - low) + low
        return x


class _Draw:
    """The operators' part in one batch. soft: (B, K), if there are operators that mix labels."""

    def __init__(self, augment: LatentAugment, batch: LatentBatch, numbers: Sequence[int], bank: LatentBank | None) -> None:
        self.operators, self.strength, self.probability = augment.operators, augment.strength, augment.probability
        self.numbers, self.bank, self.epoch = numbers, bank, batch.epoch
        self.seeds = augment._seeds(batch)
        self.soft: Tensor | None = None
        if augment._any("mixes_labels"):
            classes = max(batch.classes, 0 if bank is None else bank.classes)
            if not all(0 <= label < classes for label in numbers):
                raise UsageError(
                    f"operators that mix labels need class numbers below {classes}, and there are {sorted(set(numbers))}"
                )
            self.soft = F.one_hot(torch.tensor(numbers), classes).float()

    def __call__(self, space: FileSpace, group: LatentGroup, latents: Latents) -> tuple[Latents, Tensor]:
        """The latents of a group, changed, and (G, 1, 1, 1) which of them are."""
        rows = group.rows.tolist()
        generators = [generator_of(self.seeds[row]) for row in rows]
        chains = rows_by_chain(generators, len(self.operators), probability=self.probability)
        y = latents.y.clone()
        for number, places in chains.items():
            index = torch.tensor(places, device=y.device)
            drawn = Latents(latents.y[index], latents.z[index])
            chosen = [rows[place] for place in places]
            if self.soft is not None:
                drawn = replace(drawn, labels=self.soft[chosen].to(y.device))
            labels = [self.numbers[row] for row in chosen]
            context = Context(space.at(group.quality[index]), self.bank, torch.tensor(labels))
            strengths = torch.tensor([self.strength.at(self.epoch, self.numbers[row]) for row in chosen])
            for operator in self.operators[number]:
                drawn = self._apply(operator, drawn, context, strengths, [generators[place] for place in places])
            y[index] = drawn.y
            if self.soft is not None and drawn.labels is not None:
                self.soft[chosen] = drawn.labels.cpu()
        return replace(latents, y=y), (y != latents.y).flatten(1).any(1)[:, None, None, None]

    def _apply(
        self, operator: Operator, latents: Latents, context: Context, strengths: Tensor, generators: Sequence[torch.Generator]
    ) -> Latents:
        """What is taken from a bank is in the steps of the bank's quality."""
        if not operator.needs_bank or self.bank is None:
            return operator.apply(latents, context, strengths, generators)
        assert isinstance(context.space, FileSpace)
        factor = context.space.rescaling_to(self.bank.quality)
        there = operator.apply(latents.moved(latents.y * factor), context, strengths, generators)
        return there.moved(there.y / factor)


def _to_model(images: Tensor, config: ModelConfig) -> Tensor:
    """(B, 1 or 3, H, W) uint8 or uint16 -> (B, C, H, W) float32 in 0..1."""
    return torch.stack([to_model(image, config) for image in images])


def _cut(x: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """(B, C, height, width) of x (B, C, h, w), from the places (B, 2 or 4): top and left, and bottom and right where the rest is
    the last row and column again."""
    rows = places[:, :1] + torch.arange(height, device=x.device)
    columns = places[:, 1:2] + torch.arange(width, device=x.device)
    if places.shape[1] == 4:
        rows, columns = rows.minimum(places[:, 2:3] - 1), columns.minimum(places[:, 3:] - 1)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
