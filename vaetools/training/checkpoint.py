"""Files of a training run that survive a crash, a kill and a full disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..files import replace_file

CHECKPOINT = "checkpoint.pt"
KEYS = frozenset(("config", "settings", "progress", "network", "average", "optimisers"))


@dataclass
class Progress:
    """Where a training run stands. `seconds` is time spent training, pauses between resumed runs left out."""

    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    typical_norm: float = 0.0
    skipped: int = 0


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Raises OSError if the disk is full; the previous checkpoint is then still whole."""

    def write(path: Path) -> None:
        try:
            torch.save(state, path)
        except RuntimeError as error:  # torch reports a failed write so
            raise OSError(f"{run / CHECKPOINT}: {error}") from error

    replace_file(run / CHECKPOINT, write)


def load_checkpoint(run: Path) -> dict[str, Any]:
    """Raises TrainingError if there is none, or it cannot be read."""
    path = run / CHECKPOINT
    if not path.exists():
        raise TrainingError(f"{run}: there is no checkpoint of a training run; `vaetools train` without --resume starts one")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds on damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{path}: damaged, cannot be resumed from ({reason})") from None
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise TrainingError(f"{path}: not the checkpoint of a training run")
    return state
