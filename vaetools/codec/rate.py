"""What a file is to reach: a quality, a rate or a distortion, and the search for the quality that reaches it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .container import round_quality

KINDS = ("quality", "bpp", "size", "psnr")
BYTES_MARGIN = 0.02  # a file may be so much smaller than the target, and no larger
PSNR_MARGIN = 0.1  # dB above the target
STEP = 0.01  # of quality; a file holds no finer one
MAX_TRIES = 16
START = 60.0
# How fast things grow with quality, about, on photographs: for the second guess. The rest follows from what was measured.
LOG_BYTES_PER_QUALITY, PSNR_PER_QUALITY = 0.0235, 0.092
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """kind "quality": 0 (smallest) to 100 (best). "bpp": bits per pixel, "size": bytes, both of the whole file, never
    exceeded where they can be reached. "psnr": dB over the colours, at least. chosen: whether somebody asked for it: a model
    of one rate takes no other.

    Raises UsageError on another kind, and on a value that is out of range.
    """

    kind: str = "quality"
    value: float = 60.0
    chosen: bool = field(default=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"a rate is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.kind == "quality" and not 0 <= self.value <= 100:
            raise UsageError(f"quality must be from 0 to 100, not {self.value:g}")
        if self.kind != "quality" and not 0 < self.value < float("inf"):
            raise UsageError(f"a target of {self.value:g} {self.unit} cannot be reached: give one above 0")

    @property
    def unit(self) -> str:
        return {"quality": "", "bpp": "bpp", "size": "bytes", "psnr": "dB"}[self.kind]

    def window(self, pixels: int) -> tuple[float, float]:
        """From where to where bytes of the file, or dB, are what was asked for."""
        if self.kind == "psnr":
            return self.value, self.value + PSNR_MARGIN
        size = self.value if self.kind == "size" else self.value * pixels / 8
        return size * (1 - BYTES_MARGIN), size

    def shortfall(self, quality: float, value: float, pixels: int) -> str:
        """A sentence where bytes or dB that came out are not what was asked for, else nothing."""
        low, high = self.window(pixels)
        if low <= value <= high or self.kind == "quality":
            return ""
        if self.kind == "psnr" and value > high:
            return f"more than the target of {self.value:g} dB: already quality {quality:g} gives {value:,.5g} dB"
        reached = value * 8 / pixels if self.kind == "bpp" else value
        return f"the target of {self.value:g} {self.unit} is out of reach: quality {quality:g} gives {reached:,.5g} {self.unit}"


USUAL_RATE = Rate(chosen=False)


@dataclass
class _Search:
    """The state of one image: its window, the bracket of qualities around it, and what was measured."""

    low: float
    high: float
    logarithmic: bool
    below: tuple[float, float] | None = None  # (quality, value) of the best that is too low
    above: tuple[float, float] | None = None
    found: tuple[float, float] | None = None
    last: tuple[float, float] | None = None  # the one measured before
    slope: float = 0.0  # of the last two
    quality: float = START

    def learn(self, value: float) -> None:
        point = (self.quality, value)
        if self.last and self.last[0] != self.quality:
            self.slope = (self._scaled(value) - self._scaled(self.last[1])) / (self.quality - self.last[0])
        self.last = point
        if self.low <= value <= self.high:
            self.found = point
        elif value < self.low:
            self.below = max(self.below or point, point)
        else:
            self.above = min(self.above or point, point)

    def advance(self) -> bool:
        """Choose the next quality; False if there is none to try."""
        lower, upper = self.below[0] if self.below else 0.0, self.above[0] if self.above else 100.0
        if self.found or (self.below and lower >= 100) or (self.above and upper <= 0) or upper - lower <= STEP:
            return False
        guess = self._guess()
        if self.below and self.above:  # stay off the ends, or a curved function is approached from one side for ever
            margin = 0.05 * (upper - lower)
            guess = min(max(guess, lower + margin), upper - margin)
        guess = round_quality(min(max(guess, 0.0 if not self.below else lower + STEP), 100.0 if not self.above else upper - STEP))
        if guess in (lower, upper) and self.below and self.above:
            return False
        self.quality = guess
        return True

    def _scaled(self, value: float) -> float:
        return math.log(max(value, 1e-9)) if self.logarithmic else value

    def _guess(self) -> float:
        goal = self._scaled((self.low + self.high) / 2)
        if self.below and self.above:
            (q0, v0), (q1, v1) = self.below, self.above
            return q0 + (q1 - q0) * (goal - self._scaled(v0)) / max(1e-9, self._scaled(v1) - self._scaled(v0))
        assert self.last is not None
        usual = LOG_BYTES_PER_QUALITY if self.logarithmic else PSNR_PER_QUALITY
        slope = self.slope if self.slope > usual / 20 else usual
        return self.last[0] + 1.2 * (goal - self._scaled(self.last[1])) / slope  # beyond it rather than short of it

    def best(self) -> float:
        """The quality that was found, or of those that miss: the largest file under the target, the first PSNR above it."""
        if self.found:
            return self.found[0]
        first, second = (self.below, self.above) if self.logarithmic else (self.above, self.below)
        chosen = first or second
        assert chosen is not None
        return chosen[0]


def search(rates: Sequence[Rate], pixels: Sequence[int], evaluate: Callable[[Values], Values]) -> Values:
    """Qualities (N,) that bring each image to its rate, or as near as can be.

    pixels: (N,) of the images. evaluate: qualities (N,) -> bytes or dB (N,); it is called with all images each time.
    """
    if all(rate.kind == "quality" for rate in rates):
        return np.array([round_quality(rate.value) for rate in rates])
    states = [_Search(*rate.window(count), rate.kind != "psnr") for rate, count in zip(rates, pixels, strict=True)]
    for rate, state in zip(rates, states, strict=True):
        if rate.kind == "quality":
            state.found = (round_quality(rate.value), 0.0)
    for _ in range(MAX_TRIES):
        values = evaluate(np.array([state.quality for state in states]))
        for state, value in zip(states, values, strict=True):
            if not state.found:
                state.learn(float(value))
        unfinished = [state.advance() for state in states]
        if not any(unfinished):
            break
    return np.array([state.best() for state in states])


def rates_of(quality: float | Sequence[float] | None, count: int) -> list[Rate]:
    """One for each of `count` images; the usual one without a quality. Raises UsageError on another number of them."""
    if quality is None:
        return [USUAL_RATE] * count
    return [Rate("quality", value) for value in _one_each(quality, count)]


def _one_each(quality: float | Sequence[float], count: int) -> list[float]:
    try:
        values = [float(quality)] * count if isinstance(quality, int | float | np.number) else [float(value) for value in quality]
    except (TypeError, ValueError):
        raise UsageError(f"the quality must be a number, or one for each image, not {quality!r}") from None
    if len(values) != count:
        raise UsageError(f"{len(values)} qualities for {count} images: give one for all or one each")
    return [round_quality(value) if math.isfinite(value) else value for value in values]


def only_rate(rates: Sequence[Rate], name: str) -> Rate:
    """Of the model `name`, which has but one. Raises UsageError if somebody asked for another."""
    if any(rate.chosen for rate in rates):
        raise UsageError(f"the model {name} has one rate, that which it was trained for: leave out the quality and targets")
    return Rate("quality", 0.0)  # what its files say, for nothing
