"""A model of the good images, trained on those alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..dataset.survey import Seen, survey
from ..errors import ModelError, UsageError
from ..images.read import MAX_PIXELS
from ..model.config import ModelConfig, preset
from ..model.weights import find_by_name
from ..training.checkpoint import CHECKPOINT
from ..training.loop import resumed_settings, train
from ..training.settings import CROPS, MIRRORED, TrainingSettings

PRESET, MINUTES = "small", 10.0
CHECKPOINT_STEPS = 250  # of a budget in steps


def train_on_good(
    folder: Path,
    names: Sequence[str],
    run: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    tell: Callable[[str], None],
) -> Path:
    """Train a model of the preset `small` on the images `names` below `folder`, in the folder `run`. Returns its weights' path.

    The budget is in minutes (10 if nothing is said) or in steps of 16 crops. Weights that are there are taken as they are; a run
    that was interrupted goes on, with the budget that it has. The model is of gray if all images are.

    Raises UsageError, TrainingError, and KeyboardInterrupt when the run can be gone on with.
    """
    if run.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{run}: must not be inside the folder of good images ({folder})")
    if run.is_dir() and any(run.glob("*-*.safetensors")):
        weights = find_by_name(run.resolve())
        tell(f"{run}: holds a trained model, which is used ({weights.name})")
        return weights
    paths, config = _kind(folder, names, max_pixels)
    resume = (run / CHECKPOINT).exists()
    if resume:
        tell(f"{run}: goes on with the training that was interrupted")
        settings = resumed_settings(run)
    else:
        settings = _settings(minutes, steps, seed)
        budget = f"{minutes or MINUTES:g} minutes" if steps is None else f"{steps} steps"
        tell(f"{run}: training a model on {len(paths)} images, for {budget}")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            trained = train(folder, run, config, settings, resume=resume, device=device, only=paths)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the training is saved; the same command goes on from there") from None
    if trained is None:
        raise ModelError("a model can be trained by one process only here; use `vaetools train` with torchrun")
    return trained


def _settings(minutes: float | None, steps: int | None, seed: int) -> TrainingSettings:
    crops, mirrored = CROPS[PRESET], PRESET in MIRRORED
    if steps is None:
        return TrainingSettings(minutes=minutes or MINUTES, crops=crops, mirrored=mirrored, seed=seed)
    epochs = max(1, steps // CHECKPOINT_STEPS)
    return TrainingSettings(epochs=epochs, steps_per_epoch=-(-steps // epochs), crops=crops, mirrored=mirrored, seed=seed)


def _kind(folder: Path, names: Sequence[str], max_pixels: int) -> tuple[list[Path], ModelConfig]:
    """The images that can be read, and a model for their kind."""
    seen: dict[str, Seen] = {}
    reason = ""
    for name, found in zip(names, survey(folder, names, max_pixels), strict=True):
        if isinstance(found, str):
            reason = reason or f"{name}: {found}"
        else:
            seen[name] = found
    if not seen:
        raise UsageError(f"{folder}: none of the {len(names)} good images can be read; the first: {reason}")
    gray = all(one.is_gray for one in seen.values())
    deep = gray and all(one.bit_depth == 16 for one in seen.values())
    return [folder / name for name in seen], preset(PRESET, image_channels=1 if gray else 3, bit_depth=16 if deep else 8)
