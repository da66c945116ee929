"""From scores of good images that nothing was fitted on to a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError

FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Threshold:
    """An image with a score above `value` is told to be anomalous.

    false_positives: the share of good images that this should happen to. promised: whether the `count` held-out scores
    suffice to say so; if not, the value is the largest of them, and the share is about 1 / (count + 1).
    """

    value: float
    false_positives: float
    count: int
    promised: bool


def threshold_of(scores: np.ndarray, false_positives: float = FALSE_POSITIVES) -> Threshold:
    """The smallest score that keeps false positives among new good images at or below the share, on average over held-out sets.

    Split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005): of n scores in rising
    order, number ceil((n + 1) * (1 - share)). Raises UsageError for a share that is not between 0 and 1.
    """
    check_share(false_positives)
    ordered = np.sort(np.asarray(scores, np.float64))
    rank = math.ceil((len(ordered) + 1) * (1 - false_positives) - 1e-9)
    promised = rank <= len(ordered)
    return Threshold(float(ordered[min(rank, len(ordered)) - 1]), false_positives, len(ordered), promised)


def check_share(false_positives: float) -> None:
    if not 0 < false_positives < 1:
        raise UsageError(f"the share of false positives must be between 0 and 1, not {false_positives:g}")
