"""Whether an augmented image still is what its label says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..errors import UsageError
from ..model.space import Latents
from .bank import LatentBank


class Gate(Protocol):
    """Says which of a batch are to be kept: images (B, C, H, W) in 0..1, their latents, and their labels (B,).

    identity: tells gates apart that decide otherwise, for the settings of a job.
    """

    @property
    def identity(self) -> str: ...

    def keeps(self, images: Tensor, latents: Latents, labels: Tensor) -> list[bool]: ...


class NearestGate:
    """Keeps an image if its nearest real latents are of its class: each neighbour's vote counts by one over the images of its
    class in the bank, so that large classes do not outvote small ones."""

    def __init__(self, bank: LatentBank, neighbours: int = 5) -> None:
        if neighbours < 1:
            raise UsageError(f"the gate looks at 1 or more neighbours, not {neighbours}")
        self.bank, self.neighbours = bank, neighbours
        self.identity = f"nearest {neighbours}"
        self._votes = 1 / torch.bincount(bank.labels, minlength=bank.classes).clamp_min(1).double()

    def keeps(self, images: Tensor, latents: Latents, labels: Tensor) -> list[bool]:
        kept = []
        for y, label in zip(latents.y, labels.tolist(), strict=True):
            near = self.bank.labels[self.bank.nearest(y, self.neighbours, same=True)]
            kept.append(int(torch.bincount(near, self._votes[near]).argmax()) == label)
        return kept


class ClassifierGate:
    """Keeps an image if a classifier agrees: `classify` gives (B,) labels, or (B, K) scores, of images in 0..1.

    name: of the classifier; a folder job that goes on under another name is refused.
    """

    def __init__(self, classify: Callable[[Tensor], Tensor], name: str = "") -> None:
        self.classify, self.identity = classify, f"classifier {name}".strip()

    @torch.no_grad()
    def keeps(self, images: Tensor, latents: Latents, labels: Tensor) -> list[bool]:
        answer = self.classify(images.clone())
        found = answer.argmax(1) if answer.ndim == 2 else answer
        if found.shape != labels.shape:
            raise UsageError(f"the classifier must give one label or one row of scores per image, not {tuple(answer.shape)}")
        return [bool(same) for same in found.cpu() == labels.cpu()]
