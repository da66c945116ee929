"""One process of a training job, alone or under torchrun."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from ..model.precision import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int
    device: torch.device

    @classmethod
    @contextmanager
    def start(cls, device: str) -> Iterator[Ranks]:
        """Join the job that torchrun describes in the environment, if any. Raises UsageError on an unusable device."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
        chosen = pick_device(device, local_rank=local)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if world == 1:
            yield cls(0, 1, chosen)
            return
        # Long enough for the first rank to wait until somebody has freed a full disk.
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))
        try:
            yield cls(rank, world, chosen)
        finally:
            dist.destroy_process_group()

    def wrap(self, net: nn.Module) -> nn.Module:
        """Start from the weights of rank 0 and average gradients over the ranks."""
        if self.world == 1:
            return net
        return nn.parallel.DistributedDataParallel(net)

    def agree(self, value: float) -> float:
        """The value of rank 0, on every rank."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank. It is pickled on its way."""
        if self.world == 1:
            return make()
        made: list[Any] = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(made, 0, device=self.device if self.device.type == "cuda" else None)
        return cast(T, made[0])

    def mean(self, values: list[float]) -> list[float]:
        """The mean over the ranks, on every rank."""
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device) / self.world
        dist.all_reduce(shared)
        return shared.tolist()

    @contextmanager
    def interruptions(self) -> Iterator[Callable[[], bool]]:
        """Turn SIGINT and SIGTERM into an answer, the same on every rank, that the loop asks for after each step.

        A second SIGINT stops at once.
        """
        received = threading.Event()

        def note(number: int, frame: object) -> None:
            if received.is_set() and number == signal.SIGINT:
                raise KeyboardInterrupt
            received.set()

        def answer() -> bool:
            if self.world == 1:
                return received.is_set()
            flag = torch.tensor([float(received.is_set())], device=self.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            return bool(flag.item())

        if threading.current_thread() is not threading.main_thread():
            yield answer
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield answer
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
