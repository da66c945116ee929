"""A model of a data set's own train images, for augmenting them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError
from ..model.config import ModelConfig, preset
from ..model.weights import find_by_name
from ..training.checkpoint import CHECKPOINT
from ..training.loop import resumed_settings, train
from ..training.settings import CROPS, MIRRORED, TrainingSettings
from .dataset import Dataset
from .survey import Seen, survey

PRESET, MINUTES = "small", 10.0


def fit_model(
    dataset: Dataset,
    run: Path,
    target: Path,
    *,
    minutes: float = MINUTES,
    seed: int = 0,
    device: str = "auto",
    max_pixels: int,
    tell: Callable[[str], None],
) -> Path:
    """Train a model on the train images alone, in the folder `run`, and return the path of its weights.

    Weights that are there are taken as they are; a run that was interrupted goes on, with the budget that it has. The model is of
    gray if all images are. target: the output folder, which must not hold `run`; nor may the data set's.

    Raises UsageError, TrainingError, and KeyboardInterrupt when the run can be gone on with.
    """
    for folder, what in ((target, "output folder"), (dataset.root, "data set")):
        if run.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{run}: a training run must not be inside the {what} ({folder})")
    budget = TrainingBudget(f"{minutes:g} minutes", {"minutes": minutes})
    names = [item.path for item in dataset.train]
    return train_small(dataset.root, names, run, budget, kind="train", seed=seed, device=device, max_pixels=max_pixels, tell=tell)


def trained_in(run: Path) -> Path | None:
    """The weights of the model that a run has come to; None while it has not."""
    return find_by_name(run.resolve()) if run.is_dir() and any(run.glob("*-*.safetensors")) else None


def begun_in(run: Path) -> bool:
    """Whether a training run was begun there that can go on, or has ended."""
    return (run / CHECKPOINT).exists()


@dataclass(frozen=True)
class TrainingBudget:
    """How long to train: in words, and as arguments of TrainingSettings."""

    words: str
    options: dict[str, Any]


def train_small(
    root: Path,
    names: Sequence[str],
    run: Path,
    budget: TrainingBudget,
    *,
    kind: str,
    seed: int,
    device: str,
    max_pixels: int,
    tell: Callable[[str], None],
) -> Path:
    """Train a model of the preset `small` on the images `names` below `root`, in the folder `run`. Returns its weights' path.

    kind: what the images are called where none can be read. The rest is as for `fit_model`.
    """
    if weights := trained_in(run):
        tell(f"{run}: holds a trained model, which is used ({weights.name})")
        return weights
    paths, config = _readable(root, names, kind, max_pixels)
    resume = begun_in(run)
    if resume:
        tell(f"{run}: goes on with the training that was interrupted")
        settings = resumed_settings(run)
    else:
        tell(f"{run}: training a model on {len(paths)} images, for {budget.words}")
        settings = TrainingSettings(crops=CROPS[PRESET], mirrored=PRESET in MIRRORED, seed=seed, **budget.options)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            trained = train(root, run, config, settings, resume=resume, device=device, only=paths)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the training is saved; the same command goes on from there") from None
    if trained is None:
        raise ModelError("a model can be trained by one process only here; use `vaetools train` with torchrun")
    return trained


def _readable(root: Path, names: Sequence[str], kind: str, max_pixels: int) -> tuple[list[Path], ModelConfig]:
    """The images that can be read, and a model for them."""
    seen: dict[str, Seen] = {}
    reason = ""
    for name, found in zip(names, survey(root, names, max_pixels), strict=True):
        if isinstance(found, str):
            reason = reason or f"{name}: {found}"
        else:
            seen[name] = found
    if not seen:
        raise UsageError(f"{root}: none of the {len(names)} {kind} images can be read; the first: {reason}")
    gray = all(one.is_gray for one in seen.values())
    deep = gray and all(one.bit_depth == 16 for one in seen.values())
    return [root / name for name in seen], preset(PRESET, image_channels=1 if gray else 3, bit_depth=16 if deep else 8)
