"""Codecs that this process has loaded, for those who are called for one image at a time: plug-ins, data loaders' workers."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .container import Limits

if TYPE_CHECKING:
    from .codec import Codec

USUAL_LIMITS = Limits()


class LoadedCodecs:
    """A codec for each model, device and limits, loaded once in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[tuple[int, str, Path, Limits], Codec] = {}
        self._has_lost_threads = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_again)

    def _start_again(self) -> None:
        """In a forked process. Another thread may hold the lock, and it is not there to release it.

        Codecs of the parent are neither used nor freed: a GPU cannot be spoken to in a forked process.
        """
        self._lock = threading.Lock()
        self._has_lost_threads = "torch" in sys.modules

    def get(self, model: str | os.PathLike[str], device: str = "cpu", limits: Limits = USUAL_LIMITS) -> Codec:
        """Raises ModelError and UsageError."""
        import torch

        from ..model.weights import find_by_name
        from .codec import Codec

        with self._lock:
            if self._has_lost_threads:  # OpenMP would wait for them for ever
                torch.set_num_threads(1)
                self._has_lost_threads = False
            path = find_by_name(model)
            key = os.getpid(), device, path, limits
            if key not in self._loaded:
                self._loaded[key] = Codec.load(path, device, limits=limits)
            return self._loaded[key]


codecs = LoadedCodecs()
