"""Heat maps: one scale for all images of a run, from good images that nothing was fitted on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

TYPICAL, RARE = 0.5, 0.999  # quantiles of the values of good pixels
PIXELS_KEPT = 4096  # of each held-out image
SMOOTHING = 4.0  # pixels, standard deviation, where nothing is aligned
TOP = 0.01  # share of a map that an image is judged by, where nothing is aligned
# Black, violet, red, orange, yellow, white: values of matplotlib's `inferno` (CC0).
COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)


@dataclass(frozen=True)
class Scale:
    """low: the median of the values of good pixels; high: what one in a thousand of them exceeds."""

    low: float
    high: float

    def of(self, heat: np.ndarray) -> np.ndarray:
        """0 at what is typical of good pixels or below, 0.5 at what one in a thousand of them exceeds, 1 as far again."""
        return (0.5 * self.unclipped(heat)).clip(0, 1)

    def unclipped(self, heat: np.ndarray) -> np.ndarray:
        """0 at what is typical of good pixels, 1 at what one in a thousand of them exceeds."""
        return np.asarray((heat - self.low) / max(self.high - self.low, 1e-12), np.float64)


@dataclass
class ScaleOfGood:
    """Gathers pixels of held-out maps, drawn at random, until `scale` is asked for."""

    seed: int = 0
    _kept: list[np.ndarray] = field(default_factory=list)

    def add(self, heat: np.ndarray) -> None:
        generator = np.random.default_rng((self.seed, len(self._kept)))
        self._kept.append(generator.choice(heat.ravel(), min(heat.size, PIXELS_KEPT), replace=False))

    def scale(self) -> Scale:
        return _scale(np.concatenate(self._kept))

    @staticmethod
    def of(parts: dict[str, ScaleOfGood], scales: dict[str, Scale]) -> Scale:
        """That of the mean of several maps, each in units of its own scale. All have drawn the same pixels."""
        return _scale(np.mean([scales[name].unclipped(np.concatenate(part._kept)) for name, part in parts.items()], axis=0))


def _scale(values: np.ndarray) -> Scale:
    low, high = np.quantile(values, (TYPICAL, RARE))
    return Scale(float(low), float(high))


def smoothed(heat: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(heat, sigma)) if sigma else heat


def top_mean(heat: np.ndarray, share: float = TOP) -> float:
    """Mean of the largest values, so many of all."""
    count = max(1, round(heat.size * share))
    return float(np.partition(heat.ravel(), heat.size - count)[-count:].mean())


def painted(heat: np.ndarray, scale: Scale, image: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8: the heat map in colours; with `image` (H, W, C) in 0..1, laid over it as far as there is heat."""
    level = scale.of(heat)
    position = level * (len(COLOURS) - 1)
    below = np.minimum(position.astype(int), len(COLOURS) - 2)
    part = (position - below)[..., None]
    colours = COLOURS[below] * (1 - part) + COLOURS[below + 1] * part
    if image is not None:
        under = 255 * np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else 255 * image[..., :3]
        weight = np.minimum(1, 1.5 * level)[..., None]
        colours = weight * colours + (1 - weight) * under
    return np.asarray(colours.round().clip(0, 255), np.uint8)
