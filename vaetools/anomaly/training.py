"""A model of the good images, trained on those alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..dataset.fit import MINUTES, TrainingBudget, train_small
from ..errors import UsageError
from ..images.opening import MAX_PIXELS

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
    if steps is None:
        budget = TrainingBudget(f"{minutes or MINUTES:g} minutes", {"minutes": minutes or MINUTES})
    else:
        epochs = max(1, steps // CHECKPOINT_STEPS)
        budget = TrainingBudget(f"{steps} steps", {"epochs": epochs, "steps_per_epoch": -(-steps // epochs)})
    return train_small(folder, names, run, budget, kind="good", seed=seed, device=device, max_pixels=max_pixels, tell=tell)
