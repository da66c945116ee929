"""New images, one after the other, each from random numbers of its own.

seed, number --seed_for--> generator --prior--> y --decode--> image
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..augment.seeds import generator_of, seed_for
from ..errors import UsageError, reason_of
from ..files import replace_bytes
from ..folder.ledger import JobProgress
from ..images.png import png_bytes
from ..model.space import LatentSpace
from ..model.threads import one_thread
from .grid import tile
from .prior import Prior

AT_ONCE = 1 << 18  # pixels that are made together, not on a CPU
RECORD, GRID = ".vaetools-samples.json", ".vaetools-grid.png"  # no loader of image folders takes them for images
GRID_IMAGES = 400  # at most
STEM = "{:06d}"


@dataclass(frozen=True)
class Sample:
    """image: (C, H, W) uint8 or uint16, as the model has them, on the CPU. label: the position of its class in the prior's
    `classes`; None if there are none."""

    number: int
    seed: int
    label: int | None
    image: Tensor


def to_whole(x: Tensor, bit_depth: int) -> Tensor:
    """(C, H, W) around 0..1 -> uint8 or uint16 on the CPU, cut at the ends of the range."""
    largest = 2**bit_depth - 1
    whole = (x.clamp(0, 1) * largest).round().to("cpu", torch.int32)
    return whole.to(torch.uint8 if bit_depth == 8 else torch.uint16).contiguous()


def sample_images(
    space: LatentSpace,
    prior: Prior,
    count: int,
    *,
    seed: int = 0,
    first: int = 0,
    label: int | None = None,
    temperature: float = 1.0,
    together: bool = False,
) -> Iterator[Sample]:
    """Images number `first` to `first + count - 1`: each a function of the model, the prior, `seed` and its number.

    label: the class to draw; without, a prior with classes draws each as often as it was seen. temperature: multiplies all
    deviations; below 1, images are nearer to the typical ones. On a CPU they go through the network one by one, as the
    last bit depends on the batch; `together` is several times as fast and may change a pixel by a level. Raises UsageError
    on a class that the prior does not know, a temperature below 0, or a prior of another model or quality.
    """
    if count < 0 or first < 0:
        raise UsageError(f"numbers of images are 0 or more, not {min(count, first)}")
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"the temperature must be 0 or more, not {temperature:g}")
    alone = space.device.type == "cpu" and not together
    at_once = 1 if alone else max(1, AT_ONCE // (prior.height * prior.width))
    for start in range(first, first + count, at_once):
        numbers = range(start, min(start + at_once, first + count))
        seeds = [seed_for(seed, 0, 0, number) for number in numbers]
        with one_thread(space.device):
            y, labels = prior.draw(space, [generator_of(one) for one in seeds], label=label, temperature=temperature)
            pixels = space.decode(y, prior.height, prior.width)
            images = [to_whole(x, space.config.bit_depth) for x in pixels]
        for number, its_seed, its_label, image in zip(numbers, seeds, labels, images, strict=True):
            yield Sample(number, its_seed, its_label, image)


def class_number(prior: Prior, name: str) -> int:
    """The label of the class of that name. Raises UsageError if the prior has none."""
    if name not in prior.classes:
        known = ", ".join(prior.classes) or "it has none; fit one to a folder with a folder for each class"
        raise UsageError(f"the prior has no class {name!r} (classes: {known})")
    return prior.classes.index(name)


def write_samples(
    target: Path,
    space: LatentSpace,
    prior: Prior,
    count: int,
    *,
    seed: int = 0,
    label: int | None = None,
    temperature: float = 1.0,
    grid: bool = False,
    progress: JobProgress | None = None,
) -> dict[str, Any]:
    """Write images to the folder `target`, in a folder for each class if the prior has classes, and the record that they can
    be made again from; also a grid of the first GRID_IMAGES if wanted. Returns the record.

    Raises UsageError if the folder holds anything, or cannot be written to.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        if found := next(iter(sorted(target.iterdir())), None):
            raise UsageError(f"{target}: is not empty (it holds {found.name}): choose another folder")
        record: dict[str, Any] = {
            "schema": "vaetools-samples/1",
            "version": __version__,
            "model": space.model_hash,
            "prior": prior.describe(),
            "quality": space.quality,
            "size": [prior.width, prior.height],
            "temperature": temperature,
            "seed": seed,
            "class": None if label is None else prior.classes[label],
            "count": count,
        }
        if progress is not None:
            progress.start(count, count)
        entries: list[dict[str, Any]] = []
        shown: list[np.ndarray] = []
        for sample in sample_images(space, prior, count, seed=seed, label=label, temperature=temperature):
            folder = prior.classes[sample.label] if sample.label is not None else ""
            name = f"{folder}/{STEM.format(sample.number)}.png".lstrip("/")
            pixels = sample.image.permute(1, 2, 0).numpy()
            (target / folder).mkdir(exist_ok=True)
            replace_bytes(target / name, png_bytes(pixels))
            entries.append({"path": name, "seed": sample.seed})
            if progress is not None:
                progress.advance(1, prior.height * prior.width)
            if grid and len(shown) < GRID_IMAGES:
                shown.append(pixels)
        if shown:
            replace_bytes(target / GRID, png_bytes(tile(shown)))
        record["images"] = entries
        replace_bytes(target / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{target}: cannot be written to ({reason_of(error)})") from None
    return record


def as_batch(samples: Iterator[Sample]) -> tuple[Tensor, Sequence[int | None]]:
    """Images (N, C, H, W) and their labels."""
    found = list(samples)
    return torch.from_numpy(np.stack([sample.image.numpy() for sample in found])), [sample.label for sample in found]
