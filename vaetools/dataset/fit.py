"""A model of a data set's own train images, for augmenting them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

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
    if run.is_dir() and any(run.glob("*-*.safetensors")):
        weights = find_by_name(run.resolve())
        tell(f"{run}: holds a trained model, which is used ({weights.name})")
        return weights
    paths, config = _images(dataset, max_pixels)
    resume = (run / CHECKPOINT).exists()
    if resume:
        tell(f"{run}: goes on with the training that was interrupted")
        settings = resumed_settings(run)
    else:
        tell(f"{run}: training a model on {len(paths)} images, for {minutes:g} minutes")
        settings = TrainingSettings(minutes=minutes, crops=CROPS[PRESET], mirrored=PRESET in MIRRORED, seed=seed)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            trained = train(dataset.root, run, config, settings, resume=resume, device=device, only=paths)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the training is saved; the same command goes on from there") from None
    if trained is None:
        raise ModelError("a model can be trained by one process only here; use `vaetools train` with torchrun")
    return trained


def _images(dataset: Dataset, max_pixels: int) -> tuple[list[Path], ModelConfig]:
    """The train images that can be read, and a model for their kind."""
    names = [item.path for item in dataset.train]
    seen: dict[str, Seen] = {}
    reason = ""
    for name, found in zip(names, survey(dataset.root, names, max_pixels), strict=True):
        if isinstance(found, str):
            reason = reason or f"{name}: {found}"
        else:
            seen[name] = found
    if not seen:
        raise UsageError(f"{dataset.root}: none of the {len(names)} train images can be read; the first: {reason}")
    gray = all(one.is_gray for one in seen.values())
    deep = gray and all(one.bit_depth == 16 for one in seen.values())
    return [dataset.place(name) for name in seen], preset(PRESET, image_channels=1 if gray else 3, bit_depth=16 if deep else 8)
