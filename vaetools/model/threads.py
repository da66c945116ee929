"""How a job that goes through many batches shares the cores of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

MOST_LANES = 4  # each holds a batch in memory


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, have this thread compute alone meanwhile: what rounding does depends on how many share the work."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Lanes:
    """Batches that go through the network at the same time, and the threads of each.

    On a CPU, two batches with a thread each take less time than one after the other with two: threads that share one batch
    wait for each other at every layer, and for whatever else the job does meanwhile. On a GPU, one batch is on the device
    while the entropy coder has another.

    What rounding does may depend on the number of threads, so that number follows from the batch alone: a file's bytes do not
    depend on what else was going on.
    """

    count: int = 1
    threads: int = 1
    all_threads: int = 1

    @classmethod
    def of(cls, device: torch.device) -> Lanes:
        threads = torch.get_num_threads()
        if device.type != "cpu":
            return cls(2, threads, threads)
        count = min(MOST_LANES, threads)
        return cls(count, threads // count, threads)

    def enter(self, *, alone: bool) -> None:
        """To be called in the thread of a lane before each batch. alone: whether the batch is one large image."""
        torch.set_num_threads(self.all_threads if alone else self.threads)

    def leave(self) -> None:
        """To be called in the thread that started the job, when it ends."""
        torch.set_num_threads(self.all_threads)
