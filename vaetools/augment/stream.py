"""Which seed an image gets that a loop meets: over epochs, over the workers of a loader, and when it is met twice."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ..errors import UsageError
from .seeds import digest, seed_for

MOST_MET = 1 << 18  # images that are told apart where no epoch ends; about 30 MB
NO_EPOCH = -1
_CALLS = itertools.count(1)  # of set_epoch, over all streams of this process


class SeedStream:
    """Seeds for images as they come.

    seed None: 63 bits from torch's global generator, which a loader seeds anew for every worker and epoch.

    seed given: `seed_for(seed, epoch, item, copy)`. item: the image's digest. copy: how many times this process has met the image
    in this epoch. epoch: what `set_epoch` said; the seeds are the same then whatever the number of workers. Where nobody has
    called it, it is the seed that the loader gave this worker for this epoch, and outside of workers 0: seeds differ from one
    worker and one epoch to the next all the same.
    """

    def __init__(self, seed: int | None = None) -> None:
        try:
            self.seed = None if seed is None else operator.index(seed)
        except TypeError:
            raise UsageError(f"the seed is a whole number or None, not {seed!r}") from None
        self._share(NO_EPOCH, 0)
        self._forget()

    def _share(self, epoch: int, call: int) -> None:
        """The epoch, and by which call it was said: in memory that workers share with the process that started them, as those
        that persist get no other message."""
        self._said = torch.tensor([epoch, call], dtype=torch.int64, device="cpu").share_memory_()

    def _forget(self) -> None:
        self._period: tuple[int, int, int] | None = None
        self._met: dict[int, int] = {}
        self._rounds = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"seed": self.seed, "said": self._said}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed, self._said = state["seed"], state["said"]
        if not self._said.is_shared():  # from a file, not on its way into a worker
            self._share(int(self._said[0]), next(_CALLS))
        self._forget()

    def set_epoch(self, epoch: int) -> None:
        """To be called before a loop over a loader begins: copies count from 0 again, in workers that run already too.

        Raises UsageError if below 0.
        """
        if epoch < 0:
            raise UsageError(f"epochs count from 0: {epoch}")
        said = self._said.numpy()  # the same memory, whatever mode torch is in
        said[:] = epoch, next(_CALLS)

    @property
    def epoch(self) -> int:
        """What `set_epoch` said last, 0 if nobody called it."""
        return self.said[0]

    @property
    def said(self) -> tuple[int, int]:
        """The epoch, and the number of the call of `set_epoch` that said it, larger for each one in this process: what tells
        that an epoch begins, even if it is the same again. (0, 0) if nobody called it."""
        epoch, call = self._said.tolist()
        return (0, 0) if epoch == NO_EPOCH else (epoch, call)

    def draw(self, images: Tensor | Sequence[Tensor]) -> list[int]:
        """The seed of each of (B, C, H, W), or a list of (C, H, W)."""
        if self.seed is None:
            return [int(torch.empty((), dtype=torch.int64, device="cpu").random_()) for _ in images]
        epoch = self._enter_period()
        seeds = []
        for item in digest(images):
            copy = self._met.get(item, 0)
            self._met[item] = copy + 1
            seeds.append(seed_for(self.seed, epoch, item, copy + (self._rounds << 32)))
        return seeds

    def _enter_period(self) -> int:
        """The epoch's number in seeds. What was met before it, or by the process that this one was forked from, is forgotten."""
        epoch, call = self._said.tolist()
        ends = epoch != NO_EPOCH
        if not ends:
            worker = get_worker_info()
            epoch = 0 if worker is None else worker.seed  # its own: an image may wander to another worker that persists
        period = (os.getpid(), epoch, call)
        if self._period != period:
            self._forget()
            self._period = period
        elif not ends and len(self._met) > MOST_MET:
            self._met.clear()
            self._rounds += 1
        return epoch
