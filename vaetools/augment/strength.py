"""How strong an operator is, by epoch and class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from ..errors import UsageError


def _check(value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or not 0 <= value <= 1:
        raise UsageError(f"{what} must be a number from 0 to 1, not {value!r}")
    return float(value)


@dataclass(frozen=True)
class Strength:
    """From 0, which changes nothing, to 1: one standard deviation of the prior, one quantisation step, one whole way.

    start, stop: the strength goes from one to the other. epochs: over so many, then it stays; 0: it is `stop` at once. classes:
    strengths of some labels, in place of these.

    Raises UsageError on strengths out of 0..1.
    """

    start: float
    stop: float
    epochs: int = 0
    classes: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.start, "the strength")
        _check(self.stop, "the strength")
        for label, value in self.classes.items():
            _check(value, f"the strength of class {label}")
        if self.epochs < 0:
            raise UsageError(f"a ramp takes 0 or more epochs, not {self.epochs}")

    @classmethod
    def constant(cls, value: float) -> Strength:
        """The same for every epoch and class."""
        return cls(value, value)

    @classmethod
    def ramp(cls, start: float, stop: float, epochs: int) -> Strength:
        """Linear, from `start` in epoch 0 to `stop` in epoch `epochs`."""
        return cls(start, stop, epochs)

    @classmethod
    def per_class(cls, classes: Mapping[int, float], default: float = 0.0) -> Strength:
        """One for each class number in `classes`, and `default` for all others."""
        return cls(default, default, classes=dict(classes))

    def at(self, epoch: int, label: int | None = None) -> float:
        """The strength for an image of that class in that epoch, counted from 0."""
        if label is not None and label in self.classes:
            return self.classes[label]
        fraction = min(1.0, max(0, epoch) / self.epochs) if self.epochs else 1.0
        return self.start + fraction * (self.stop - self.start)

    def to_dict(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "stop": self.stop,
            "epochs": self.epochs,
            "classes": {str(label): value for label, value in sorted(self.classes.items())},
        }


def as_strength(value: float | Strength) -> Strength:
    return value if isinstance(value, Strength) else Strength.constant(_check(value, "the strength"))
